"""The covariance over antennas of what channel estimates get wrong.

Errors of an estimate are correlated over receive antennas. The bias has the correlation of the
channel. The noise and interference that the estimate lets through keep their own correlation,
unless the estimator filters over antennas and changes it. A detector that knows the covariance
of these errors can whiten them.
"""

import functools

import numpy as np
import tensorflow as tf

from linksim.link.noise_levels import between_levels, noise_levels

# First and last N0 over the channel's power at which the bias is measured, and the step in dB
_LEVELS_DB = -50.0, 20.0, 10.0


class ErrorCovariance:
    """Adds the covariance of the errors to that of the noise.

    The bias has one shape on all resources of a slot, which is measured, and the strength
    that `bias_at` of the estimator has for each. What is let through of the noise follows
    from the coefficients of the estimate.

    Args:
        estimator: of `linksim.link.estimation`.
        calibration: the `linksim.link.calibration.Calibration` that it has learnt from.
        data: positions of the data among the T F resources of a slot, int32 [U].
    """

    def __init__(self, estimator, calibration, data):
        self._estimator, self._calibration, self._data = estimator, calibration, data

    def __call__(self, s, no):
        """Noise and errors together.

        Args:
            s: what is known of the noise: variances, float32 [B, U], or covariances,
                complex64 [B, U, M, M].
            no: mean variance of all noise, float32 [].

        Returns:
            complex64 [B, U, M, M].
        """
        with tf.init_scope():
            levels, shapes = self._shapes
        shape = between_levels(no, levels, shapes)
        bias = tf.cast(self._take(self._estimator.bias_at(no)), tf.complex64)
        errors = tf.einsum("uk,kmn->umn", bias, shape)
        if s.dtype == tf.float32:
            one = tf.eye(shape.shape[-1], batch_shape=[1, len(self._data)], dtype=tf.complex64)
            one += self._estimator.let_through(one, no, self._take)
            return tf.cast(s, tf.complex64)[..., None, None] * one + errors
        return s + self._estimator.let_through(s, no, self._take) + errors

    def _take(self, x):
        """The data resources of [T, F, ...], as [U, ...]."""
        return tf.gather(tf.reshape(x, (-1, *x.shape[2:])), self._data)

    @functools.cached_property
    def _shapes(self):
        """Levels of N0, float32 [L], and the bias' covariance at each, of the trace M,
        complex64 [L, K, M, M]."""
        levels = noise_levels(self._estimator.power, *_LEVELS_DB)
        estimate = tf.function(self._estimator.estimate, autograph=False)
        totals = [0.0] * len(levels)
        for h, y in self._calibration:
            for i, no in enumerate(levels):
                error = estimate(y, tf.constant(no)) - h
                found = tf.einsum("btfmk,btfnk->kmn", error, tf.math.conj(error))
                totals[i] += found.numpy().astype(complex)
        self._calibration.forget()
        totals = np.stack(totals)
        size = totals.shape[-1]
        trace = np.trace(totals, axis1=-2, axis2=-1).real[..., None, None]
        # Without any error, of white noise
        totals = np.where(trace > 0, totals, np.eye(size))
        trace = np.where(trace > 0, trace, size)
        return levels, (totals * size / trace).astype(np.complex64)
