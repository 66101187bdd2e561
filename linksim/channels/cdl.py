"""Clustered delay line (CDL) channels of 3GPP [TR38901], through Sionna."""

import functools

import numpy as np
import tensorflow as tf
from sionna.phy import SPEED_OF_LIGHT, config
from sionna.phy.channel.tr38901 import CDL

from linksim.channels.arrays import uplink_arrays
from linksim.channels.impulse import ImpulseResponseChannel
from linksim.channels.profile import End, profile_of
from linksim.errors import InvalidInput, check_choice, check_real

CDL_MODELS = ("A", "B", "C", "D", "E")


class CDLChannel(ImpulseResponseChannel):
    """Frequency responses of uplink CDL channels [TR38901].

    Each user has `num_streams / num_users` antennas and sends one stream from each. The
    channels of users are independent. Arrays are uniform rectangles of elements, which with
    "dual" polarization are cross-polarized pairs of antennas; a row has as many elements as
    the number of rows leaves. By default the arrays are single rows at half a wavelength,
    the receiver's elements have the pattern of [TR38901], Table 7.3-1, and those of users
    are omnidirectional.

    The receiver's elements attenuate what arrives from the side. The delay spread that they
    leave is therefore another than `delay_spread_ns`, see `profile`.

    Args:
        num_rx: receive antennas M.
        num_streams: streams K of all users together.
        model: "A" to "E".
        delay_spread_ns: RMS delay spread in ns, from 1 to 10000, of all clusters at their
            nominal power.
        carrier_frequency_ghz: carrier frequency in GHz, from 0.5 to 100.
        subcarrier_spacing_khz: subcarrier spacing in kHz, from 1 to 5000.
        speed: speed of the users in m/s, up to 1000.
        num_users: number of users, a divisor of `num_streams`.
        rx_polarization, tx_polarization: "single" or "dual".
        normalize: scale every block to a mean coefficient energy of exactly `power`.
        power: E|h_ij|^2. Without `normalize` it is a factor on top of the antennas' gains.
        rx_pattern, tx_pattern: pattern of the elements, "38.901" or "omni".
        rx_rows, tx_rows: rows of elements of the receiver and of each user.
        rx_row_spacing, tx_row_spacing: distance of the rows in wavelengths.
        rx_column_spacing, tx_column_spacing: distance of elements of a row in wavelengths.
        rx_orientation_deg, tx_orientation_deg: bearing, downtilt and slant of the arrays in
            degrees. At (0, 0, 0) an array faces the azimuth 0, from where the line of sight
            of the models "D" and "E" arrives.
        user_bearings_deg: bearing of each user from the azimuth 0 in degrees, by which all its
            angles at the receiver are turned ([TR38901], 7.7.5.1); () for users at the same
            angles.

    Attributes:
        subcarrier_spacing: subcarrier spacing in Hz.
        power: E|h_ij|^2, without `normalize` with the antennas' gains.

    Raises:
        InvalidInput: a value out of range, or antennas that do not fill the rows.
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
        rx_pattern="38.901",
        tx_pattern="omni",
        rx_rows=1,
        tx_rows=1,
        rx_row_spacing=0.5,
        tx_row_spacing=0.5,
        rx_column_spacing=0.5,
        tx_column_spacing=0.5,
        rx_orientation_deg=(0.0, 0.0, 0.0),
        tx_orientation_deg=(180.0, 0.0, 0.0),
        user_bearings_deg=(),
    ):
        super().__init__(
            num_rx, num_streams, subcarrier_spacing_khz, num_users, normalize, power
        )
        check_choice("channel.model", model, CDL_MODELS)
        check_real("channel.delay_spread_ns", delay_spread_ns, low=1, high=10000, unit="ns")
        check_real(
            "channel.carrier_frequency_ghz", carrier_frequency_ghz, 0.5, 100, unit="GHz"
        )
        check_real("channel.speed", speed, low=0, high=1000, unit="m/s")
        carrier = carrier_frequency_ghz * 1e9
        self.delay_spread_ns = delay_spread_ns
        self._max_doppler = speed * carrier / SPEED_OF_LIGHT
        antennas = num_rx, num_streams // num_users
        rx = rx_polarization, rx_pattern, rx_rows, rx_row_spacing, rx_column_spacing
        tx = tx_polarization, tx_pattern, tx_rows, tx_row_spacing, tx_column_spacing
        self._ends = [
            (rx_pattern, rx_polarization, _orientation("rx", rx_orientation_deg)),
            (tx_pattern, tx_polarization, _orientation("tx", tx_orientation_deg)),
        ]
        arrays = uplink_arrays(carrier, *antennas, rx, tx)
        self._bearings = _bearings(user_bearings_deg, num_users)
        self._cdls = {
            bearing: CDL(
                model,
                delay_spread_ns * 1e-9,
                carrier,
                **arrays,
                bs_orientation=tf.constant(self._seen_from(bearing), config.tf_rdtype),
                ut_orientation=tf.constant(self._ends[1][2], config.tf_rdtype),
                min_speed=float(speed),
                max_speed=float(speed),
            )
            for bearing in dict.fromkeys(self._bearings)
        }

    def _seen_from(self, bearing):
        """The receiver's orientation from the axis of a user's angles."""
        own, downtilt, slant = self._ends[0][2]
        return own - bearing, downtilt, slant

    @property
    def power(self):
        """E|h_ij|^2."""
        if self.normalize:
            return self._power
        return self._power * float(np.mean([profile.gain for profile in self.profiles]))

    @property
    def profile(self):
        """That of the first user, of `profiles`."""
        return self.profiles[0]

    @functools.cached_property
    def profiles(self):
        """What the antennas leave of the clusters of each user, a
        `linksim.channels.profile.Profile`.

        Its gain, delay spread and angular spreads follow from the tables of the model, the
        patterns, the polarizations and the orientations.
        """
        found = {bearing: self._profile(bearing) for bearing in self._cdls}
        return [found[bearing] for bearing in self._bearings]

    def _profile(self, bearing):
        cdl = self._cdls[bearing]  # Sionna keeps the angles of the uplink to itself
        pattern, polarization, _ = self._ends[0]

        def end(azimuth, zenith, los, pattern, polarization, orientation):
            slants = (-np.pi / 4, np.pi / 4) if polarization == "dual" else (0.0,)
            angles = [np.asarray(x[0, 0, 0], np.float64) for x in (azimuth, zenith)]
            los = tuple(float(x[0, 0, 0]) for x in los) if cdl.los else None
            return End(*angles, los, pattern, slants, orientation)

        los = cdl._los_aoa, cdl._los_zoa
        seen_from = self._seen_from(bearing)
        arrival = end(cdl._aoa, cdl._zoa, los, pattern, polarization, seen_from)
        los = cdl._los_aod, cdl._los_zod
        departure = end(cdl._aod, cdl._zod, los, *self._ends[1])
        return profile_of(
            np.asarray(cdl.delays, np.float64),
            np.asarray(cdl._powers[0, 0, 0], np.float64),
            float(cdl._k_factor[0, 0, 0]) if cdl.los else 0.0,
            float(cdl._xpr[0, 0, 0, 0, 0]),
            arrival,
            departure,
        )

    def describe(self):
        """Lines about the channel, see `Channel.describe`."""
        lines = super().describe()
        of_users = dict(zip(self._bearings, self.profiles))
        for bearing, profile in of_users.items():
            where = (
                f" of users at {np.rad2deg(bearing):g} degrees" if len(of_users) > 1 else ""
            )
            if not self.normalize:
                gain = 10 * np.log10(profile.gain)
                lines.append(f"antennas' gain{where}: {gain:.2f} dB, which is part of E|h|^2")
            lines.append(
                f"RMS delay spread{where}: {1e9 * profile.delay_spread:.1f} ns at the receiver's "
                f"antennas, {self.delay_spread_ns:g} ns of the model"
            )
            lines += [
                f"RMS spread of the {name}{where}: {spread:.1f} degrees"
                for name, spread in profile.spreads_deg.items()
            ]
        return lines

    def _delay_profile(self):
        gains = [1.0 if self.normalize else profile.gain for profile in self.profiles]
        energies = [profile.energies for profile in self.profiles]
        return self.profile.delays, np.average(energies, axis=0, weights=gains)

    def _impulse_response(self, user, num_blocks, num_symbols, symbol_rate):
        return self._cdls[self._bearings[user]](num_blocks, num_symbols, symbol_rate)


def _bearings(degrees, num_users):
    """The bearing of each user in radians, checked."""
    name = "channel.user_bearings_deg"
    if not isinstance(degrees, (list, tuple)) or len(degrees) not in (0, num_users):
        raise InvalidInput(
            f"{name}: got {degrees!r}, expected one bearing for each of {num_users} users, or "
            "none"
        )
    for angle in degrees:
        check_real(name, angle, low=-360, high=360, unit="degrees")
    return tuple(float(np.deg2rad(angle)) for angle in degrees) or (0.0,) * num_users


def _orientation(side, degrees):
    """Bearing, downtilt and slant in radians, checked."""
    name = f"channel.{side}_orientation_deg"
    if not isinstance(degrees, (list, tuple)) or len(degrees) != 3:
        raise InvalidInput(f"{name}: got {degrees!r}, expected [bearing, downtilt, slant]")
    for angle in degrees:
        check_real(name, angle, low=-360, high=360, unit="degrees")
    return tuple(float(np.deg2rad(angle)) for angle in degrees)
