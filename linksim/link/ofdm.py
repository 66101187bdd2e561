"""OFDM: a slot on Sionna's resource grid, with perfect CSI or least-squares estimation."""

import numpy as np
import tensorflow as tf
from sionna.phy.ofdm import LSChannelEstimator, ResourceGrid, ResourceGridMapper

from linksim.link.draw import Front, Received, add_noise


class OFDMFront(Front):
    """An OFDM slot with one transmitter of K streams; a block fills its data resources.

    A resource grid has T OFDM symbols of F subcarriers, and a channel use is one data
    resource. The receiver knows the channels.

    Args:
        ofdm: a `linksim.link.scenario.Ofdm`.
        channel: a `linksim.channels.Channel` that has grids, see its `sample_grid`.

    Attributes:
        resource_grid: Sionna's `ResourceGrid`.
        num_uses: data resources U of a slot.
        data: their positions among the T F resources of a slot, int32 [U].
    """

    def __init__(self, ofdm, channel):
        super().__init__(channel)
        self._ofdm = ofdm
        self.resource_grid = ResourceGrid(
            num_ofdm_symbols=ofdm.num_symbols,
            fft_size=ofdm.num_subcarriers,
            subcarrier_spacing=channel.subcarrier_spacing,
            num_tx=1,
            num_streams_per_tx=channel.num_streams,
            pilot_pattern="kronecker" if ofdm.pilot_symbols else "empty",
            pilot_ofdm_symbol_indices=list(ofdm.pilot_symbols) or None,
        )
        mask = np.asarray(self.resource_grid.pilot_pattern.mask)[0, 0].reshape(-1)
        self.data = np.flatnonzero(mask == 0).astype(np.int32)
        self.num_uses = len(self.data)
        resources = ofdm.num_symbols * ofdm.num_subcarriers
        self.resource_efficiency = self.num_uses / resources / (1.0 + ofdm.cyclic_prefix_ratio)
        self.streams_per_transmitter = channel.num_streams // channel.num_users
        self._map = ResourceGridMapper(self.resource_grid)

    def transmit(self, x, keys, no, first_block=0):
        grid = self._map(tf.transpose(x, [0, 2, 1])[:, None])[:, 0]  # [B, K, T, F]
        h = self.channel.sample_grid(
            keys["channel"],
            x.shape[0],
            self._ofdm.num_symbols,
            self._ofdm.num_subcarriers,
            self._ofdm.cyclic_prefix_ratio,
            first_block,
        )
        y = tf.linalg.matvec(h, tf.transpose(grid, [0, 2, 3, 1]))  # [B, T, F, M]
        y = add_noise(keys["noise"], y, no)
        h_hat, error = self._known_channels(y, h, no)
        s = tf.fill([x.shape[0], self.num_uses], no)
        if error is not None:
            s = s + self._take(error)
        return Received(self._take(y), self._take(h), self._take(h_hat), s)

    def _known_channels(self, y, h, no):
        """What the receiver knows of the grid's channels.

        Args:
            y: received grid, complex64 [B, T, F, M].
            h: its channels, complex64 [B, T, F, M, K].
            no: noise variance N0, float32 [].

        Returns:
            Channels complex64 [B, T, F, M, K], and what their errors add to the noise
            variance, float32 [B, T, F], or None where they have none.
        """
        return h, None

    def _take(self, x):
        """The data resources of [B, T, F, ...], as [B, U, ...]."""
        shape = tuple(x.shape)
        flat = tf.reshape(x, (shape[0], shape[1] * shape[2]) + shape[3:])
        return tf.gather(flat, self.data, axis=1)


class LSFront(OFDMFront):
    """An `OFDMFront` whose receiver estimates the channels from pilots by least squares.

    The variance of the estimation error counts as noise, as in Sionna's `OFDMDetector`.

    Attributes:
        estimator: Sionna's `LSChannelEstimator`.
    """

    def __init__(self, ofdm, channel):
        super().__init__(ofdm, channel)
        self.estimator = LSChannelEstimator(
            self.resource_grid, interpolation_type=ofdm.interpolation
        )

    def _known_channels(self, y, h, no):
        h_hat, error = self.estimator(tf.transpose(y, [0, 3, 1, 2])[:, None], no)
        # [B, 1, M, 1, K, T, F] -> [B, T, F, M, K]
        h_hat = tf.transpose(h_hat[:, 0, :, 0], [0, 3, 4, 1, 2])
        # The error variance is the same on every antenna: streams alone add up
        error = tf.reduce_sum(error[:, 0, 0, 0], axis=1)
        return h_hat, tf.broadcast_to(error, tuple(y.shape[:3]))


def create_ofdm_front(scenario, channel):
    """The OFDM front of a scenario; it estimates where the scenario's CSI is "ls".

    Args:
        scenario: a `linksim.link.scenario.Scenario` with an OFDM grid.
        channel: its `linksim.channels.Channel`.
    """
    kind = LSFront if scenario.csi.type == "ls" else OFDMFront
    return kind(scenario.ofdm, channel)
