"""The 5G LDPC code: base graphs, rate matching and redundancy versions [TS38212]."""

import copy

import numpy as np
import tensorflow as tf
from sionna.phy.fec.ldpc import LDPC5GDecoder, LDPC5GEncoder

from linksim.errors import InvalidInput
from linksim.link.coding.ldpc import LDPC
from linksim.link.decoding import StoppingDecoder

# Most information bits of a codeword ([TS38212], 5.2.2)
MOST_INFO_BITS = {"bg1": 8448, "bg2": 3840}
# Where each redundancy version begins in the circular buffer, in units of the lifting size
# ([TS38212], Table 5.4.2.1-2 with a buffer of all bits, as without limited-buffer rate matching)
_STARTS = {"bg1": (0, 17, 33, 56), "bg2": (0, 13, 25, 43)}
# Most coded bits per information bit that Sionna's encoder takes
_MOST_CODED_BITS = {"bg1": 3, "bg2": 5}


def base_graph(num_info_bits, num_coded_bits):
    """The base graph of a block, "bg1" or "bg2" ([TS38212], 6.2.2).

    Args:
        num_info_bits: information bits k of the block.
        num_coded_bits: its coded bits n.
    """
    coderate = num_info_bits / num_coded_bits
    short = num_info_bits <= 292 or (num_info_bits <= 3824 and coderate <= 0.67)
    return "bg2" if short or coderate <= 0.25 else "bg1"


class _DifferentBits(LDPC5GEncoder):
    """Sionna's encoder with at most as many coded bits as there are different ones.

    Sionna refuses rates below 1/3 (base graph 1) and 1/5, at which more bits are there.
    """

    def __init__(self, k, n, bg):
        super().__init__(k, min(n, _MOST_CODED_BITS[bg] * k), bg=bg)
        # All but the punctured bits and the fillers ([TS38212], 5.3.2)
        self.num_different = self.n_ldpc - 2 * self.z - (self.k_ldpc - self.k)
        self._sent = min(n, self.num_different)

    @property
    def n(self):
        """Number of output codeword bits."""
        return self._sent


class NRLDPC(LDPC):
    """The 5G LDPC code, rate-matched to `num_coded_bits` [TS38212].

    When all different bits have been sent, they are sent again from the start, and the LLRs
    of repeated bits add up (5.4.2.1). This is redundancy version 0; `transmissions` makes the
    codes of the others.

    Args:
        num_info_bits: information bits k.
        num_coded_bits: coded bits n.
        num_iterations: most iterations of a codeword.
        cn_update: Sionna's name of the check-node update.
        graph: "bg1" or "bg2", or None for the one of `base_graph`.

    Raises:
        InvalidInput: the code does not exist in these sizes.
    """

    def __init__(self, num_info_bits, num_coded_bits, num_iterations, cn_update, graph=None):
        self.num_info_bits, self.num_coded_bits = num_info_bits, num_coded_bits
        self.coderate = num_info_bits / num_coded_bits
        graph = base_graph(num_info_bits, num_coded_bits) if graph is None else graph
        self._graph, self._start = graph, 0
        try:
            self._encoder = _DifferentBits(num_info_bits, num_coded_bits, graph)
        except Exception as error:  # Sionna raises several kinds
            raise InvalidInput(
                f"code: the 5g code cannot have {num_info_bits} information bits in "
                f"{num_coded_bits} coded bits: {error}"
            ) from None
        self._decoder = LDPC5GDecoder(
            self._encoder,
            hard_out=False,
            return_infobits=True,
            num_iter=num_iterations,
            cn_update=cn_update,
            # Without anything to prune Sionna would prune everything
            prune_pcm=self._encoder.n < self._encoder.num_different,
        )
        self._stopping = StoppingDecoder(self._decoder.pcm, num_iterations, cn_update)
        # As a number: the export to ONNX loses a tensor that is shared with the loop
        self._known_zero = -float(self._decoder.llr_max)

    def transmissions(self, versions):
        """The code of each transmission of a block; see `LDPC.transmissions`.

        Each begins where its redundancy version says. The decoder of the first one has the
        parity checks of the bits that it sends, and that of the others those of all bits that
        are sent in any of them.

        Args:
            versions: redundancy versions, 0 to 3.
        """
        starts = [self._start_of(version) for version in versions]
        different = self._encoder.num_different
        ends = [min(start + self.num_coded_bits, different) for start in starts]
        reached = {end: self._reaching(end) for end in (ends[0], max(ends))}
        codes = []
        for start in starts:
            code = copy.copy(reached[max(ends) if codes else ends[0]])
            code.num_coded_bits, code.coderate = self.num_coded_bits, self.coderate
            code._start = start
            codes.append(code)
        return codes

    def _reaching(self, end):
        """The code that sends all different bits up to an end."""
        if end == self._encoder.n:
            return self
        options = self._stopping.num_iterations, self._stopping.cn_update
        return NRLDPC(self.num_info_bits, end, *options, self._graph)

    def _start_of(self, version):
        """The first bit of a redundancy version, counted without punctured bits and fillers."""
        z = self._encoder.z
        start = _STARTS[self._graph][version] * z
        fillers = self._encoder.k_ldpc - self.num_info_bits
        before = start - (self.num_info_bits - 2 * z)
        return start - min(max(before, 0), fillers)

    @property
    def _selects(self):
        """Whether the bits sent are others than the first ones that the encoder makes."""
        return self._start > 0 or self.num_coded_bits != self._encoder.n

    def encode(self, bits):
        coded = self._encoder(bits)
        return self._selected(coded) if self._selects else coded

    def _selected(self, values):
        """[B, n] of values of the different bits."""
        order = np.arange(self.num_coded_bits, dtype=np.int32) + self._start
        return tf.gather(values, order % self._encoder.n, axis=1)

    def _combined(self, llrs):
        """LLRs of the different bits, from LLRs [B, n] of the bits sent."""
        if not self._selects:
            return llrs
        different, start = self._encoder.n, self._start
        end = -(start + self.num_coded_bits) % different
        llrs = tf.pad(llrs, [[0, 0], [start, end]])
        rounds = llrs.shape[1] // different
        return tf.reduce_sum(tf.reshape(llrs, [-1, rounds, different]), axis=1)

    def mother_llrs(self, llrs):
        # [TS38212], 5.3.2 and 5.4.2: the first 2 z bits are punctured, known zeros
        # (fillers) follow the information bits, and the end is punctured
        k, z = self.num_info_bits, self._encoder.z
        fillers = self._encoder.k_ldpc - k
        llrs = self._combined(llrs)
        known = self._known_zero * tf.ones([tf.shape(llrs)[0], fillers])
        llrs = tf.pad(llrs, [[0, 0], [2 * z, 0]])
        llrs = tf.concat([llrs[:, :k], known, llrs[:, k:]], axis=1)
        return tf.pad(llrs, [[0, 0], [0, self._stopping.n - llrs.shape[1]]])

    def sent_llrs(self, mother):
        k, n = self.num_info_bits, self._encoder.n
        mother = tf.concat([mother[:, :k], mother[:, self._encoder.k_ldpc :]], axis=1)
        first = 2 * self._encoder.z
        different = mother[:, first : first + n]
        return self._selected(different) if self._selects else different

    def decode_fully(self, llrs):
        return self.decided(self._decoder(self._combined(llrs)))
