"""Channels whose impulse responses Sionna draws, as frequency responses of an uplink."""

import numpy as np
import tensorflow as tf
from scipy.special import j0
from sionna.phy import config
from sionna.phy.channel import cir_to_ofdm_channel, subcarrier_frequencies

from linksim.channels.base import Channel, check_grid, check_power
from linksim.errors import InvalidInput


class SionnaChannel(Channel):
    """Frequency responses of users whose channels Sionna draws.

    Each user has `num_streams / num_users` antennas and sends one stream from each. A
    subclass implements `_responses`.

    Args:
        num_rx: receive antennas M.
        num_streams: streams K of all users together.
        subcarrier_spacing_khz: subcarrier spacing in kHz, from 1 to 5000.
        num_users: number of users, a divisor of `num_streams`.
        power: factor on the energy, that is E|h_ij|^2 where the responses have 1.

    Attributes:
        subcarrier_spacing: subcarrier spacing in Hz.
        num_users: the argument.

    Raises:
        InvalidInput: a value out of range.
    """

    def __init__(self, num_rx, num_streams, subcarrier_spacing_khz, num_users, power):
        super().__init__(num_rx, num_streams)
        check_grid(num_streams, subcarrier_spacing_khz, num_users)
        check_power(power)
        self.subcarrier_spacing = subcarrier_spacing_khz * 1e3
        self.num_users = num_users
        self._power = power
        self._rng = config.tf_rng  # created outside of any graph

    def _responses(self, num_blocks, num_symbols, symbol_rate, frequencies):
        """Draw responses at frequencies in Hz, complex64 [num_blocks, M, K, T, F]."""
        raise NotImplementedError

    def sample(self, key, num_blocks, num_uses, first_block=0):
        """Draw one OFDM symbol per block, with a channel use on each subcarrier.

        See `Channel.sample` for arguments and shapes.
        """
        return self.sample_grid(key, num_blocks, 1, num_uses)[:, 0]

    def sample_grid(
        self,
        key,
        num_blocks,
        num_symbols,
        num_subcarriers,
        cyclic_prefix_ratio=0.0,
        first_block=0,
    ):
        symbol_rate = self.subcarrier_spacing / (1.0 + cyclic_prefix_ratio)
        frequencies = subcarrier_frequencies(num_subcarriers, self.subcarrier_spacing)
        key = tf.cast(tf.convert_to_tensor(key), tf.int64)
        # Sionna draws from one global generator, which gets its state back afterwards
        before = tf.identity(self._rng.state)
        self._rng.reset_from_key_counter(key[1], tf.stack([tf.zeros_like(key[0]), key[0]]))
        h = self._responses(num_blocks, num_symbols, symbol_rate, frequencies)
        self._rng.reset(before)
        h = tf.transpose(h, [0, 3, 4, 1, 2])
        return h * tf.cast(self._power**0.5, h.dtype)


class ImpulseResponseChannel(SionnaChannel):
    """Frequency responses of independent users, from impulse responses of each.

    A subclass implements `_impulse_response` and `_delay_profile`, and sets `_max_doppler` in
    Hz.

    Args:
        num_rx, num_streams, subcarrier_spacing_khz, num_users, power: as of `SionnaChannel`.
        normalize: scale every block to a mean coefficient energy of exactly `power`.

    Attributes:
        normalize: the argument.

    Raises:
        InvalidInput: a value out of range.
    """

    def __init__(
        self, num_rx, num_streams, subcarrier_spacing_khz, num_users, normalize, power
    ):
        super().__init__(num_rx, num_streams, subcarrier_spacing_khz, num_users, power)
        if not isinstance(normalize, bool):
            raise InvalidInput(f"channel.normalize: got {normalize!r}, expected true or false")
        self.normalize = normalize

    def _impulse_response(self, user, num_blocks, num_symbols, symbol_rate):
        """Draw what Sionna's `ChannelModel` returns, for a user: coefficients and delays."""
        raise NotImplementedError

    def _delay_profile(self):
        """Delays in s and mean powers of sum 1 of what arrives, float64 [paths] each."""
        raise NotImplementedError

    def correlations(self, num_symbols, num_subcarriers, cyclic_prefix_ratio):
        """The Fourier transform of the power delay profile, and Bessel's function of the
        largest Doppler shift (Jakes); see `Channel.correlations`."""
        spacing = self.subcarrier_spacing
        seconds = np.arange(num_symbols) * (1.0 + cyclic_prefix_ratio) / spacing
        times = j0(2 * np.pi * self._max_doppler * seconds).astype(complex)
        delays, powers = self._delay_profile()
        hertz = np.arange(num_subcarriers) * spacing
        return times, np.exp(-2j * np.pi * np.outer(hertz, delays)) @ powers

    def _responses(self, num_blocks, num_symbols, symbol_rate, frequencies):
        users = []
        for user in range(self.num_users):
            a, tau = self._impulse_response(user, num_blocks, num_symbols, symbol_rate)
            h = cir_to_ofdm_channel(frequencies, a, tau, normalize=self.normalize)
            users.append(h[:, 0, :, 0])
        return tf.concat(users, axis=2)
