"""Transport blocks of 5G: CRCs, segmentation into LDPC codewords, scrambling [TS38212]."""

import numpy as np
import tensorflow as tf
from sionna.phy.nr import TBDecoder, TBEncoder

from linksim.errors import InvalidInput
from linksim.link.coding.nr import NRLDPC
from linksim.link.coding.segments import SegmentedNRLDPC


class TransportBlocks(SegmentedNRLDPC):
    """A transport block of each user of a slot, encoded as by Sionna's `TBEncoder`.

    Users have scramblings of their own and are otherwise alike. The bits of a slot are those
    of its users one after the other. Decoding is that of Sionna's `TBDecoder`, with codewords
    that stop when their parity checks hold.

    Args:
        configs: Sionna's `PUSCHConfig` of each user, see `linksim.link.pusch_config`.
        num_iterations: most iterations of a codeword.
        cn_update: Sionna's name of the check-node update.

    Attributes:
        num_blocks: transport blocks of a slot, one of each user.
        block_size: information bits of a transport block.
        num_info_bits, num_coded_bits: of all transport blocks of a slot.
        coderate: information bits for each coded bit.
        sent_order: position of the coded bits in the order they are sent: by resource, then
            by user, layer and bit; int32 [num_coded_bits].
        slot_duration: in s.
        bandwidth: of the allocated subcarriers in Hz.

    Raises:
        InvalidInput: there is no such transport block.
    """

    def __init__(self, configs, num_iterations, cn_update):
        config, self.num_blocks = configs[0], len(configs)
        spacing = 1e3 * config.carrier.subcarrier_spacing
        self.slot_duration = 1e-3 * 15e3 / spacing
        self.bandwidth = config.num_subcarriers * spacing
        self._options = {"num_bp_iter": num_iterations, "cn_update": cn_update}
        try:
            self._encoder = TBEncoder(
                target_tb_size=config.tb_size,
                num_coded_bits=config.num_coded_bits,
                target_coderate=config.tb.target_coderate,
                num_bits_per_symbol=config.tb.num_bits_per_symbol,
                num_layers=config.num_layers,
                n_rnti=[c.n_rnti for c in configs],
                n_id=[config.carrier.n_cell_id] * len(configs),
            )
        except Exception as error:  # Sionna raises several kinds
            reason = str(error).splitlines()[0] if str(error) else "too few resources"
            raise InvalidInput(f"pusch: there is no such transport block: {reason}") from None
        encoder = self._encoder
        self.block_size, self._block_bits = int(encoder.k), int(encoder.n)
        self.num_info_bits = self.num_blocks * self.block_size
        self.num_coded_bits = self.num_blocks * self._block_bits
        self.coderate = self.num_info_bits / self.num_coded_bits
        bits, layers = int(config.tb.num_bits_per_symbol), config.num_layers
        order = np.arange(self.num_coded_bits, dtype=np.int32)
        order = order.reshape(self.num_blocks, -1, layers * bits).transpose(1, 0, 2)
        self.sent_order = order.reshape(-1)
        # The codewords are as long as the longest; the others are punctured at their ends
        longest = int(np.max(encoder.cw_lengths))
        codeword_bits = int(encoder.ldpc_encoder.k)
        self._code = NRLDPC(codeword_bits, longest, num_iterations, cn_update)
        self._stopping = self._code._stopping
        codewords = int(encoder.num_cbs)
        self.num_segments = self.num_blocks * codewords
        self._punctured = codewords * longest - self._block_bits
        crc = 0 if encoder.cb_crc_encoder is None else encoder.cb_crc_encoder.crc_length
        self._share = codeword_bits - int(crc)
        self._inverse = encoder.output_perm_inv.numpy()
        self._order = np.argsort(self._inverse)[: self._block_bits]
        silence = tf.zeros([1, self.num_blocks, self._block_bits])
        # LLRs of scrambled ones change their sign
        self._signs = 1.0 - 2.0 * encoder.scrambler(silence).numpy()

    def _codewords(self, bits):
        encoder = self._encoder
        bits = tf.reshape(bits, (-1, self.num_blocks, self.block_size))
        padding = int(encoder.k_padding)
        bits = encoder.tb_crc_encoder(tf.pad(bits, [[0, 0], [0, 0], [0, padding]]))
        bits = tf.reshape(bits, (-1, self._share))
        return bits if encoder.cb_crc_encoder is None else encoder.cb_crc_encoder(bits)

    def decode_fully(self, llrs):
        """The same as `decode`, by Sionna's decoder: every codeword gets all iterations."""
        shape = tf.shape(llrs)[0], self.num_blocks, self._block_bits
        bits, _ = TBDecoder(self._encoder, **self._options)(tf.reshape(llrs, shape))
        return tf.reshape(bits, (shape[0], self.num_info_bits))

    def _divided(self, llrs):
        llrs = tf.reshape(llrs, (-1, self.num_blocks, self._block_bits)) * self._signs
        llrs = tf.pad(llrs, [[0, 0], [0, 0], [0, self._punctured]])
        llrs = tf.gather(llrs, self._inverse, axis=-1)
        return tf.reshape(llrs, (-1, self._code.num_coded_bits))

    def _joined(self, coded):
        values = tf.reshape(coded, (-1, self.num_blocks, self._block_bits + self._punctured))
        values = tf.gather(values, self._order, axis=-1) * self._signs
        return tf.reshape(values, (-1, self.num_coded_bits))

    def _whole(self, bits):
        # Without the CRC of each codeword, that of the block, and padding
        codewords = self.num_segments // self.num_blocks
        bits = tf.reshape(
            bits[:, : self._share], (-1, self.num_blocks, codewords * self._share)
        )
        return tf.reshape(bits[..., : self.block_size], (-1, self.num_info_bits))
