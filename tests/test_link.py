"""The link against closed forms, and the draws it is made of."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.integrate import quad
from scipy.stats import norm
from sionna.phy import config

from linksim.constellation import bit_labels, pam_points
from linksim.errors import InvalidInput
from linksim.link.coding import WiFiLDPC
from linksim.link.link import Link
from linksim.link.scenario import load_scenario
from linksim.link.simulator import LinkSimulator
from linksim.montecarlo.engine import simulate
from linksim.montecarlo.jobs import run_batch
from linksim.montecarlo.statistics import Counts, binomial_interval


def gray_pam_ber(m, no):
    """BER of Gray-labelled QAM with nearest-point decisions, exact."""
    points, labels = pam_points(m).astype(float), bit_labels(m // 2)
    order = np.argsort(points)
    points, labels = points[order], labels[order]
    edges = np.concatenate([[-np.inf], (points[1:] + points[:-1]) / 2, [np.inf]])
    total = 0.0
    for x, sent in zip(points, labels):
        inside = np.diff(norm.cdf((edges - x) / np.sqrt(no / 2)))
        total += inside @ np.mean(labels != sent, axis=1)
    return total / len(points)


@pytest.mark.parametrize(
    "m, awgn_db, rayleigh_db", [(2, 7, 15), (4, 13, 20), (6, 19, 25), (8, 24, 30)]
)
def test_uncoded_ber_is_the_closed_form(m, awgn_db, rayleigh_db):
    scenario = load_scenario(f"awgn-siso-qam{2**m}").replace(
        code={"type": "none", "uses_per_block": 100}, run={"batch_size": 500}
    )
    fading = scenario.replace(channel={"type": "rayleigh"})
    for case, snr_db in ((scenario, awgn_db), (fading, rayleigh_db)):
        no = 10 ** (-snr_db / 10)
        if case is scenario:
            expected = gray_pam_ber(m, no)
        else:
            expected = quad(
                lambda g: np.exp(-g) * gray_pam_ber(m, no / g), 1e-9, 40, limit=300
            )[0]
        record = simulate(
            case, ["zf"], snr_db=snr_db, max_blocks=4000, target_block_errors=10**6
        )["records"][0]
        low, high = record["ber_low"], record["ber_high"]
        margin = (high - low) / 2 * 0.7  # 95 % to about 99.9 %
        assert low - margin < expected < high + margin, (m, snr_db, record["ber"])


def test_llrs_of_ml_are_calibrated():
    """In each bin of a million LLRs the share of ones is what the LLRs say."""
    scenario = load_scenario("rayleigh-2x2-qam64").replace(
        code={"type": "none", "uses_per_block": 100, "interleaver_seed": -1},
        run={"batch_size": 900},
    )
    simulator = LinkSimulator(scenario)
    simulator.add_detector("ml")
    batch = simulator.draw(0, 14.0, 0)
    llrs, _ = simulator.detect("ml", batch)
    llrs = llrs.numpy().reshape(-1).astype(float)
    bits = batch.bits.numpy().reshape(-1)
    assert len(bits) > 10**6
    claimed = 1 / (1 + np.exp(-llrs))
    index = np.digitize(llrs, np.arange(-12, 12.5, 1))
    outside = 0
    for i in np.unique(index):
        mine = index == i
        low, high = binomial_interval(bits[mine].sum(), mine.sum(), confidence=0.999)
        outside += not low <= claimed[mine].mean() <= high
    assert outside == 0


def test_wifi_code_is_systematic():
    code = WiFiLDPC(20, "boxplus")
    bits = np.random.default_rng(0).integers(0, 2, (10, 324)).astype(np.float32)
    coded = code.encode(bits).numpy()
    np.testing.assert_array_equal(coded[:, :324], bits)
    np.testing.assert_array_equal(code.decode(tf.constant(8.0 * coded - 4.0)), bits)


@pytest.mark.parametrize(
    "name",
    ["rayleigh-4x4-qam16", "cdl-a-2x2-qam64", "cdl-c-4x4-qam16", "gauss-markov-4x2-qpsk"],
)
def test_noise_free_block_comes_back(name):
    """The receiver undoes interleaver, padding, mapper and channel."""
    link = Link(load_scenario(name))
    simulator = LinkSimulator(link.scenario)
    simulator.add_detector("zf")
    batch = simulator.draw(0, 80.0, 3)
    counts, failed, _ = run_batch(simulator, "zf", batch)
    assert counts.block_errors == 0 and not failed.any()
    assert counts.bits == link.num_info_bits * counts.blocks


def test_batches_are_a_function_of_their_number():
    scenario = load_scenario("cdl-c-8x4-qam16").replace(run={"batch_size": 4})
    one, two = LinkSimulator(scenario), LinkSimulator(scenario, xla="off")
    forward = [one.draw(0, 8.0, b) for b in (0, 1, 2)]
    backward = [two.draw(0, 8.0, b) for b in (2, 1, 0)][::-1]
    for a, b in zip(forward, backward):
        for x, y in zip(a, b):
            np.testing.assert_array_equal(x.numpy(), y.numpy())
    for other in (one.draw(1, 8.0, 0), one.draw(0, 8.001, 0), forward[1]):
        assert np.abs(other.y.numpy() - forward[0].y.numpy()).max() > 0.1
        assert np.mean(other.bits.numpy() != forward[0].bits.numpy()) > 0.4


def test_cdl_leaves_sionnas_random_state_alone():
    from sionna.phy import config

    config.seed = 7
    expected = config.tf_rng.normal([3]).numpy()
    config.seed = 7
    LinkSimulator(load_scenario("cdl-a-2x2-qam64")).draw(0, 20.0, 0)
    np.testing.assert_array_equal(config.tf_rng.normal([3]).numpy(), expected)


def test_cdl_is_normalised_and_correlated():
    link = Link(load_scenario("cdl-c-8x4-qam16"))
    h = link.channel.sample_grid(tf.constant([5, 6]), 200, 14, 12, 0.07).numpy()
    assert h.shape == (200, 14, 12, 8, 4)
    power = np.mean(np.abs(h) ** 2, axis=(1, 2, 3, 4))
    np.testing.assert_allclose(power, 1, rtol=1e-4)
    x = h[:, 0, 0, :, 0]
    neighbours = np.mean(x[:, 1:] * x[:, :-1].conj()) / np.mean(np.abs(x) ** 2)
    assert np.abs(neighbours) > 0.5


def test_cdl_has_the_power_that_is_asked_for():
    """Channels scale with it, and so does N0 where the SNR is that of what is received."""
    one = load_scenario("cdl-c-16x8-qam16").replace(snr={"definition": "rx"})
    links = [Link(one), Link(one.replace(channel={"power": 1 / 16}))]
    unit, scaled = (x.channel.sample(tf.constant([3, 4]), 2, 5).numpy() for x in links)
    np.testing.assert_allclose(scaled, unit / 4, rtol=1e-5)
    unit, scaled = (x.no(10.0) for x in links)
    np.testing.assert_allclose(scaled, unit / 16, rtol=1e-6)
    with pytest.raises(InvalidInput, match="channel.power: got 0"):
        Link(one.replace(channel={"power": 0.0}))


def test_noise_has_the_variance_of_its_definition():
    for name in ("rayleigh-2x2-qam64", "cdl-c-4x4-qam16", "massive-64x16-qam16"):
        link = Link(load_scenario(name))
        batch = link.draw(link.keys(0, 3.0, 0), link.no(3.0), 0, 40)
        x = link.sender.points[batch.symbols.numpy()]
        noise = batch.y.numpy() - np.einsum("bumk,buk->bum", batch.h.numpy(), x)
        assert np.mean(np.abs(noise) ** 2) == pytest.approx(link.no(3.0), rel=0.06)


def test_noisy_csi_has_the_error_asked_for():
    scenario = load_scenario("massive-64x16-qam16").replace(
        csi={"type": "noisy", "error_snr_db": 20.0}
    )
    link = Link(scenario)
    batch = link.draw(link.keys(0, 9.0, 0), link.no(9.0), 0, 100)
    error = np.sum(np.abs(batch.h_hat.numpy() - batch.h.numpy()) ** 2)
    assert np.sum(np.abs(batch.h.numpy()) ** 2) / error == pytest.approx(100, rel=0.02)


def test_ls_estimate_is_that_of_sionna_in_noise():
    """The variance of its error is part of the noise that detectors assume."""
    link = Link(load_scenario("cdl-c-4x4-qam16-ls"))
    batch = link.draw(link.keys(0, 15.0, 0), link.no(15.0), 0, 20)
    error = np.mean(np.abs(batch.h_hat.numpy() - batch.h.numpy()) ** 2)
    assert 0.1 * link.no(15.0) < error < 10 * link.no(15.0)
    assert np.mean(batch.no.numpy()) > link.no(15.0)


def test_counts_add_up():
    assert Counts(1, 2, 3, 4, 5, 6, 7, 8, 9.0) + Counts() == Counts(
        1, 2, 3, 4, 5, 6, 7, 8, 9.0
    )


@pytest.mark.parametrize("setting", ["keras.config.floatx", "sionna.phy.config.precision"])
def test_global_settings_are_refused_by_name(setting):
    before = keras.config.floatx(), config.precision
    try:
        if setting.startswith("keras"):
            keras.config.set_floatx("float64")
        else:
            config.precision = "double"
        with pytest.raises(
            InvalidInput, match=f"{setting}.*'(float64|double)'.*'(float32|single)'"
        ):
            Link(load_scenario("rayleigh-2x2-qam64"))
    finally:
        keras.config.set_floatx(before[0])
        config.precision = before[1]
