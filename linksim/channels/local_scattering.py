"""Local scattering around users in front of a linear array (HyperMIMO)."""

import numpy as np
from keras import ops

from linksim.channels.base import Channel
from linksim.channels.fading import symmetric_root
from linksim.channels.random import complex_normal
from linksim.errors import InvalidInput, check_choice, check_int, check_real

SECTOR_DEG = 120.0
MOBILITIES = ("none", "angular", "2d")


class LocalScatteringChannel(Channel):
    """Fixed user drops, random small-scale fading.

    HyperMIMO (002_d77fd6388d485033.txt), Section IV-A: h_u = C_u^(1/2) e with
    [C_u]_mn = exp(2 pi j d (m-n) sin phi) exp(-s^2/2 (2 pi d (m-n) cos phi)^2),
    eq. 13. Nominal angles are uniform in a 120 degree sector. Block b uses drop
    b mod `num_drops`, so that a run averages over all drops evenly.

    Mobility moves every user from its dropped position, as in Section IV-C:
    "angular" by `displacement` degrees, clockwise and counterclockwise in turn;
    "2d" by `displacement` metres in random directions, `num_displacements` of
    them per drop, from a distance of `distance` metres.

    Args:
        num_drops: number of user drops.
        drop_seed: seed of the drops.
        angular_std_deg: deviation s of the multipath angles.
        spacing: antenna spacing d in wavelengths.
        mobility: "none", "angular" or "2d".
        displacement: degrees or metres.
        distance: of the users in metres.
        num_displacements: directions per drop for "2d".
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
        check_int("channel.num_drops", num_drops)
        check_int("channel.drop_seed", drop_seed, minimum=0)
        check_real("channel.angular_std_deg", angular_std_deg, low=0, open_low=True)
        check_real("channel.spacing", spacing, low=0, open_low=True)
        check_choice("channel.mobility", mobility, MOBILITIES)
        check_real("channel.displacement", displacement, low=0)
        check_real("channel.distance", distance, low=0, open_low=True)
        check_int("channel.num_displacements", num_displacements)
        if mobility == "none" and displacement:
            raise InvalidInput(
                f'channel.displacement: got {displacement} with mobility "none", expected 0'
            )
        rng = np.random.Generator(np.random.Philox(drop_seed))
        half = SECTOR_DEG / 2
        #: nominal angles in degrees, [num_drops, K]
        self.drops_deg = rng.uniform(-half, half, (num_drops, num_streams))
        angles = np.deg2rad(self.drops_deg)
        spread = (num_rx, angular_std_deg, spacing)
        #: of the users where they were dropped, complex [num_drops, K, M, M]
        self.covariances = _covariances(angles, *spread)
        angles = angles[:, None]  # [drops, moves, K]
        if mobility == "angular":
            step = np.deg2rad(displacement)
            angles = np.concatenate([angles + step, angles - step], axis=1)
        elif mobility == "2d":
            direction = rng.uniform(0, 2 * np.pi, (num_drops, num_displacements, num_streams))
            x = distance * np.cos(angles) + displacement * np.cos(direction)
            y = distance * np.sin(angles) + displacement * np.sin(direction)
            angles = np.arctan2(y, x)
        # Drops alternate fastest: block b sees drop b mod num_drops
        angles = np.swapaxes(angles, 0, 1).reshape(-1, num_streams)
        roots = [[symmetric_root(c) for c in row] for row in _covariances(angles, *spread)]
        #: covariance roots, complex64 [statistics, K, M, M]
        self._roots = np.asarray(roots).astype(np.complex64)

    def sample(self, key, num_blocks, num_uses, first_block=0):
        noise = complex_normal(key, (num_blocks, num_uses, self.num_streams, self.num_rx))
        index = (ops.arange(num_blocks) + first_block) % len(self._roots)
        roots = ops.take(ops.convert_to_tensor(self._roots), index, axis=0)
        # [b, 1, K, M, M] x [b, u, K, M, 1]
        h = ops.matmul(roots[:, None], noise[..., None])[..., 0]
        return ops.swapaxes(h, -1, -2)


def _covariances(angles, num_rx, angular_std_deg, spacing):
    """Covariances complex [..., K, M, M] of users at angles [..., K] in radians."""
    of = [
        local_scattering_covariance(num_rx, a, angular_std_deg, spacing) for a in angles.flat
    ]
    return np.reshape(of, (*angles.shape, num_rx, num_rx))


def local_scattering_covariance(num_rx, angle, angular_std_deg, spacing):
    """Covariance of one user's channel, complex [M, M]; `angle` in radians."""
    lag = np.arange(num_rx)[:, None] - np.arange(num_rx)
    phase = 2 * np.pi * spacing * lag
    spread = np.deg2rad(angular_std_deg)
    decay = np.exp(-0.5 * (spread * phase * np.cos(angle)) ** 2)
    return np.exp(1j * phase * np.sin(angle)) * decay
