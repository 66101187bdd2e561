"""Statistics of the channel generators, and their random streams.

These tests run on any Keras backend.
"""

import numpy as np
import pytest
from keras import ops

from linksim.backend import compiled
from linksim.channels import create_channel
from linksim.channels.fading import cholesky_of_exponential, exponential_correlation
from linksim.channels.fixed import FixedChannel
from linksim.channels.gauss_markov import GaussMarkovChannel
from linksim.channels.local_scattering import (
    LocalScatteringChannel,
    local_scattering_covariance,
)
from linksim.channels.random import complex_normal, random_bits, stream_keys
from linksim.errors import InvalidInput


def sample(channel, blocks, uses, key=(1, 2), first_block=0):
    return np.asarray(channel.sample(np.array(key, np.int32), blocks, uses, first_block))


def test_keys_are_reproducible_and_distinct():
    keys = [stream_keys(3, 0, point, batch) for point in range(5) for batch in range(50)]
    assert len({tuple(k) for block in keys for k in block}) == 3 * 250
    np.testing.assert_array_equal(stream_keys(2, 7, 8, 9), stream_keys(2, 7, 8, 9))
    # Every stored count depends on this: it must never change
    assert stream_keys(1, 0, 1000000, 0).tolist() == [[1671244638, 1988002964]]


def test_draws_depend_on_the_key_alone():
    a = np.asarray(complex_normal(np.array([3, 4], np.int32), (1000, 2), 2.0))
    b = np.asarray(complex_normal(np.array([3, 4], np.int32), (1000, 2), 2.0))
    c = np.asarray(complex_normal(np.array([3, 5], np.int32), (1000, 2), 2.0))
    np.testing.assert_array_equal(a, b)
    assert np.abs(np.mean(a * c.conj())) < 0.2
    assert np.mean(np.abs(a) ** 2) == pytest.approx(2.0, rel=0.1)
    assert np.abs(np.mean(a**2)) < 0.2  # circular
    bits = np.asarray(random_bits(np.array([3, 4], np.int32), (20000,)))
    assert set(bits) == {0.0, 1.0} and abs(bits.mean() - 0.5) < 0.02


@pytest.mark.parametrize(
    "name, options, power",
    [
        ("rayleigh", {"power": 0.25}, 0.25),
        ("rayleigh", {"power": 3.0, "is_real": True}, 3.0),
        ("kronecker", {"rho_rx": 0.8, "rho_tx": 0.4, "power": 0.5}, 0.5),
        ("local-scattering", {"num_drops": 3}, 1.0),
        ("grouped", {"group_size": 3, "power": 0.5}, 0.5),
    ],
)
def test_mean_power_and_shape(name, options, power):
    channel = create_channel(name, 6, 3, **options)
    h = sample(channel, 300, 20)
    assert h.shape == (300, 20, 6, 3) and h.dtype == np.complex64
    assert channel.power == power
    assert np.mean(np.abs(h) ** 2) == pytest.approx(power, rel=0.05)
    assert np.any(h.imag) != options.get("is_real", False)


def test_kronecker_covariance():
    h = sample(create_channel("kronecker", 4, 3, rho_rx=0.8, rho_tx=0.5), 20000, 1)[:, 0]
    rx = np.einsum("bik,bjk->ij", h, h.conj()) / len(h) / 3
    tx = np.einsum("bik,bil->kl", h.conj(), h) / len(h) / 4
    lag = np.abs(np.arange(4)[:, None] - np.arange(4))
    np.testing.assert_allclose(rx, 0.8**lag, atol=0.03)
    np.testing.assert_allclose(tx, 0.5 ** lag[:3, :3], atol=0.03)


def test_groups_of_users_are_orthogonal():
    h = sample(create_channel("grouped", 7, 6, group_size=3), 200, 2)
    gram = np.einsum("bumk,buml->bukl", h.conj(), h)
    assert np.abs(gram[..., :3, 3:]).max() < 1e-4
    # Within a group, users interfere as in an i.i.d. 3x3 channel
    power = np.mean(np.abs(gram[..., 0, 1]) ** 2)
    assert power == pytest.approx(7**2 / 3, rel=0.2)
    assert not np.allclose(h[:, 0], h[:, 1])


def test_uses_share_a_realization():
    h = sample(create_channel("rayleigh", 2, 2, uses_per_realization=3), 5, 7)
    np.testing.assert_array_equal(h[:, 0], h[:, 2])
    assert np.abs(h[:, 2] - h[:, 3]).max() > 0.1
    np.testing.assert_array_equal(h[:, 3], h[:, 5])


def test_local_scattering_cycles_drops_with_their_covariance():
    channel = LocalScatteringChannel(4, 2, num_drops=2, drop_seed=5)
    h = sample(channel, 40000, 1)[:, 0]
    for drop in range(2):
        for user in range(2):
            x = h[drop::2, :, user]
            angle = np.deg2rad(channel.drops_deg[drop, user])
            expected = local_scattering_covariance(4, angle, 10.0, 0.5)
            np.testing.assert_allclose(x.T @ x.conj() / len(x), expected, atol=0.05)
    # A batch that starts at an odd block starts with the other drop
    shifted = sample(channel, 40000, 1, first_block=1)[:, 0]
    np.testing.assert_allclose(
        np.cov(shifted[0::2, :, 0].T), np.cov(h[1::2, :, 0].T), atol=0.05
    )


def test_mobility_moves_users():
    still = LocalScatteringChannel(4, 2, num_drops=2)
    turned = LocalScatteringChannel(4, 2, num_drops=2, mobility="angular", displacement=0.0)
    np.testing.assert_allclose(turned._roots[:2], still._roots, atol=1e-6)
    moved = LocalScatteringChannel(
        4, 2, num_drops=2, mobility="2d", displacement=30.0, num_displacements=7
    )
    assert len(moved._roots) == 14
    assert np.abs(moved._roots[:2] - still._roots).max() > 1e-2


def test_gauss_markov_sequence():
    channel = GaussMarkovChannel(4, 2, rho=0.9, num_hops=4)
    h = sample(channel, 20000, 5)
    np.testing.assert_allclose(h[:, 0], np.broadcast_to(channel.h0, h[:, 0].shape))
    mean = 0.9**4 * channel.h0
    np.testing.assert_allclose(h[:, 4].mean(0), mean, atol=0.02)
    spread = np.mean(np.abs(h[:, 4] - mean) ** 2)
    assert spread == pytest.approx((1 - 0.9**8) / 4, rel=0.03)
    np.testing.assert_array_equal(channel.hop_of_use(10), np.repeat(np.arange(5), 2))


def test_a_hop_of_the_sequence_and_its_fixed_channels():
    channel = GaussMarkovChannel(4, 2, num_hops=4)
    still = GaussMarkovChannel(4, 2, num_hops=4, hop=3)
    np.testing.assert_array_equal(sample(still, 50, 7)[:, 6], sample(channel, 50, 5)[:, 3])
    key = stream_keys(1, 3)[0]
    fixed = np.asarray(ops.convert_to_numpy(channel.fixed(key, 561)))
    assert fixed.shape == (561, 4, 2)
    np.testing.assert_array_equal(fixed[0], channel.h0)
    hops = fixed[1:].reshape(140, 4, 4, 2)
    # Each hop is near the one before, and the first is near H_0
    step = np.diff(
        np.concatenate([np.broadcast_to(channel.h0, (140, 1, 4, 2)), hops], 1), axis=1
    )
    expected = (1 - 0.98**2) / 4 + (1 - 0.98) ** 2 * np.abs(hops).mean() ** 2
    assert np.mean(np.abs(step) ** 2) == pytest.approx(expected, rel=0.05)
    assert channel.fixed(key, 1).shape == (1, 4, 2)
    with pytest.raises(InvalidInput, match="num_channels: got 4, expected 1 and a multiple"):
        channel.fixed(key, 4)


def test_fixed_channels_come_in_turn():
    options = {"num_drops": 2, "drop_seed": 5}
    channel = FixedChannel(4, 2, of="local-scattering", num_channels=6, options=options)
    assert channel.power == 1.0 and not channel.is_real
    h = sample(channel, 4, 3)
    np.testing.assert_array_equal(h.reshape(12, 4, 2), np.concatenate([channel.channels] * 2))
    later = sample(channel, 2, 3, first_block=1)
    np.testing.assert_array_equal(later, h[1:3])
    # The same in every run; another seed gives others
    again = FixedChannel(4, 2, of="local-scattering", num_channels=6, options=options)
    np.testing.assert_array_equal(again.channels, channel.channels)
    other = FixedChannel(4, 2, "local-scattering", 6, realization_seed=1, options=options)
    assert np.abs(other.channels - channel.channels).max() > 0.1
    np.testing.assert_array_equal(channel.fixed(None, 6), channel.channels)
    with pytest.raises(InvalidInput, match="num_channels: got 5, expected 6"):
        channel.fixed(None, 5)


@pytest.mark.parametrize(
    "name, options, message",
    [
        ("rician", {}, "channel.type: got 'rician'.*rayleigh"),
        ("rayleigh", {"rho": 1}, "unknown key rho"),
        ("rayleigh", {"power": 0}, "channel.power"),
        ("rayleigh", {"is_real": 1}, "channel.is_real"),
        ("kronecker", {"rho_rx": 1.0}, "channel.rho_rx"),
        ("kronecker", {"rho_tx": float("nan")}, "channel.rho_tx"),
        ("local-scattering", {"mobility": "walk"}, "channel.mobility"),
        ("local-scattering", {"displacement": 3.0}, "channel.displacement"),
        ("gauss-markov", {"num_hops": -1}, "channel.num_hops"),
        ("gauss-markov", {"hop": 5}, "channel.hop: got 5, expected at most 4"),
        ("fixed", {"of": "fixed"}, "channel.of"),
        ("fixed", {"options": {"rho": 1}}, "unknown key rho"),
        ("fixed", {"num_channels": 0}, "channel.num_channels"),
        ("grouped", {"group_size": 2}, "group_size = 2, expected a multiple"),
        ("grouped", {"group_size": 3, "power": -1.0}, "channel.power"),
        ("awgn", {}, "expected equal numbers"),
    ],
)
def test_bad_parameters_are_named(name, options, message):
    with pytest.raises(InvalidInput, match=message):
        create_channel(name, 4, 3, **options)


def test_cholesky_of_exponential_correlation():
    for rho in (0.0, 0.3, 0.95):
        factor = np.asarray(cholesky_of_exponential(7, np.float32(rho)), np.float64)
        np.testing.assert_allclose(
            factor @ factor.T, exponential_correlation(7, rho), atol=1e-6
        )
        assert (np.triu(factor, 1) == 0).all()


def test_entries_of_a_file_are_the_same_in_a_graph(tmp_path):
    h = np.random.default_rng(1).normal(size=(9, 4, 2, 2)) @ np.array([1, 1j])
    np.save(tmp_path / "h.npy", h.astype(np.complex64))
    channel = create_channel("file", 4, 2, path=str(tmp_path / "h.npy"))
    key = np.array([1, 2], np.int32)
    graph = compiled(lambda first: channel.sample(key, 4, 2, first))
    for first in (3, 8):
        in_graph = np.asarray(graph(ops.convert_to_tensor(first)))
        np.testing.assert_array_equal(in_graph, sample(channel, 4, 2, first_block=first))
