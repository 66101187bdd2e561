"""LDPC decoding that ends for each codeword as soon as its parity checks hold."""

from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
import tensorflow as tf
from sionna.phy.fec.ldpc import LDPCBPDecoder

from linksim.errors import InvalidInput, check_int
from linksim.link.node_updates import Rows, boxplus_update, minsum_update, sum_update


class Decoded(NamedTuple):
    """What `StoppingDecoder.resume` returns, for each of B codewords."""

    soft: Any  # LLRs of all bits, float32 [B, n]
    iterations: Any  # how many it got, int32 [B]
    holds: Any  # whether all parity checks hold, bool [B]
    messages: Any  # from bits to checks, float32 [B, edges], the state of the decoder


class StoppingDecoder:
    """Sionna's belief propagation on a fixed number of lanes, one codeword per lane.

    The decoder runs in slices of a few iterations. After each slice, every lane whose
    parity checks all hold, or whose codeword has had all its iterations, stores its soft
    bits and takes the next codeword. When no codeword waits and few lanes are busy, these
    move to a smaller set of lanes. All of this is one graph with fixed shapes.

    A codeword that does not converge gets all its iterations. One that converges gets
    other decisions than from Sionna's decoder only if further iterations would have taken
    it away from a codeword again. The defaults are the fastest on CPU with XLA: of the
    slices tried, two iterations; 120 lanes are faster than 60 for 802.11n and no slower
    for 5G, and fewer than 15 lanes are not worth another move.

    Args:
        pcm: parity-check matrix [checks, n], NumPy or SciPy sparse.
        num_iterations: most iterations of a codeword.
        cn_update: Sionna's name of the check-node update.
        slice_iterations: iterations of a slice, a divisor of `num_iterations`. None
            for 2, or for 1 where `num_iterations` is odd.
        lanes: descending numbers of lanes. Small batches use the smaller ones only.

    Raises:
        InvalidInput: a value out of range.
    """

    def __init__(
        self,
        pcm,
        num_iterations,
        cn_update="boxplus-phi",
        *,
        slice_iterations=None,
        lanes=(120, 60, 30, 15),
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
        self.pcm = pcm
        self.n = pcm.shape[1]
        self.num_iterations = num_iterations
        self.cn_update = cn_update
        self.lanes = tuple(lanes)
        self._slice = slice_iterations
        checks, self._bit_of_edge = scipy.sparse.csr_matrix(pcm).nonzero()
        self._checks = Rows(checks)
        self._decoder = fast_decoder(pcm, slice_iterations, cn_update, return_state=True)

    def __call__(self, llrs):
        """Decode codewords; traceable, also with XLA.

        Args:
            llrs: float32 [B, n], LLRs log p(b=1)/p(b=0).

        Returns:
            Soft bits float32 [B, n] and the iterations of each codeword, int32 [B].

        Raises:
            InvalidInput: `llrs` has another shape.
        """
        return self._decode(llrs, num_results=2)

    def resume(self, llrs, messages=None, used=None):
        """Decode codewords, perhaps from where an earlier call ended; traceable.

        Args:
            llrs: float32 [B, n], as in a call; they may differ from those of the earlier call.
            messages: float32 [B, edges], those of an earlier result, or None to begin anew.
            used: bool [B], False for codewords that are left out, at no cost; None to decode all.

        Returns:
            `Decoded`. Every codeword got at most `num_iterations` iterations in this call.
            Everything is zero for those left out.

        Raises:
            InvalidInput: `llrs` has another shape.
        """
        return Decoded(*self._decode(llrs, messages, used, num_results=4))

    def first_messages(self, llrs):
        """The messages [B, edges] with which the decoding of LLRs [B, n] begins."""
        return tf.transpose(self._fresh_state(llrs))

    def _decode(self, llrs, messages=None, used=None, *, num_results):
        """The first `num_results` entries of `Decoded`; fewer are cheaper."""
        if len(llrs.shape) != 2 or llrs.shape[1] != self.n:
            raise InvalidInput(f"llrs: got shape {tuple(llrs.shape)}, expected [B, {self.n}]")
        static_count, nobody = llrs.shape[0], tf.shape(llrs)[0]
        # The least reliable first: at the end no lane is alone with a long decoding
        reliability = tf.reduce_sum(tf.minimum(tf.abs(llrs), 20.0), axis=1)
        count = nobody
        if used is not None:  # the others come last, where no lane takes them
            count = tf.reduce_sum(tf.cast(used, tf.int32))
            reliability = tf.where(used, reliability, np.inf)
        first_to_last = tf.argsort(reliability)
        llrs = tf.gather(llrs, first_to_last)
        # Idle lanes read and write the additional row, number `nobody`
        llrs = tf.pad(llrs, [[0, 1], [0, 0]])
        if messages is not None:
            messages = tf.pad(tf.gather(messages, first_to_last), [[0, 1], [0, 0]])
        rows = tf.zeros_like(llrs[:, 0], tf.int32)
        results = (tf.zeros_like(llrs), rows)
        if num_results > 2:
            edges = len(self._bit_of_edge)
            results += (rows > 0, tf.zeros([tf.shape(llrs)[0], edges]))
        lanes = self._lanes_for(static_count)
        size = lanes[0]
        codeword = tf.fill([size], nobody)
        iterations = tf.zeros([size], tf.int32)
        state = self._fresh_state(tf.zeros([size, self.n]))
        loop = (tf.constant(0), codeword, iterations, state, *results)
        for size, smaller in zip(lanes, (*lanes[1:], 0)):
            waiting, codeword, iterations, state, *results = loop
            # Busy lanes come first, as idle ones have the largest number
            order = tf.argsort(codeword, stable=True)[:size]
            codeword, iterations = (
                tf.gather(codeword, order),
                tf.gather(iterations, order),
            )
            state = tf.gather(state, order, axis=1)

            def goes_on(waiting, codeword, *_, enough=smaller):
                busy = tf.reduce_sum(tf.cast(codeword < nobody, tf.int32))
                return (waiting < count) | (busy > enough)

            loop = tf.while_loop(
                goes_on,
                lambda *loop: self._slice_of_lanes(llrs, messages, count, nobody, *loop),
                (waiting, codeword, iterations, state, *results),
            )
        back = tf.argsort(first_to_last)
        return tuple(tf.gather(result, back) for result in loop[4:])

    def _lanes_for(self, count):
        """The numbers of lanes to use, descending, for `count` codewords (None: unknown).

        With few codewords fewer lanes are faster: a lane that gets only one codeword
        idles once this has ended.
        """
        if not count:
            return self.lanes
        return tuple(size for size in self.lanes if 3 * size <= 2 * count) or (count,)

    def _slice_of_lanes(
        self, llrs, messages, count, nobody, waiting, codeword, iterations, state, *results
    ):
        """Fill idle lanes, run a slice, and store what has ended: the body of the loop."""
        idle = codeword >= nobody
        offered = waiting + tf.cumsum(tf.cast(idle, tf.int32), exclusive=True)
        starts = idle & (offered < count)
        codeword = tf.where(starts, offered, codeword)
        waiting += tf.reduce_sum(tf.cast(starts, tf.int32))
        iterations = tf.where(starts, 0, iterations) + self._slice
        pool = tf.gather(llrs, codeword)
        if messages is None:
            first = self._fresh_state(pool)
        else:
            first = tf.transpose(tf.gather(messages, codeword))
        state = tf.where(starts, first, state)
        soft, state = self._decoder(pool, msg_v2c=state)
        holds = self._checks_hold(soft)
        ends = holds | (iterations >= self.num_iterations)
        ends &= codeword < nobody
        target = tf.where(ends, codeword, nobody)[:, None]
        found = [soft, iterations]
        if len(results) > 2:
            found += [holds, tf.transpose(state)]
        results = [
            tf.tensor_scatter_nd_update(old, target, new) for old, new in zip(results, found)
        ]
        codeword = tf.where(ends, nobody, codeword)
        return waiting, codeword, iterations, state, *results

    def _fresh_state(self, llrs):
        return self._decoder(llrs, num_iter=0)[1]

    def _checks_hold(self, soft):
        signs = tf.transpose(tf.where(soft > 0, -1.0, 1.0))  # [n, L]
        by_edge = tf.gather(signs, self._bit_of_edge)
        return tf.reduce_all(self._checks.reduce(by_edge, tf.multiply) > 0, axis=0)


def fast_decoder(pcm, num_iterations, cn_update, **options):
    """Sionna's belief-propagation decoder, soft output, with faster node updates.

    Args:
        pcm: parity-check matrix [checks, n], NumPy or SciPy sparse.
        num_iterations: iterations of a call.
        cn_update: Sionna's name of the check-node update, which becomes
            `boxplus_update`, for both forms of it, or `minsum_update`.
        options: further options of `LDPCBPDecoder`.

    Returns:
        An `LDPCBPDecoder`.
    """
    checks, bits = scipy.sparse.csr_matrix(pcm).nonzero()
    if cn_update in ("boxplus", "boxplus-phi"):
        cn_update = boxplus_update(checks)
    elif cn_update in ("minsum", "offset-minsum"):
        cn_update = minsum_update(checks, 0.0 if cn_update == "minsum" else 0.5)
    return LDPCBPDecoder(
        pcm,
        num_iter=num_iterations,
        cn_update=cn_update,
        vn_update=sum_update(np.sort(bits)),
        hard_out=False,
        **options,
    )
