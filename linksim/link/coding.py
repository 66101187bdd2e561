"""Channel codes behind one interface, on Sionna's encoders and decoders."""

import copy

import numpy as np
import tensorflow as tf
from sionna.phy.fec.ldpc import LDPC5GDecoder, LDPC5GEncoder, LDPCBPDecoder
from sionna.phy.fec.linear import LinearEncoder
from sionna.phy.fec.utils import load_parity_check_examples

from linksim.errors import InvalidInput
from linksim.link.decoding import StoppingDecoder, fast_decoder

# Sionna's example 4 is the parity-check matrix of IEEE 802.11n (648, 324)
_WIFI_EXAMPLE = 4


class Uncoded:
    """No code: the information bits are sent as they are.

    Args:
        num_bits: bits of a block.
    """

    coderate = 1.0

    def __init__(self, num_bits):
        self.num_info_bits = num_bits
        self.num_coded_bits = num_bits

    def encode(self, bits):
        """The bits themselves, float32 [B, n]."""
        return bits

    def decode(self, llrs):
        """Hard decisions float32 [B, n] from LLRs [B, n]."""
        return tf.cast(llrs > 0, tf.float32)

    def decode_without_stopping(self, llrs):
        """The same as `decode`."""
        return self.decode(llrs)

    def decoder_state(self, llrs):
        """An empty dictionary: hard decisions have no state."""
        return {}


class _LDPC:
    """What LDPC codes share: decoding that stops early, and Sionna's own for comparison.

    A subclass sets `_encoder`, `_decoder` (Sionna's, with soft output) and `_stopping`
    (a `StoppingDecoder` of the same parity checks), and implements `mother_llrs` and
    `sent_llrs`. The information bits come first in the mother code, whose length is that of
    the parity-check matrix.
    """

    @property
    def llr_max(self):
        """The magnitude at which the decoder clips LLRs, a float."""
        return float(self._decoder.llr_max)

    def encode(self, bits):
        """Coded bits float32 [B, n] of information bits [B, k]."""
        return self._encoder(bits)

    def mother_llrs(self, llrs):
        """LLRs of all bits of the mother code, from LLRs [B, n] of the bits sent."""
        raise NotImplementedError

    def sent_llrs(self, soft):
        """The LLRs [B, n] of the bits sent, among those of all bits of the mother code."""
        raise NotImplementedError

    def with_iterations(self, num_iterations):
        """The same code, whose codewords get at most `num_iterations` in a call."""
        other, mine = copy.copy(self), self._stopping
        if num_iterations != mine.num_iterations:
            other._stopping = StoppingDecoder(mine.pcm, num_iterations, mine.cn_update)
        return other

    def resume(self, llrs, messages=None, used=None):
        """Decode soft, perhaps from where an earlier call ended; see `StoppingDecoder.resume`.

        Args:
            llrs: float32 [B, n], LLRs of the bits sent.
            messages: None, or those of an earlier result or of `first_messages`.
            used: None, or bool [B], False for codewords that are left out.

        Returns:
            `linksim.link.decoding.Decoded`, with the soft bits of the mother code.
        """
        return self._stopping.resume(self.mother_llrs(llrs), messages, used)

    def first_messages(self, llrs):
        """The messages [B, edges] with which the decoding of LLRs [B, n] begins."""
        return self._stopping.first_messages(self.mother_llrs(llrs))

    def decode(self, llrs):
        """Decided information bits float32 [B, k] from LLRs [B, n].

        Raises:
            InvalidInput: the number of LLRs is not n.
        """
        return self.decided(self._soft_bits(llrs)[0])

    def _soft_bits(self, llrs):
        if llrs.shape[-1] != self.num_coded_bits:
            raise InvalidInput(
                f"llrs: got shape {tuple(llrs.shape)}, expected [B, {self.num_coded_bits}]"
            )
        return self._stopping(self.mother_llrs(llrs))

    def decode_without_stopping(self, llrs):
        """The same as `decode`, but every codeword gets all iterations, in one plain loop."""
        stopping = self._stopping
        decoder = fast_decoder(stopping.pcm, stopping.num_iterations, stopping.cn_update)
        return self.decided(decoder(self.mother_llrs(llrs)))

    def decode_fully(self, llrs):
        """The same as `decode`, by Sionna's decoder: every codeword gets all iterations."""
        return self.decided(self._decoder(llrs))

    def decided(self, soft):
        """Information bits float32 [B, k], from the soft bits of the mother code."""
        return tf.cast(soft[:, : self.num_info_bits] > 0, tf.float32)

    def decoder_state(self, llrs):
        """Soft output and iterations of each codeword, for replays: {name: NumPy array}."""
        soft, iterations = self._soft_bits(llrs)
        return {"decoder_llr": soft.numpy(), "decoder_iterations": iterations.numpy()}


class WiFiLDPC(_LDPC):
    """The 802.11n (648, 324) LDPC code with a systematic encoder.

    Args:
        num_iterations: most iterations of a codeword.
        cn_update: Sionna's name of the check-node update.
    """

    def __init__(self, num_iterations, cn_update):
        pcm, k, n, coderate = load_parity_check_examples(_WIFI_EXAMPLE)
        self.num_info_bits, self.num_coded_bits = int(k), int(n)
        self.coderate = float(coderate)
        self._encoder = LinearEncoder(systematic_generator(pcm), is_pcm=False)
        self._decoder = LDPCBPDecoder(
            pcm, num_iter=num_iterations, cn_update=cn_update, hard_out=False
        )
        self._stopping = StoppingDecoder(pcm, num_iterations, cn_update)

    def mother_llrs(self, llrs):
        """The LLRs themselves: every bit of the mother code is sent."""
        return llrs

    def sent_llrs(self, soft):
        """The LLRs themselves."""
        return soft


class NRLDPC(_LDPC):
    """The 5G LDPC code, rate-matched to `num_coded_bits` [TS38212].

    Args:
        num_info_bits: information bits k.
        num_coded_bits: coded bits n.
        num_iterations: most iterations of a codeword.
        cn_update: Sionna's name of the check-node update.

    Raises:
        InvalidInput: the code does not exist in these sizes.
    """

    def __init__(self, num_info_bits, num_coded_bits, num_iterations, cn_update):
        self.num_info_bits, self.num_coded_bits = num_info_bits, num_coded_bits
        self.coderate = num_info_bits / num_coded_bits
        try:
            self._encoder = LDPC5GEncoder(num_info_bits, num_coded_bits)
        except Exception as error:  # Sionna raises several kinds
            raise InvalidInput(
                f"code: the 5g code cannot have {num_info_bits} information bits in "
                f"{num_coded_bits} coded bits: {error}"
            ) from None
        options = {"num_iter": num_iterations, "cn_update": cn_update}
        self._decoder = LDPC5GDecoder(
            self._encoder, hard_out=False, return_infobits=True, **options
        )
        self._stopping = StoppingDecoder(self._decoder.pcm, num_iterations, cn_update)
        # As a number: the export to ONNX loses a tensor that is shared with the loop
        self._known_zero = -float(self._decoder.llr_max)

    def mother_llrs(self, llrs):
        """LLRs of all bits of the mother code, from LLRs [B, n] of the bits sent."""
        # [TS38212], 5.3.2 and 5.4.2: the first 2 z bits are punctured, known zeros
        # (fillers) follow the information bits, and the end is punctured
        k, z = self.num_info_bits, self._encoder.z
        fillers = self._encoder.k_ldpc - k
        known = self._known_zero * tf.ones([tf.shape(llrs)[0], fillers])
        llrs = tf.pad(llrs, [[0, 0], [2 * z, 0]])
        llrs = tf.concat([llrs[:, :k], known, llrs[:, k:]], axis=1)
        return tf.pad(llrs, [[0, 0], [0, self._stopping.n - llrs.shape[1]]])

    def sent_llrs(self, soft):
        """The LLRs [B, n] of the bits sent, among those of all bits of the mother code."""
        k, fillers = self.num_info_bits, self._encoder.k_ldpc - self.num_info_bits
        kept = tf.concat([soft[:, :k], soft[:, k + fillers :]], axis=1)
        start = 2 * self._encoder.z
        return kept[:, start : start + self.num_coded_bits]


def systematic_generator(pcm):
    """Generator matrix [k, n] with information bits first.

    Args:
        pcm: parity-check matrix [n-k, n]. Its last n-k columns are inverted over GF(2).

    Returns:
        float32 [k, n], NumPy, 0 or 1.

    Raises:
        InvalidInput: these columns are singular.
    """
    pcm = np.asarray(pcm).astype(bool)
    rows, n = pcm.shape
    k = n - rows
    # Gauss-Jordan on [B | A] with B the parity columns: gives B^-1 A
    work = np.concatenate([pcm[:, k:], pcm[:, :k]], axis=1)
    for i in range(rows):
        pivots = np.flatnonzero(work[i:, i])
        if not len(pivots):
            raise InvalidInput("pcm: the last n-k columns are singular over GF(2)")
        work[[i, i + pivots[0]]] = work[[i + pivots[0], i]]
        others = np.flatnonzero(work[:, i])
        others = others[others != i]
        work[others] ^= work[i]
    parity = work[:, rows:].T
    return np.concatenate([np.eye(k, dtype=bool), parity], axis=1).astype(np.float32)


def create_code(code, num_bits_available):
    """The code of a scenario.

    Args:
        code: a `linksim.link.scenario.Code`.
        num_bits_available: coded bits that fit into one block, or None where the
            code decides the length of a block.

    Returns:
        An object with `num_info_bits` k, `num_coded_bits` n, `coderate`, `encode`,
        `decode`, `decode_without_stopping` and `decoder_state`; if it is a code, also with
        `resume`, `first_messages`, `with_iterations`, `sent_llrs`, `decided` and `llr_max`.

    Raises:
        InvalidInput: the code does not exist in this size, or its size is not given.
    """
    if code.type == "none":
        return Uncoded(num_bits_available)
    if code.type == "802.11n":
        return WiFiLDPC(code.num_iterations, code.cn_update)
    num_coded_bits = code.num_coded_bits or num_bits_available
    if not num_coded_bits:
        raise InvalidInput("code.num_coded_bits: missing, there is no grid to fill")
    num_info_bits = code.info_bits_of(num_coded_bits)
    return NRLDPC(num_info_bits, num_coded_bits, code.num_iterations, code.cn_update)
