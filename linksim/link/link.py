"""One link: bits to received vectors, and LLRs back to decided bits.

A *block* is one codeword (or, uncoded, a packet of channel uses); its bits are
spread over all streams: coded, interleaved, mapped use by use to the K streams,
as 5G NR maps a codeword to layers. Blocks have independent channels, so block
errors are independent trials.
"""

from typing import NamedTuple

import numpy as np
import tensorflow as tf
from sionna.phy.mapping import Mapper
from sionna.phy.ofdm import LSChannelEstimator, ResourceGrid, ResourceGridMapper

from linksim.channels import channel_of
from linksim.channels.random import complex_normal, random_bits, stream_keys
from linksim.errors import InvalidInput, check_int
from linksim.link.coding import create_code
from linksim.snr import SNR_DEFINITIONS, LinkBudget, snr_db_to_no

# One random stream each
_PURPOSES = ("bits", "padding", "channel", "noise", "csi")


class LinkBatch(NamedTuple):
    """What one batch of blocks consists of.

    B blocks, U channel uses each, K streams, M receive antennas.
    """

    bits: tf.Tensor  # information bits, float32 [B, k]
    symbols: tf.Tensor  # sent symbol indices, int32 [B, U, K]
    h: tf.Tensor  # true channels, complex64 [B, U, M, K]
    y: tf.Tensor  # received vectors, complex64 [B, U, M]
    h_hat: tf.Tensor  # channels known to the receiver, complex64 [B, U, M, K]
    no: tf.Tensor  # noise variance seen by the detector, float32 [B, U]


class Link:
    """The link of a scenario.

    Args:
        scenario: a `linksim.link.scenario.Scenario`.

    Attributes:
        num_info_bits: information bits of a block.
        num_uses: channel uses of a block.
        num_symbols: symbols of a block.
        budget: the `LinkBudget` that SNR definitions refer to.
    """

    def __init__(self, scenario):
        self.scenario = scenario
        system = scenario.system
        self.num_streams = system.num_streams
        self.num_rx = system.num_rx
        self.num_bits_per_symbol = system.num_bits_per_symbol
        self.channel = channel_of(scenario)
        bits_per_use = system.num_streams * system.num_bits_per_symbol
        if scenario.ofdm is not None:
            self.grid = Grid(scenario.ofdm, system.num_streams, self.channel)
            self.num_uses = self.grid.num_data
            available = self.num_uses * bits_per_use
        else:
            self.grid = None
            self.num_uses = scenario.code.uses_per_block
            available = (
                None if scenario.code.type != "none" else (self.num_uses * bits_per_use)
            )
        self.code = create_code(scenario.code, available)
        if self.grid is None:
            self.num_uses = -(-self.code.num_coded_bits // bits_per_use)
        self.num_padding = self.num_uses * bits_per_use - self.code.num_coded_bits
        if self.num_padding < 0:
            raise InvalidInput(
                f"code.num_coded_bits: {self.code.num_coded_bits} bits do not fit into "
                f"the grid's {self.num_uses * bits_per_use}"
            )
        self.num_info_bits = self.code.num_info_bits
        self.num_symbols = self.num_uses * self.num_streams
        kind = "pam" if self.num_bits_per_symbol == 1 else "qam"
        self._mapper = Mapper(kind, self.num_bits_per_symbol, return_indices=True)
        self._set_interleaver(scenario.code.interleaver_seed)
        self.budget = LinkBudget(
            num_rx=system.num_rx,
            num_streams=system.num_streams,
            num_bits_per_symbol=system.num_bits_per_symbol,
            coderate=self.code.coderate,
            channel_power=self.channel.power,
            resource_efficiency=self.grid.efficiency if self.grid else 1.0,
        )

    def _set_interleaver(self, seed):
        n = self.code.num_coded_bits
        order = np.arange(n)
        if seed >= 0:
            order = np.random.Generator(np.random.Philox(seed)).permutation(n)
        self._interleaver = order.astype(np.int32)
        self._deinterleaver = np.argsort(order).astype(np.int32)

    # --- transmitter and channel ---------------------------------------------

    def keys(self, seed, snr_db, batch):
        """Random-stream keys of one batch, int32 [5, 2].

        A pure function of seed, SNR point and batch number.
        """
        check_int("seed", seed, minimum=0)
        point = int(round(snr_db * 1000)) + 10**6
        return stream_keys(len(_PURPOSES), seed, point, batch)

    def no(self, snr_db):
        """Noise variance N0 at an SNR point, mean over channels."""
        return snr_db_to_no(self.scenario.snr.definition, snr_db, self.budget)

    def draw(self, keys, no, first_block, num_blocks):
        """Draw a batch; traceable, a pure function of its arguments.

        Args:
            keys: int32 [5, 2] from `keys`.
            no: float32 scalar, noise variance N0.
            first_block: int32 scalar, number of the first block of the batch.
            num_blocks: int, B.
        """
        key = dict(zip(_PURPOSES, tf.unstack(tf.convert_to_tensor(keys), axis=0)))
        bits = random_bits(key["bits"], (num_blocks, self.num_info_bits))
        coded = tf.gather(self.code.encode(bits), self._interleaver, axis=-1)
        padding = random_bits(key["padding"], (num_blocks, self.num_padding))
        sent = tf.reshape(
            tf.concat([coded, padding], axis=-1),
            [num_blocks, self.num_uses, self.num_streams * self.num_bits_per_symbol],
        )
        x, indices = self._mapper(sent)
        indices = tf.cast(indices, tf.int32)
        if self.grid is not None:
            y, h, h_hat, no = self.grid.transmit(
                x, key["channel"], key["noise"], no, self.scenario.csi
            )
        else:
            h = self.channel.sample(key["channel"], num_blocks, self.num_uses, first_block)
            no = self._no_per_use(h, no)
            y = tf.linalg.matvec(h, x) + complex_normal(
                key["noise"], (num_blocks, self.num_uses, self.num_rx), no[..., None]
            )
            h_hat = h
        if self.scenario.csi.type == "noisy":
            h_hat = self._noisy_csi(h, key["csi"])
        return LinkBatch(bits, indices, h, y, h_hat, no)

    def _no_per_use(self, h, no):
        shape = tf.shape(h)[:2]
        if not SNR_DEFINITIONS[self.scenario.snr.definition].per_realization:
            return tf.fill(shape, no)
        mean = self.num_rx * self.num_streams * self.channel.power
        energy = tf.reduce_sum(tf.square(tf.abs(h)), axis=[-2, -1])
        return no * energy / mean

    def _noisy_csi(self, h, key):
        ratio = 10 ** (-self.scenario.csi.error_snr_db / 10)
        error = complex_normal(key, tuple(h.shape), self.channel.power * ratio)
        if self.channel.is_real:
            # The receiver knows the channel to be real; the error has full power
            error = tf.cast(tf.math.real(error), tf.complex64) * 2**0.5
        return h + error

    # --- receiver ------------------------------------------------------------

    def codeword_llrs(self, llrs):
        """LLRs of the codeword [B, n] from those of the symbols [B, U, K, m]."""
        flat = tf.reshape(llrs, [tf.shape(llrs)[0], -1])
        return tf.gather(flat[:, : self.code.num_coded_bits], self._deinterleaver, axis=-1)

    def decode(self, llrs):
        """Decided information bits float32 [B, k] from LLRs [B, U, K, m]."""
        return self.code.decode(self.codeword_llrs(llrs))

    def count_errors(self, batch_bits, batch_symbols, llrs, symbols):
        """Bit and symbol errors of every block, int32 [B] each."""
        wrong_bits = tf.not_equal(self.decode(llrs), batch_bits)
        wrong_symbols = tf.not_equal(symbols, batch_symbols)
        return (
            tf.reduce_sum(tf.cast(wrong_bits, tf.int32), axis=-1),
            tf.reduce_sum(tf.cast(wrong_symbols, tf.int32), axis=[-2, -1]),
        )


class Grid:
    """An OFDM slot on Sionna's resource grid: one transmitter, K streams."""

    def __init__(self, ofdm, num_streams, channel):
        self._ofdm = ofdm
        self._channel = channel
        self._rg = ResourceGrid(
            num_ofdm_symbols=ofdm.num_symbols,
            fft_size=ofdm.num_subcarriers,
            subcarrier_spacing=channel.subcarrier_spacing,
            num_tx=1,
            num_streams_per_tx=num_streams,
            pilot_pattern="kronecker" if ofdm.pilot_symbols else "empty",
            pilot_ofdm_symbol_indices=list(ofdm.pilot_symbols) or None,
        )
        mask = np.asarray(self._rg.pilot_pattern.mask)[0, 0].reshape(-1)
        self._data = np.flatnonzero(mask == 0).astype(np.int32)
        self.num_data = len(self._data)
        resources = ofdm.num_symbols * ofdm.num_subcarriers
        self.efficiency = self.num_data / resources / (1.0 + ofdm.cyclic_prefix_ratio)
        self._map = ResourceGridMapper(self._rg)
        self._estimate = None
        if ofdm.pilot_symbols:
            self._estimate = LSChannelEstimator(
                self._rg, interpolation_type=ofdm.interpolation
            )

    def transmit(self, x, channel_key, noise_key, no, csi):
        """Send the data symbols x [B, U, K] through a slot.

        Returns:
            y [B, U, M], h and h_hat [B, U, M, K], and the noise variance that a
            detector should assume, [B, U], channel estimation error included.
        """
        blocks = x.shape[0]
        symbols, subcarriers = self._ofdm.num_symbols, self._ofdm.num_subcarriers
        grid = self._map(tf.transpose(x, [0, 2, 1])[:, None])[:, 0]  # [B, K, T, F]
        h = self._channel.sample_grid(
            channel_key, blocks, symbols, subcarriers, self._ofdm.cyclic_prefix_ratio
        )
        y = tf.linalg.matvec(h, tf.transpose(grid, [0, 2, 3, 1]))  # [B, T, F, M]
        y = y + complex_normal(noise_key, tuple(y.shape), no)
        h_data, h_hat = self._take(h), None
        no_data = tf.fill([blocks, self.num_data], no)
        if csi.type == "ls":
            h_hat, error = self._estimate(tf.transpose(y, [0, 3, 1, 2])[:, None], no)
            # [B, 1, M, 1, K, T, F] -> [B, T, F, M, K]
            h_hat = self._take(tf.transpose(h_hat[:, 0, :, 0], [0, 3, 4, 1, 2]))
            # The error variance is the same on every antenna: it adds to N0
            error = tf.reduce_sum(error[:, 0, 0, 0], axis=1)  # over streams
            error = tf.broadcast_to(error, [blocks, symbols, subcarriers])
            no_data = no_data + self._take(error)
        return self._take(y), h_data, h_data if h_hat is None else h_hat, no_data

    def _take(self, x):
        """The data resources of [B, T, F, ...], as [B, U, ...]."""
        shape = tuple(x.shape)
        flat = tf.reshape(x, (shape[0], shape[1] * shape[2]) + shape[3:])
        return tf.gather(flat, self._data, axis=1)
