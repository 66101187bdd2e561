"""3GPP TR 38.901 CDL channels, through Sionna."""

import tensorflow as tf
from sionna.phy import config
from sionna.phy.channel import cir_to_ofdm_channel, subcarrier_frequencies
from sionna.phy.channel.tr38901 import CDL, AntennaArray

from linksim.channels.base import Channel
from linksim.errors import InvalidInput, check_choice, check_int, check_real

CDL_MODELS = ("A", "B", "C", "D", "E")
POLARIZATIONS = ("single", "dual")


class CDLChannel(Channel):
    """Frequency responses of uplink CDL channels.

    Users have `num_streams / num_users` antennas each, one stream per antenna, and
    channels drawn independently. Arrays are uniform, half-wavelength spaced, one
    row; with "dual" polarisation antennas come in cross-polarised pairs.

    Args:
        model: "A" to "E".
        delay_spread_ns: RMS delay spread.
        carrier_frequency_ghz: carrier frequency.
        subcarrier_spacing_khz: subcarrier spacing.
        speed: of the users in m/s.
        num_users: users sharing the streams.
        rx_polarization, tx_polarization: "single" or "dual".
        normalize: scale every block to a mean coefficient energy of exactly `power`.
        power: E|h_ij|^2; without `normalize`, a factor of the antennas' gains.
    """

    def __init__(
        self,
        num_rx,
        num_streams,
        model="C",
        delay_spread_ns=100.0,
        carrier_frequency_ghz=3.5,
        subcarrier_spacing_khz=30.0,
        speed=0.0,
        num_users=1,
        rx_polarization="single",
        tx_polarization="single",
        normalize=True,
        power=1.0,
    ):
        super().__init__(num_rx, num_streams)
        check_choice("channel.model", model, CDL_MODELS)
        check_real("channel.delay_spread_ns", delay_spread_ns, low=0, open_low=True)
        check_real("channel.carrier_frequency_ghz", carrier_frequency_ghz, low=0.5, high=100)
        check_real(
            "channel.subcarrier_spacing_khz", subcarrier_spacing_khz, low=0, open_low=True
        )
        check_real("channel.speed", speed, low=0)
        check_int("channel.num_users", num_users)
        check_real("channel.power", power, low=0, open_low=True)
        check_choice("channel.rx_polarization", rx_polarization, POLARIZATIONS)
        check_choice("channel.tx_polarization", tx_polarization, POLARIZATIONS)
        if not isinstance(normalize, bool):
            raise InvalidInput(f"channel.normalize: got {normalize!r}, expected true or false")
        if num_streams % num_users:
            raise InvalidInput(
                f"channel.num_users: got {num_users}, expected a divisor of "
                f"num_streams = {num_streams}"
            )
        carrier = carrier_frequency_ghz * 1e9
        self.subcarrier_spacing = subcarrier_spacing_khz * 1e3
        self.num_users = num_users
        self.normalize = normalize
        self.power = power
        self._cdl = CDL(
            model,
            delay_spread_ns * 1e-9,
            carrier,
            ut_array=_array(num_streams // num_users, tx_polarization, carrier, "tx"),
            bs_array=_array(num_rx, rx_polarization, carrier, "rx"),
            direction="uplink",
            min_speed=float(speed),
            max_speed=float(speed),
        )
        self._rng = config.tf_rng  # created outside of any graph

    def sample(self, key, num_blocks, num_uses, first_block=0):
        """One OFDM symbol per block, a channel use on each subcarrier."""
        return self.sample_grid(key, num_blocks, 1, num_uses)[:, 0]

    def sample_grid(
        self, key, num_blocks, num_symbols, num_subcarriers, cyclic_prefix_ratio=0.0
    ):
        """Channels of OFDM slots.

        Returns:
            complex64 [num_blocks, num_symbols, num_subcarriers, M, K].
        """
        symbol_rate = self.subcarrier_spacing / (1.0 + cyclic_prefix_ratio)
        frequencies = subcarrier_frequencies(num_subcarriers, self.subcarrier_spacing)
        key = tf.cast(tf.convert_to_tensor(key), tf.int64)
        # Sionna draws from one global generator: set it to this stream, and back
        before = tf.identity(self._rng.state)
        self._rng.reset_from_key_counter(key[1], tf.stack([tf.zeros_like(key[0]), key[0]]))
        users = [
            self._user(num_blocks, num_symbols, symbol_rate, frequencies)
            for _ in range(self.num_users)
        ]
        self._rng.reset(before)
        h = tf.concat(users, axis=3)  # [b, 1, M, K, symbols, subcarriers]
        h = tf.transpose(h[:, 0], [0, 3, 4, 1, 2])
        return h * tf.cast(self.power**0.5, h.dtype)

    def _user(self, num_blocks, num_symbols, symbol_rate, frequencies):
        a, tau = self._cdl(num_blocks, num_symbols, symbol_rate)
        h = cir_to_ofdm_channel(frequencies, a, tau, normalize=self.normalize)
        return h[:, :, :, 0]


def _array(num_antennas, polarization, carrier, side):
    pair = 2 if polarization == "dual" else 1
    if num_antennas % pair:
        raise InvalidInput(
            f"channel.{side}_polarization: dual needs an even number of antennas, got "
            f"{num_antennas}"
        )
    return AntennaArray(
        num_rows=1,
        num_cols=num_antennas // pair,
        polarization=polarization,
        polarization_type="cross" if polarization == "dual" else "V",
        antenna_pattern="omni" if side == "tx" else "38.901",
        carrier_frequency=carrier,
    )
