"""Learned detectors against NumPy written from the equations, and as Keras layers.

Runs on any Keras backend.
"""

import keras
import numpy as np
import pytest
from keras import ops

from linksim.constellation import pam_points, qam_points
from linksim.detectors.detnet import DetNetDetector
from linksim.detectors.hypermimo import HyperDetector, HyperMIMODetector
from linksim.detectors.mmnet import MMNetDetector, MMNetIIDDetector
from linksim.detectors.nndet import NNDetDetector
from linksim.detectors.oamp import OAMPDetector
from linksim.detectors.oampnet import (
    OAMPNet2Detector,
    OAMPNetDetector,
    WeSOAMPNetDetector,
)
from linksim.detectors.perchannel import FixedChannelDetector
from linksim.detectors.remimo import REMIMODetector
from linksim.errors import InvalidInput
from linksim.registry import build_detector
from tests.conftest import draw_system
from tests.systems import functional, needs_tensorflow, randomize, real_tensors, run, to_llrs

SMALL = {"num_blocks": 3, "hidden_sizes": (20, 12)}
STRUCTURES = ["highway", "residual"]
LEARNED = [
    lambda k, m, **options: OAMPNetDetector(k, m, num_iterations=2, **options),
    lambda k, m, **options: OAMPNet2Detector(k, m, num_iterations=2, **options),
    lambda k, m, **options: NNDetDetector(k, m, **SMALL, **options),
    lambda k, m, **options: NNDetDetector(
        k, m, structure="residual", normalize=True, **SMALL, **options
    ),
    lambda k, m, **options: DetNetDetector(k, m, num_layers=3, **options),
    lambda k, m, **options: DetNetDetector(
        k, m, num_layers=3, head="soft-sign", normalize=True, **options
    ),
    lambda k, m, **options: DetNetDetector(
        k, m, num_layers=3, profile="linear", scaled="inputs", fraction=0.7, **options
    ),
    lambda k, m, **options: DetNetDetector(
        k,
        m,
        num_layers=3,
        head="soft-sign",
        profile="half-exponential",
        learnable_profile=True,
        **options,
    ),
    lambda k, m, **options: WeSOAMPNetDetector(
        k, m, num_iterations=2, profile="linear", fraction=0.5, **options
    ),
    lambda k, m, **options: NNDetDetector(
        k, m, profile="linear", learnable_profile=True, **SMALL, **options
    ),
    lambda k, m, **options: MMNetIIDDetector(k, m, num_layers=3, **options),
    lambda k, m, **options: MMNetDetector(k, m, num_layers=3, num_channels=2, **options),
    lambda k, m, **options: REMIMODetector(
        k, m, num_blocks=2, state_size=16, num_heads=2, **options
    ),
    lambda k, m, **options: FixedChannelDetector(
        k, m, network_options={"num_layers": 2}, num_channels=2, **options
    ),
    lambda k, m, **options: HyperMIMODetector(k, m, num_layers=3, **options),
    lambda k, m, **options: HyperMIMODetector(k, m, num_layers=2, num_drops=3, **options),
    lambda k, m, **options: HyperDetector(k, m, network_options={"num_layers": 3}, **options),
    lambda k, m, **options: HyperDetector(
        k, m, network="detnet", network_options={"num_layers": 2}, **options
    ),
]
NAMES = ["2", "4", "nn", "nn-res", "det", "det-sign", "det-in", "l-wes", "wes-oamp", "l-nn"]
NAMES += ["mm-iid", "mm", "re", "det-fc", "hyper", "hyper-drops", "hyper-mm", "hyper-det"]
each_learned = pytest.mark.parametrize("make", LEARNED, ids=NAMES)


@pytest.fixture(autouse=True)
def the_same_weights_every_time():
    keras.utils.set_random_seed(2026)


# --- OAMP-Net ----------------------------------------------------------------------


def oampnet_reference(y, h, no, m, scalars, lagged=False):
    """LLRs and the last x.

    The arithmetic is complex for QAM and real for BPSK, whose y has its imaginary parts
    stacked below. The variances are those of real dimensions in both cases.
    """
    if m == 1:
        y, h = np.concatenate([y.real, y.imag], -1), np.concatenate([h.real, h.imag], -2)
    points = qam_points(m).astype(complex)
    all_llrs, all_x = [], []
    for yi, hi, ni in zip(y.astype(complex), h.astype(complex), no.astype(float)):
        (rows, k), s2 = hi.shape, ni / 2
        real_rows = rows if m == 1 else 2 * rows
        dims = 1 if m == 1 else 2  # real dimensions of a symbol
        hh = hi.conj().T
        trace = dims * np.trace(hh @ hi).real
        x, old = np.zeros(k, complex), 1 / dims
        for gamma, theta, phi, xi in scalars:
            residual = yi - hi @ x
            v2 = max((np.linalg.norm(residual) ** 2 - real_rows * s2) / trace, 1e-9)
            w2, old = (old if lagged else v2), v2
            w_hat = w2 * hh @ np.linalg.inv(w2 * hi @ hh + s2 * np.eye(rows))
            w = k * w_hat / np.trace(w_hat @ hi).real
            b = np.eye(k) - theta * w @ hi
            tau2 = v2 / k * np.trace(b @ b.conj().T).real
            tau2 += theta**2 * s2 / k * np.trace(w @ w.conj().T).real
            r = x + gamma * w @ residual
            logits = -(np.abs(r[:, None] - points) ** 2) / (2 * tau2)
            pmf = np.exp(logits - logits.max(-1, keepdims=True))
            mean = (pmf * points).sum(-1) / pmf.sum(-1)
            x = phi * (mean - xi * r)
        all_llrs.append(to_llrs(logits, m, "app"))
        all_x.append(x.real if m == 1 else np.concatenate([x.real, x.imag]))
    return np.array(all_llrs), np.array(all_x)


def with_scalars(detector, rng):
    """Assign random scalars, and return them completed to gamma, theta, phi and xi."""
    p = detector.num_parameters
    scalars = np.array([0.9, 0.8, 0.9, 0.05]) + 0.2 * rng.random((detector.num_iterations, 4))
    detector.scalars.assign(scalars[:, :p].astype(np.float32))
    scalars[:, p:] = [1.0, 1.0, 1.0, 0.0][p:]
    return scalars.astype(np.float32).astype(float)


@pytest.mark.parametrize(
    "cls, num_rx, m, lagged",
    [
        (OAMPNetDetector, 8, 4, False),
        (OAMPNetDetector, 8, 2, True),
        (OAMPNet2Detector, 8, 4, False),
        (OAMPNet2Detector, 8, 2, True),
        (OAMPNet2Detector, 4, 2, False),
        (OAMPNet2Detector, 6, 1, False),
        (OAMPNet2Detector, 8, 6, False),
    ],
)
def test_oampnet_is_its_equations(rng, cls, num_rx, m, lagged):
    k = 4
    _, y, h, no = draw_system(rng, 20, num_rx, k, m, 1.0)
    detector = cls(k, m, num_iterations=4, lagged_variance=lagged)
    llrs, x = oampnet_reference(y, h, no, m, with_scalars(detector, rng), lagged)
    got = run(detector, y, h, no)
    scale = np.maximum(np.abs(llrs), 1.0)
    np.testing.assert_allclose(got / scale, llrs / scale, atol=1e-4)
    system = real_tensors(y, h)
    if m == 1:
        system = system[0], system[1][..., :k]
    np.testing.assert_allclose(detector.estimate(*system, no), x, atol=1e-4)


@pytest.mark.parametrize("cls", [OAMPNetDetector, OAMPNet2Detector])
@pytest.mark.parametrize("lagged", [False, True])
def test_untrained_oampnet_is_oamp(rng, cls, lagged):
    _, y, h, no = draw_system(rng, 50, 8, 6, 4, 0.1, correlation=0.5)
    options = {"num_iterations": 4, "lagged_variance": lagged}
    expected = np.asarray(OAMPDetector(6, 4, **options)(y, h, no))
    got = np.asarray(cls(6, 4, **options)(y, h, no))
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)
    assert cls(6, 4).scalars.shape == (10, 2 if cls is OAMPNetDetector else 4)


def test_oampnet_permutes_with_the_streams(rng):
    _, y, h, no = draw_system(rng, 20, 8, 4, 4, 0.5)
    order = np.array([2, 0, 3, 1])
    detector = OAMPNet2Detector(4, 4, num_iterations=4)
    with_scalars(detector, rng)
    straight = np.asarray(detector(y, h, no))[:, order]
    permuted = np.asarray(detector(y, h[..., order], no))
    np.testing.assert_allclose(permuted, straight, rtol=1e-3, atol=1e-3)


def test_every_vector_uses_the_scalars_of_the_nearest_noise(rng):
    _, y, h, _ = draw_system(rng, 6, 8, 4, 4, 0.5)
    grid = (0.1, 1.0, 10.0)
    # On a log scale the middle of 0.1 and 1 is between 0.3 and 0.4
    no = np.array([0.01, 0.3, 0.4, 1.0, 3.5, 99.0], np.float32)
    detector = OAMPNet2Detector(4, 4, num_iterations=2, no_grid=grid)
    assert detector.scalars.shape == (3, 2, 4)
    scalars = np.array([1, 1, 1, 0]) + 0.2 * rng.random((3, 2, 4)).astype(np.float32)
    detector.scalars.assign(scalars)
    got = run(detector, y, h, no)
    one = OAMPNet2Detector(4, 4, num_iterations=2)
    for point, vectors in enumerate([[0, 1], [2, 3], [4, 5]]):
        one.scalars.assign(scalars[point])
        expected = np.asarray(one(y[vectors], h[vectors], no[vectors]))
        np.testing.assert_allclose(got[vectors], expected, rtol=1e-3, atol=1e-3)


@needs_tensorflow
@pytest.mark.parametrize(
    "cls, num_rx, no_grid",
    [
        *((OAMPNet2Detector, 3, None), (OAMPNet2Detector, 4, (1e-4, 1.0))),
        *((OAMPNet2Detector, 8, None), (OAMPNetDetector, 8, None)),
    ],
)
def test_oampnet_gradients_are_finite_at_any_noise(rng, cls, num_rx, no_grid):
    import tensorflow as tf

    symbols, y, h, _ = draw_system(rng, 60, num_rx, 4, 4, 1e-3)
    h[0], h[1, :, 1] = 0, h[1, :, 0]
    no = np.repeat(np.array([1e-12, 1e-8, 1e-4, 1e-2, 1.0, 1e4], np.float32), 10)
    detector = cls(4, 4, no_grid=no_grid, output="symbol")
    randomize(detector)
    with tf.GradientTape() as tape:
        logits = detector(y, h, no)
        loss = keras.losses.sparse_categorical_crossentropy(symbols, logits, True)
        error = detector.estimate(*real_tensors(y, h), no)
        loss = ops.mean(loss) + ops.mean(ops.square(error))
    gradient = tape.gradient(loss, detector.scalars)
    assert np.isfinite(gradient.numpy()).all()
    assert np.abs(gradient.numpy()).max() > 0
    assert np.ptp(logits[0].numpy()) < 1e-3  # a zero channel has no information


def test_oampnet_refuses_bad_options():
    for options, message in [
        ({"num_parameters": 2}, "num_parameters: got 2, expected one of: 4"),
        ({"num_iterations": 0}, "num_iterations"),
        ({"lagged_variance": 1}, "lagged_variance"),
        ({"no_grid": 0.1}, "no_grid: got 0.1"),
        ({"no_grid": []}, "no_grid"),
        ({"no_grid": (0.0, 1.0)}, "no_grid: got 0.0, expected a finite number > 0"),
        ({"no_grid": (1.0, 0.1)}, "ascending"),
    ]:
        with pytest.raises(InvalidInput, match=message):
            OAMPNet2Detector(4, 4, **options)
    with pytest.raises(InvalidInput, match="num_parameters: got 3, expected one of: 2, 4"):
        OAMPNetDetector(4, 4, num_parameters=3)


# --- NN-Det ------------------------------------------------------------------------


def nndet_reference(detector, y, h, no):
    """PAM logits of every block, in inference mode."""

    def dense(layer, x):
        out = x @ np.asarray(layer.kernel)
        return out + np.asarray(layer.bias) if layer.use_bias else out

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    y, h = real_tensors(y.astype(complex), h.astype(complex))
    points = pam_points(detector.num_bits_per_symbol).astype(float)
    hty, gram = np.einsum("bmn,bm->bn", h, y), np.einsum("bmn,bmk->bnk", h, h)
    extra = np.zeros((len(y), 0))
    if detector.normalize:
        gain = np.einsum("bnn->b", gram) / gram.shape[-1] + no / 2
        hty, gram = hty / gain[:, None], gram / gain[:, None, None]
        extra = np.log(2 * gain / no)[:, None]
    residual = detector.structure == "residual"
    x, total, every = np.zeros_like(hty), 0.0, []
    memory = np.zeros((len(y), 2 * x.shape[-1] if residual else 0))
    for k, block in enumerate(detector.blocks):
        z = np.concatenate([hty, np.einsum("bnk,bk->bn", gram, x), x, memory, extra], -1)
        for layer, norm in zip(block.hidden, block.norms):
            mean, variance = np.asarray(norm.moving_mean), np.asarray(norm.moving_variance)
            z = (dense(layer, z) - mean) / np.sqrt(variance + norm.epsilon)
            z = np.maximum(z * np.asarray(norm.gamma) + np.asarray(norm.beta), 0)
        logits = dense(block.logits, z).reshape(len(y), x.shape[-1], len(points))
        total = total + logits if residual else logits
        every.append(total)
        if k + 1 < len(detector.blocks):
            pmf = np.exp(total - total.max(-1, keepdims=True))
            mean = (pmf * points).sum(-1) / pmf.sum(-1)
            if residual:
                x, memory = mean, dense(detector.features[k], z)
            else:
                admit = sigmoid(dense(detector.admit[k], x))
                x = admit * mean + (1 - sigmoid(dense(detector.forget[k], x))) * x
    return every


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("normalize", [False, True])
def test_nndet_is_its_equations(rng, structure, normalize):
    _, y, h, no = draw_system(rng, 20, 5, 3, 4, 0.3)
    detector = NNDetDetector(3, 4, structure=structure, normalize=normalize, **SMALL)
    randomize(detector)
    expected = nndet_reference(detector, y, h, no)
    got = detector.all_logits(*real_tensors(y, h), no)
    assert len(got) == 3
    for a, b in zip(got, expected):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
    # LLRs sum the probabilities of the levels
    half = to_llrs(expected[-1], 2, "app")
    llrs = np.stack([half[:, :3], half[:, 3:]], -1).reshape(20, 3, 4)
    np.testing.assert_allclose(run(detector, y, h, no), llrs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_dropout_follows_the_outer_model(rng, structure):
    _, y, h, no = draw_system(rng, 16, 4, 2, 4, 0.1)
    detector = NNDetDetector(2, 4, dropout=0.5, structure=structure, **SMALL)
    model = functional(detector, 4)
    still = np.asarray(model((y, h, no)))
    np.testing.assert_array_equal(np.asarray(model((y, h, no))), still)
    np.testing.assert_array_equal(np.asarray(detector(y, h, no)), still)
    moving = np.asarray(detector.blocks[0].norms[0].moving_mean)
    first = np.asarray(model((y, h, no), training=True))
    second = np.asarray(model((y, h, no), training=True))
    assert np.abs(first - second).max() > 1e-3
    # The batch statistics moved too
    assert np.abs(np.asarray(detector.blocks[0].norms[0].moving_mean) - moving).max() > 0
    system = real_tensors(y, h)
    first, second = (detector.all_logits(*system, no, training=True)[0] for _ in range(2))
    assert np.abs(np.asarray(first) - np.asarray(second)).max() > 1e-3


@needs_tensorflow
@pytest.mark.parametrize("structure", STRUCTURES)
def test_nndet_learns(rng, structure):
    """A few steps on one batch lower the loss, and every weight gets a gradient."""
    import tensorflow as tf

    symbols, y, h, no = draw_system(rng, 128, 4, 2, 2, 0.05)
    detector = NNDetDetector(2, 2, output="symbol", structure=structure, **SMALL)
    model = functional(detector, 4)
    optimizer = keras.optimizers.Adam(1e-2)
    optimizer.build(model.trainable_variables)

    @tf.function(autograph=False)
    def step():
        with tf.GradientTape() as tape:
            logits = model((y, h, no), training=True)
            loss = keras.losses.sparse_categorical_crossentropy(symbols, logits, True)
            loss = ops.mean(loss)
        gradients = tape.gradient(loss, model.trainable_variables)
        assert all(g is not None for g in gradients)
        optimizer.apply(gradients, model.trainable_variables)
        return loss

    losses = [float(step()) for _ in range(15)]
    assert losses[-1] < 0.9 * losses[0]


def test_nndet_refuses_bad_options():
    for options, message in [
        ({"num_blocks": 0}, "num_blocks"),
        ({"hidden_sizes": 250}, "hidden_sizes: got 250"),
        ({"hidden_sizes": (250, 0)}, "hidden_sizes: got 0"),
        ({"dropout": 1.0}, "dropout"),
        ({"structure": "dense"}, "structure: got 'dense', expected one of"),
        ({"normalize": 1}, "normalize"),
    ]:
        with pytest.raises(InvalidInput, match=message):
            NNDetDetector(2, 4, **options)


# --- all ---------------------------------------------------------------------------


@each_learned
@pytest.mark.parametrize(
    "num_rx, k, m, output",
    [(4, 1, 4, "bit"), (3, 3, 6, "symbol"), (2, 3, 2, "bit"), (3, 2, 1, "symbol")],
)
def test_sizes_and_outputs(rng, make, num_rx, k, m, output):
    """K = 1, K = M, K > M and BPSK, with two leading dimensions and a zero channel."""
    _, y, h, no = draw_system(rng, 6, num_rx, k, m, 0.1)
    h[1] = 0
    stacked = [x.reshape((2, 3) + x.shape[1:]) for x in (y, h, no)]
    out = np.asarray(make(k, m, output=output)(*stacked))
    assert out.shape == (2, 3, k, m if output == "bit" else 2**m)
    assert out.dtype == np.float32 and np.isfinite(out).all()


@needs_tensorflow
@each_learned
def test_unknown_batch_size_and_xla(rng, make):
    import tensorflow as tf

    _, y, h, no = draw_system(rng, 7, 5, 3, 4, 0.5)
    detector = make(3, 4)
    build_detector(detector, 5)
    randomize(detector)
    args = [tf.constant(x) for x in (y, h, no)]
    unknown = [tf.TensorSpec([None, *x.shape[1:]], x.dtype) for x in args]
    eager = detector(*args).numpy()
    for options in ({"input_signature": unknown}, {"jit_compile": True}):
        got = tf.function(lambda *a: detector(*a), autograph=False, **options)(*args)
        assert got.shape == (7, 3, 4)
        np.testing.assert_allclose(got, eager, rtol=2e-3, atol=2e-3)


@each_learned
def test_config_and_weights_round_trip(rng, make, tmp_path):
    _, y, h, no = draw_system(rng, 5, 4, 3, 4, 0.5)
    detector = make(3, 4)
    build_detector(detector, 4)
    randomize(detector)
    config = detector.get_config()
    again = type(detector).from_config(config)
    assert again.get_config() == config

    model = functional(detector, 4)
    llrs = np.asarray(model((y, h, no)))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(np.asarray(loaded((y, h, no))), llrs, rtol=1e-5, atol=1e-5)
    model.save_weights(tmp_path / "model.weights.h5")
    fresh = functional(again, 4)
    assert np.abs(np.asarray(fresh((y, h, no))) - llrs).max() > 1e-3
    fresh.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_allclose(np.asarray(fresh((y, h, no))), llrs, rtol=1e-5, atol=1e-5)


def test_a_grid_of_noise_survives_a_file(tmp_path):
    model = functional(OAMPNet2Detector(2, 2, num_iterations=2, no_grid=[0.1, 1.0]), 4)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.layers[-1].no_grid == (0.1, 1.0)
