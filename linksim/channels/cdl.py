"""Clustered delay line (CDL) channels of 3GPP [TR38901], through Sionna."""

import tensorflow as tf
from sionna.phy import config
from sionna.phy.channel import cir_to_ofdm_channel, subcarrier_frequencies
from sionna.phy.channel.tr38901 import CDL, AntennaArray

from linksim.channels.base import Channel, check_power
from linksim.errors import InvalidInput, check_choice, check_int, check_real

CDL_MODELS = ("A", "B", "C", "D", "E")
POLARIZATIONS = ("single", "dual")


class CDLChannel(Channel):
    """Frequency responses of uplink CDL channels [TR38901].

    Each user has `num_streams / num_users` antennas and sends one stream from each. The
    channels of users are independent. Arrays are uniform, with one row of antennas half
    a wavelength apart; with "dual" polarization antennas come in cross-polarized pairs.
    The receiver's antennas have the 38.901 pattern, those of users are omnidirectional.

    Args:
        num_rx: receive antennas M.
        num_streams: streams K of all users together.
        model: "A" to "E".
        delay_spread_ns: RMS delay spread in ns, from 1 to 10000.
        carrier_frequency_ghz: carrier frequency in GHz, from 0.5 to 100.
        subcarrier_spacing_khz: subcarrier spacing in kHz, from 1 to 5000.
        speed: speed of the users in m/s, up to 1000.
        num_users: number of users, a divisor of `num_streams`.
        rx_polarization, tx_polarization: "single" or "dual".
        normalize: scale every block to a mean coefficient energy of exactly `power`.
        power: E|h_ij|^2. Without `normalize` it is a factor on top of the antennas' gains.

    Attributes:
        subcarrier_spacing: subcarrier spacing in Hz.

    Raises:
        InvalidInput: a value out of range, or "dual" with an odd number of antennas.
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
        check_real("channel.delay_spread_ns", delay_spread_ns, low=1, high=10000, unit="ns")
        check_real(
            "channel.carrier_frequency_ghz", carrier_frequency_ghz, 0.5, 100, unit="GHz"
        )
        check_real(
            "channel.subcarrier_spacing_khz", subcarrier_spacing_khz, 1, 5000, unit="kHz"
        )
        check_real("channel.speed", speed, low=0, high=1000, unit="m/s")
        check_int("channel.num_users", num_users)
        check_power(power)
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
        """Draw one OFDM symbol per block, with a channel use on each subcarrier.

        See `Channel.sample` for arguments and shapes.
        """
        return self.sample_grid(key, num_blocks, 1, num_uses)[:, 0]

    def sample_grid(
        self, key, num_blocks, num_symbols, num_subcarriers, cyclic_prefix_ratio=0.0
    ):
        """Draw the channels of OFDM slots, one slot per block.

        Args:
            key: integer tensor [2], the random stream.
            num_blocks: int, number of slots.
            num_symbols: int, OFDM symbols of a slot.
            num_subcarriers: int.
            cyclic_prefix_ratio: duration of the cyclic prefix relative to the rest of a
                symbol; it sets how far the channel moves from symbol to symbol.

        Returns:
            complex64 [num_blocks, num_symbols, num_subcarriers, M, K].
        """
        symbol_rate = self.subcarrier_spacing / (1.0 + cyclic_prefix_ratio)
        frequencies = subcarrier_frequencies(num_subcarriers, self.subcarrier_spacing)
        key = tf.cast(tf.convert_to_tensor(key), tf.int64)
        # Sionna draws from one global generator, which gets its state back afterwards
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
