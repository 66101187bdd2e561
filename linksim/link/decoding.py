"""LDPC decoding that ends for every codeword when its parity checks hold."""

import numpy as np
import scipy.sparse
import tensorflow as tf
from sionna.phy.fec.ldpc import LDPCBPDecoder

from linksim.errors import InvalidInput, check_int


class StoppingDecoder:
    """Sionna's belief propagation, codeword by codeword on a fixed number of lanes.

    Every lane holds a codeword. The decoder runs in slices of a few iterations; after
    each, lanes whose parity checks all hold, or that had all their iterations, give
    their soft bits and take the next codeword. When no codewords wait and few lanes
    are busy, they move to a smaller set of lanes. All of it is one graph of fixed shapes.

    A codeword that does not converge has had all its iterations, so its decisions are
    those of the plain decoder; one that converged differs from it only if it would
    leave the code again later. On CPU, with XLA, looking every second iteration and 64
    lanes are the fastest of what was tried; fewer than 16 gain nothing.

    Args:
        pcm: parity-check matrix [checks, n], NumPy or SciPy sparse.
        num_iterations: most iterations of a codeword.
        cn_update: Sionna's name of the check-node update.
        slice_iterations: iterations between looks at the parity, a divisor of
            `num_iterations`; None for 2, or 1 where that is no divisor.
        lanes: descending numbers of lanes; a smaller batch has its own number of them.

    Raises:
        InvalidInput: a value out of range.
    """

    def __init__(
        self, pcm, num_iterations, cn_update="boxplus-phi", *, slice_iterations=None, lanes=(64, 16)
    ):
        check_int("num_iterations", num_iterations)
        if slice_iterations is None:
            slice_iterations = 1 if num_iterations % 2 else 2
        check_int("slice_iterations", slice_iterations)
        if num_iterations % slice_iterations:
            raise InvalidInput(
                f"slice_iterations: got {slice_iterations}, expected a divisor of "
                f"num_iterations = {num_iterations}"
            )
        if not isinstance(lanes, (list, tuple)) or not lanes:
            raise InvalidInput(f"lanes: got {lanes!r}, expected descending numbers")
        for number in lanes:
            check_int("lanes", number)
        if list(lanes) != sorted(set(lanes), reverse=True):
            raise InvalidInput(f"lanes: got {lanes!r}, expected descending numbers")
        self.n = pcm.shape[1]
        self.num_iterations = num_iterations
        self.lanes = tuple(lanes)
        self._slice = slice_iterations
        self._neighbours = padded_neighbours(pcm)
        self._decoder = LDPCBPDecoder(
            pcm, num_iter=slice_iterations, cn_update=cn_update, hard_out=False, return_state=True
        )

    def __call__(self, llrs):
        """Decode codewords; traceable, also with XLA.

        Args:
            llrs: float32 [B, n], LLRs log p(b=1)/p(b=0).

        Returns:
            Soft bits float32 [B, n] and the iterations of each codeword, int32 [B].

        Raises:
            InvalidInput: another shape.
        """
        if len(llrs.shape) != 2 or llrs.shape[1] != self.n:
            raise InvalidInput(f"llrs: got shape {tuple(llrs.shape)}, expected [B, {self.n}]")
        static_count, count = llrs.shape[0], tf.shape(llrs)[0]
        # Row `count` is what idle lanes read and write
        llrs = tf.pad(llrs, [[0, 1], [0, 0]])
        soft, used = tf.zeros_like(llrs), tf.zeros_like(llrs[:, 0], tf.int32)
        lanes = self._lanes_for(static_count)
        size = lanes[0]
        codeword = tf.fill([size], count)
        iterations = tf.zeros([size], tf.int32)
        state = self._fresh_state(tf.zeros([size, self.n]))
        loop = (tf.constant(0), codeword, iterations, state, soft, used)
        for size, smaller in zip(lanes, (*lanes[1:], 0)):
            waiting, codeword, iterations, state, soft, used = loop
            # Busy lanes first: idle ones have the largest number
            order = tf.argsort(codeword, stable=True)[:size]
            codeword, iterations = tf.gather(codeword, order), tf.gather(iterations, order)
            state = tf.gather(state, order, axis=1)

            def goes_on(waiting, codeword, *_, enough=smaller):
                busy = tf.reduce_sum(tf.cast(codeword < count, tf.int32))
                return (waiting < count) | (busy > enough)

            loop = tf.while_loop(
                goes_on,
                lambda *loop: self._slice_of_lanes(llrs, count, *loop),
                (waiting, codeword, iterations, state, soft, used),
            )
        return loop[-2][:-1], loop[-1][:-1]

    def _lanes_for(self, count):
        """Not more lanes than codewords, where their number is known."""
        if not count:
            return self.lanes
        first = min(self.lanes[0], count)
        # Moving to nearly as many lanes would not pay
        return (first, *(size for size in self.lanes[1:] if 2 * size <= first))

    def _slice_of_lanes(self, llrs, count, waiting, codeword, iterations, state, soft, used):
        """Fill idle lanes, run a slice, and store what is finished."""
        idle = codeword >= count
        offered = waiting + tf.cumsum(tf.cast(idle, tf.int32), exclusive=True)
        starts = idle & (offered < count)
        codeword = tf.where(starts, offered, codeword)
        waiting += tf.reduce_sum(tf.cast(starts, tf.int32))
        iterations = tf.where(starts, 0, iterations) + self._slice
        pool = tf.gather(llrs, codeword)
        state = tf.where(starts, self._fresh_state(pool), state)
        result, state = self._decoder(pool, msg_v2c=state)
        ends = self._checks_hold(result) | (iterations >= self.num_iterations)
        ends &= codeword < count
        target = tf.where(ends, codeword, count)[:, None]
        soft = tf.tensor_scatter_nd_update(soft, target, result)
        used = tf.tensor_scatter_nd_update(used, target, iterations)
        codeword = tf.where(ends, count, codeword)
        return waiting, codeword, iterations, state, soft, used

    def _fresh_state(self, llrs):
        return self._decoder(llrs, num_iter=0)[1]

    def _checks_hold(self, soft):
        signs = tf.transpose(tf.where(soft > 0, -1.0, 1.0))  # [n, L]
        signs = tf.concat([signs, tf.ones_like(signs[:1])], axis=0)
        checks = tf.reduce_prod(tf.gather(signs, self._neighbours), axis=1)
        return tf.reduce_all(checks > 0, axis=0)


def padded_neighbours(pcm):
    """Bits of every check, int32 [checks, largest degree]; n stands for none."""
    matrix = scipy.sparse.csr_matrix(pcm)
    degrees = np.diff(matrix.indptr)
    table = np.full((matrix.shape[0], degrees.max()), matrix.shape[1], np.int32)
    for row, (start, end) in enumerate(zip(matrix.indptr, matrix.indptr[1:])):
        table[row, : end - start] = matrix.indices[start:end]
    return table
