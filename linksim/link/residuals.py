"""The covariance of noise and interference, from what is left of the pilots of a slot."""

import numpy as np
import tensorflow as tf

from linksim.errors import InvalidInput


class ResidualCovariance:
    """Estimates a covariance for every few neighbouring subcarriers of a slot.

    The samples are the resources without data, less what the receiver takes to have come
    there from the desired streams. With an estimator these are its own estimates, so that
    what is left is weaker than noise and interference; by how much follows from its
    coefficients, and is made up for. What it gets wrong of the channel is left in as well.

    Args:
        front: the `linksim.link.ofdm.OFDMFront`.
        interferers: the `linksim.link.interference.Interferers`, whose table says how.
        estimator: a `linksim.link.estimation.LMMSEEstimator` that takes every antenna for
            itself, or None where channels are known.

    Raises:
        InvalidInput: subcarriers that do not divide the grid into parts with equally many
            samples, or too few of these.
    """

    def __init__(self, front, interferers, estimator):
        self._interferers, self._estimator = interferers, estimator
        self._pilots = front.pilots
        subcarriers = front.resource_grid.fft_size
        resources = front.resource_grid.num_ofdm_symbols * subcarriers
        table = interferers.table
        width = table.subcarriers or subcarriers
        free = np.setdiff1d(np.arange(resources), front.data)
        parts = -(-subcarriers // width)
        counts = np.bincount(free % subcarriers // width, minlength=parts)
        if subcarriers % width or len(set(counts)) > 1 or not counts[0]:
            raise InvalidInput(
                f"interference.subcarriers: got {width}, expected a divisor of "
                f"{subcarriers} that leaves equally many resources without data in each part"
            )
        key = "interference.subcarriers"
        table.check_samples(key, int(counts[0]), front.channel.num_rx)
        order = np.argsort(free % subcarriers // width, kind="stable")
        self._samples = free[order].reshape(parts, -1).astype(np.int32)
        self._part_of_data = (front.data % subcarriers // width).astype(np.int32)

    def __call__(self, y, h, no):
        """Estimate the covariances of the data resources.

        Args:
            y: received grid, complex64 [B, T, F, M].
            h: the channels, complex64 [B, T, F, M, K], which are not looked at where they are
                estimated.
            no: mean variance of noise and interference, float32 [].

        Returns:
            complex64 [B, U, M, M].
        """
        left = tf.ones([1])
        if self._estimator is not None:
            h = self._estimator.estimate(y, no)
            left = self._estimator.residual_energy(no)
            left = tf.reduce_mean(tf.gather(tf.reshape(left, [-1]), self._samples), axis=-1)
        rest = y - tf.einsum("btfmk,ktf->btfm", h, self._pilots)
        batch, symbols, subcarriers, num_rx = y.shape
        rest = tf.reshape(rest, (batch, symbols * subcarriers, num_rx))
        samples = tf.gather(rest, self._samples, axis=1)  # [B, parts, n, M]
        # An estimate with as many degrees of freedom as pilots would leave nothing
        left = tf.cast(tf.sqrt(tf.maximum(left, 1e-3)), tf.complex64)
        found = self._interferers.estimate(samples / left[:, None, None])
        return tf.gather(found, self._part_of_data, axis=1)
