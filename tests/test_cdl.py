"""CDL channels: their arrays by key, and what antennas leave of the model."""

import numpy as np
import pytest
from sionna.phy.channel.tr38901 import CDL

from linksim.channels import create_channel
from linksim.channels.random import stream_keys
from linksim.cli import coded_ber
from linksim.errors import InvalidInput

KEY = stream_keys(1, 5)[0]


def cdl_of(channel):
    """Sionna's `CDL` of users who are all at the same angles."""
    (cdl,) = channel._cdls.values()
    return cdl


def arrays_of(num_rx=8, num_streams=4, **options):
    """The receiver's and the user's array of Sionna's `CDL`."""
    channel = create_channel("cdl", num_rx, num_streams, **options)
    return cdl_of(channel)._rx_array, cdl_of(channel)._tx_array


def test_defaults_are_what_they_were():
    """Without the keys of arrays nothing is drawn otherwise: Sionna's own orientations hold."""
    rx, tx = arrays_of()
    for array, columns, pattern in ((rx, 8, "38.901"), (tx, 4, "omni")):
        assert (int(array.num_rows_per_panel), int(array.num_cols_per_panel)) == (1, columns)
        assert array.ant_pol1._pattern == pattern
    channel = create_channel("cdl", 8, 4)
    own = cdl_of(channel)
    channel_of_sionna = CDL("C", 100e-9, 3.5e9, tx, rx, "uplink")
    for name in ("_rx_orientation", "_tx_orientation"):
        np.testing.assert_array_equal(getattr(own, name), getattr(channel_of_sionna, name))
    told = create_channel(
        "cdl",
        8,
        4,
        rx_rows=1,
        tx_rows=1,
        rx_column_spacing=0.5,
        rx_pattern="38.901",
        rx_orientation_deg=[0, 0, 0],
        tx_orientation_deg=[180, 0, 0],
    )
    np.testing.assert_array_equal(told.sample(KEY, 3, 2), channel.sample(KEY, 3, 2))


def test_an_array_is_as_its_keys_say():
    rx, tx = arrays_of(
        12,
        4,
        num_users=2,
        rx_polarization="dual",
        rx_rows=3,
        rx_row_spacing=0.8,
        rx_column_spacing=0.6,
        tx_rows=2,
        tx_row_spacing=1.5,
        tx_pattern="38.901",
    )
    # Three rows of two cross-polarized pairs; the users' two antennas stand over each other
    wavelength = 299792458 / 3.5e9
    pairs = np.unique(np.round(np.asarray(rx.ant_pos) / wavelength, 4), axis=0)
    assert sorted({*pairs[:, 2].tolist()}) == pytest.approx([-0.8, 0.0, 0.8])
    assert sorted({*pairs[:, 1].tolist()}) == pytest.approx([-0.3, 0.3])
    assert np.ptp(np.asarray(tx.ant_pos), axis=0) == pytest.approx([0, 0, 1.5 * wavelength])
    assert tx.ant_pol1._pattern == "38.901"


@pytest.mark.parametrize(
    "options, message",
    [
        ({"rx_pattern": "isotropic"}, "channel.rx_pattern: got 'isotropic'"),
        ({"tx_pattern": 3}, "channel.tx_pattern: got 3"),
        ({"rx_rows": 3}, "channel.rx_rows: got 3, expected a divisor of the 8"),
        (
            {"tx_rows": 4, "num_users": 2},
            "channel.tx_rows: got 4, expected a divisor of the 2",
        ),
        ({"rx_rows": 8, "rx_polarization": "dual"}, "expected a divisor of the 4"),
        ({"rx_rows": 0}, "channel.rx_rows: got 0"),
        ({"rx_row_spacing": 0.0}, "channel.rx_row_spacing: got 0.0"),
        ({"tx_column_spacing": "half"}, "channel.tx_column_spacing: got 'half'"),
        (
            {"rx_orientation_deg": 30.0},
            "channel.rx_orientation_deg: got 30.0, expected \\[bea",
        ),
        ({"tx_orientation_deg": [0, 0]}, "channel.tx_orientation_deg: got \\[0, 0\\]"),
        ({"tx_orientation_deg": [0, 0, 400]}, "channel.tx_orientation_deg: got 400"),
        (
            {"num_users": 2, "user_bearings_deg": [10.0]},
            "channel.user_bearings_deg: got .10.0., expected one bearing for each of 2 users",
        ),
        ({"user_bearings_deg": 30.0}, "channel.user_bearings_deg: got 30.0, expected one"),
        ({"user_bearings_deg": [400.0]}, "channel.user_bearings_deg: got 400.0"),
    ],
)
def test_what_is_wrong_is_named(options, message):
    with pytest.raises(InvalidInput, match=message):
        create_channel("cdl", 8, 4, **options)


def delay_spread(channel):
    """RMS delay spread in s, and mean energy, of impulse responses that Sionna draws."""
    a, tau = cdl_of(channel)(3000, 1, 1.0)
    energy = np.mean(np.abs(a) ** 2, axis=(0, 1, 2, 3, 4, 6))
    tau = np.asarray(tau)[0, 0, 0].astype(float)
    mean = energy @ tau / energy.sum()
    return np.sqrt(energy @ (tau - mean) ** 2 / energy.sum()), energy.sum()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"rx_pattern": "omni"},
        {"model": "A", "delay_spread_ns": 300.0, "rx_orientation_deg": [40, 10, -20]},
        {"model": "D", "tx_pattern": "38.901", "tx_orientation_deg": [200, 5, 10]},
        {"model": "E", "rx_polarization": "dual", "tx_polarization": "dual"},
    ],
    ids=lambda options: ", ".join(map(str, options)) or "default",
)
def test_the_profile_is_what_is_drawn(options):
    channel = create_channel("cdl", 2, 2, **options)
    spread, gain = delay_spread(channel)
    assert channel.profile.gain == pytest.approx(gain, rel=0.04)
    assert channel.profile.delay_spread == pytest.approx(spread, rel=0.04)


def test_elements_cut_what_comes_from_the_side():
    """100 ns of CDL-C are 25 ns at elements of [TR38901], and 100 ns at omnidirectional ones."""
    usual = create_channel("cdl", 8, 4).profile
    omni = create_channel("cdl", 8, 4, rx_pattern="omni").profile
    assert 1e9 * usual.delay_spread == pytest.approx(25.0, abs=0.1)
    assert 1e9 * omni.delay_spread == pytest.approx(100.0, abs=0.1) and omni.gain == (
        pytest.approx(1.0)
    )
    for name, spread in usual.spreads_deg.items():
        assert 0 < spread < omni.spreads_deg[name]
    # An array that is turned with its users' signals sees the same
    turned = create_channel("cdl", 8, 4, rx_orientation_deg=[360, 0, 0]).profile
    assert turned.delay_spread == pytest.approx(usual.delay_spread)


def test_angular_spreads_are_those_of_the_rays():
    """Omnidirectional elements leave the angles of the table: [TR38901], Table 7.7.1-3."""
    profile = create_channel("cdl", 2, 2, rx_pattern="omni").profile
    cdl = cdl_of(create_channel("cdl", 2, 2))
    powers, angles = np.asarray(cdl.powers, float), np.asarray(cdl._aoa[0, 0, 0], float)
    weights = np.repeat(powers / 20, 20)
    resultant = abs(weights @ np.exp(1j * angles.ravel())) / weights.sum()
    expected = np.rad2deg(np.sqrt(-2 * np.log(resultant)))
    assert profile.spreads_deg["azimuth of arrival"] == pytest.approx(expected, rel=1e-4)


def test_users_at_different_bearings():
    """A user at 40 degrees is to the array what all are to one that is turned by -40."""
    options = {"normalize": False, "num_users": 2, "rx_rows": 2}
    both = create_channel("cdl", 4, 2, user_bearings_deg=[-20.0, 40.0], **options)
    h = np.asarray(both.sample_grid(KEY, 3, 2, 4))
    for user, bearing in enumerate((-20.0, 40.0)):
        turned = create_channel("cdl", 4, 2, rx_orientation_deg=[-bearing, 0, 0], **options)
        expected = np.asarray(turned.sample_grid(KEY, 3, 2, 4))
        np.testing.assert_allclose(h[..., user], expected[..., user], atol=1e-5)
        gain = turned.profile.gain
        assert both.profiles[user].gain == pytest.approx(gain) == turned.power
    assert both.power == pytest.approx(np.mean([p.gain for p in both.profiles]))
    assert both.profiles[0].gain != pytest.approx(both.profiles[1].gain, rel=0.1)
    text = "\n".join(both.describe())
    assert "RMS delay spread of users at 40 degrees" in text
    # The same bearing for all is a turned array
    same = create_channel("cdl", 4, 2, user_bearings_deg=[40.0, 40.0], **options)
    np.testing.assert_allclose(same.sample_grid(KEY, 3, 2, 4), expected, atol=1e-5)
    # What estimation assumes of several users is a mean over them, by their energy
    delays, energies = both._delay_profile()
    assert energies.sum() == pytest.approx(1.0) and len(delays) == len(energies)
    low, high = np.sort([p.energies[0] for p in both.profiles])
    assert low < energies[0] < high


def test_describe_prints_what_results(capsys, tmp_path):
    assert coded_ber.main(["--describe", "--output", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "1152 information bits in 2304 coded bits, rate 0.5" in text
    assert "-2.05 dB by ebno, -8.07 dB by ebno_grid" in text
    assert "RMS delay spread: 25.0 ns at the receiver's antennas, 100 ns of the model" in text
    assert "RMS spread of the azimuth of arrival: 16.2 degrees" in text
    assert not list(tmp_path.iterdir())
    assert coded_ber.main(["--describe", "--scenario", "gauss-markov-4x2-qpsk"]) == 0
    assert "a measured SNR is +1.30 dB off" in capsys.readouterr().out
