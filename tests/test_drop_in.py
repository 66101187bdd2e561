"""What Sionna's own tests ask of its detectors, asked of ours: the same call, in its places."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from sionna.phy import config
from sionna.phy.mimo import (
    EPDetector,
    KBestDetector,
    LinearDetector,
    MaximumLikelihoodDetector,
    StreamManagement,
)
from sionna.phy.nr import PUSCHConfig, PUSCHReceiver, PUSCHTransmitter
from sionna.phy.ofdm import OFDMDetector, ResourceGrid

from linksim import InvalidInput, create_detector, simulate
from linksim.detectors.ep import ep_states
from linksim.detectors.real import complex_to_real_channel
from tests.conftest import draw_system, slow_but

M, K, BITS = 6, 2, 4
QAM = {"constellation_type": "qam", "num_bits_per_symbol": BITS}
OURS = ["mf", "mmse", "ml", "ep", "kbest", "sphere", "oamp", "amp", "zf-sic", "vblast-mmse"]
QUICK = ("mf", "mmse", "ml", "ep", "kbest")


def make(name, num_streams=K, **options):
    options = {**({"k": 64} if name == "kbest" else {}), **options}
    return create_detector(name, num_streams=num_streams, num_bits_per_symbol=BITS, **options)


@pytest.fixture
def system(rng):
    """y [4, 5, M] and h [4, 5, M, K] in noise of a coloured covariance [M, M]."""
    _, y, h, _ = draw_system(rng, 20, M, K, BITS, 0.1)
    root = rng.normal(size=(M, M, 2)) @ [1, 1j]
    s = (0.02 * root @ root.conj().T + 0.1 * np.eye(M)).astype(np.complex64)
    return y.reshape(4, 5, M), h.reshape(4, 5, M, K), s


THEIRS = {
    "mf": lambda output: LinearDetector("mf", output, "app", **QAM),
    "mmse": lambda output: LinearDetector("lmmse", output, "app", **QAM),
    "ml": lambda output: MaximumLikelihoodDetector(output, "app", K, **QAM),
    "ep": lambda output: EPDetector(output, BITS),
    # All paths, because the two trees differ where some are dropped
    "kbest": lambda output: KBestDetector(output, K, 256, use_real_rep=True, **QAM),
}

AS_THEIRS = {
    "ep": {"num_iterations": 10, "damping": 0.9, "demapping_method": "maxlog"},
    "kbest": {"k": 256},
}


@pytest.mark.parametrize(
    "name, output",
    # Sionna's K-Best has no soft symbols
    [(n, o) for n in THEIRS for o in ("bit", "symbol") if (n, o) != ("kbest", "symbol")],
)
def test_results_are_sionnas_for_all_that_broadcasts(system, name, output):
    y, h, s = system
    ours = make(name, output=output, **AS_THEIRS.get(name, {}))
    theirs = THEIRS[name](output)
    several = np.stack([s, 2 * s, s / 2, 3 * s, s])
    for shared in (s, s[None], s[None, None], several, np.eye(M, dtype=np.complex64) / 10):
        expected = theirs(y, h, tf.constant(np.broadcast_to(shared, (4, 5, M, M)))).numpy()
        got = ours(y, h, shared).numpy()
        assert got.shape == expected.shape
        if output == "symbol":  # up to a constant
            got, expected = (x - x.max(-1, keepdims=True) for x in (got, expected))
            likely = expected > -15
            got, expected = got[likely], expected[likely]
        close = np.isclose(got, expected, rtol=2e-2, atol=2e-2)
        assert close.mean() > 0.98, shared.shape


def test_zero_forcing_knows_the_colour_of_the_noise_and_sionnas_does_not(rng):
    """Both have no interference; ours lets less noise through. `mf(whiten=True)` too."""
    symbols, _, h, _ = draw_system(rng, 3000, 6, 3, BITS, 0.1)
    root = rng.normal(size=(6, 6, 2)) @ [1, 1j]
    s = 0.03 * root @ root.conj().T + 0.0003 * np.eye(6)
    noise = (rng.normal(size=(3000, 6, 2)) @ [1, 1j] / 2**0.5) @ np.linalg.cholesky(s).T
    from linksim.constellation import qam_points

    def rate(detector, streams):
        sent = symbols[:, :streams]
        y = np.einsum("bmk,bk->bm", h[..., :streams], qam_points(BITS)[sent]) + noise
        y, s_ = y.astype(np.complex64), s.astype(np.complex64)
        return np.mean(detector(y, h[..., :streams], s_).numpy() != sent)

    hard = {"output": "symbol", "hard_out": True}
    full = tf.constant(np.broadcast_to(s, (3000, 6, 6)).astype(np.complex64))
    sionnas = LinearDetector(
        "zf", hard_out=True, output="symbol", demapping_method="app", **QAM
    )
    assert rate(make("zf", 3, **hard), 3) < 0.7 * rate(lambda y, h, s: sionnas(y, h, full), 3)
    # One stream: the filter matched to channel and noise is the best there is
    whitened, plain, best = (
        rate(make(n, 1, **hard, **o), 1)
        for n, o in (("mf", {"whiten": True}), ("mf", {}), ("mmse", {}))
    )
    assert whitened == pytest.approx(best, abs=1e-3) and whitened < 0.7 * plain


@pytest.mark.parametrize("name", slow_but(QUICK, OURS))
@pytest.mark.parametrize("mode", ["graph", pytest.param("xla", marks=pytest.mark.slow)])
def test_ofdm_detector_takes_ours(rng, name, mode):
    """Every output, with a batch size that is unknown."""
    grid = ResourceGrid(
        num_ofdm_symbols=4,
        fft_size=12,
        subcarrier_spacing=30e3,
        num_tx=1,
        num_streams_per_tx=K,
        pilot_pattern="kronecker",
        pilot_ofdm_symbol_indices=[0],
    )
    management = StreamManagement(np.ones((1, 1)), K)

    def normal(*shape):
        return tf.constant((rng.normal(size=(*shape, 2)) @ [1, 1j]).astype(np.complex64))

    args = (
        normal(3, 1, M, 4, 12),
        normal(3, 1, M, 1, K, 4, 12),
        tf.zeros([1, 1, 1, 1, K, 4, 12]),
        tf.constant(0.5),
    )
    for output, hard, last in (
        ("bit", False, BITS),
        ("symbol", False, 16),
        ("symbol", True, None),
    ):
        inner = make(name, output=output, hard_out=hard)
        detector = OFDMDetector(inner, output, grid, management)
        signature = [tf.TensorSpec([None, *x.shape[1:]], x.dtype) for x in args[:2]]
        graph = tf.function(
            lambda y, h, d=detector: d(y, h, *args[2:]),
            input_signature=signature,
            jit_compile=mode == "xla",
            autograph=False,
        )
        out = graph(*args[:2])
        if last == BITS:
            assert out.shape == (3, 1, K, grid.num_data_symbols * BITS)
        else:
            assert out.shape[:4] == (3, 1, K, grid.num_data_symbols)


def test_pusch_receiver_takes_ours():
    """Without noise and channel estimation every transport block arrives."""
    pusch = PUSCHConfig()
    pusch.carrier.n_size_grid = 4
    pusch.num_antenna_ports = pusch.num_layers = 2
    pusch.tb.mcs_index = 10
    transmitter = PUSCHTransmitter(pusch)
    x, bits = transmitter(2)
    management = StreamManagement(np.ones((1, 1)), 2)
    grid_shape = x.shape[-2:]
    h = np.zeros((2, 1, 4, 1, 2, *grid_shape), np.complex64)
    h[:, :, :2, :, :] = np.eye(2)[None, None, :, None, :, None, None]
    h[:, :, 2:, :, :] = 0.5 * np.ones((2, 2))[None, None, :, None, :, None, None]
    y = np.einsum("brmtkns,btkns->brmns", h, x.numpy()).astype(np.complex64)
    inner = create_detector(
        "mmse",
        num_streams=2,
        num_bits_per_symbol=pusch.tb.num_bits_per_symbol,
    )
    receiver = PUSCHReceiver(
        transmitter,
        channel_estimator="perfect",
        mimo_detector=OFDMDetector(inner, "bit", transmitter.resource_grid, management),
        stream_management=management,
    )
    decided = receiver(tf.constant(y), tf.constant(0.01), h=tf.constant(h))
    np.testing.assert_array_equal(decided, bits)


def test_sionnas_double_precision_is_refused_by_name():
    config.precision = "double"
    try:
        with pytest.raises(InvalidInput, match="sionna.phy.config.precision.*'single'"):
            simulate("rayleigh-4x4-qam16", ["mmse"], snr_db=[4.0], max_blocks=1)
    finally:
        config.precision = "single"


def test_kbest_without_a_bound_on_llrs(system):
    """As many LLRs as paths can tell, and finite ones for all others."""
    y, h, s = system
    few = {"k": 4, "demapping_method": "maxlog"}
    bounded = make("kbest", llr_clip=1000.0, **few)(y, h, s).numpy()
    for clip in (float("inf"), None):
        detector = make("kbest", llr_clip=clip, **few)
        llrs = detector(y, h, s).numpy()
        known = np.abs(bounded) < 900
        np.testing.assert_allclose(llrs[known], bounded[known], rtol=1e-5)
        assert np.isfinite(llrs).all() and (np.abs(llrs[~known]) > 1e29).all()
        assert 0 < known.mean() < 1
        assert detector.get_config()["llr_clip"] is None
    logits = make("kbest", llr_clip=float("inf"), output="symbol", **few)(y, h, s)
    assert np.isfinite(logits).all()
    assert make("sphere", llr_clip=float("inf")).llr_clip is None
    for wrong in (0.0, -1.0, float("nan"), "20"):
        with pytest.raises(InvalidInput, match="llr_clip"):
            make("kbest", llr_clip=wrong)


@pytest.mark.parametrize("name", ["mf", "mmse", "ml", "amp", "oamp", "wesnet-hf", "detnet"])
def test_gradients_with_respect_to_y_and_h(rng, name):
    """Against differences, in one random direction and up to the rounding of float32."""
    _, y, h, no = draw_system(rng, 6, M, K, BITS, 0.3)
    keras.utils.set_random_seed(1)  # of the weights of networks
    detector = make(name)
    dy, dh = (rng.normal(size=(*x.shape, 2)) @ [1, 1j] for x in (y, h))
    weights = rng.normal(size=(6, K, BITS)).astype(np.float32)

    @tf.function(autograph=False)
    def value(step):
        llrs = detector(
            tf.constant(y) + tf.cast(step, tf.complex64) * dy.astype(np.complex64),
            tf.constant(h) + tf.cast(step, tf.complex64) * dh.astype(np.complex64),
            no,
        )
        return tf.reduce_sum(weights * tf.tanh(llrs / 10))

    @tf.function(autograph=False)
    def slope(step):
        with tf.GradientTape() as tape:
            tape.watch(step)
            out = value(step)
        return tape.gradient(out, step)

    eps = 2e-3
    difference = (value(tf.constant(eps)) - value(tf.constant(-eps))) / (2 * eps)
    derivative = slope(tf.constant(0.0))
    assert derivative is not None and abs(float(derivative)) > 1e-4
    np.testing.assert_allclose(derivative, difference, rtol=3e-2, atol=3e-2)


def test_gradients_of_expectation_propagation(rng):
    """As above, for vectors whose factors are all new ones and not too sure.

    A factor that would have a negative precision stays as it was, and the result jumps
    where that begins. A factor that is sure of a level has a variance at its floor of
    1e-6: its cavity is then a difference of large numbers, and the rounding of float32 is
    as large as the differences of this test.
    """
    _, y, h, no = draw_system(rng, 60, M, K, BITS, 0.3)
    detector = make("ep")
    dy, dh = ((rng.normal(size=(*x.shape, 2)) @ [1, 1j]).astype(np.complex64) for x in (y, h))

    def moved(step):
        step = tf.cast(step, tf.complex64)
        return y + step * dy, h + step * dh

    def is_smooth(step):
        before, after = ep_states(
            *complex_to_real_channel(*moved(step)), no, detector.points, 1, detector.damping
        )
        new = (after.precision != before.precision) & (after.precision < 3e4)
        return np.all(new, axis=1)

    eps = 4e-3
    smooth = np.all([is_smooth(step) for step in np.linspace(-eps, eps, 5)], axis=0)
    assert 10 < smooth.sum() < 60
    weights = rng.normal(size=(60, K, BITS)) * smooth[:, None, None]

    def value(step):
        llrs = detector(*moved(step), no)
        return tf.reduce_sum(weights.astype(np.float32) * tf.tanh(llrs / 10))

    step = tf.constant(0.0)
    with tf.GradientTape() as tape:
        tape.watch(step)
        out = value(step)
    derivative = tape.gradient(out, step)
    difference = (value(tf.constant(eps)) - value(tf.constant(-eps))) / (2 * eps)
    assert abs(float(derivative)) > 1
    np.testing.assert_allclose(derivative, difference, rtol=3e-2)
