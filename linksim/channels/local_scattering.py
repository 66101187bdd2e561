"""Local scattering around users in front of a uniform linear array."""

import numpy as np
from keras import ops

from linksim.channels.base import Channel
from linksim.channels.fading import symmetric_root
from linksim.channels.random import complex_normal
from linksim.errors import InvalidInput, check_choice, check_int, check_real

SECTOR_DEG = 120.0
MOBILITIES = ("none", "angular", "2d")


class LocalScatteringChannel(Channel):
    """Users at fixed positions, with random small-scale fading.

    User u has the channel h_u = C_u^(1/2) e with e ~ CN(0, I) and the covariance
    [C_u]_mn = exp(2 pi j d (m-n) sin phi) exp(-s^2/2 (2 pi d (m-n) cos phi)^2), which is
    [Goutay20], Section IV-A, eq. 13. The mean energy of a coefficient is 1. A *drop* is
    one nominal angle phi per user, uniform in a sector of 120 degrees. Block b has drop
    b mod `num_drops`, so a run averages over all drops evenly.

    Mobility moves every user away from where it was dropped, as in Section IV-C:
    "angular" by `displacement` degrees, clockwise and counterclockwise equally often; "2d" by `displacement` metres in random directions, from a distance of
    `distance` metres, with `num_displacements` moves of each drop.

    Args:
        num_rx: receive antennas M.
        num_streams: users K, with one stream each.
        num_drops: number of drops.
        drop_seed: seed of the drops.
        angular_std_deg: standard deviation s of the multipath angles in degrees.
        spacing: antenna spacing d in wavelengths.
        mobility: "none", "angular" or "2d".
        displacement: how far users move, in degrees or metres.
        distance: distance of the users in metres.
        num_displacements: moves of each drop for "2d".

    Attributes:
        drops_deg: nominal angles of the drops in degrees, float64 [num_drops, K].
        covariances: covariances C_u of the drops before users move, complex128
            [num_drops, K, M, M].

    Raises:
        InvalidInput: a value out of range.
    """

    def __init__(
        self,
        num_rx,
        num_streams,
        num_drops=10,
        drop_seed=0,
        angular_std_deg=10.0,
        spacing=0.5,
        mobility="none",
        displacement=0.0,
        distance=250.0,
        num_displacements=100,
    ):
        super().__init__(num_rx, num_streams)
        check_int("channel.num_drops", num_drops, maximum=10000)
        check_int("channel.drop_seed", drop_seed, minimum=0)
        check_real("channel.angular_std_deg", angular_std_deg, 0.01, 180, unit="degrees")
        check_real("channel.spacing", spacing, low=0.01, high=100, unit="wavelengths")
        check_choice("channel.mobility", mobility, MOBILITIES)
        unit = "degrees" if mobility == "angular" else "m"
        check_real("channel.displacement", displacement, low=0, high=1e5, unit=unit)
        check_real("channel.distance", distance, low=0.1, high=1e6, unit="m")
        check_int("channel.num_displacements", num_displacements, maximum=10000)
        if mobility == "2d" and num_drops * num_displacements > 10**5:
            raise InvalidInput(
                f"channel.num_displacements: got {num_displacements} for each of {num_drops} "
                "drops, expected at most 100000 in all"
            )
        if mobility == "none" and displacement:
            raise InvalidInput(
                f'channel.displacement: got {displacement} with mobility "none", expected 0'
            )
        rng = np.random.Generator(np.random.Philox(drop_seed))
        half = SECTOR_DEG / 2
        self.drops_deg = rng.uniform(-half, half, (num_drops, num_streams))
        angles = np.deg2rad(self.drops_deg)
        spread = (num_rx, angular_std_deg, spacing)
        self.covariances = _covariances(angles, *spread)
        angles = angles[:, None]  # [drops, moves, K]
        if mobility == "angular":
            angles = _turned(angles, np.deg2rad(displacement))
        elif mobility == "2d":
            directions = rng.uniform(0, 2 * np.pi, (num_drops, num_displacements, num_streams))
            angles = _displaced(angles, directions, displacement, distance)
        # Drops alternate fastest: block b sees drop b mod num_drops
        angles = np.swapaxes(angles, 0, 1).reshape(-1, num_streams)
        roots = [[symmetric_root(c) for c in row] for row in _covariances(angles, *spread)]
        # Of all drops and moves: [statistics, K, M, M]
        self._roots = np.asarray(roots).astype(np.complex64)

    def sample(self, key, num_blocks, num_uses, first_block=0):
        noise = complex_normal(key, (num_blocks, num_uses, self.num_streams, self.num_rx))
        index = (ops.arange(num_blocks) + first_block) % len(self._roots)
        roots = ops.take(ops.convert_to_tensor(self._roots), index, axis=0)
        # [b, 1, K, M, M] x [b, u, K, M, 1]
        h = ops.matmul(roots[:, None], noise[..., None])[..., 0]
        return ops.swapaxes(h, -1, -2)


def _turned(angles, step):
    """Angles [drops, 2, K] of users that turned by a step either way."""
    return np.concatenate([angles + step, angles - step], axis=1)


def _displaced(angles, directions, displacement, distance):
    """Angles [drops, moves, K] of users at a distance that moved in directions."""
    x = distance * np.cos(angles) + displacement * np.cos(directions)
    y = distance * np.sin(angles) + displacement * np.sin(directions)
    return np.arctan2(y, x)


def _covariances(angles, num_rx, angular_std_deg, spacing):
    """Covariances complex128 [..., K, M, M] of users at angles [..., K] in radians."""
    found = [
        local_scattering_covariance(num_rx, a, angular_std_deg, spacing) for a in angles.flat
    ]
    return np.reshape(found, (*angles.shape, num_rx, num_rx))


def local_scattering_covariance(num_rx, angle, angular_std_deg, spacing):
    """Covariance of one user's channel, [Goutay20], eq. 13.

    Args:
        num_rx: receive antennas M.
        angle: nominal angle of the user in radians.
        angular_std_deg: standard deviation of the multipath angles in degrees.
        spacing: antenna spacing in wavelengths.

    Returns:
        complex128 [M, M], NumPy.
    """
    lag = np.arange(num_rx)[:, None] - np.arange(num_rx)
    phase = 2 * np.pi * spacing * lag
    spread = np.deg2rad(angular_std_deg)
    decay = np.exp(-0.5 * (spread * phase * np.cos(angle)) ** 2)
    return np.exp(1j * phase * np.sin(angle)) * decay
