"""Weight scaling against masked networks and the paper's formulas. Runs on any backend."""

import math

import keras
import numpy as np
import pytest
from keras import ops

from linksim.constellation import pam_points
from linksim.detectors.detnet import DetNetDetector
from linksim.detectors.nndet import NNDetDetector
from linksim.detectors.oamp import OAMPDetector
from linksim.detectors.oampnet import WeSOAMPNetDetector
from linksim.detectors.weight_scaling import (
    PROFILES,
    WeightScaling,
    num_kept,
    profile_coefficients,
)
from linksim.errors import InvalidInput
from linksim.names import parse_receiver
from linksim.registry import create_detector, list_detectors
from linksim.training.losses import log_l1_penalty
from tests.conftest import draw_system
from tests.systems import functional, needs_tensorflow, randomize, real_system

# --- the mechanism -----------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 7, 12])
def test_profiles_are_their_equations(n):
    """[Mohammad20], eq. 16 and 17."""
    linear, half = [], []
    for i in range(1, n + 1):
        linear.append(1 - i / n)
        half.append(1 if i <= n / 2 else math.exp(n / 2 - i - 1))
    np.testing.assert_allclose(profile_coefficients("linear", n), linear)
    np.testing.assert_allclose(profile_coefficients("half-exponential", n), half)
    np.testing.assert_array_equal(profile_coefficients("uniform", n), np.ones(n))
    # Any size stays finite
    assert np.isfinite(profile_coefficients("half-exponential", 10**5)).all()


def test_a_fraction_keeps_the_nearest_number():
    assert [num_kept(240, f) for f in (0.1, 0.2, 0.5, 1.0)] == [24, 48, 120, 240]
    assert num_kept(10, 0.26) == 3 and num_kept(10, 0.001) == 1


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("learnable", [False, True])
def test_a_scaled_product_is_eq_15(rng, profile, learnable):
    """It may be a dense layer or a matrix product. Entries that are cut count as zeros."""
    scaling = WeightScaling(10, profile, 0.6, learnable)
    if learnable:
        scaling.steps.assign(rng.exponential(size=6).astype(np.float32))
    beta = np.zeros(10)
    beta[:6] = ops.convert_to_numpy(scaling.coefficients())
    if not learnable:
        np.testing.assert_allclose(beta[:6], profile_coefficients(profile, 10)[:6], rtol=1e-6)
    x, w, b = rng.normal(size=(4, 10)), rng.normal(size=(10, 3)), rng.normal(size=3)
    expected = [
        [sum(beta[i] * w[i, j] * v[i] for i in range(10)) + b[j] for j in range(3)] for v in x
    ]
    scaled = scaling(x.astype(np.float32))
    dense = keras.layers.Dense(3)
    dense.build((None, 6))
    dense.set_weights([w[:6], b])
    np.testing.assert_allclose(dense(scaled), expected, rtol=1e-4, atol=1e-5)
    product = ops.matmul(scaled, ops.convert_to_tensor(w[:6], dtype="float32")) + b
    np.testing.assert_allclose(product, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("fraction", [0.3, 1.0])
def test_a_learnable_profile_starts_at_its_own_and_stays_monotone(rng, profile, fraction):
    scaling = WeightScaling(80, profile, fraction, learnable=True)
    start = profile_coefficients(profile, 80)[: scaling.kept]
    beta = ops.convert_to_numpy(scaling.coefficients())
    np.testing.assert_allclose(beta, start, atol=2e-6)
    # An optimizer may take steps of any size in any direction
    optimizer = keras.optimizers.SGD(1.0)
    for scale in (0.1, 1.0, 50.0):
        gradient = ops.convert_to_tensor(scale * rng.normal(size=scaling.kept), "float32")
        optimizer.apply([gradient], scaling.trainable_variables)
        beta = ops.convert_to_numpy(scaling.coefficients())
        assert np.all(np.diff(beta) <= 0) and np.all(beta >= 0)
    assert np.abs(beta - start).max() > 0.1


def test_a_learnable_profile_follows_its_gradient():
    """From a flat start to a falling profile and back, without getting stuck."""
    scaling = WeightScaling(20, "half-exponential", 0.5, learnable=True)
    for wanted in (np.linspace(1.0, 0.1, 10), np.ones(10)):
        optimizer = keras.optimizers.Adam(0.1)
        for _ in range(250):
            # Gradient of half the squared error, as beta_i sums steps i.. over sqrt(20)
            error = ops.convert_to_numpy(scaling.coefficients()) - wanted
            gradient = ops.convert_to_tensor(np.cumsum(error) / 20**0.5, "float32")
            optimizer.apply([gradient], scaling.trainable_variables)
        np.testing.assert_allclose(scaling.coefficients(), wanted, atol=0.05)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"size": 0}, "size: got 0"),
        ({"profile": "exponential"}, "profile: got 'exponential'.* one of: uniform"),
        ({"fraction": 0.0}, "fraction: got 0.0"),
        ({"fraction": 1.5}, "fraction: got 1.5"),
        ({"learnable": 1}, "learnable: got 1"),
    ],
)
def test_bad_options_are_named(arguments, message):
    with pytest.raises(InvalidInput, match=message):
        WeightScaling(**{"size": 8, **arguments})


# --- DetNet ------------------------------------------------------------------------


def masked_detnet(detector, fraction):
    """A plain DetNet of full size, whose scaled weights are multiplied by beta or zero."""
    options = {"profile": "uniform", "fraction": 1.0, "learnable_profile": False}
    plain = DetNetDetector.from_config({**detector.get_config(), **options})

    def masked(scaling):
        beta = ops.convert_to_numpy(scaling.coefficients()).copy()
        beta[num_kept(scaling.size, fraction) :] = 0
        return beta

    def arrays(dense):
        return [np.asarray(ops.convert_to_numpy(w)) for w in (dense.kernel, dense.bias)]

    for old, new in zip(detector.unfolded, plain.unfolded):
        beta = masked(old.scaling)
        kernel, bias = arrays(old.hidden)
        by_units = detector.scaled == "units"
        scaled = [kernel * beta, bias * beta] if by_units else [kernel * beta[:, None], bias]
        new.hidden.set_weights(scaled)
        new.head.set_weights(arrays(old.head))
        if old.auxiliary is not None:
            kernel, bias = arrays(old.auxiliary)
            if not by_units:
                kernel = kernel * masked(old.auxiliary_scaling)[:, None]
            new.auxiliary.set_weights([kernel, bias])
    if detector.head == "soft-sign":
        plain.widths.assign(detector.widths)
        plain.log_variances.assign(detector.log_variances)
    return plain


HALF = {"profile": "half-exponential"}


@pytest.mark.parametrize(
    "m, scaled, options",
    [
        (1, "units", HALF),
        (4, "units", {"profile": "linear", "head": "one-hot"}),
        (4, "units", {**HALF, "learnable_profile": True}),
        (4, "inputs", HALF),
        (1, "inputs", {"profile": "linear", "head": "one-hot"}),
        (4, "inputs", {**HALF, "learnable_profile": True}),
    ],
)
def test_slim_detnet_is_the_masked_one(rng, m, scaled, options):
    _, y, h, no = draw_system(rng, 20, 5, 3, m, 0.3)
    options = {"head": "soft-sign", "scaled": scaled, "residual": 0.6, **options}
    detector = randomize(DetNetDetector(3, m, num_layers=4, **options))
    system = [x.astype(np.float32) for x in real_system(y, h, m)]
    for fraction in (1.0, 0.7, 0.2):
        plain = masked_detnet(detector, fraction)
        expected, logits = plain.all_estimates(*system, no), plain.all_logits(*system, no)
        for num_layers in (4, 2, 1):
            slim = detector.slim(fraction, num_layers)
            got = slim.all_estimates(*system, no)
            assert len(got) == num_layers
            for a, b in zip(got, expected):
                np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
            got = slim.detect(*system, no)
            np.testing.assert_allclose(got, logits[num_layers - 1], rtol=1e-4, atol=1e-4)
    # A smaller copy of a smaller copy
    twice = detector.slim(0.7).slim(0.2, 2)
    once = detector.slim(0.2, 2)
    for a, b in zip(twice.weights, once.weights):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_slim_detnet_has_fewer_numbers():
    detector = DetNetDetector(30, 1, num_layers=6, profile="half-exponential")
    slim = detector.slim(0.25, 3)
    assert tuple(slim.unfolded[0].hidden.kernel.shape) == (150, 60)
    assert tuple(slim.unfolded[0].head.kernel.shape) == (60, 60)
    assert tuple(slim.unfolded[0].auxiliary.kernel.shape) == (60, 60)
    assert slim.unfolded[2].auxiliary is None
    assert slim.get_config()["fraction"] == 0.25 and slim.name == detector.name


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"fraction": 0.6}, "fraction: got 0.6, expected a finite number > 0 and <= 0.5"),
        ({"fraction": 0.0}, "fraction: got 0.0"),
        ({"num_layers": 4}, "num_layers: got 4, there are 3"),
        ({"num_layers": 0}, "num_layers: got 0"),
    ],
)
def test_slim_refuses_what_is_not_smaller(arguments, message):
    detector = DetNetDetector(2, 2, num_layers=3, fraction=0.5)
    with pytest.raises(InvalidInput, match=message):
        detector.slim(**arguments)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"scaled": "outputs"}, "scaled: got 'outputs'"),
        ({"profile": "x"}, "profile: got 'x'"),
        ({"fraction": 2}, "fraction: got 2"),
        ({"learnable_profile": "yes"}, "learnable_profile: got 'yes'"),
    ],
)
def test_detectors_refuse_bad_options(options, message):
    with pytest.raises(InvalidInput, match=message):
        DetNetDetector(2, 2, num_layers=2, **options)


# --- OAMP-Net and NN-Det -----------------------------------------------------------


def wes_oampnet_reference(detector, y, h, no):
    """PAM logits of every layer from real tensors, in double precision."""
    points = pam_points(detector.num_bits_per_symbol).astype(float)
    rows, n = h.shape[1:]
    every = []
    for yi, hi, s2 in zip(y, h, no.astype(float) / 2):
        x, logits = np.zeros(n), []
        for layer, (gamma, theta) in zip(detector.sublayers, np.asarray(detector.scalars)):
            v2 = (np.sum((yi - hi @ x) ** 2) - rows * s2) / np.sum(hi**2)
            v2 = max(v2, 1e-9)
            w = v2 * hi.T @ np.linalg.inv(v2 * hi @ hi.T + s2 * np.eye(rows))
            w *= n / np.trace(w @ hi)
            b = np.eye(n) - theta * w @ hi
            tau2 = (v2 * np.sum(b**2) + theta**2 * s2 * np.sum(w**2)) / n
            r = x + gamma * w @ (yi - hi @ x)
            gain = np.sum(hi**2) / n
            z = [hi.T @ yi / gain, hi.T @ hi @ x / gain, x, r, [np.log(tau2)]]
            z = np.concatenate(z) @ np.asarray(layer.hidden.kernel)
            z = np.maximum(z + np.asarray(layer.hidden.bias), 0)
            z = z * profile_coefficients(detector.profile, detector.hidden_size)[: len(z)]
            r = r + z @ np.asarray(layer.correction.kernel) + np.asarray(layer.correction.bias)
            logits.append(-((r[:, None] - points) ** 2) / (2 * tau2))
            pmf = np.exp(logits[-1] - logits[-1].max(-1, keepdims=True))
            x = (pmf * points).sum(-1) / pmf.sum(-1)
        every.append(logits)
    return np.array(every)


@pytest.mark.parametrize("m, profile", [(1, "linear"), (4, "half-exponential")])
def test_wes_oampnet_is_its_equations(rng, m, profile):
    _, y, h, no = draw_system(rng, 12, 6, 3, m, 0.5)
    options = {"num_iterations": 3, "hidden_size": 10, "profile": profile, "fraction": 0.8}
    detector = randomize(WeSOAMPNetDetector(3, m, **options))
    system = real_system(y, h, m)
    expected = wes_oampnet_reference(detector, *system, no)
    got = detector.all_logits(*[x.astype(np.float32) for x in system], no)
    for t, logits in enumerate(got):
        a, b = ops.convert_to_numpy(logits), expected[:, t]
        a, b = a - a.max(-1, keepdims=True), b - b.max(-1, keepdims=True)
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-3)


def test_untrained_wes_oampnet_is_oamp(rng):
    _, y, h, no = draw_system(rng, 20, 8, 4, 4, 0.1)
    expected = ops.convert_to_numpy(OAMPDetector(4, 4)(y, h, no))
    got = ops.convert_to_numpy(WeSOAMPNetDetector(4, 4, profile="linear")(y, h, no))
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(InvalidInput, match="no_grid"):
        WeSOAMPNetDetector(4, 4, no_grid=(0.1, 1.0))


def cut_after(weights, kept):
    """Zero the rows of a kernel beyond the units that are kept."""
    value = np.array(ops.convert_to_numpy(weights))
    value[kept:] = 0
    weights.assign(value)


@pytest.mark.parametrize("profile", ["linear", "half-exponential"])
def test_slim_wes_oampnet_is_the_masked_one(rng, profile):
    _, y, h, no = draw_system(rng, 12, 6, 3, 4, 0.5)
    system = [x.astype(np.float32) for x in real_system(y, h, 4)]
    options = {"num_iterations": 3, "hidden_size": 20, "profile": profile}
    detector = randomize(WeSOAMPNetDetector(3, 4, **options))
    slim = detector.slim(0.4, 2)
    assert slim.num_iterations == 2 and slim.sublayers[0].hidden.units == 8
    got = slim.all_logits(*system, no)
    for layer in detector.sublayers:
        cut_after(layer.correction.kernel, 8)
    for a, b in zip(got, detector.all_logits(*system, no)):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("structure", ["highway", "residual"])
@pytest.mark.parametrize("learnable", [False, True])
def test_slim_nndet_is_the_masked_one(rng, structure, learnable):
    """The paper did not try this one: each block has two scaled layers, normalised."""
    _, y, h, no = draw_system(rng, 12, 6, 3, 4, 0.5)
    system = [x.astype(np.float32) for x in real_system(y, h, 4)]
    options = {"structure": structure, "profile": "linear", "learnable_profile": learnable}
    options.update(num_blocks=3, hidden_sizes=(20, 10), dropout=0.0)
    detector = randomize(NNDetDetector(3, 4, **options))
    slim = detector.slim(0.5, 2)
    assert [layer.units for layer in slim.blocks[0].hidden] == [10, 5]
    assert len(slim.blocks) == 2
    got = slim.all_logits(*system, no)
    for block in detector.blocks:
        cut_after(block.hidden[1].kernel, 10)
        cut_after(block.logits.kernel, 5)
    for layer in detector.features if structure == "residual" else []:
        cut_after(layer.kernel, 5)
    for a, b in zip(got, detector.all_logits(*system, no)):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


# --- the penalty -------------------------------------------------------------------


def test_penalty_is_its_equations():
    """[Mohammad20], eq. 22 and 23."""
    options = {"num_layers": 4, "head": "soft-sign", "profile": "linear"}
    detector = randomize(DetNetDetector(2, 1, **options))
    beta = profile_coefficients("linear", 16)
    total = 0.0
    for r, layer in enumerate(detector.unfolded, start=1):
        kernels = [layer.hidden.kernel, layer.head.kernel]
        sums = [0.0, 0.0, 0.0]
        for i in range(kernels[0].shape[0]):
            for j in range(16):
                sums[0] += abs(beta[j] * float(kernels[0][i, j]))
        sums[1] = np.abs(np.asarray(kernels[1])).sum()
        if layer.auxiliary is not None:
            sums[2] = np.abs(beta[:, None] * np.asarray(layer.auxiliary.kernel)).sum()
        if r >= 3:
            total += math.log(1 + (r - 1) * sum(sums))
    got = float(log_l1_penalty(detector.layer_norms(), first_layer=3))
    assert got == pytest.approx(total, rel=1e-5)


def test_every_scaled_detector_has_norms_of_its_layers():
    for name in ("wesnet-hf", "l-wesnet", "wes-oampnet"):
        detector = create_detector(name, num_streams=2, num_bits_per_symbol=2)
        assert len(detector.layer_norms()) == len(detector.by_layer()[0]) == detector.depth
    detector = create_detector("nndet-l", num_streams=2, num_bits_per_symbol=2)
    assert len(detector.layer_norms()) == 3 and float(detector.layer_norms()[0]) > 0
    detector = DetNetDetector(2, 2, num_layers=2, scaled="inputs", fraction=0.3)
    assert all(float(norm) > 0 for norm in detector.layer_norms())


# --- in use ------------------------------------------------------------------------


def test_operating_points_are_read():
    spec = parse_receiver("r-wesnet@wesnet-20x10-bpsk:50%-20L+uniform:3")
    assert spec.operating_point == {"fraction": 0.5, "num_layers": 20}
    assert spec.model == "wesnet-20x10-bpsk" and spec.quantizer.bits == 3
    assert parse_receiver("r-wesnet:12.5%").operating_point == {"fraction": 0.125}
    assert parse_receiver("r-wesnet:7L").operating_point == {"num_layers": 7}
    assert parse_receiver("r-wesnet").operating_point is None
    for text in ("r-wesnet:", "r-wesnet:50", "r-wesnet:-7L", "r-wesnet:50%-", "r-wesnet:L"):
        with pytest.raises(InvalidInput, match="expected an operating point such as :50%"):
            parse_receiver(text)
    with pytest.raises(InvalidInput, match="mmse has no units or layers to cut"):
        parse_receiver("mmse:50%")


def test_every_scaled_network_has_a_name():
    names = {"wesnet-hf", "wesnet-l", "l-wesnet", "r-wesnet", "wes-oampnet", "rwes-oampnet"}
    assert names <= set(list_detectors())
    detector = create_detector(
        "l-wesnet", num_streams=2, num_bits_per_symbol=1, num_layers=2, fraction=0.5
    )
    assert detector.head == "soft-sign" and detector.learnable_profile
    assert detector.unfolded[0].scaling.kept == 8


@needs_tensorflow
def test_a_slim_detector_is_exported(rng, tmp_path):
    import tensorflow as tf

    _, y, h, no = draw_system(rng, 7, 5, 3, 2, 0.1)
    options = {"num_layers": 4, "profile": "linear", "learnable_profile": True}
    detector = randomize(DetNetDetector(3, 2, head="soft-sign", **options))
    sizes = []
    for layer in (detector, detector.slim(0.25, 2)):
        path = tmp_path / f"model-{len(sizes)}"
        model = functional(layer, 5)
        llrs = np.asarray(model((y, h, no)))
        model.save(f"{path}.keras")
        again = keras.models.load_model(f"{path}.keras")
        np.testing.assert_allclose(np.asarray(again((y, h, no))), llrs, rtol=1e-5, atol=1e-5)
        model.export(path, verbose=False)
        loaded = tf.saved_model.load(str(path))
        np.testing.assert_allclose(loaded.serve((y, h, no)), llrs, rtol=1e-4, atol=1e-4)
        sizes.append((path / "variables/variables.data-00000-of-00001").stat().st_size)
    assert sizes[1] < 0.3 * sizes[0]
