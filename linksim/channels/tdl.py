"""Tapped delay line (TDL) channels of 3GPP [TR38901] and [TS38104], through Sionna."""

import numpy as np
import tensorflow as tf
from sionna.phy import SPEED_OF_LIGHT
from sionna.phy.channel.tr38901 import TDL

from linksim.channels.fading import symmetric_root
from linksim.channels.impulse import ImpulseResponseChannel
from linksim.errors import InvalidInput, check_choice, check_real

# Delay spreads in ns of the profiles of [TS38104], G.2.1; None can be chosen
TDL_MODELS = {
    **dict.fromkeys(("A", "B", "C", "D", "E")),
    **{"A30": 30.0, "B100": 100.0, "C300": 300.0},
}
_LINE_OF_SIGHT = ("D", "E")


class TDLChannel(ImpulseResponseChannel):
    """Frequency responses of uplink TDL channels, without angles [TR38901], 7.7.2.

    Each user has `num_streams / num_users` antennas and sends one stream from each. The
    channels of users are independent. Taps are Rayleigh fading with the spectrum of Jakes,
    independent between antennas or correlated as in [TS38104], G.2.3.1; the first tap of "D"
    and "E" has a line of sight, of one phase for all antennas of a user.

    The channels of [TS38104] go by name: TDLC300-100 is the model "C300" with a
    `max_doppler_hz` of 100, and "low" correlation is that of none.

    Args:
        num_rx: receive antennas M.
        num_streams: streams K of all users together.
        model: "A" to "E" of [TR38901], or "A30", "B100" or "C300" of [TS38104].
        delay_spread_ns: RMS delay spread in ns, from 1 to 10000; 0 for 100, or for the one
            of the profiles of [TS38104], which have no other.
        carrier_frequency_ghz: carrier frequency in GHz, from 0.5 to 100.
        subcarrier_spacing_khz: subcarrier spacing in kHz, from 1 to 5000.
        speed: speed of the users in m/s, up to 1000.
        max_doppler_hz: largest Doppler shift in Hz, in place of `speed`.
        num_users: number of users, a divisor of `num_streams`.
        rx_correlation, tx_correlation: correlation of the outermost antennas of the receiver
            and of each user, alpha and beta of [TS38104]; antennas i and j of n have
            alpha^(((i - j)/(n - 1))^2). "Medium" is 0.9 and 0.3, "high" is 0.9 and 0.9.
        normalize: scale every block to a mean coefficient energy of exactly `power`.
        power: E|h_ij|^2.

    Attributes:
        power: E|h_ij|^2.
        delay_spread_ns: RMS delay spread in ns.

    Raises:
        InvalidInput: a value out of range, or two that exclude each other.
    """

    def __init__(
        self,
        num_rx,
        num_streams,
        model="C",
        delay_spread_ns=0.0,
        carrier_frequency_ghz=3.5,
        subcarrier_spacing_khz=30.0,
        speed=0.0,
        max_doppler_hz=0.0,
        num_users=1,
        rx_correlation=0.0,
        tx_correlation=0.0,
        normalize=False,
        power=1.0,
    ):
        super().__init__(
            num_rx, num_streams, subcarrier_spacing_khz, num_users, normalize, power
        )
        check_choice("channel.model", model, TDL_MODELS)
        self.power = power
        self.delay_spread_ns = _delay_spread(model, delay_spread_ns)
        check_real(
            "channel.carrier_frequency_ghz", carrier_frequency_ghz, 0.5, 100, unit="GHz"
        )
        check_real("channel.speed", speed, low=0, high=1000, unit="m/s")
        check_real("channel.max_doppler_hz", max_doppler_hz, low=0, high=1e6, unit="Hz")
        if speed and max_doppler_hz:
            raise InvalidInput(
                f"channel.max_doppler_hz: got {max_doppler_hz} and speed = {speed}, expected "
                "only one of them"
            )
        carrier = carrier_frequency_ghz * 1e9
        speed = float(speed or max_doppler_hz * SPEED_OF_LIGHT / carrier)
        self._max_doppler = speed * carrier / SPEED_OF_LIGHT
        antennas = num_streams // num_users
        self._roots = [
            _correlation_root(f"channel.{side}_correlation", rho, count, model)
            for side, rho, count in (
                ("rx", rx_correlation, num_rx),
                ("tx", tx_correlation, antennas),
            )
        ]
        self._tdl = TDL(
            model,
            self.delay_spread_ns / 1e9,  # rounds to what Sionna compares it with
            carrier,
            min_speed=speed,
            max_speed=speed,
            num_rx_ant=num_rx,
            num_tx_ant=antennas,
        )

    def describe(self):
        """Lines about the channel, see `Channel.describe`."""
        delays, powers = self._delay_profile()
        spread = np.sqrt(powers @ delays**2 - (powers @ delays) ** 2)
        return [
            *super().describe(),
            f"RMS delay spread: {1e9 * spread:.1f} ns, {self.delay_spread_ns:g} ns of the model",
        ]

    def _delay_profile(self):
        taps = self._tdl.delays, self._tdl.mean_powers
        return tuple(np.asarray(x, np.float64) for x in taps)

    def _impulse_response(self, user, num_blocks, num_symbols, symbol_rate):
        a, tau = self._tdl(num_blocks, num_symbols, symbol_rate)
        # [batch, 1, M, 1, antennas, paths, symbols]. Sionna's own factors are those of
        # Cholesky in single precision, which many correlated antennas do not have
        for root, equation in zip(self._roots, ("mn,bxnyaps->bxmyaps", "ca,bxmyaps->bxmycps")):
            if root is not None:
                a = tf.einsum(equation, tf.constant(root), a)
        return a, tau


def _delay_spread(model, given):
    """The delay spread in ns of a model, checked against what is given."""
    fixed = TDL_MODELS[model]
    if fixed is None and given:
        check_real("channel.delay_spread_ns", given, low=1, high=10000, unit="ns")
    else:
        check_real("channel.delay_spread_ns", given, low=0, high=10000, unit="ns")
    if fixed is not None and given not in (0, fixed):
        raise InvalidInput(
            f'channel.delay_spread_ns: got {given} with the model "{model}", expected its '
            f"{fixed:g} ns, or 0"
        )
    return float(given or fixed or 100.0)


def _correlation_root(name, rho, count, model):
    """The square root of a correlation matrix, complex64 [count, count], or None."""
    check_real(name, rho, low=0, high=0.9999)
    if not rho or count == 1:
        return None
    if model in _LINE_OF_SIGHT:
        raise InvalidInput(
            f'{name}: got {rho} with the model "{model}", expected 0: its line of sight is '
            "the same on all antennas"
        )
    distance = np.subtract.outer(np.arange(count), np.arange(count)) / (count - 1)
    return symmetric_root(float(rho) ** distance**2).astype(np.complex64)
