"""Channel codes behind one interface, on Sionna's encoders and decoders."""

import numpy as np
import tensorflow as tf
from sionna.phy.fec.ldpc import LDPC5GDecoder, LDPC5GEncoder, LDPCBPDecoder
from sionna.phy.fec.linear import LinearEncoder
from sionna.phy.fec.utils import load_parity_check_examples

from linksim.errors import InvalidInput

# Sionna's example 4 is the parity-check matrix of IEEE 802.11n (648, 324)
_WIFI_EXAMPLE = 4


class Uncoded:
    """No code: the information bits are sent as they are."""

    coderate = 1.0

    def __init__(self, num_bits):
        self.num_info_bits = num_bits
        self.num_coded_bits = num_bits

    def encode(self, bits):
        return bits

    def decode(self, llrs):
        """Hard decisions float32 [B, n] of LLRs [B, n]."""
        return tf.cast(llrs > 0, tf.float32)

    def decoder_state(self, llrs):
        return {}


class WiFiLDPC:
    """The 802.11n (648, 324) LDPC code with a systematic encoder."""

    def __init__(self, num_iterations, cn_update):
        pcm, k, n, coderate = load_parity_check_examples(_WIFI_EXAMPLE)
        self.num_info_bits, self.num_coded_bits = int(k), int(n)
        self.coderate = float(coderate)
        self._encoder = LinearEncoder(systematic_generator(pcm), is_pcm=False)
        self._decoder = LDPCBPDecoder(
            pcm, num_iter=num_iterations, cn_update=cn_update, hard_out=False
        )

    def encode(self, bits):
        return self._encoder(bits)

    def decode(self, llrs):
        soft = self._decoder(llrs)
        return tf.cast(soft[:, : self.num_info_bits] > 0, tf.float32)

    def decoder_state(self, llrs):
        """What `replay` keeps: the decoder's soft output of the codeword."""
        return {"decoder_llr": self._decoder(llrs).numpy()}


class NRLDPC:
    """The 5G LDPC code, rate-matched to `num_coded_bits`."""

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

    def encode(self, bits):
        return self._encoder(bits)

    def decode(self, llrs):
        return tf.cast(self._decoder(llrs) > 0, tf.float32)

    def decoder_state(self, llrs):
        return {"decoder_llr": self._decoder(llrs).numpy()}


def systematic_generator(pcm):
    """Generator matrix [k, n] with information bits first.

    The parity part of `pcm` (its last n-k columns) is inverted over GF(2).

    Raises:
        InvalidInput: if it is singular.
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
    """
    if code.type == "none":
        return Uncoded(num_bits_available)
    if code.type == "802.11n":
        return WiFiLDPC(code.num_iterations, code.cn_update)
    num_coded_bits = code.num_coded_bits or num_bits_available
    if not num_coded_bits:
        raise InvalidInput("code.num_coded_bits: missing, there is no grid to fill")
    return NRLDPC(
        code.num_info_bits, num_coded_bits, code.num_iterations, code.cn_update
    )
