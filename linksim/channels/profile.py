"""What antennas leave of the clusters of a CDL: energy, delay spread and angular spreads.

Everything here follows from tables in closed form, without a draw, in NumPy. Sionna takes
the angles of the rays of a cluster in random order, independently in azimuth and zenith and
at either end, and gives each polarisation of each ray a phase of its own. The mean energy of
a cluster is therefore a mean over all pairs of azimuth and zenith, at the receiver times at
the transmitter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class End:
    """One end of a link, with C clusters of R rays.

    Attributes:
        azimuth, zenith: angles of the rays in radians, float64 [C, R].
        los: azimuth and zenith of the line of sight in radians, or None without one.
        pattern: of the elements, "omni" or "38.901".
        slants: slant of each polarisation of the array, in radians.
        orientation: bearing, downtilt and slant of the array, in radians.
    """

    azimuth: np.ndarray
    zenith: np.ndarray
    los: tuple[float, float] | None
    pattern: str
    slants: tuple[float, ...]
    orientation: tuple[float, float, float]


@dataclass(frozen=True)
class Profile:
    """What reaches the receiver's antennas on average.

    Attributes:
        gain: mean energy of a coefficient, E|h_ij|^2, for clusters of total power 1.
        delay_spread: RMS delay spread in s.
        delays, energies: of the clusters, in s and in parts of the gain, float64 [C].
        spreads_deg: RMS angular spreads in degrees, by [TR38901], A.1: {"azimuth of
            arrival", "zenith of arrival", "azimuth of departure", "zenith of departure"}.
    """

    gain: float
    delay_spread: float
    spreads_deg: dict[str, float]
    delays: np.ndarray
    energies: np.ndarray


def profile_of(
    delays: np.ndarray,
    powers: np.ndarray,
    k_factor: float,
    xpr: float,
    arrival: End,
    departure: End,
) -> Profile:
    """The `Profile` of clusters, seen by the antennas of both ends.

    Args:
        delays: of the clusters in s, float64 [C]; a line of sight comes with the first.
        powers: of the clusters without the line of sight, of sum 1, float64 [C].
        k_factor: power of the line of sight over that of all clusters; 0 without one.
        xpr: cross-polarisation ratio, linear.
        arrival, departure: the receiver and the transmitter.
    """
    # Energies of both field components [C, R, R, 2], means over the polarisations
    at_rx, at_tx = (np.mean(_fields(end) ** 2, axis=0) for end in (arrival, departure))
    crossed = np.array([[1.0, 1.0 / xpr], [1.0 / xpr, 1.0]])
    scale = powers[:, None, None] / at_rx.shape[1] ** 2 / (1.0 + k_factor)
    from_tx = np.mean(at_tx, axis=(1, 2)) @ crossed
    from_rx = np.mean(at_rx, axis=(1, 2)) @ crossed
    # Energy by pair of azimuth and zenith, [C, R, R]
    arriving = scale * np.einsum("cija,ca->cij", at_rx, from_tx)
    departing = scale * np.einsum("cija,ca->cij", at_tx, from_rx)
    los = 0.0
    if k_factor:
        los = k_factor / (1.0 + k_factor) * _los_energy(arrival, departure)
    energies = arriving.sum(axis=(1, 2))
    energies[0] += los
    gain = float(energies.sum())
    mean_delay = energies @ delays / gain
    variance = energies @ (delays - mean_delay) ** 2 / gain
    spreads = {}
    for name, end, energy in (
        ("arrival", arrival, arriving),
        ("departure", departure, departing),
    ):
        for index, angle in enumerate(("azimuth", "zenith")):
            angles = getattr(end, angle).ravel()
            weights = energy.sum(axis=2 - index).ravel()
            if end.los is not None:
                angles, weights = np.append(angles, end.los[index]), np.append(weights, los)
            spreads[f"{angle} of {name}"] = _circular_spread_deg(angles, weights)
    return Profile(gain, float(np.sqrt(variance)), spreads, delays, energies / gain)


def _circular_spread_deg(angles: np.ndarray, weights: np.ndarray) -> float:
    """The circular standard deviation of angles in radians, in degrees [TR38901], A.1."""
    resultant = abs(weights @ np.exp(1j * angles)) / weights.sum()
    return float(np.rad2deg(np.sqrt(max(-2.0 * np.log(resultant), 0.0))))


def _fields(end: End) -> np.ndarray:
    """Field components of all pairs of rays, [polarisations, C, R azimuths, R zeniths, 2]."""
    azimuth, zenith = np.broadcast_arrays(end.azimuth[:, :, None], end.zenith[:, None, :])
    return np.stack([_field(end, slant, azimuth, zenith) for slant in end.slants])


def _los_energy(arrival: End, departure: End) -> float:
    """Energy of the line of sight for its power of 1, a mean over all polarisations."""
    fields = [
        np.array([_field(end, slant, *np.array(end.los)) for slant in end.slants])
        for end in (arrival, departure)
    ]
    # The field keeps its vertical component and turns over the horizontal one
    coefficients = fields[0] * np.array([1.0, -1.0]) @ fields[1].T
    return float(np.mean(coefficients**2))


def _field(end: End, slant: float, azimuth: Any, zenith: Any) -> np.ndarray:
    """Vertical and horizontal field of an element in global coordinates, [..., 2].

    This is [TR38901], 7.3-4, 7.3-5 and, for the orientation, 7.1-7 to 7.1-15.
    """
    a, b, c = end.orientation
    turned = azimuth - a
    sin_z, cos_z = np.sin(zenith), np.cos(zenith)
    cos_local = (
        cos_z * np.cos(b) * np.cos(c)
        + (np.sin(b) * np.cos(c) * np.cos(turned) - np.sin(c) * np.sin(turned)) * sin_z
    )
    forward = np.cos(b) * sin_z * np.cos(turned) - np.sin(b) * cos_z
    aside = (
        np.cos(b) * np.sin(c) * cos_z
        + (np.sin(b) * np.sin(c) * np.cos(turned) + np.cos(c) * np.sin(turned)) * sin_z
    )
    local_zenith = np.arccos(np.clip(cos_local, -1.0, 1.0))
    amplitude = np.sqrt(_element_gain(end.pattern, local_zenith, np.arctan2(aside, forward)))
    psi = np.angle(
        np.sin(c) * cos_z * np.sin(turned)
        + np.cos(c) * (np.cos(b) * sin_z - np.sin(b) * cos_z * np.cos(turned))
        + 1j * (np.sin(c) * np.cos(turned) + np.sin(b) * np.cos(c) * np.sin(turned))
    )
    # The slant turns the field about the direction of the ray, and so does psi
    return amplitude[..., None] * np.stack([np.cos(slant + psi), np.sin(slant + psi)], axis=-1)


def _element_gain(pattern: str, zenith: np.ndarray, azimuth: np.ndarray) -> np.ndarray:
    """Linear gain of an element at local angles in radians, [TR38901], Table 7.3-1."""
    if pattern == "omni":
        return np.ones_like(zenith)
    width = np.deg2rad(65.0)
    vertical = np.minimum(12.0 * ((zenith - np.pi / 2) / width) ** 2, 30.0)
    horizontal = np.minimum(12.0 * (azimuth / width) ** 2, 30.0)
    return 10.0 ** ((8.0 - np.minimum(vertical + horizontal, 30.0)) / 10.0)
