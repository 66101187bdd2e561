"""UMi and UMa channels: Sionna's own, with users at different angles and powers."""

import numpy as np
import pytest
import tensorflow as tf
from scipy.special import j0
from sionna.phy import config
from sionna.phy.channel import (
    cir_to_ofdm_channel,
    gen_single_sector_topology,
    subcarrier_frequencies,
)
from sionna.phy.channel.tr38901 import UMa

from linksim.channels import create_channel
from linksim.channels.arrays import uplink_arrays
from linksim.channels.random import stream_keys
from linksim.errors import InvalidInput
from linksim.link.link import Link
from linksim.link.scenario import load_scenario, scenario_from_dict

KEY = stream_keys(1, 5)[0]


def powers_of_users(h, num_users):
    """Mean energies [blocks, users] of a grid [blocks, T, F, M, K]."""
    h = np.asarray(h).reshape(*h.shape[:-1], num_users, -1)
    return np.mean(np.abs(h) ** 2, axis=(1, 2, 3, 5))


def test_it_is_sionnas_own():
    """The same users and rays, from the state that the key gives, in a graph too."""
    options = {"num_users": 2, "speed": 30.0, "indoor_probability": 0.5}
    channel = create_channel("uma", 4, 4, rx_polarization="dual", **options)
    h = channel.sample_grid(KEY, 3, 4, 5, 0.07)
    rx, tx = ("dual", "38.901", 1, 0.5, 0.5), ("single", "omni", 1, 0.5, 0.5)
    arrays = uplink_arrays(3.5e9, 4, 2, rx, tx)
    cell = UMa(3.5e9, "low", **arrays, enable_pathloss=False, enable_shadow_fading=False)
    before = config.tf_rng.state.numpy()
    config.tf_rng.reset_from_key_counter(int(KEY[1]), [0, int(KEY[0])])
    speeds = {"min_ut_velocity": 30.0, "max_ut_velocity": 30.0}
    cell.set_topology(
        *gen_single_sector_topology(3, 2, "uma", indoor_probability=0.5, **speeds)
    )
    a, tau = cell(4, 30e3 / 1.07)
    config.tf_rng.reset(before)
    expected = cir_to_ofdm_channel(subcarrier_frequencies(5, 30e3), a, tau, normalize=True)
    expected = np.transpose(expected[:, 0], [0, 4, 5, 1, 2, 3]).reshape(3, 4, 5, 4, 4)
    np.testing.assert_allclose(h, expected, atol=1e-4)
    draw = tf.function(lambda key: channel.sample_grid(key, 3, 4, 5, 0.07), autograph=False)
    np.testing.assert_allclose(draw(tf.constant(KEY)), h, atol=1e-4)
    np.testing.assert_array_equal(config.tf_rng.state, before)


def test_users_have_the_same_power_or_those_of_their_paths():
    options = {"num_users": 4, "rx_polarization": "dual", "power": 0.5}
    equal = create_channel("umi", 4, 4, **options).sample_grid(KEY, 20, 1, 6)
    np.testing.assert_allclose(powers_of_users(equal, 4), 0.5, rtol=1e-4)
    near_far = create_channel("umi", 4, 4, pathloss=True, **options)
    powers = powers_of_users(near_far.sample_grid(KEY, 20, 1, 6), 4)
    np.testing.assert_allclose(powers.mean(axis=1), 0.5, rtol=1e-4)
    assert np.median(powers.max(axis=1) / powers.min(axis=1)) > 10
    assert near_far.power == 0.5
    # With higher penetration losses the users indoors are further behind
    high = create_channel("umi", 4, 4, pathloss=True, o2i_model="high", **options)
    assert not np.allclose(powers, powers_of_users(high.sample_grid(KEY, 20, 1, 6), 4))


def angles_of_users(**options):
    """Azimuths [blocks, users] in degrees at which Sionna sees users, from the array's own."""
    channel = create_channel("umi", 4, 4, num_users=4, **options)
    channel.sample_grid(KEY, 200, 1, 1)
    return np.asarray(channel._cell._scenario.los_aod[:, 0]) - 60.0, channel._cell._scenario


def test_users_are_spread_over_the_sector():
    angles, scenario = angles_of_users()
    assert angles.min() > -60.1 and angles.max() < 60.1  # 120 degrees around the bearing
    assert np.std(angles, axis=1).mean() > 20 and abs(angles.mean()) < 5
    distances = np.asarray(scenario.distance_2d)
    assert distances.min() >= 10.0 and 90 < distances.max() < 100 / np.cos(np.pi / 6) + 0.1
    assert np.mean(np.asarray(scenario.indoor)) == pytest.approx(0.8, abs=0.06)
    _, far = angles_of_users(cell_distance=1000.0, min_distance=400.0, indoor_probability=0.0)
    assert np.asarray(far.distance_2d).min() >= 400.0 and not np.asarray(far.indoor).any()


def test_users_move_as_fast_as_they_are_told():
    """Angles spread the Doppler shifts less than Jakes has them, and never beyond."""
    options = {"num_users": 2, "indoor_probability": 1.0, "subcarrier_spacing_khz": 15.0}
    moving = create_channel("umi", 2, 2, speed=50.0, **options)
    h = np.asarray(moving.sample_grid(KEY, 300, 5, 2))
    measured = np.mean(h * h[:, :1].conj(), axis=(0, 2, 3, 4))
    shift = 50.0 * 3.5e9 / 299792458
    for lag in (1, 2):
        assert abs(measured[lag]) == pytest.approx(
            j0(2 * np.pi * shift * lag / 15e3), abs=0.05
        )
    still = create_channel("umi", 2, 2, **options).sample_grid(KEY, 3, 5, 2)
    np.testing.assert_array_equal(still, np.broadcast_to(still[:, :1], still.shape))


def with_channel(name, **tables):
    data = load_scenario(name).to_dict()
    channel = {"type": "umi", "num_users": 2, "rx_polarization": "dual"}
    return Link(scenario_from_dict({**data, "channel": channel, **tables}))


def test_links_on_slots_and_without():
    slots = load_scenario("pusch-cdl-c-4x2-mcs14").to_dict()["pusch"] | {"num_prbs": 1}
    link = with_channel("pusch-cdl-c-4x2-mcs14", pusch=slots)
    batch = link.draw(link.keys(0, 8.0, 0), tf.constant(0.1), 0, 4)
    assert batch.h.shape == (4, link.num_uses, 4, 2)
    error = np.mean(np.sum(np.abs(batch.h_hat - batch.h) ** 2, axis=-1))
    assert 0 < error < 0.2
    assert any("2 users in a sector" in line for line in link.channel.describe())
    flat = with_channel("rayleigh-4x4-qam16")
    batch = flat.draw(flat.keys(0, 8.0, 0), flat.no(8.0), 0, 2)
    assert batch.h.shape == (2, flat.num_uses, 4, 4)
    model = {"type": "lmmse", "covariance": "model"}
    with pytest.raises(InvalidInput, match="this channel has no covariance in closed form"):
        with_channel("pusch-cdl-c-4x2-mcs14", csi=model)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"num_users": 3}, "channel.num_users: got 3, expected a divisor"),
        ({"indoor_probability": 1.5}, "channel.indoor_probability: got 1.5"),
        ({"min_distance": 120.0}, "got 120 m, expected less than half of the 200 m"),
        ({"cell_distance": 15.0}, "channel.min_distance: got 10 m, expected less than half"),
        ({"pathloss": 1}, "channel.pathloss: got 1, expected true or false"),
        ({"o2i_model": "none"}, "channel.o2i_model: got 'none'"),
        ({"speed": -1.0}, "channel.speed: got -1.0, .* in m/s"),
        ({"rx_rows": 3}, "channel.rx_rows: got 3, expected a divisor"),
        ({"tx_polarization": "dual", "num_users": 4}, "dual needs an even number"),
        ({"normalize": True}, "unknown key normalize"),
    ],
)
def test_what_is_wrong_is_named(options, message):
    with pytest.raises(InvalidInput, match=message):
        create_channel("umi", 4, 4, **options)
