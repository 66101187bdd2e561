"""HyperMIMO, hypernetworks of other detectors and networks of fixed channels.

Against NumPy written from the equations. Runs on any backend.
"""

import numpy as np
import pytest
from keras import ops

from linksim.channels import create_channel
from linksim.channels.random import stream_keys
from linksim.constellation import qam_points
from linksim.detectors.detnet import DetNetDetector
from linksim.detectors.hypermimo import HyperDetector, HyperMIMODetector
from linksim.detectors.mmnet import MMNetDetector
from linksim.detectors.oampnet import OAMPNet2Detector
from linksim.detectors.perchannel import FixedChannelDetector
from linksim.detectors.real import stacked_qr
from linksim.errors import InvalidInput
from linksim.registry import build_detector
from tests.conftest import draw_system
from tests.systems import needs_tensorflow, randomize, real_system, run, to_llrs


def elu(x):
    return np.where(x > 0, x, np.exp(np.minimum(x, 0)) - 1)


def dense(hypernetwork, x, drop=0, last=lambda x: x):
    """The output of a drop's hypernetwork for one vector of features."""
    count = len(hypernetwork.kernels)
    for i in range(count):
        kernel, bias = (
            np.asarray(w[i])[drop] for w in (hypernetwork.kernels, hypernetwork.biases)
        )
        x = x @ kernel + bias[0]
        x = elu(x) if i < count - 1 else last(x)
    return x


def complex_qr(h):
    """Q and R of H = QR with a positive diagonal, from LAPACK's."""
    q, r = np.linalg.qr(h)
    phase = np.diag(r) / np.abs(np.diag(r))
    return q * phase, r / phase[:, None]


def hypermimo_reference(detector, y, h, no, drops):
    """LLRs by eq. 7 to 11 of the paper, in complex arithmetic."""
    m, k, layers = detector.num_bits_per_symbol, h.shape[-1], detector.num_layers
    points, llrs = qam_points(m).astype(complex), []
    for yi, hi, ni, drop in zip(y.astype(complex), h.astype(complex), no.astype(float), drops):
        # Each dimension has noise of power ni, or half of that for BPSK, where it is real
        num_rx = len(yi) if detector.residual_noise == "rx" else k
        if m == 1:
            yi, hi = (np.concatenate([v.real, v.imag]) for v in (yi, hi))
            num_rx = len(yi) / 2 if detector.residual_noise == "rx" else k / 2
        q, r = complex_qr(hi)
        y_star = q.conj().T @ yi
        upper = r[np.triu_indices(k)]
        entries = [upper.real] if m == 1 else [upper.real, upper.imag]
        out = dense(detector.hypernetwork, np.concatenate([*entries, [np.sqrt(ni)]]), drop)
        size = k * k * len(entries)
        parts = out[:size].reshape(k, k, -1)
        big = parts[..., 0] + (0 if m == 1 else 1j * parts[..., 1])
        scales = out[size:][: layers * k].reshape(layers, k)
        psi = np.abs(out[size + layers * k :]).reshape(layers, k) + 1e-3
        x = np.zeros(k, complex)
        for t in range(layers):
            theta = big @ (np.eye(k) + np.diag(scales[t]))
            residual = y_star - r @ x
            z = x + theta @ residual
            excess = max(np.linalg.norm(residual) ** 2 - num_rx * ni, 0)
            excess *= 2 if m == 1 else 1  # tau is twice a real dimension's variance
            spread = np.linalg.norm(np.eye(k) - theta @ r) ** 2 / np.linalg.norm(r) ** 2
            tau = psi[t] / k * (spread * excess + np.linalg.norm(theta) ** 2 * ni)
            logits = -(np.abs(z[:, None] - points) ** 2) / tau[:, None]
            pmf = np.exp(logits - logits.max(-1, keepdims=True))
            x = (pmf * points).sum(-1) / pmf.sum(-1)
        llrs.append(to_llrs(logits, m, "app"))
    return np.array(llrs)


@pytest.mark.parametrize(
    "residual_noise, m", [("rx", 4), ("rx", 2), ("streams", 1), ("streams", 4)]
)
def test_hypermimo_is_its_equations(rng, residual_noise, m):
    _, y, h, no = draw_system(rng, 20, 7, 3, m, 0.2)
    detector = HyperMIMODetector(3, m, num_layers=3, residual_noise=residual_noise)
    build_detector(detector, 7)
    expected = hypermimo_reference(detector, y, h, no, np.zeros(20, int))
    got = run(detector, y, h, no)
    scale = np.maximum(np.abs(expected), 1)
    np.testing.assert_allclose(got / scale, expected / scale, atol=1e-3)


def test_hypermimo_has_the_published_size():
    """It has 43 inputs, and ten times the weights of an MMNet with 10 layers."""
    hyper = HyperMIMODetector(6, 2)
    build_detector(hyper, 12)
    shapes = [tuple(k.shape) for k in hyper.hypernetwork.kernels]
    assert shapes == [(1, 43, 43), (1, 43, 75), (1, 75, 36 * 2 + 5 * 6 + 5 * 6)]
    mmnet = MMNetDetector(6, 2)
    build_detector(mmnet, 12)
    count = [sum(np.prod(w.shape) for w in d.trainable_variables) for d in (hyper, mmnet)]
    assert count[0] / count[1] == pytest.approx(10, rel=0.1)


def test_the_stacked_qr_is_that_of_lapack(rng):
    _, y, h, _ = draw_system(rng, 10, 8, 4, 4, 0.1, correlation=0.9)
    reduced, r = stacked_qr(*map(np.float32, real_system(y, h, 4)), 4)
    for i in range(10):
        q, expected = complex_qr(h[i].astype(complex))
        got = np.asarray(r[i][:4, :4]) + 1j * np.asarray(r[i][4:, :4])
        np.testing.assert_allclose(got, expected, atol=1e-5)
        np.testing.assert_allclose(r[i][4:, 4:], r[i][:4, :4], atol=1e-6)
        np.testing.assert_allclose(r[i][:4, 4:], -r[i][4:, :4], atol=1e-6)
        got = np.asarray(reduced[i][:4]) + 1j * np.asarray(reduced[i][4:])
        np.testing.assert_allclose(got, q.conj().T @ y[i], atol=1e-4)


@pytest.mark.parametrize("num_rx, k, m", [(3, 3, 4), (2, 4, 2), (4, 6, 1)])
def test_the_stacked_qr_keeps_the_gram_matrix(rng, num_rx, k, m):
    """There may be fewer antennas than streams, equal columns and a column of zeros."""
    _, y, h, _ = draw_system(rng, 6, num_rx, k, m, 0.1)
    h[1, :, 1], h[2, :, 0] = h[1, :, 0], 0
    y, h = map(np.float32, real_system(y, h, m))
    reduced, r = map(np.asarray, stacked_qr(y, h, k))
    assert np.isfinite(reduced).all()
    gram = np.einsum("bmi,bmj->bij", h, h)
    np.testing.assert_allclose(np.einsum("bki,bkj->bij", r, r), gram, atol=1e-4)
    matched = np.einsum("bmi,bm->bi", h, y)
    np.testing.assert_allclose(np.einsum("bki,bk->bi", r, reduced), matched, atol=1e-4)


# --- drops --------------------------------------------------------------------------


def drops_and_detector(num_drops=4):
    channel = create_channel("local-scattering", 8, 3, num_drops=num_drops, drop_seed=3)
    detector = HyperMIMODetector(3, 2, num_layers=2, num_drops=num_drops)
    build_detector(detector, 8)
    randomize(detector)
    detector.set_drops(channel.covariances)
    return channel, detector


def drawn(channel, count):
    h = channel.sample(stream_keys(1, 5)[0], count, 1)[:, 0]
    return np.asarray(ops.convert_to_numpy(h))


def test_the_drop_is_the_most_likely_one(rng):
    channel, detector = drops_and_detector()
    h = drawn(channel, 200)
    expected = []
    for one in h:
        logs = []
        for of_users in channel.covariances:
            total = 0.0
            for user, c in enumerate(of_users):
                c = c + 0.01 * np.trace(c).real / 8 * np.eye(8)
                v = one[:, user]
                total -= (v.conj() @ np.linalg.solve(c, v)).real
                total -= np.linalg.slogdet(c)[1]
            logs.append(total)
        expected.append(np.argmax(logs))
    _, hr = real_system(np.zeros((200, 8)), h, 2)
    np.testing.assert_array_equal(detector.drop_of(np.float32(hr)), expected)
    assert np.mean(np.array(expected) == np.arange(200) % 4) > 0.97


def test_every_drop_has_its_own_hypernetwork(rng):
    channel, detector = drops_and_detector()
    h = drawn(channel, 8)
    y = draw_system(rng, 8, 8, 3, 2, 0.1)[1]
    no = np.full(8, 0.1, np.float32)
    _, hr = real_system(y, h, 2)
    drops = np.asarray(detector.drop_of(np.float32(hr)))
    np.testing.assert_array_equal(drops, np.arange(8) % 4)
    expected = hypermimo_reference(detector, y, h, no, drops)
    got = run(detector, y, h, no)
    scale = np.maximum(np.abs(expected), 1)
    np.testing.assert_allclose(got / scale, expected / scale, atol=2e-3)
    system = *map(np.float32, real_system(y, h, 2)), no
    for a, b in zip(detector.all_logits(*system), detector.all_logits_by_drop(*system)):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3)
    with pytest.raises(InvalidInput, match="batch size 7, expected a multiple of num_drops"):
        detector.all_logits_by_drop(*[x[:7] for x in system])
    with pytest.raises(InvalidInput, match=r"covariances: got shape \(2, 3, 8, 8\)"):
        detector.set_drops(channel.covariances[:2])


# --- networks of channels -----------------------------------------------------------


def per_vector(detector, parameters, y, h, no):
    """LLRs of each vector from a detector that is given its weights, one by one."""
    llrs = []
    for i in range(len(y)):
        for weight, values in zip(detector.trainable_variables, parameters):
            weight.assign(values[i])
        llrs.append(np.asarray(detector(y[i : i + 1], h[i : i + 1], no[i : i + 1]))[0])
    return np.array(llrs)


NETWORK_CASES = {
    "detnet": ({"num_layers": 2, "hidden_size": 12}, DetNetDetector),
    "oampnet2": ({"num_iterations": 2}, OAMPNet2Detector),
}


@pytest.mark.parametrize("network", NETWORK_CASES)
def test_each_fixed_channel_has_its_network(rng, network):
    options, cls = NETWORK_CASES[network]
    _, y, h, no = draw_system(rng, 6, 4, 2, 2, 0.1)
    channels = h[:3]
    detector = FixedChannelDetector(
        2, 2, network=network, network_options=options, num_channels=3
    )
    build_detector(detector, 4)
    # All networks start alike
    for weight in detector.trainable_variables:
        np.testing.assert_array_equal(weight[0], weight[2])
    randomize(detector)
    detector.set_channels(channels)
    owner = np.array([0, 0, 1, 1, 2, 2])
    h = (channels[owner] + 0.01 * h).astype(np.complex64)
    weights = [np.asarray(w)[owner] for w in detector.trainable_variables]
    single = cls(2, 2, **options)
    build_detector(single, 4)
    expected = per_vector(single, weights, y, h, no)
    np.testing.assert_allclose(run(detector, y, h, no), expected, rtol=1e-3, atol=1e-3)
    # In a batch ordered by channel, H is that of each network's first vector
    expected = per_vector(single, weights, y, h[owner * 2], no)
    system = *map(np.float32, real_system(y, h, 2)), no
    logits = detector.all_logits_by_channel(*system)[-1]
    llrs = detector._llrs(ops.convert_to_tensor(logits))
    np.testing.assert_allclose(llrs, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "network, noise_input",
    [("mmnet", True), *((network, False) for network in ("mmnet", *NETWORK_CASES))],
)
def test_a_hypernetwork_makes_all_weights_of_a_network(rng, network, noise_input):
    cases = {**NETWORK_CASES, "mmnet": ({"num_layers": 2}, MMNetDetector)}
    options, cls = cases[network]
    _, y, h, no = draw_system(rng, 5, 4, 2, 4, 0.1)
    no = (no * (1 + np.arange(5))).astype(np.float32)
    detector = HyperDetector(
        2,
        4,
        network=network,
        network_options=options,
        hidden_sizes=[9],
        noise_input=noise_input,
    )
    build_detector(detector, 4)
    randomize(detector)
    single = cls(2, 4, **options)
    build_detector(single, 4)
    shapes = [tuple(w.shape) for w in single.trainable_variables]
    ends = np.cumsum([np.prod(s) for s in shapes])[:-1]
    parameters = [[] for _ in shapes]
    for hi, ni in zip(h, no):
        stacked = np.concatenate([hi.real, hi.imag]).reshape(-1)
        features = np.append(stacked, np.sqrt(ni)) if noise_input else stacked
        out = dense(detector.hypernetwork, features, last=elu)
        for values, part, shape in zip(parameters, np.split(out, ends), shapes):
            values.append(part.reshape(shape))
    expected = per_vector(single, parameters, y, h, no)
    scale = np.maximum(np.abs(expected), 1)
    np.testing.assert_allclose(run(detector, y, h, no) / scale, expected / scale, atol=1e-3)


def test_hypermimo_lr_has_the_published_sizes():
    detector = HyperDetector(2, 2, network_options={"num_layers": 6})
    build_detector(detector, 4)
    kernels = [tuple(k.shape[1:]) for k in detector.hypernetwork.kernels]
    # H as 16 numbers; a complex W and theta for every layer
    assert kernels == [(16, 32), (32, 100), (100, 6 * (2 * 2 * 4 + 4))]


def test_teachers_give_the_weights_that_are_made(rng):
    """A hypernetwork that makes a teacher's weights detects as the teacher does."""
    teachers = MMNetDetector(2, 2, num_layers=2, num_channels=3)
    build_detector(teachers, 4)
    randomize(teachers)
    detector = HyperDetector(2, 2, network_options={"num_layers": 2})
    build_detector(detector, 4)
    flat = np.asarray(detector.weights_of_teachers(teachers))
    # It makes the weights of the second teacher whatever its input is
    wanted = np.maximum(flat[1], -0.9)
    for kernel in detector.hypernetwork.kernels:
        kernel.assign(np.zeros(kernel.shape, np.float32))
    bias = np.where(wanted > 0, wanted, np.log1p(np.minimum(wanted, 0)))
    detector.hypernetwork.biases[-1].assign(bias[None, None].astype(np.float32))
    _, y, h, no = draw_system(rng, 6, 4, 2, 2, 0.1)
    teachers.set_channels(h[:3])
    expected = np.asarray(teachers(y, np.repeat(h[1:2], 6, 0), no))
    system = *map(np.float32, real_system(y, np.repeat(h[1:2], 6, 0), 2)), no
    got = detector._llrs(ops.convert_to_tensor(detector.all_logits(*system)[-1]))
    assert np.abs(flat[1]).max() < 2 and flat[1].min() > -0.9
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-3)
    other = MMNetDetector(2, 2, num_layers=3, num_channels=3)
    build_detector(other, 4)
    with pytest.raises(InvalidInput, match="teachers: weights of shapes"):
        detector.weights_of_teachers(other)
    with pytest.raises(InvalidInput, match="teachers: weights of shapes None"):
        detector.weights_of_teachers(DetNetDetector(2, 2))


# --- numerics, options --------------------------------------------------------------


@needs_tensorflow
@pytest.mark.parametrize("no", [1e-8, 0.1, 1e3])
def test_gradients_are_finite_at_any_noise(rng, no):
    import tensorflow as tf

    symbols, y, h, no = draw_system(rng, 30, 4, 3, 4, no)
    h[0], h[1, :, 1] = 0, h[1, :, 0]
    for detector in (
        HyperMIMODetector(3, 4, num_layers=3),
        HyperDetector(3, 4, network_options={"num_layers": 3}),
    ):
        build_detector(detector, 4)
        system = *map(np.float32, real_system(y, h, 4)), no
        with tf.GradientTape() as tape:
            logits = ops.stack(detector.all_logits(*system))
            loss = ops.mean(ops.log_softmax(logits)[..., 0])
        gradients = tape.gradient(loss, detector.trainable_variables)
        for gradient in gradients:
            assert np.isfinite(gradient.numpy()).all()
        assert np.isfinite(np.asarray(detector(y, h, no))).all()


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: HyperMIMODetector(2, 2, hidden_size=0), "hidden_size: got 0"),
        (lambda: HyperMIMODetector(2, 2, num_drops=0), "num_drops: got 0"),
        (lambda: HyperMIMODetector(2, 2, residual_noise="y"), "residual_noise: got 'y'"),
        (lambda: HyperDetector(2, 2, network="remimo"), "network: got 'remimo', expected one"),
        (lambda: HyperDetector(2, 2, hidden_sizes=[]), r"hidden_sizes: got \[\]"),
        (lambda: HyperDetector(2, 2, hidden_sizes=[0]), "hidden_sizes: got 0"),
        (lambda: HyperDetector(2, 2, noise_input=1), "noise_input: got 1"),
        (
            lambda: HyperDetector(2, 2, network_options={"num_channels": 2}),
            "network_options.num_channels",
        ),
        (lambda: FixedChannelDetector(2, 2, network="mmnet"), "network: got 'mmnet'"),
        (lambda: FixedChannelDetector(2, 2, num_channels=0), "num_channels: got 0"),
    ],
)
def test_bad_options_are_named(make, message):
    with pytest.raises(InvalidInput, match=message):
        make()
