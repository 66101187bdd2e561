"""Blocks of the 5G LDPC code that are too long for one codeword [TS38212]."""

import numpy as np
import tensorflow as tf
from sionna.phy.fec.crc import CRCEncoder

from linksim.link.coding.ldpc import LDPC
from linksim.link.coding.nr import MOST_INFO_BITS, NRLDPC, base_graph

CRC_BITS = 24


def num_segments(num_info_bits, num_coded_bits):
    """Codewords of a block of the 5G code ([TS38212], 5.2.2).

    Args:
        num_info_bits: information bits k of the block.
        num_coded_bits: its coded bits n.
    """
    most = MOST_INFO_BITS[base_graph(num_info_bits, num_coded_bits)]
    return 1 if num_info_bits <= most else -(-num_info_bits // (most - CRC_BITS))


class SegmentedNRLDPC(LDPC):
    """Several codewords of the 5G LDPC code, which share the bits of a block [TS38212].

    The information bits are divided evenly, and each segment gets a CRC of 24 bits (24B,
    5.2.2). Where they do not divide, the last segments are filled with zeros that are sent,
    as by Sionna's `TBEncoder`; 5G has no such blocks. The coded bits are divided evenly, the
    last codewords have the odd ones (5.4.2.1 for one layer and one bit per symbol), and one
    codeword is sent after the other.

    Args:
        num_info_bits: information bits k of the block.
        num_coded_bits: its coded bits n.
        num_iterations: most iterations of a codeword.
        cn_update: Sionna's name of the check-node update.

    Attributes:
        num_segments: codewords S of a block.

    Raises:
        InvalidInput: the code does not exist in these sizes.
    """

    def __init__(self, num_info_bits, num_coded_bits, num_iterations, cn_update):
        self.num_info_bits, self.num_coded_bits = num_info_bits, num_coded_bits
        self.coderate = num_info_bits / num_coded_bits
        count = self.num_segments = num_segments(num_info_bits, num_coded_bits)
        self._share = -(-num_info_bits // count)
        # All codewords are as long as the longest; others leave out their last bit
        longest = -(-num_coded_bits // count)
        self._code = NRLDPC(
            self._share + CRC_BITS,
            longest,
            num_iterations,
            cn_update,
            base_graph(num_info_bits, num_coded_bits),
        )
        self._crc = CRCEncoder("CRC24B")
        self._stopping = self._code._stopping
        lengths = num_coded_bits // count + (
            np.arange(count) >= count - num_coded_bits % count
        )
        present = np.arange(longest) < lengths[:, None]
        # Positions of the bits sent among those of codewords of the longest length, and of
        # the latter among the bits sent, where number n is a zero
        self._positions = np.flatnonzero(present).astype(np.int32)
        order = np.cumsum(present.reshape(-1)) - 1
        self._origins = np.where(present.reshape(-1), order, num_coded_bits).astype(np.int32)

    def encode(self, bits):
        missing = self.num_segments * self._share - self.num_info_bits
        bits = tf.pad(bits, [[0, 0], [0, missing]])
        coded = self._code.encode(self._crc(tf.reshape(bits, [-1, self._share])))
        return self._joined(coded)

    def _joined(self, coded):
        """[B, n] of what all bits of the codewords have, [S B, longest]."""
        length = self.num_segments * self._code.num_coded_bits
        return tf.gather(tf.reshape(coded, [-1, length]), self._positions, axis=1)

    def _divided(self, llrs):
        """LLRs of the bits of the codewords [S B, longest], from those of the block [B, n]."""
        llrs = tf.gather(tf.pad(llrs, [[0, 0], [0, 1]]), self._origins, axis=1)
        return tf.reshape(llrs, [-1, self._code.num_coded_bits])

    def mother_llrs(self, llrs):
        return self._code.mother_llrs(self._divided(llrs))

    def sent_llrs(self, mother):
        return self._joined(self._code.sent_llrs(mother))

    def decode_fully(self, llrs):
        return self._whole(self._code.decode_fully(self._divided(llrs)))

    def _decided(self, soft):
        return self._whole(self._code._decided(soft))

    def _whole(self, bits):
        """Information bits [B, k] of those of the codewords, with their CRCs."""
        bits = tf.reshape(bits[:, : self._share], [-1, self.num_segments * self._share])
        return bits[:, : self.num_info_bits]

    def decoder_state(self, llrs):
        return {
            name: value.reshape(-1, self.num_segments, *value.shape[1:])
            for name, value in super().decoder_state(llrs).items()
        }
