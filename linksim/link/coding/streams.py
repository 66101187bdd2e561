"""A codeword on each stream: one code for several blocks that are sent together."""

import copy

import tensorflow as tf

from linksim.link.coding.ldpc import LDPC
from linksim.link.decoding import Decoded


class StreamCodewords(LDPC):
    """A block of the same code on each stream, which together are a slot.

    The bits of a slot are those of its blocks one after the other. Messages and soft bits have
    another dimension for the blocks, [B, K, ...], and the parity checks of a slot hold where
    those of all its blocks do.

    Args:
        code: the code of one block, an `LDPC`.
        num_blocks: blocks of a slot, one of each of the K streams.

    Attributes:
        num_blocks: the argument.
        num_info_bits, num_coded_bits: of all blocks of a slot.
        coderate: that of the code.
    """

    def __init__(self, code, num_blocks):
        self._code, self.num_blocks = code, num_blocks
        self.num_info_bits = num_blocks * code.num_info_bits
        self.num_coded_bits = num_blocks * code.num_coded_bits
        self.coderate = code.coderate

    @property
    def llr_max(self):
        return self._code.llr_max

    def with_iterations(self, num_iterations, cn_update=None):
        other = copy.copy(self)
        other._code = self._code.with_iterations(num_iterations, cn_update)
        return other

    def transmissions(self, versions):
        """The code of each transmission of a slot; see `LDPC.transmissions`."""
        return [
            StreamCodewords(code, self.num_blocks)
            for code in self._code.transmissions(versions)
        ]

    def encode(self, bits):
        return self._together(self._code.encode(self._apart(bits, self._code.num_info_bits)))

    def mother_llrs(self, llrs):
        return self._code.mother_llrs(self._blocks_of(llrs))

    def sent_llrs(self, mother):
        return self._together(self._code.sent_llrs(self._flat(mother)))

    def resume(self, llrs, messages=None, used=None):
        if messages is not None:
            messages = self._flat(messages)
        if used is not None:
            used = tf.repeat(used, self.num_blocks)
        decoded = self._code.resume(self._blocks_of(llrs), messages, used)
        decoded = Decoded(*map(self._by_slot, decoded))
        return decoded._replace(holds=tf.reduce_all(decoded.holds, axis=1))

    def first_messages(self, llrs):
        return self._by_slot(self._code.first_messages(self._blocks_of(llrs)))

    def decode(self, llrs):
        self._check_length(llrs)
        return self._together(self._code.decode(self._blocks_of(llrs)))

    def decode_mother(self, mother):
        return self._together(self._code.decode_mother(mother))

    def decode_without_stopping(self, llrs):
        return self._together(self._code.decode_without_stopping(self._blocks_of(llrs)))

    def decode_fully(self, llrs):
        return self._together(self._code.decode_fully(self._blocks_of(llrs)))

    def decided(self, soft):
        return self._together(self._code.decided(self._flat(soft)))

    def decoder_state(self, llrs):
        state = self._code.decoder_state(self._blocks_of(llrs))
        return {name: self._by_slot(value).numpy() for name, value in state.items()}

    def _blocks_of(self, llrs):
        """LLRs of each block [K B, n], from those of the slots [B, K n]."""
        return self._apart(llrs, self._code.num_coded_bits)

    @staticmethod
    def _apart(values, size):
        return tf.reshape(values, [-1, size])

    def _together(self, values):
        """Those of slots [B, K n], from values of blocks [K B, n]."""
        return tf.reshape(values, [-1, self.num_blocks * values.shape[-1]])

    def _by_slot(self, values):
        """Values [B, K, ...] of the blocks of slots, from [K B, ...]."""
        return tf.reshape(values, [-1, self.num_blocks, *values.shape[1:]])

    @staticmethod
    def _flat(values):
        """[K B, ...] of values [B, K, ...]; those of `mother_llrs` are flat already."""
        if len(values.shape) == 2:
            return values
        return tf.reshape(values, [-1, *values.shape[2:]])
