"""No channel code, behind the interface of one."""

import tensorflow as tf


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
