"""linksim's detectors against Sionna's, alone and dropped into Sionna's links."""

import numpy as np
import pytest
import tensorflow as tf
from sionna.phy import config
from sionna.phy.mimo import EPDetector, KBestDetector, LinearDetector
from sionna.phy.mimo import MaximumLikelihoodDetector as SionnaML
from sionna.phy.utils import sim_ber

from linksim import InvalidInput, create_detector
from tests.conftest import draw_system
from tests.sionna_links import cdl_link, mimo_ofdm_link

QAM = {"constellation_type": "qam", "num_bits_per_symbol": 4}


@pytest.fixture
def system(rng):
    _, y, h, no = draw_system(rng, 1000, 6, 4, 4, 0.2)
    return y, h, (no[:, None, None] * np.eye(6)).astype(np.complex64)


def make(name, **options):
    return create_detector(name, num_streams=4, num_bits_per_symbol=4, **options)


@pytest.mark.parametrize("method", ["app", "maxlog"])
@pytest.mark.parametrize("name, theirs", [("mf", "mf"), ("zf", "zf"), ("mmse", "lmmse")])
def test_linear_detectors_equal_sionnas(system, name, theirs, method):
    expected = LinearDetector(theirs, "bit", method, **QAM)(*system).numpy()
    got = make(name, demapping_method=method)(*system).numpy()
    np.testing.assert_allclose(got, expected, rtol=3e-3, atol=3e-3)


@pytest.mark.parametrize("method", ["app", "maxlog"])
def test_ml_equals_sionnas(rng, method):
    _, y, h, no = draw_system(rng, 200, 2, 2, 6, 0.05)
    s = (no[:, None, None] * np.eye(2)).astype(np.complex64)
    expected = SionnaML("bit", method, 2, "qam", 6)(y, h, s).numpy()
    got = create_detector("ml", num_streams=2, num_bits_per_symbol=6, demapping_method=method)(
        y, h, s
    ).numpy()
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-3)


def test_ep_equals_sionnas(system):
    """Up to float32: where the two differ, Sionna's own double precision decides."""
    options = {"num_iterations": 10, "damping": 0.9, "demapping_method": "maxlog"}
    got = make("ep", **options)(*system).numpy()
    single = EPDetector("bit", 4)(*system).numpy()
    assert np.isclose(got, single, rtol=1e-2, atol=1e-2).mean() > 0.995
    config.precision = "double"
    try:
        double = EPDetector("bit", 4)(*(x.astype(np.complex128) for x in system)).numpy()
    finally:
        config.precision = "single"
    assert np.abs(got - double).mean() <= 1.5 * np.abs(single - double).mean() + 1e-3


def test_kbest_equals_sionnas_real_tree(system):
    """Except where real and imaginary columns of equal norm are ordered otherwise."""
    expected = KBestDetector("bit", 4, 32, use_real_rep=True, **QAM)(*system).numpy()
    got = make("kbest", k=32)(*system).numpy()
    assert np.isclose(got, expected, rtol=1e-3, atol=1e-3).mean() > 0.98


@pytest.mark.parametrize(
    "name", ["sionna-lmmse", "sionna-kbest", "sionna-ep", "sionna-mmse-pic", "sionna-ml"]
)
def test_sionnas_detectors_take_both_kinds_of_noise(system, name):
    y, h, s = (x[:20] for x in system)
    options = {"k": 16} if name == "sionna-kbest" else {}
    detector = make(name, **options)
    with_covariance = detector(y, h, s).numpy()
    assert with_covariance.shape == (20, 4, 4)
    np.testing.assert_allclose(
        detector(y, h, tf.fill([20], tf.math.real(s[0, 0, 0]))).numpy(), with_covariance
    )
    with pytest.raises(InvalidInput, match="unknown option"):
        make(name, colour="red")


@pytest.mark.parametrize(
    "link, perfect_csi",
    [
        (mimo_ofdm_link, True),
        (cdl_link, False),
        pytest.param(mimo_ofdm_link, False, marks=pytest.mark.slow),
        pytest.param(cdl_link, True, marks=pytest.mark.slow),
    ],
)
def test_drop_in_has_the_curve_of_the_original(link, perfect_csi):
    """The same seed gives the same draws, so the counts may be compared directly."""
    points = [-6.0, -2.0] if link is mimo_ofdm_link else [0.0, 4.0]
    curves = []
    for detector in (LinearDetector("lmmse", "bit", "app", **QAM), make("mmse")):
        config.seed = 11
        ber, bler = sim_ber(
            link(detector, perfect_csi),
            points,
            batch_size=20,
            max_mc_iter=3,
            early_stop=False,
            graph_mode="graph",
            verbose=False,
        )
        curves.append((ber.numpy(), bler.numpy()))
    (ber, bler), (our_ber, our_bler) = curves
    assert ber[0] > 0  # somewhere there are errors to compare
    # Same draws, so only decoding of borderline blocks can differ
    assert np.abs(our_bler - bler).max() <= 0.03
    np.testing.assert_allclose(our_ber, ber, rtol=0.1, atol=2e-4)


def test_drop_in_under_xla_and_for_other_detectors():
    for name in ("ep", "ml", "zf-sic"):
        model = mimo_ofdm_link(make(name), True)
        config.seed = 3
        ber, _ = sim_ber(
            model, [5.0], batch_size=4, max_mc_iter=1, graph_mode="xla", verbose=False
        )
        assert ber.numpy()[0] < 0.01


def test_grid_hands_detectors_what_sionnas_ofdm_detector_does():
    """y, the LS estimate and the noise variance on every data resource."""
    from sionna.phy.mimo import StreamManagement
    from sionna.phy.ofdm import OFDMDetector

    from linksim.link.link import Link
    from linksim.link.scenario import load_scenario

    link = Link(load_scenario("cdl-c-4x4-qam16-ls"))
    estimate, seen = link.front.estimator, {}

    def recording(y, no):
        h_hat, error = estimate(y, no)
        sionnas_y = tf.transpose(y, [0, 3, 1, 2])[:, None]
        sionnas_h, _ = estimate.sionna(sionnas_y, no)
        # For every antenna the variance that is ours: Sionna's knows no interpolation
        error_of_streams = tf.transpose(error, [2, 0, 1])[None, None, None, None]
        seen["args"] = sionnas_y, sionnas_h, error_of_streams, no
        return h_hat, error

    link.front.estimator = recording
    batch = link.draw(link.keys(0, 10.0, 0), tf.constant(link.no(10.0), tf.float32), 0, 3)

    def capture(y, h, s):
        seen["inputs"] = (y, h, s)
        return tf.zeros(tf.concat([tf.shape(h)[:-2], [4, 4]], 0))

    rg = link.front.resource_grid
    OFDMDetector(capture, "bit", rg, StreamManagement(np.ones((1, 1)), 4))(*seen["args"])
    y, h, s = (
        x.numpy().reshape(3, -1, *x.shape[4:])[:, link.front.data] for x in seen["inputs"]
    )
    np.testing.assert_allclose(batch.y.numpy(), y, atol=1e-6)
    np.testing.assert_allclose(batch.h_hat.numpy(), h, atol=1e-6)
    expected = batch.no.numpy()[..., None, None] * np.eye(4)
    np.testing.assert_allclose(s, expected, rtol=1e-4, atol=1e-6)
