"""TDL channels: power, taps, correlation, Doppler, and the profiles of TS 38.104."""

import numpy as np
import pytest
from scipy.special import j0
from sionna.phy.channel import cir_to_ofdm_channel, subcarrier_frequencies
from sionna.phy.channel.tr38901 import TDL

from linksim.channels import create_channel
from linksim.channels.random import stream_keys
from linksim.channels.tdl import TDL_MODELS
from linksim.errors import InvalidInput
from linksim.link.link import Link
from linksim.link.scenario import load_scenario, scenario_from_dict

KEY = stream_keys(1, 5)[0]


def grid_of(
    num_blocks=4000, num_symbols=1, num_subcarriers=2, num_rx=2, num_streams=2, **options
):
    channel = create_channel("tdl", num_rx, num_streams, **options)
    h = channel.sample_grid(KEY, num_blocks, num_symbols, num_subcarriers)
    return np.asarray(h, np.complex128)


@pytest.mark.parametrize("model", TDL_MODELS)
def test_the_response_over_frequency_is_that_of_the_taps(model):
    """Its correlation over subcarriers is the Fourier transform of the power profile."""
    spacing = 2e6
    h = grid_of(model=model, num_subcarriers=6, subcarrier_spacing_khz=spacing / 1e3)
    assert np.mean(np.abs(h) ** 2) == pytest.approx(1.0, rel=0.04)
    measured = np.mean(h * h[:, :, :1].conj(), axis=(0, 1, 3, 4))
    tdl = TDL(model, (TDL_MODELS[model] or 100.0) * 1e-9, 3.5e9)
    delays, powers = np.asarray(tdl.delays, float), np.asarray(tdl.mean_powers, float)
    expected = powers @ np.exp(-2j * np.pi * delays[:, None] * spacing * np.arange(6))
    np.testing.assert_allclose(measured, expected, atol=0.06)


def test_without_correlation_it_is_sionnas_own():
    """The same Gaussians in the same places, from the state that the key gives."""
    from sionna.phy import config

    channel = create_channel("tdl", 2, 2, model="B100", speed=30.0)
    h = channel.sample_grid(KEY, 3, 4, 5, 0.07)
    tdl = TDL("B100", 100e-9, 3.5e9, min_speed=30.0, num_rx_ant=2, num_tx_ant=2)
    before = config.tf_rng.state.numpy()
    config.tf_rng.reset_from_key_counter(int(KEY[1]), [0, int(KEY[0])])
    a, tau = tdl(3, 4, 30e3 / 1.07)
    config.tf_rng.reset(before)
    expected = cir_to_ofdm_channel(subcarrier_frequencies(5, 30e3), a, tau)[:, 0, :, 0]
    np.testing.assert_allclose(h, np.transpose(expected, [0, 3, 4, 1, 2]), atol=1e-6)
    again = create_channel("tdl", 2, 2, model="B100", speed=30.0).sample_grid(
        KEY, 3, 4, 5, 0.07
    )
    np.testing.assert_array_equal(h, again)
    np.testing.assert_array_equal(config.tf_rng.state, before)


def test_antennas_are_correlated_as_38_104_says():
    """[TS38104], G.2.3.1: 4 antennas have alpha^(1/9), alpha^(4/9) and alpha."""
    h = grid_of(8000, num_rx=4, num_streams=2, rx_correlation=0.9, tx_correlation=0.3)[:, 0, 0]
    rx = np.einsum("bmk,bnk->mn", h, h.conj()) / (2 * len(h))
    expected = 0.9 ** (np.subtract.outer(np.arange(4), np.arange(4)) ** 2 / 9)
    np.testing.assert_allclose(rx, expected, atol=0.05)
    tx = np.einsum("bmk,bml->kl", h, h.conj()) / (4 * len(h))
    np.testing.assert_allclose(tx, [[1, 0.3], [0.3, 1]], atol=0.05)
    # Users are independent, and so are antennas by default
    for options in ({"num_users": 2, "tx_correlation": 0.9}, {}):
        h = grid_of(8000, **options)[:, 0, 0]
        assert abs(np.mean(h[..., 0] * h[..., 1].conj())) < 0.04
    # Far beyond what single precision could factor
    assert np.isfinite(grid_of(2, num_rx=16, rx_correlation=0.999)).all()


def test_doppler_is_that_of_jakes():
    """By speed or by its largest shift: TDLA30-10 and others are named by the shift."""
    options = {"model": "A30", "num_symbols": 8, "subcarrier_spacing_khz": 15.0}
    h = grid_of(max_doppler_hz=1500.0, **options)
    measured = np.mean(h * h[:, :1].conj(), axis=(0, 2, 3, 4))
    expected = j0(2 * np.pi * 1500.0 / 15e3 * np.arange(8))
    np.testing.assert_allclose(measured, expected, atol=0.06)
    speed = 1500.0 * 299792458 / 3.5e9
    by_speed, by_shift = (
        grid_of(2, **given, **options)
        for given in ({"speed": speed}, {"max_doppler_hz": 1500.0})
    )
    np.testing.assert_allclose(by_speed, by_shift, atol=1e-3)
    still = grid_of(3, **options)
    np.testing.assert_allclose(still, np.broadcast_to(still[:, :1], still.shape), atol=1e-6)


@pytest.mark.parametrize("channel", [{}, {"normalize": True, "power": 0.25}, {"power": 3.0}])
def test_power_is_what_snr_definitions_take(channel):
    h = grid_of(3000, num_subcarriers=12, **channel)
    power = channel.get("power", 1.0)
    assert create_channel("tdl", 2, 2, **channel).power == power
    by_block = np.mean(np.abs(h) ** 2, axis=(1, 2, 3, 4))
    assert np.mean(by_block) == pytest.approx(power, rel=0.04)
    assert (np.ptp(by_block) < 1e-4) == ("normalize" in channel)


def with_channel(name, **channel):
    data = load_scenario(name).to_dict()
    return Link(scenario_from_dict({**data, "channel": {"type": "tdl", **channel}}))


def test_links_on_a_grid_and_without(capsys):
    link = with_channel("cdl-c-8x4-qam16", model="C300", max_doppler_hz=100.0)
    batch = link.draw(link.keys(0, 8.0, 0), link.no(8.0), 0, 2)
    assert batch.h.shape == (2, link.num_uses, 8, 4)
    assert any("RMS delay spread: 300" in line for line in link.channel.describe())
    assert capsys.readouterr().out == ""  # Sionna prints where it changes a delay spread
    link = with_channel("rayleigh-4x4-qam16", num_users=4)
    batch = link.draw(link.keys(0, 8.0, 0), link.no(8.0), 0, 2)
    assert batch.h.shape == (2, link.num_uses, 4, 4)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"model": "F"}, "channel.model: got 'F'"),
        (
            {"model": "A30", "delay_spread_ns": 100.0},
            'with the model "A30", expected its 30 ns',
        ),
        ({"delay_spread_ns": 0.5}, "channel.delay_spread_ns: got 0.5, .* in ns"),
        ({"speed": 3.0, "max_doppler_hz": 5.0}, "expected only one of them"),
        ({"max_doppler_hz": -1.0}, "channel.max_doppler_hz: got -1.0, .* in Hz"),
        ({"rx_correlation": 1.0}, "channel.rx_correlation: got 1.0"),
        ({"model": "D", "rx_correlation": 0.5}, "its line of sight is the same"),
        ({"num_users": 3}, "channel.num_users: got 3, expected a divisor"),
        ({"normalize": 1}, "channel.normalize: got 1"),
        ({"power": 0.0}, "channel.power: got 0.0"),
        ({"carrier_frequency_ghz": 3.5e9}, "channel.carrier_frequency_ghz: .* in GHz"),
    ],
)
def test_what_is_wrong_is_named(options, message):
    with pytest.raises(InvalidInput, match=message):
        create_channel("tdl", 4, 4, **options)
