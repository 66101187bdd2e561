"""OFDM: a slot on Sionna's resource grid, with channels that are known or estimated."""

import numpy as np
import tensorflow as tf
from sionna.phy.ofdm import LSChannelEstimator, ResourceGrid, ResourceGridMapper

from linksim.link.calibration import Calibration
from linksim.link.draw import Front, Received, add_noise
from linksim.link.error_covariance import ErrorCovariance
from linksim.link.estimation import LMMSEEstimator, LSEstimator
from linksim.link.residuals import ResidualCovariance


class OFDMFront(Front):
    """An OFDM slot; a block fills its data resources.

    A resource grid has T OFDM symbols of F subcarriers, and a channel use is one data
    resource. Without an estimator the receiver knows the channels. The variance of an
    estimate's error counts as noise, as in Sionna's `OFDMDetector`.

    Args:
        channel: a `linksim.channels.Channel` that has grids, see its `sample_grid`.
        resource_grid: Sionna's `ResourceGrid`, with K streams of all transmitters together;
            all streams have the same data resources.
        cyclic_prefix_ratio: length of the cyclic prefix over that of the useful symbol.
        precoding: None, or what the antennas of all transmitters send of each stream,
            complex64 [antennas, K]; the channel then has as many columns as there are antennas.

    Attributes:
        resource_grid: the argument.
        estimator: None, or estimates the channels, see `linksim.link.estimation`.
        errors: None, or the `linksim.link.error_covariance.ErrorCovariance` that detectors
            are told in place of a variance.
        interferers: None, or the `linksim.link.interference.Interferers` that are received,
            too, on all resources.
        residuals: the `linksim.link.residuals.ResidualCovariance` where the covariance of
            noise and interference is estimated.
        pilots: what the streams send as pilots, complex64 [K, T, F], zero elsewhere.
        num_uses: data resources U of a slot.
        data: their positions among the T F resources of a slot, int32 [U].
    """

    def __init__(self, channel, resource_grid, cyclic_prefix_ratio, precoding=None):
        super().__init__(channel)
        self.resource_grid = resource_grid
        self.estimator = self.errors = self.interferers = self.residuals = None
        self._cyclic_prefix_ratio, self._precoding = cyclic_prefix_ratio, precoding
        self._symbols = resource_grid.num_ofdm_symbols
        self._subcarriers = resource_grid.fft_size
        self._streams = resource_grid.num_tx, resource_grid.num_streams_per_tx
        mask = np.asarray(resource_grid.pilot_pattern.mask)[0, 0].reshape(-1)
        self.data = np.flatnonzero(mask == 0).astype(np.int32)
        self.num_uses = len(self.data)
        resources = self._symbols * self._subcarriers
        self.resource_efficiency = self.num_uses / resources / (1.0 + cyclic_prefix_ratio)
        self.streams_per_transmitter = int(np.prod(self._streams)) // channel.num_users
        self._map = ResourceGridMapper(resource_grid)
        silence = tf.zeros([1, *self._streams, self.num_uses], tf.complex64)
        self.pilots = self._grid_of(silence)[0].numpy()

    def _grid_of(self, x):
        """The grid [B, K, T, F] of data [B, transmitters, streams, U]."""
        grid = self._map(x)
        return tf.reshape(grid, (grid.shape[0], -1, self._symbols, self._subcarriers))

    def check(self, num_uses):
        def check(channel):
            channel.check_slot(self._symbols, self._subcarriers)

        check(self.channel)
        if self.interferers is not None:
            self.interferers.check(check)

    def channels(self, key, num_blocks, first_block=0):
        """Draw the channels of the streams: complex64 [num_blocks, T, F, M, K]."""
        h = self.channel.sample_grid(key, *self._slots(num_blocks, first_block))
        return h if self._precoding is None else tf.matmul(h, self._precoding)

    def _slots(self, num_blocks, first_block):
        """The arguments of `sample_grid` after the key."""
        size = self._symbols, self._subcarriers, self._cyclic_prefix_ratio
        return num_blocks, *size, first_block

    def correlations(self):
        """Those of the channel's model, see `Channel.correlations`."""
        return self.channel.correlations(
            self._symbols, self._subcarriers, self._cyclic_prefix_ratio
        )

    def calibration(self):
        """The `Calibration` of estimators for this front."""
        shape = self._symbols, self._subcarriers, self.channel.num_rx, len(self.pilots)
        return Calibration(self.channels, shape, self.pilots)

    def transmit(self, x, keys, no, first_block=0):
        num_blocks = x.shape[0]
        data = tf.reshape(tf.transpose(x, [0, 2, 1]), (num_blocks, *self._streams, -1))
        grid = self._grid_of(data)
        h = self.channels(keys["channel"], num_blocks, first_block)
        y = tf.linalg.matvec(h, tf.transpose(grid, [0, 2, 3, 1]))  # [B, T, F, M]
        level, g = no, None  # variance of all that is not desired, and its channels
        if self.interferers is not None:
            slots = self._slots(num_blocks, first_block)
            g = self.interferers.sample_grid(keys["interferer"], *slots)
            others = self.interferers.symbols(keys["interfering"], g.shape[:3])
            y += tf.linalg.matvec(g, others)
            level = no + self.interferers.power
        y = add_noise(keys["noise"], y, no)
        s = tf.fill([num_blocks, self.num_uses], no)
        if g is not None:
            s = self._told(y, h, g, no, level)
        h_hat = h
        if self.estimator is not None:
            h_hat, error = self.estimator(y, level)
            if self.errors is not None:
                s = self.errors(s, level)
            else:
                s = _added(s, self._take(tf.reduce_sum(error, axis=-1)[None]))
        return Received(self._take(y), self._take(h), self._take(h_hat), s)

    def _told(self, y, h, g, no, level):
        """What the receiver is told of noise and interference; see `Received.s`."""
        if self.residuals is not None:
            return self.residuals(y, h, level)
        return self.interferers.told(self._take(g), no)

    def _take(self, x):
        """The data resources of [B, T, F, ...], as [B, U, ...]."""
        shape = tuple(x.shape)
        flat = tf.reshape(x, (shape[0], shape[1] * shape[2]) + shape[3:])
        return tf.gather(flat, self.data, axis=1)


def _added(s, variance):
    """Noise variances [B, U] or covariances [B, U, M, M], and more variance [1, U]."""
    if len(s.shape) == 2:
        return s + variance
    more = variance[..., None, None] * tf.eye(s.shape[-1])
    return s + tf.cast(more, tf.complex64)


def create_ofdm_front(scenario, channel, interferers=None):
    """The OFDM front of a scenario; it estimates where the scenario's CSI says so.

    Args:
        scenario: a `linksim.link.scenario.Scenario` with an OFDM grid.
        channel: its channel, with one transmitter of K streams for the grid.
        interferers: its `linksim.link.interference.Interferers`, or None.
    """
    ofdm = scenario.ofdm
    grid = ResourceGrid(
        num_ofdm_symbols=ofdm.num_symbols,
        fft_size=ofdm.num_subcarriers,
        subcarrier_spacing=channel.subcarrier_spacing,
        num_tx=1,
        num_streams_per_tx=channel.num_streams,
        pilot_pattern="kronecker" if ofdm.pilot_symbols else "empty",
        pilot_ofdm_symbol_indices=list(ofdm.pilot_symbols) or None,
    )
    front = OFDMFront(channel, grid, ofdm.cyclic_prefix_ratio)
    add_knowledge(
        front,
        scenario.csi,
        lambda: LSChannelEstimator(grid, interpolation_type=ofdm.interpolation),
        interferers,
    )
    return front


def add_knowledge(front, csi, least_squares, interferers, groups=(1, 1)):
    """Give a front its estimators and its interference.

    Args:
        front: the `OFDMFront`.
        csi: a `linksim.link.scenario.Csi`.
        least_squares: function without arguments that makes Sionna's estimator.
        interferers: the `linksim.link.interference.Interferers`, or None.
        groups: (symbols, subcarriers) of pilots whose mean separates streams.
    """
    given = None
    if csi.type == "ls":
        front.estimator = LSEstimator(least_squares(), front.calibration())
    elif csi.type == "lmmse":
        given = front.correlations() if csi.covariance == "model" else None
        front.estimator = LMMSEEstimator(front.calibration(), groups, csi.spatial, given)
    if csi.error == "covariance":
        front.errors = ErrorCovariance(front.estimator, front.calibration(), front.data)
    front.interferers = interferers
    if interferers is None or interferers.table.covariance != "estimated":
        return
    # Least squares leave nothing of the pilots; and what antennas that are taken one by one
    # leave of noise is the noise, but for a factor
    estimator = front.estimator
    if csi.type == "ls" or csi.spatial:
        estimator = LMMSEEstimator(front.calibration(), groups, False, given)
    front.residuals = ResidualCovariance(front, interferers, estimator)
