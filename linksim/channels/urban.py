"""Urban micro and macro cells with dropped users (UMi, UMa) of 3GPP [TR38901], through Sionna."""

import functools

import numpy as np
import tensorflow as tf
from sionna.phy import PI
from sionna.phy.channel import gen_single_sector_topology
from sionna.phy.channel.tr38901 import UMa, UMi

from linksim.channels.arrays import uplink_arrays
from linksim.channels.impulse import SionnaChannel
from linksim.errors import InvalidInput, check_choice, check_real

O2I_MODELS = ("low", "high")


class UrbanChannel(SionnaChannel):
    """Frequency responses of the uplink of users that are dropped in a sector of a cell.

    Every block has new users: places, bearings, line of sight or not, and all that follows
    from them. Their angles at the receiver therefore differ, as do their spreads. They are
    synchronous: the first path of each arrives at 0.

    By default all users arrive with the same power, as if the power control of each knew its
    path loss, shadowing and fading. With `pathloss`, users have their path losses and
    shadowing, and a block is scaled as a whole, as if the power control of the cell knew no
    more than the sum.

    Args:
        num_rx: receive antennas M.
        num_streams: streams K of all users together.
        carrier_frequency_ghz: carrier frequency in GHz, from 0.5 to 100.
        subcarrier_spacing_khz: subcarrier spacing in kHz, from 1 to 5000.
        speed: speed of the users in m/s, up to 1000, in directions of their own.
        num_users: number of users, a divisor of `num_streams`.
        indoor_probability: of each user; users indoors have no line of sight.
        cell_distance: distance between the base stations of neighbouring cells in m, which
            is twice the reach of a sector; 0 for that of [TR38901].
        min_distance: least distance of a user in m; 0 for that of [TR38901].
        pathloss: let users arrive with different powers.
        o2i_model: penetration loss of buildings, "low" or "high", with `pathloss`.
        power: E|h_ij|^2: a mean over a user's antennas and a slot, which it is exactly; with
            `pathloss`, a mean over all users.
        rx_polarization, tx_polarization: "single" or "dual".
        rx_pattern, tx_pattern: pattern of the elements, "38.901" or "omni".
        rx_rows, tx_rows: rows of elements of the receiver and of each user.
        rx_row_spacing, tx_row_spacing: distance of the rows in wavelengths.
        rx_column_spacing, tx_column_spacing: distance of elements of a row in wavelengths.

    Attributes:
        subcarrier_spacing: subcarrier spacing in Hz.
        power: the argument.

    Raises:
        InvalidInput: a value out of range, or antennas that do not fill the rows.
    """

    # Sionna's name and model, and the distances of [TR38901], Table 7.2-1
    _name: str
    _model: type
    _cell_distance: float
    _min_distance: float

    def __init__(
        self,
        num_rx,
        num_streams,
        carrier_frequency_ghz=3.5,
        subcarrier_spacing_khz=30.0,
        speed=0.0,
        num_users=1,
        indoor_probability=0.8,
        cell_distance=0.0,
        min_distance=0.0,
        pathloss=False,
        o2i_model="low",
        power=1.0,
        rx_polarization="single",
        tx_polarization="single",
        rx_pattern="38.901",
        tx_pattern="omni",
        rx_rows=1,
        tx_rows=1,
        rx_row_spacing=0.5,
        tx_row_spacing=0.5,
        rx_column_spacing=0.5,
        tx_column_spacing=0.5,
    ):
        super().__init__(num_rx, num_streams, subcarrier_spacing_khz, num_users, power)
        check_real(
            "channel.carrier_frequency_ghz", carrier_frequency_ghz, 0.5, 100, unit="GHz"
        )
        check_real("channel.speed", speed, low=0, high=1000, unit="m/s")
        check_real("channel.indoor_probability", indoor_probability, low=0, high=1)
        check_real("channel.cell_distance", cell_distance, low=0, high=1e5, unit="m")
        check_real("channel.min_distance", min_distance, low=0, high=1e5, unit="m")
        if not isinstance(pathloss, bool):
            raise InvalidInput(f"channel.pathloss: got {pathloss!r}, expected true or false")
        check_choice("channel.o2i_model", o2i_model, O2I_MODELS)
        self.power = power
        self.pathloss, self.indoor_probability = pathloss, indoor_probability
        self.cell_distance = float(cell_distance or self._cell_distance)
        self.min_distance = float(min_distance or self._min_distance)
        # A sector reaches half of that distance in the direction of its corners
        if self.min_distance >= self.cell_distance / 2:
            raise InvalidInput(
                f"channel.min_distance: got {self.min_distance:g} m, expected less than half "
                f"of the {self.cell_distance:g} m between base stations"
            )
        self._speed = float(speed)
        carrier = carrier_frequency_ghz * 1e9
        antennas = num_rx, num_streams // num_users
        rx = rx_polarization, rx_pattern, rx_rows, rx_row_spacing, rx_column_spacing
        tx = tx_polarization, tx_pattern, tx_rows, tx_row_spacing, tx_column_spacing
        self._keywords = {
            "carrier_frequency": carrier,
            "o2i_model": o2i_model,
            **uplink_arrays(carrier, *antennas, rx, tx),
            "enable_pathloss": pathloss,
            "enable_shadow_fading": pathloss,
        }

    @functools.cached_property
    def _cell(self):
        """Sionna's model; it reads its tables."""
        with tf.init_scope():
            cell = self._model(**self._keywords)
            # Sionna compares the carrier with bounds: as a tensor, which no graph allows
            cell._scenario._carrier_frequency = np.float32(cell._scenario.carrier_frequency)
        return cell

    def describe(self):
        """Lines about the channel, see `Channel.describe`."""
        powers = (
            "users differ by path loss and shadowing"
            if self.pathloss
            else "all users arrive with the same power"
        )
        return [
            *super().describe(),
            f"{self.num_users} users in a sector of a cell {self.cell_distance:g} m from the next, "
            f"at least {self.min_distance:g} m away, {100 * self.indoor_probability:g} % of "
            "them indoors",
            f"{powers}; E|h|^2 is exact in every slot",
        ]

    def _impulse_responses(self, num_blocks, num_symbols, symbol_rate):
        """Drop users, and draw what Sionna's `ChannelModel` returns for all of them."""
        topology = gen_single_sector_topology(
            num_blocks,
            self.num_users,
            self._name,
            min_bs_ut_dist=self.min_distance,
            isd=self.cell_distance,
            indoor_probability=self.indoor_probability,
            min_ut_velocity=self._speed,
            max_ut_velocity=self._speed,
        )
        self._cell.set_topology(*topology)
        return self._cell(num_symbols, symbol_rate)

    def _responses(self, num_blocks, num_symbols, symbol_rate, frequencies):
        # A channel that never changes is computed once
        steps = num_symbols if self._speed else 1
        a, tau = self._impulse_responses(num_blocks, steps, symbol_rate)
        # Coefficients [b, 1, M, users, antennas, paths, T] and delays [b, 1, users, paths].
        # Sionna's `cir_to_ofdm_channel` keeps all paths of all resources
        turns = tf.exp(tf.complex(0.0, -2.0 * PI * tau[:, 0, :, :, None] * frequencies))
        h = tf.einsum("bmuapt,bupf->bmuatf", a[:, 0], turns)
        axes = (1, 2, 3, 4, 5) if self.pathloss else (1, 3, 4, 5)
        energy = tf.reduce_mean(tf.square(tf.abs(h)), axes, keepdims=True)
        h = h / tf.cast(tf.sqrt(energy), h.dtype)
        h = tf.reshape(h, (num_blocks, self.num_rx, self.num_streams, steps, -1))
        return tf.repeat(h, num_symbols // steps, axis=3)


class UMiChannel(UrbanChannel):
    """An urban micro cell: base station at 10 m, 200 m from the next; see `UrbanChannel`."""

    _name, _model, _cell_distance, _min_distance = "umi", UMi, 200.0, 10.0


class UMaChannel(UrbanChannel):
    """An urban macro cell: base station at 25 m, 500 m from the next; see `UrbanChannel`."""

    _name, _model, _cell_distance, _min_distance = "uma", UMa, 500.0, 35.0
