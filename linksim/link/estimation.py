"""Channel estimation from pilots, with the variance of its error on every resource.

An estimate is linear in what the pilots are received as. Its error has two parts, which are
independent of each other: the noise that it lets through, and the *bias*, what it would get
wrong without noise, such as the curvature of a channel between two pilots. The noise part
follows from the coefficients of the estimate, exactly. The bias depends on the statistics of
the channel and is measured, once, on draws of their own (`Calibration`), so that a detector
is told the variance that errors have. Sionna's `err_var` of linear interpolation knows of no
bias, and interpolates the noise's variance as if it were a channel.

Shapes have T OFDM symbols, F subcarriers, M receive antennas and K streams.
"""

import functools

import numpy as np
import tensorflow as tf
from scipy.linalg import toeplitz

from linksim.link.noise_levels import between_levels, noise_levels

# Elements of grids that are worked on at once
_CHUNK = 2**24


class LSEstimator:
    """Least squares at the pilots, interpolated between them, by Sionna.

    Args:
        sionna: its estimator, as `LSChannelEstimator` or `PUSCHLSChannelEstimator`.
        calibration: the `Calibration`.
    """

    def __init__(self, sionna, calibration):
        self.sionna = sionna
        self._calibration = calibration

    def __call__(self, y, no):
        """Estimate channels.

        Args:
            y: received grid, complex64 [B, T, F, M].
            no: noise variance N0, float32 [].

        Returns:
            Channels complex64 [B, T, F, M, K], and the variance of their error, a mean over
            antennas, float32 [T, F, K].
        """
        error = self.bias_at(no) + no * self.gain_at(no)
        return self.estimate(y, no), error

    def bias_at(self, no):
        """Mean energy of the error without noise, a mean over antennas, float32 [T, F, K].

        Args:
            no: variance of the noise that the estimate assumes, float32 [].
        """
        with tf.init_scope():
            return self._measured[1]

    def gain_at(self, no):
        """Variance of the error for each unit of N0 without bias, float32 [T, F, K]."""
        with tf.init_scope():
            return self.noise_gain

    def let_through(self, s, no, take):
        """Covariance of what noise makes of the errors, for streams of power 1.

        Args:
            s: covariance of the noise, complex64 [B, U, M, M].
            no: variance of the noise that the estimate assumes, float32 [].
            take: function from [T, F, ...] to the U resources of `s`, [U, ...].

        Returns:
            complex64 [B, U, M, M].
        """
        return _let_through(self.gain_at(no), s, take)

    def estimate(self, y, no):
        """The estimate alone."""
        h_hat, _ = self.sionna(tf.transpose(y, [0, 3, 1, 2])[:, None], no)
        # [B, 1, M, users, layers, T, F] -> [B, T, F, M, K]
        shape = tuple(h_hat.shape)
        h_hat = tf.reshape(h_hat, (*shape[:1], shape[2], -1, *shape[5:]))
        return tf.transpose(h_hat, [0, 3, 4, 1, 2])

    @property
    def power(self):
        """Mean energy E|h_ij|^2 of the channel."""
        return self._measured[0]

    @functools.cached_property
    def _measured(self):
        """`power`, and the energy of `bias_at`, from one pass over the calibration."""
        power, bias, count = 0.0, 0.0, 0
        estimate = tf.function(lambda y: self.estimate(y, 0.0), autograph=False)
        for h, y in self._calibration:
            power += float(tf.reduce_mean(tf.square(tf.abs(h))))
            bias = bias + _mean_energy(estimate(y) - h)
            count += 1
        self._calibration.forget()
        return power / count, bias / count

    @functools.cached_property
    def noise_gain(self):
        """Variance of the error for each unit of N0 without bias, float32 [T, F, K].

        It is the energy of the estimate's coefficients: of what changes when ones are added
        to some resources of a grid, which are too far apart to reach a common one, so that
        their energies add up.
        """
        symbols, subcarriers, _, streams = self._calibration.shape
        used = np.flatnonzero(np.any(self._calibration.pilots != 0, axis=(0, 2)))
        distance = min(max(48, 6 * streams), subcarriers)
        # Sionna takes resources on which nothing is received for such without a pilot
        rng = np.random.Generator(np.random.Philox(0))
        ground = rng.normal(size=(1, symbols, subcarriers, 1, 2)) @ np.array([1, 1j])
        probes = np.zeros((len(used), distance, symbols, subcarriers), np.complex64)
        for i, symbol in enumerate(used):
            for offset in range(distance):
                probes[i, offset, symbol, offset::distance] = 1.0
        probes = probes.reshape(-1, symbols, subcarriers, 1) + ground.astype(np.complex64)
        at_ground = self.estimate(tf.constant(ground, tf.complex64), 0.0)
        at_once = max(_CHUNK // (symbols * subcarriers * streams), 1)
        total = tf.zeros((symbols, subcarriers, streams))
        for start in range(0, len(probes), at_once):
            found = self.estimate(tf.constant(probes[start : start + at_once]), 0.0)
            found -= at_ground
            total += tf.reduce_sum(tf.square(tf.abs(found)), axis=[0, 3])
        return total


class LMMSEEstimator:
    """Linear minimum mean square error estimation over time, frequency and antennas.

    Least-squares observations of each stream, at pilots or at groups of pilots whose mean
    separates the streams that share them, are interpolated jointly with a covariance that
    is the product of one over OFDM symbols, one over subcarriers and, with `spatial`, one
    over receive antennas. With the eigenvectors of all of them, found once, every N0 costs
    a division.

    Args:
        calibration: the `Calibration`. The covariances are measured on it; those over
            symbols and subcarriers depend on differences alone.
        groups: (symbols, subcarriers) of a group of pilots that is averaged.
        spatial: whether antennas help each other.
        correlations: None, or correlations of the channel model to use in place of
            measured ones: over the differences of T symbols, [T], and of F subcarriers, [F];
            complex128.
    """

    # First and last N0 over the channel's power at which the bias is measured, and the step
    _LEVELS_DB = -50.0, 20.0, 2.5

    def __init__(self, calibration, groups=(1, 1), spatial=False, correlations=None):
        self._calibration = calibration
        self._spatial, self._given = spatial, correlations
        pilots, (self._symbols, subcarriers, *_) = calibration.pilots, calibration.shape
        placed = [_groups_of(stream, groups) for stream in pilots]
        # Symbols [K, I, c] and subcarriers [K, J, d] of the groups
        self._times, self._frequencies = (np.stack(found) for found in zip(*placed))
        resources = (
            self._times[:, :, None, :, None] * subcarriers
            + self._frequencies[:, None, :, None, :]
        )
        shape = (*resources.shape[:3], -1)  # [K, I, J, c d]
        self._resources = resources.reshape(shape).astype(np.int32)
        flat = pilots.reshape(len(pilots), -1)
        inverse = 1.0 / np.take_along_axis(flat, self._resources.reshape(len(flat), -1), 1)
        self._inverse = inverse.reshape(self._resources.shape) / self._resources.shape[-1]
        # Of white noise, the mean over a stream's observations, [K]
        energy = np.sum(np.abs(self._inverse) ** 2, axis=-1)
        self._noise = np.mean(energy, axis=(1, 2))

    def __call__(self, y, no):
        """Estimate channels, as `LSEstimator` does."""
        return self.estimate(y, no), self.bias_at(no) + no * self.gain_at(no)

    @property
    def power(self):
        """See `LSEstimator.power`."""
        return self._filter["power"]

    def bias_at(self, no):
        """See `LSEstimator.bias_at`."""
        with tf.init_scope():
            levels, log_bias = self._bias
        return tf.exp(between_levels(no, levels, log_bias))

    def estimate(self, y, no):
        """Estimate channels without their error, which takes draws of the channel."""
        return self._estimate(self._rotated(y), no)

    def _observations(self, y):
        """Least-squares observations [B, M, K, I, J] of a received grid [B, T, F, M]."""
        shape = tuple(y.shape)
        y = tf.reshape(tf.transpose(y, [0, 3, 1, 2]), (shape[0], shape[3], -1))
        return tf.reduce_sum(tf.gather(y, self._resources, axis=-1) * self._inverse, axis=-1)

    def _rotated(self, y):
        """Observations in terms of eigenvectors, complex64 [B, M, K, I, J]."""
        f = self._filter
        z = self._observations(y)
        z = tf.einsum("bmkij,kia,kjc->bmkac", z, f["times"].conj(), f["freqs"].conj())
        return tf.einsum("bmkac,kmn->bnkac", z, f["antennas"].conj()) if self._spatial else z

    def _weights(self, no):
        """Real weights [n, K, I, J] of the rotated observations; n is M or, without
        antennas, 1."""
        f = self._filter
        noise = no * self._noise + f["leakage"]
        product = f["antenna_values"][..., None, None] * f["products"]
        return f["antenna_values"][..., None, None] / (product + noise[:, None, None])

    def _estimate(self, rotated, no):
        f = self._filter
        z = rotated * tf.cast(self._weights(no), tf.complex64)
        if self._spatial:
            z = tf.einsum("bnkac,kmn->bmkac", z, f["antennas"])
        z = tf.einsum("bmkac,kta->bmktc", z, f["to_times"])
        return tf.einsum("bmktc,kfc->btfmk", z, f["to_freqs"])

    def gain_at(self, no):
        """See `LSEstimator.gain_at`."""
        f = self._filter
        energy = tf.reduce_mean(tf.square(self._weights(no)), axis=0)  # over antennas
        energy *= self._noise[:, None, None]
        times, freqs = (np.abs(f[name]) ** 2 for name in ("to_times", "to_freqs"))
        return tf.einsum("kac,kta,kfc->tfk", energy, times, freqs)

    def let_through(self, s, no, take):
        """See `LSEstimator.let_through`."""
        if not self._spatial:
            return _let_through(self.gain_at(no), s, take)
        f = self._filter
        weights, vectors = self._weights(no), f["antennas"]
        times, freqs = (np.abs(f[name]) ** 2 for name in ("to_times", "to_freqs"))
        # Between eigenvectors m and n of the antennas: [T, F, K, M, M]
        noise = self._noise.astype(np.float32)
        gains = tf.einsum("mkac,nkac,k->kacmn", weights, weights, noise)
        gains = tf.einsum("kacmn,kta,kfc->tfkmn", gains, times, freqs)
        s = tf.einsum("kpm,bupq,kqn->bukmn", vectors.conj(), s, vectors)
        s *= tf.cast(take(gains), tf.complex64)
        return tf.einsum("kpm,bukmn,kqn->bupq", vectors, s, vectors.conj())

    def residual_energy(self, no):
        """Energy of what an estimate leaves of noise on resources without data.

        The noise of such a resource, less its share in the estimates there times what the
        streams have sent.

        Args:
            no: variance of the noise that the estimate assumes, float32 [].

        Returns:
            float32 [T, F], for each unit of the noise; 1 where nothing is sent. Of resources
            with data it has no meaning.
        """
        f, own = self._filter, 0.0
        weights = self._weights(no)[0]
        for k, times in enumerate(self._times):
            # What a pilot itself adds to the estimate on its resource
            at = np.zeros(self._calibration.shape[0], np.int32)
            at[times] = np.arange(len(times))[:, None]
            in_time = f["to_times"][k] * f["times"][k].conj()[at]
            at = np.zeros(self._calibration.shape[1], np.int32)
            at[self._frequencies[k]] = np.arange(len(self._frequencies[k]))[:, None]
            in_frequency = f["to_freqs"][k] * f["freqs"][k].conj()[at]
            share = tf.einsum(
                "ta,fc,ac->tf", in_time, in_frequency, tf.cast(weights[k], tf.complex64)
            )
            sent = self._calibration.pilots[k] != 0
            own += tf.math.real(share) * sent / self._resources.shape[-1]
        energy = np.abs(self._calibration.pilots) ** 2
        passed = tf.einsum("ktf,tfk->tf", energy.astype(np.float32), self.gain_at(no))
        return 1.0 - 2.0 * own + passed

    @functools.cached_property
    def _filter(self):
        """What is left of the covariances: their eigenvectors, and what leads to all
        resources."""
        with tf.init_scope():
            found = self._covariances()
        time, frequency, space, leakage = found
        parts = {"leakage": leakage.astype(np.float32), "power": frequency[0, 0].real}
        values = []
        for name, covariance, members in (
            ("times", time, self._times),
            ("freqs", frequency, self._frequencies),
        ):
            vectors, onward, eigenvalues = [], [], []
            for group in members:  # of a stream
                # Rows of means over the groups: [I, T] or [J, F]
                mean = np.zeros((len(group), len(covariance)))
                np.put_along_axis(mean, group, 1.0 / group.shape[1], axis=1)
                value, vector = np.linalg.eigh(mean @ covariance @ mean.T)
                vectors.append(vector)
                eigenvalues.append(np.maximum(value, 0.0))
                onward.append(covariance @ mean.T @ vector)
            parts[name] = np.stack(vectors).astype(np.complex64)
            parts[f"to_{name}"] = np.stack(onward).astype(np.complex64)
            values.append(np.stack(eigenvalues))
        parts["products"] = (values[0][:, :, None] * values[1][:, None]).astype(np.float32)
        value, vector = np.linalg.eigh(space)
        parts["antennas"] = vector.astype(np.complex64)  # [K, M, M]
        value = np.maximum(value, 0.0).T if self._spatial else np.ones((1, len(space)))
        parts["antenna_values"] = value.astype(np.float32)  # [M or 1, K]
        return parts

    def _covariances(self):
        """Of the channel: over symbols [T, T], subcarriers [F, F] with its power, and
        antennas [K, M, M]; and the energy of what the observations have of other streams
        [K]. All but the last are complex128."""
        symbols, subcarriers, num_rx, streams = self._calibration.shape
        time, frequency = np.zeros(symbols, complex), np.zeros(subcarriers, complex)
        space = np.zeros((streams, num_rx, num_rx), complex)
        leakage, count = np.zeros(streams), 0
        alone = self._calibration.pilots
        for h, y in self._calibration:
            other = self._observations(y) - self._own_observations(h, alone)
            leakage += np.mean(np.abs(other.numpy()) ** 2, axis=(0, 1, 3, 4))
            h = h.numpy()
            time += _autocorrelation(h, 1)
            frequency += _autocorrelation(h, 2)
            space += np.einsum("btfmk,btfnk->kmn", h, h.conj()) / np.prod(h.shape[:3])
            count += 1
        power = frequency[0].real / count
        trace = np.trace(space, axis1=1, axis2=2).real[:, None, None]
        # A stream that is never received, as a file may have it, has no correlation
        space = np.where(trace > 0, space, np.eye(num_rx))
        space *= num_rx / np.where(trace > 0, trace, num_rx)
        time, frequency = time / time[0], frequency / frequency[0]
        if self._given is not None:
            time, frequency = self._given
        return toeplitz(time), power * toeplitz(frequency), space, leakage / count

    def _own_observations(self, h, pilots):
        """What each stream alone would be observed as, complex64 [B, M, K, I, J]."""
        sent = h * tf.transpose(pilots, [1, 2, 0])[:, :, None]  # [B, T, F, M, K]
        sent = tf.transpose(sent, [0, 3, 4, 1, 2])
        sent = tf.reshape(sent, (*sent.shape[:3], -1))
        streams = [
            tf.gather(sent[:, :, k], resources, axis=-1)
            for k, resources in enumerate(self._resources)
        ]
        return tf.reduce_sum(tf.stack(streams, axis=2) * self._inverse, axis=-1)

    @functools.cached_property
    def _bias(self):
        """Levels of N0, float32 [L], and the logarithm of the mean energy of the error
        without noise at each, float32 [L, T, F, K]."""
        levels = noise_levels(self.power, *self._LEVELS_DB)
        error = tf.function(
            lambda z, h, no: _mean_energy(self._estimate(z, no) - h), autograph=False
        )
        rotated = tf.function(self._rotated, autograph=False)
        totals, count = [0.0] * len(levels), 0
        for h, y in self._calibration:
            z = rotated(y)
            totals = [t + error(z, h, tf.constant(no)) for t, no in zip(totals, levels)]
            count += 1
        self._calibration.forget()
        # An estimate cannot be exact: of a channel that never changes its bias may be 0
        bias = tf.maximum(tf.stack(totals) / count, 1e-12 * self.power)
        return levels, tf.math.log(bias)


def _let_through(gain, s, take):
    """Covariances that are as those of the noise, [B, U, M, M], with a gain [T, F, K]."""
    return tf.cast(take(tf.reduce_sum(gain, axis=-1)), tf.complex64)[:, None, None] * s


def _mean_energy(error):
    """Mean over blocks and antennas of |error|^2 [B, T, F, M, K], float32 [T, F, K]."""
    return tf.reduce_mean(tf.square(tf.abs(error)), axis=[0, 3])


def _groups_of(pilots, groups):
    """Symbols [I, c] and subcarriers [J, d] of a stream's pilots [T, F] in groups (c, d)."""
    symbols, subcarriers = (np.flatnonzero(np.any(pilots != 0, axis=axis)) for axis in (1, 0))
    return symbols.reshape(-1, groups[0]), subcarriers.reshape(-1, groups[1])


def _autocorrelation(h, axis):
    """Mean of h[i + d] conj(h[i]) over all i and all other axes, complex128 [length]."""
    length = h.shape[axis]
    spectrum = np.abs(np.fft.fft(h, 2 * length, axis=axis)) ** 2
    others = tuple(i for i in range(h.ndim) if i != axis)
    summed = np.fft.ifft(np.mean(spectrum, axis=others))[:length]
    return summed / (length - np.arange(length))
