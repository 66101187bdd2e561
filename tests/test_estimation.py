"""Channel estimates, and whether their errors have the variance that detectors are told."""

import numpy as np
import pytest
import tensorflow as tf
from scipy.linalg import toeplitz
from sionna.phy.ofdm import LMMSEInterpolator, LSChannelEstimator

from linksim.channels.base import Channel, create_channel
from linksim.cli import coded_ber
from linksim.data import scenario_folder
from linksim.errors import InvalidInput
from linksim.link.calibration import Calibration
from linksim.link.draw import add_noise
from linksim.link.estimation import LMMSEEstimator
from linksim.link.link import Link
from linksim.link.noise_levels import between_levels, noise_levels
from linksim.link.ofdm import create_ofdm_front
from linksim.link.pusch import create_pusch_front
from linksim.link.scenario import load_scenario

SPACING = 30e3
OFDM = load_scenario("cdl-c-4x4-qam16-ls").replace(
    system={"num_rx": 2, "num_streams": 2}, code={"num_info_bits": 576}
)
PUSCH = load_scenario("pusch-cdl-c-4x2-mcs14").replace(
    system={"num_rx": 2},
    channel={"num_users": 1},
    pusch={"num_prbs": 2, "num_layers": 2},
)


class Paths(Channel):
    """Paths of independent Gaussian amplitudes, at all pairs of some delays and Dopplers.

    Args:
        doppler: the largest, in Hz.
        rho: correlation of the two receive antennas.
    """

    subcarrier_spacing = SPACING
    num_users = 1

    def __init__(self, doppler, rho=0.0):
        super().__init__(2, 2)
        delays, dopplers = (
            np.array([0.0, 120e-9, 400e-9]),
            doppler * np.array([-1.0, 0.3, 1.0]),
        )
        powers = np.array([0.6, 0.3, 0.1])
        self._over_time = lambda i: np.exp(2j * np.pi * np.outer(i / SPACING, dopplers))
        self._over_frequency = lambda i: np.exp(-2j * np.pi * np.outer(i * SPACING, delays))
        self._amplitudes = np.sqrt(powers / 3)[:, None].astype(np.complex64)
        self._powers = powers
        root = np.linalg.cholesky(np.array([[1.0, rho], [rho, 1.0]]))
        self._root = root.astype(np.complex64)

    def sample_grid(
        self, key, num_blocks, num_symbols, num_subcarriers, prefix=0.0, first_block=0
    ):
        shape = (num_blocks, 2, 2, 3, 3, 2)
        parts = tf.random.stateless_normal(shape, tf.cast(key, tf.int32))
        a = tf.complex(parts[..., 0], parts[..., 1]) / 2**0.5 * self._amplitudes
        a = tf.einsum("nm,bmkpd->bnkpd", self._root, a)
        times = self._over_time(np.arange(num_symbols) * (1 + prefix))
        frequencies = self._over_frequency(np.arange(num_subcarriers))
        times, frequencies = times.astype(np.complex64), frequencies.astype(np.complex64)
        return tf.einsum("bmkpd,td,fp->btfmk", a, times, frequencies)

    def correlations(self, num_symbols, num_subcarriers, prefix):
        times = self._over_time(np.arange(num_symbols) * (1 + prefix)).mean(axis=1)
        return times, self._over_frequency(np.arange(num_subcarriers)) @ self._powers


def front_of(kind, csi, channel):
    if kind == "ofdm":
        return create_ofdm_front(OFDM.replace(csi=csi), channel)
    # Two layers in one CDM group: what they leave of each other is an error, too
    return create_pusch_front(PUSCH.replace(csi=csi), channel)


def received_by(front, no, num_blocks):
    """What a front makes of ones."""
    x = np.ones((num_blocks, front.num_uses, 2), np.complex64)
    keys = {name: np.array([i, 9], np.int32) for i, name in enumerate(("channel", "noise"))}
    return front.transmit(tf.constant(x), keys, tf.constant(no))


def errors_of(front, no, num_blocks=800):
    """Mean energy of the error, and what the receiver takes it for, [uses] each."""
    received = received_by(front, no, num_blocks)
    error = np.abs(received.h_hat - received.h) ** 2
    return np.mean(np.sum(error, axis=-1), axis=(0, 2)), received.s.numpy()[0] - no


LMMSE = {"type": "lmmse"}


@pytest.mark.parametrize("doppler", [0.0, 1500.0])
@pytest.mark.parametrize("csi", [{"type": "ls"}, LMMSE, {**LMMSE, "spatial": True}])
@pytest.mark.parametrize("kind", ["ofdm", "pusch"])
def test_errors_have_the_variance_that_detectors_are_told(kind, csi, doppler):
    front = front_of(kind, csi, Paths(doppler, rho=0.8))
    for no in (0.3, 0.001):
        true, claimed = errors_of(front, no)
        assert np.mean(true) == pytest.approx(np.mean(claimed), rel=0.06)
        # On every symbol of the slot, whose distances to pilots differ
        symbols = front.data // front.resource_grid.fft_size
        for symbol in np.unique(symbols):
            there = symbols == symbol
            assert np.mean(true[there]) == pytest.approx(np.mean(claimed[there]), rel=0.12)


@pytest.mark.parametrize(
    "kind, csi",
    [
        ("ofdm", {"type": "ls"}),
        ("ofdm", LMMSE),
        ("ofdm", {**LMMSE, "spatial": True}),
        ("pusch", {**LMMSE, "spatial": True}),
    ],
)
def test_errors_have_the_covariance_that_detectors_are_told(kind, csi):
    """It has the trace of the variance, and the directions of the errors on all data."""
    channel = Paths(1500.0, rho=0.95)
    told = {}
    for error in ("variance", "covariance"):
        front = front_of(kind, {**csi, "error": error}, channel)
        told[error] = [received_by(front, no, 400) for no in (0.3, 0.003)]
    coloured = 0.0
    for no, variance, covariance in zip((0.3, 0.003), *told.values()):
        s = covariance.s.numpy()[0] - no * np.eye(2)
        claimed = np.trace(s, axis1=1, axis2=2).real / 2
        np.testing.assert_allclose(claimed, variance.s.numpy()[0] - no, rtol=2e-3, atol=1e-6)
        error = (covariance.h_hat - covariance.h).numpy()
        true = np.einsum("bumk,bunk->mn", error, error.conj()) / np.prod(error.shape[:2])
        mean = np.mean(s, axis=0)
        assert np.abs(true - mean).max() < 0.12 * np.trace(mean).real
        coloured = max(coloured, abs(mean[0, 1]) / mean[0, 0].real)
    assert coloured > 0.5


@pytest.mark.parametrize("csi", ["ls", "lmmse"])
def test_fast_users_of_a_scenario_are_allowed_for(csi):
    """At 100 m/s interpolation errs far more than noise; that was told as noise alone."""
    scenario = OFDM.replace(channel={"speed": 100.0}, csi={"type": csi})
    link = Link(scenario)
    no = link.no(20.0)
    found = []
    for batch in range(3):
        draws = link.draw(link.keys(0, 20.0, batch), tf.constant(no, tf.float32), 0, 200)
        error = np.sum(np.abs(draws.h_hat - draws.h) ** 2, axis=-1)
        found.append((np.mean(error), np.mean(draws.no) - no))
    true, claimed = np.mean(found, axis=0)
    assert claimed > 4 * no
    # A slot has one direction of movement: there are 600 of them here
    assert true == pytest.approx(claimed, rel=0.15)


@pytest.mark.parametrize("name, options", [("cdl", {"normalize": False}), ("tdl", {})])
def test_the_model_of_a_channel_has_the_covariance_of_its_draws(name, options):
    """Sionna's own draws, over subcarriers and, standing still, over symbols."""
    channel = create_channel(name, 4, 2, speed=0.0, model="D", **options)
    h = channel.sample_grid(np.array([1, 2], np.int32), 600, 2, 48).numpy()
    times, frequencies = channel.correlations(2, 48, 0.07)
    energy = np.mean(np.abs(h) ** 2)
    for d in (0, 1, 10, 47):
        pairs = h[:, :, d:] * np.conj(h[:, :, : 48 - d])
        assert abs(np.mean(pairs) / energy - frequencies[d]) < 0.06
    np.testing.assert_allclose(times, 1.0)
    moving = create_channel(name, 4, 2, speed=30.0).correlations(14, 1, 1 / 14)[0]
    # Jakes: zero at 2 pi f t = 2.405
    assert moving[-1].real < moving[1].real < 1.0


def test_lmmse_takes_the_model_where_the_channel_has_one():
    front = front_of("ofdm", {**LMMSE, "covariance": "model"}, Paths(700.0))
    true, claimed = errors_of(front, 0.1)
    assert np.mean(true) == pytest.approx(np.mean(claimed), rel=0.06)
    with pytest.raises(InvalidInput, match="csi.covariance: got .model., but this channel"):
        create_channel("rayleigh", 4, 2).correlations(14, 12, 0.07)


@pytest.mark.parametrize("spatial", [False, True])
def test_lmmse_estimates_are_those_of_the_joint_covariance(spatial):
    """Against the textbook formula over all resources and antennas at once, in NumPy."""
    channel = Paths(800.0, rho=0.7)
    front = front_of("ofdm", LMMSE, channel)
    grid, pilots = front.resource_grid, front.pilots
    symbols, subcarriers = grid.num_ofdm_symbols, grid.fft_size
    time, frequency = channel.correlations(symbols, subcarriers, 0.07)
    estimator = LMMSEEstimator(front.calibration(), (1, 1), spatial, (time, frequency))
    h = front.channels(np.array([5, 6], np.int32), 3).numpy()
    rng = np.random.default_rng(2)
    y = np.einsum("btfmk,ktf->btfm", h, pilots)
    y = y + 0.1 * (rng.normal(size=(*y.shape, 2)) @ np.array([1, 1j]))
    no = 0.02
    found, _ = estimator(tf.constant(y.astype(np.complex64)), tf.constant(no))
    covariance = np.kron(toeplitz(time), toeplitz(frequency))
    space = np.array([[1.0, 0.7], [0.7, 1.0]]) if spatial else np.eye(2)
    joint = np.kron(space, covariance)
    for k, sent in enumerate(pilots.reshape(2, -1)):
        at = np.flatnonzero(sent)
        both = np.concatenate([at, at + symbols * subcarriers])
        observed = y.reshape(3, -1, 2)[:, at] / sent[at][:, None]
        observed = np.moveaxis(observed, 2, 1).reshape(3, -1)
        noise = no / np.abs(sent[at[0]]) ** 2 * np.eye(len(both))
        weights = joint[:, both] @ np.linalg.inv(joint[np.ix_(both, both)] + noise)
        expected = (observed @ weights.T).reshape(3, 2, symbols, subcarriers)
        # The antennas' covariance is measured
        tolerance = 0.05 if spatial else 0.005
        np.testing.assert_allclose(
            found.numpy()[..., k], np.moveaxis(expected, 1, 3), atol=tolerance
        )


def test_lmmse_is_no_worse_than_sionnas_interpolation_in_turns():
    """Sionna's interpolates over subcarriers first, then over symbols; this one at once."""
    channel = Paths(1200.0)
    front = front_of("ofdm", LMMSE, channel)
    grid = front.resource_grid
    given = channel.correlations(grid.num_ofdm_symbols, grid.fft_size, 0.07)
    time, frequency = (tf.constant(toeplitz(c), tf.complex64) for c in given)
    interpolator = LMMSEInterpolator(grid.pilot_pattern, time, frequency, order="f-t")
    sionna = LSChannelEstimator(grid, interpolator=interpolator)
    own = LMMSEEstimator(front.calibration(), correlations=given)
    h = front.channels(np.array([3, 4], np.int32), 100)
    y = add_noise(
        np.array([1, 2], np.int32), tf.einsum("btfmk,ktf->btfm", h, front.pilots), 0.1
    )
    theirs, _ = sionna(tf.transpose(y, [0, 3, 1, 2])[:, None], tf.constant(0.1))
    theirs = tf.transpose(theirs[:, 0, :, 0], [0, 3, 4, 1, 2])
    errors = [np.mean(np.abs(x - h) ** 2) for x in (own(y, tf.constant(0.1))[0], theirs)]
    assert 0.9 < errors[0] / errors[1] < 1.005


def test_lmmse_is_ahead_of_least_squares_and_antennas_help():
    channel, errors = Paths(300.0, rho=0.9), []
    for csi in ({"type": "ls"}, LMMSE, {**LMMSE, "spatial": True}):
        errors.append(np.mean(errors_of(front_of("ofdm", csi, channel), 0.3, 100)[0]))
    assert errors[1] < 0.6 * errors[0] and errors[2] < 0.9 * errors[1]


def test_the_calibration_is_that_of_the_scenario_alone():
    """Two receivers of one scenario are told the same, whatever was drawn before."""
    told = []
    for blocks in (3, 5):
        front = front_of("pusch", {"type": "ls"}, Paths(500.0))
        told.append(errors_of(front, 0.1, blocks)[1])
    np.testing.assert_array_equal(*told)


@pytest.mark.parametrize("csi, passes", [({"type": "ls"}, 2), (LMMSE, 3)])
def test_the_channel_is_drawn_no_more_often_than_needed(csi, passes, monkeypatch):
    """For the power and the bias, or the covariances and then the bias; and for its shapes."""
    count, draws = [], Calibration.__iter__
    monkeypatch.setattr(Calibration, "__iter__", lambda self: count.append(1) or draws(self))
    front = front_of("ofdm", {**csi, "error": "covariance"}, Paths(300.0))
    for no in (0.3, 0.003):
        received_by(front, no, 2)
    assert len(count) == passes
    power = np.mean([np.mean(np.abs(h) ** 2) for h, _ in front.calibration()])
    assert front.estimator.power == pytest.approx(power, rel=1e-5)


def test_what_is_measured_at_levels_is_interpolated_in_db():
    levels, rng = noise_levels(2.0, -20.0, 5.0, 5.0), np.random.default_rng(1)
    np.testing.assert_allclose(10 * np.log10(levels / 2), np.arange(-20, 6, 5), atol=1e-5)
    real, phases = rng.normal(size=(2, len(levels), 3))
    values = (real + 1j * phases).astype(np.complex64)
    for no_db in (-40.0, -20.0, -13.0, -0.1, 4.9, 5.0, 30.0):
        no = tf.constant(2 * 10 ** (no_db / 10), tf.float32)
        at = [np.interp(no_db, np.arange(-20, 6, 5), x) for x in values.T]
        np.testing.assert_allclose(between_levels(no, levels, values), at, atol=2e-6)
        np.testing.assert_allclose(
            between_levels(no, levels, values.real), np.real(at), atol=2e-6
        )


def test_results_of_estimated_channels_are_those_of_new_draws():
    """Stored counts of earlier versions are of detectors that were told something else."""
    assert load_scenario("cdl-c-4x4-qam16-ls").fingerprint() != "382f3716528a0475"
    assert load_scenario("cdl-c-4x4-qam16").fingerprint() == "545dfd60612e07d1"


@pytest.mark.parametrize(
    "csi, message",
    [
        ({"type": "ls", "spatial": True}, "csi.spatial: only csi.type = .lmmse. takes it"),
        ({"type": "ls", "covariance": "model"}, "csi.covariance: only csi.type = .lmmse."),
        ({"type": "lmmse", "covariance": "true"}, "csi.covariance: got 'true'"),
        ({"type": "lmmse", "spatial": 1}, "csi.spatial: got 1, expected true or false"),
        ({"type": "lmmse", "error_snr_db": 3.0}, "csi.error_snr_db: only"),
        ({"type": "mmse"}, "csi.type: got 'mmse'"),
        ({"type": "ls", "error": "matrix"}, "csi.error: got 'matrix'"),
        ({"type": "perfect", "error": "covariance"}, "csi.error: only csi.type = .ls."),
    ],
)
def test_keys_that_do_not_fit_are_refused(csi, message):
    with pytest.raises(InvalidInput, match=message):
        OFDM.replace(csi=csi)


def test_the_command_line_replaces_estimation_by_a_given_error(tmp_path):
    shipped = scenario_folder() / "pusch-cdl-c-4x2-mcs14.toml"
    text = shipped.read_text().replace('type = "lmmse"', 'type = "lmmse"\nspatial = true')
    (tmp_path / "mine.toml").write_text(text)
    mine = ["--scenario", str(tmp_path / "mine.toml"), "--csi-error", "20"]
    chosen = coded_ber.chosen_scenario(coded_ber.parse_arguments(mine, "prog"))
    assert chosen.to_dict()["csi"] == {"type": "noisy", "error_snr_db": 20.0}
    assert chosen.name == "mine+csi20db"


def test_the_command_line_leaves_out_what_belongs_to_what_it_replaces(tmp_path):
    """Keys that are without effect are refused, but these are not the user's."""
    text = (scenario_folder() / "cdl-c-4x4-qam16-ls.toml").read_text()
    text = text.replace('type = "ls"', 'type = "ls"\nerror = "covariance"')
    text = text.replace("[ofdm]", '[ofdm]\ninterpolation = "nn"')
    (tmp_path / "mine.toml").write_text(text)
    mine = ["--scenario", str(tmp_path / "mine.toml"), "--csi-error", "20"]
    chosen = coded_ber.chosen_scenario(coded_ber.parse_arguments(mine, "prog"))
    assert chosen.to_dict()["csi"] == {"type": "noisy", "error_snr_db": 20.0}
    loops = ["--scenario", "rayleigh-16x4-qam16-idd", "--code", "none"]
    chosen = coded_ber.chosen_scenario(coded_ber.parse_arguments(loops, "prog"))
    assert chosen.code.type == "none" and "loop" not in chosen.to_dict()
