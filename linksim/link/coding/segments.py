"""Blocks of the 5G LDPC code that are too long for one codeword [TS38212]."""

import copy

import numpy as np
import tensorflow as tf
from sionna.phy.fec.crc import CRCEncoder

from linksim.link.coding.ldpc import LDPC
from linksim.link.coding.nr import MOST_INFO_BITS, NRLDPC, base_graph
from linksim.link.decoding import Decoded

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

    def transmissions(self, versions):
        """The code of each transmission of a block; see `NRLDPC.transmissions`."""
        codes = []
        for code in self._code.transmissions(versions):
            other = copy.copy(self)
            other._code, other._stopping = code, code._stopping
            codes.append(other)
        return codes

    def encode(self, bits):
        # As signs, since those of scrambled bits change
        coded = self._joined(1.0 - 2.0 * self._code.encode(self._codewords(bits)))
        return 0.5 - 0.5 * coded

    def _codewords(self, bits):
        """Information bits of the codewords with their CRCs, [S B, k'], from those of blocks."""
        missing = self.num_segments * self._share - self.num_info_bits
        bits = tf.pad(bits, [[0, 0], [0, missing]])
        return self._crc(tf.reshape(bits, [-1, self._share]))

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
        mother = tf.reshape(mother, [-1, mother.shape[-1]])
        return self._joined(self._code.sent_llrs(mother))

    @property
    def llr_max(self):
        return self._code.llr_max

    def resume(self, llrs, messages=None, used=None):
        if messages is not None:
            messages = tf.reshape(messages, [-1, messages.shape[-1]])
        if used is not None:
            used = tf.repeat(used, self.num_segments)
        decoded = super().resume(llrs, messages, used)
        soft, iterations, holds, messages = map(self._by_block, decoded)
        return Decoded(soft, iterations, tf.reduce_all(holds, axis=1), messages)

    def first_messages(self, llrs):
        return self._by_block(super().first_messages(llrs))

    def _by_block(self, values):
        """Values [B, S, ...] of codewords, from [S B, ...]."""
        return tf.reshape(values, [-1, self.num_segments, *values.shape[1:]])

    def decode_fully(self, llrs):
        return self._whole(self._code.decode_fully(self._divided(llrs)))

    def decided(self, soft):
        soft = tf.reshape(soft, [-1, soft.shape[-1]])
        return self._whole(self._code.decided(soft))

    def _whole(self, bits):
        """Information bits [B, k] of those of the codewords, with their CRCs."""
        bits = tf.reshape(bits[:, : self._share], [-1, self.num_segments * self._share])
        return bits[:, : self.num_info_bits]

    def decoder_state(self, llrs):
        return {
            name: self._by_block(value).numpy()
            for name, value in super().decoder_state(llrs).items()
        }
