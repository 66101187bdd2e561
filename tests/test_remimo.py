"""RE-MIMO against NumPy written from the equations, and for any number of users.

Runs on any Keras backend.
"""

import keras
import numpy as np
import pytest
from keras import ops

from linksim.constellation import (
    llrs_to_pam_logits,
    pam_logits_to_symbol_logits,
    pam_points,
    qam_points,
)
from linksim.detectors.remimo import ESTIMATES, REMIMODetector
from linksim.errors import InvalidInput
from linksim.registry import build_detector
from tests.conftest import draw_system
from tests.systems import needs_tensorflow, randomize, real_tensors, run

SMALL = {"num_blocks": 3, "state_size": 12, "num_heads": 3}


def make(k, m, num_rx, **options):
    detector = REMIMODetector(k, m, **{**SMALL, **options})
    build_detector(detector, num_rx)
    return randomize(detector)


def dense(layer, x):
    return x @ np.asarray(layer.kernel) + np.asarray(layer.bias)


def perceptron(network, x):
    for layer in network.hidden:
        x = np.maximum(dense(layer, x), 0)
    return dense(network.last, x)


def softmax(x):
    x = np.exp(x - x.max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


def normalized(norm, x):
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    x = (x - mean) / np.sqrt(variance + 1e-5)
    return x * np.asarray(norm.gamma) + np.asarray(norm.beta)


def lmmse(h, no, variances, is_real):
    """Unbiased filters of users whose interference has these variances, and the standard
    deviations of their estimates in each real dimension [Wang99, Section III]."""
    if is_real:  # symbols have one dimension, and y and H are real and twice as long
        h, no = np.concatenate([h.real, h.imag]), no / 2
    filters, deviations = [], []
    for i in range(h.shape[1]):
        others = np.delete(h, i, axis=1)
        noise = others * np.delete(variances, i) @ others.conj().T + no * np.eye(len(h))
        f = np.linalg.solve(noise, h[:, i]).conj()
        filters.append(f / (f @ h[:, i]))
        deviations.append((f @ h[:, i]).real ** -0.5 / (1 if is_real else np.sqrt(2)))
    return np.array(filters), np.array(deviations)


def remimo_reference(detector, y, h, no, prior=0.0):
    """Logits [K, ...] of the last block and all attention maps, for one vector."""
    m, ds, heads = detector.num_bits_per_symbol, detector.state_size, detector.num_heads
    k, num_rx = h.shape[1], h.shape[0]
    scale, sigma = np.sqrt(2 * k), np.sqrt(no)
    stack = lambda v: np.concatenate([v.real, v.imag])  # noqa: E731
    encoding = np.zeros(num_rx)
    for i in range(num_rx):
        wave = np.sin if i % 2 == 0 else np.cos
        encoding[i] = wave(k / (2 * num_rx) ** (2 * (i // 2) / num_rx)) / np.sqrt(ds)
    users = [stack(h[:, i]) for i in range(k)]
    s = np.array(
        [
            perceptron(
                detector.embedding,
                np.concatenate([stack(y) / scale, user, [sigma / scale], encoding]),
            )
            for user in users
        ]
    ) * np.sqrt(ds)
    x, maps = np.zeros((k, detector._num_logits)), []
    for block in detector.blocks:
        seen = x + prior  # the posterior's; the network's own are in the token
        if detector.factored:
            levels = pam_points(m).astype(float)
            parts = np.split(seen, 1 if m == 1 else 2, axis=-1)
            z = sum(c * softmax(p) @ levels for c, p in zip((1, 1j), parts))
            power = sum(softmax(p) @ levels**2 for p in parts)
        else:
            z = softmax(seen) @ qam_points(m).astype(complex)
            power = softmax(seen) @ abs(qam_points(m)) ** 2
        residual = stack(y - h @ z)
        token = np.array(
            [np.concatenate([x[i], residual / scale, users[i]]) for i in range(k)]
        )
        energy = np.linalg.norm(h, axis=0) ** 2
        deviations = [np.linalg.norm(residual) / np.sqrt(2 * num_rx * energy)]
        filters = [h.conj().T / energy[:, None]]
        pic = detector.estimates == "lmmse-pic"
        f, deviation = lmmse(h, no, (power - abs(z) ** 2) if pic else np.ones(k), m == 1)
        filters.append(f)
        deviations.append(deviation)
        own = []
        for f in filters[: ESTIMATES[detector.estimates]]:
            wide = f.shape[1] == 2 * num_rx
            u = z + f @ (residual if wide else y - h @ z)
            own += [u.real] if m == 1 else [u.real, u.imag]
        own += deviations[: ESTIMATES[detector.estimates]]
        token = np.concatenate([token, *[o[:, None] for o in own]], -1)
        phi = np.concatenate([s, token], -1)
        query, key, value = np.split(dense(block.projections, phi), 3, axis=-1)
        size = query.shape[-1] // heads
        mixed, attention = [], []
        for head in range(heads):
            part = slice(head * size, (head + 1) * size)
            alpha = softmax(query[:, part] @ key[:, part].T / np.sqrt(size))
            mixed.append(alpha @ value[:, part])
            attention.append(alpha)
        maps.append(attention)
        s = normalized(
            block.norms[0], s + dense(block.output_projection, np.concatenate(mixed, -1))
        )
        s = normalized(block.norms[1], s + perceptron(block.feed_forward, s))
        psi = np.concatenate([s, token, np.full((k, 1), sigma / scale)], -1)
        x = perceptron(block.predictor, psi)
    return x + prior, maps


@pytest.mark.parametrize(
    "m, factored, normalize, estimates",
    [
        (2, False, False, "none"),
        (4, True, False, "none"),
        *((1, True, False, e) for e in ESTIMATES),
        *((4, False, True, e) for e in ESTIMATES),
        *((6, True, False, e) for e in ESTIMATES),
    ],
)
def test_remimo_is_its_equations(rng, m, factored, normalize, estimates):
    _, y, h, no = draw_system(rng, 5, 5, 3, m, 0.3)
    options = {"factored": factored, "estimates": estimates, "normalize": normalize}
    detector = make(3, m, 5, **options)
    system = real_tensors(y, h)
    if m == 1:
        system = system[0], system[1][..., :3]
    got = np.asarray(detector.all_logits(*system, no)[-1])
    maps = detector.attention_maps(y, h, no)
    for i in range(5):
        unit = 1.0
        if normalize:  # of a real dimension
            unit = np.sqrt(np.mean(np.abs(h[i]) ** 2) / 2)
        x, expected = remimo_reference(
            detector, y[i].astype(complex) / unit, h[i] / unit, no[i] / unit**2
        )
        if factored and m > 1:
            x = np.concatenate(np.split(x, 2, axis=-1))
        np.testing.assert_allclose(got[i], x, rtol=1e-3, atol=1e-3)
        for a, b in zip(maps, expected):
            np.testing.assert_allclose(a[i], b, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "m, factored, estimates", [(1, True, "lmmse"), (4, False, "lmmse-pic"), (4, True, "lmmse")]
)
def test_remimo_adds_a_prior_to_the_logits_of_every_block(rng, m, factored, estimates):
    _, y, h, no = draw_system(rng, 5, 5, 3, m, 0.3)
    detector = make(3, m, 5, factored=factored, estimates=estimates)
    llrs = rng.normal(size=(5, 3, m)).astype(np.float32) * 3
    prior = np.asarray(llrs_to_pam_logits(llrs, m), np.float32)
    system = real_tensors(y, h)
    if m == 1:
        system = system[0], system[1][..., :3]
    got = np.asarray(detector.all_logits(*system, no, prior=prior)[-1])
    if factored:
        users = prior if m == 1 else np.concatenate([prior[:, :3], prior[:, 3:]], axis=-1)
    else:
        users = np.asarray(pam_logits_to_symbol_logits(prior, m))
    for i in range(5):
        x, _ = remimo_reference(detector, y[i].astype(complex), h[i], no[i], users[i])
        if factored and m > 1:
            x = np.concatenate(np.split(x, 2, axis=-1))
        np.testing.assert_allclose(got[i], x, rtol=1e-3, atol=1e-3)


def test_unfactored_outputs_agree(rng):
    """LLRs, PAM logits and decisions come from the same symbol probabilities."""
    _, y, h, no = draw_system(rng, 6, 5, 3, 4, 0.3)
    detector = make(3, 4, 5)
    assert not detector.factored
    system = real_tensors(y, h)
    pmf = softmax(np.asarray(detector.symbol_logits(*system, no), np.float64))
    labels = (np.arange(16)[:, None] >> np.arange(3, -1, -1)) & 1
    ones = pmf @ labels
    llrs = np.asarray(detector.detect_llrs(*system, no))
    np.testing.assert_allclose(llrs, np.log(ones / (1 - ones)), rtol=1e-3, atol=1e-3)
    both, symbols = detector.detect_both(*system, no)
    np.testing.assert_allclose(both, llrs, rtol=1e-5)
    np.testing.assert_array_equal(symbols, pmf.argmax(-1))
    # PAM logits are marginals, here for the first bit of the real part
    pam = softmax(np.asarray(detector.detect(*system, no), np.float64))
    np.testing.assert_allclose(pam[:, :3, 2:].sum(-1), ones[..., 0], rtol=1e-3, atol=1e-5)
    # A call decides by symbols, not by their marginals
    decided = REMIMODetector(3, 4, **SMALL, output="symbol", hard_out=True)
    build_detector(decided, 5)
    decided.set_weights(detector.get_weights())
    np.testing.assert_array_equal(decided(y, h, no), symbols)


@pytest.mark.parametrize("m, estimates", [(4, "none"), *((6, e) for e in ESTIMATES)])
def test_remimo_permutes_with_the_users(rng, m, estimates):
    _, y, h, no = draw_system(rng, 8, 6, 5, m, 0.2)
    order = np.array([3, 0, 4, 1, 2])
    detector = make(5, m, 6, estimates=estimates)
    straight = np.asarray(detector(y, h, no))[:, order]
    permuted = np.asarray(detector(y, h[..., order], no))
    np.testing.assert_allclose(permuted, straight, rtol=1e-4, atol=1e-4)


def test_normalized_remimo_ignores_the_scale(rng):
    _, y, h, no = draw_system(rng, 8, 6, 3, 4, 0.2)
    h[0] = 0
    detector = make(3, 4, 6, normalize=True)
    expected = np.asarray(detector(y, h, no))
    assert (expected[0] == 0).all() and np.ptp(expected[1:]) > 0.1
    got = np.asarray(detector(100 * y, 100 * h, 1e4 * no))
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "m, estimates, normalize",
    [(4, e, e == "none") for e in ESTIMATES] + [(6, "none", False)],
)
def test_one_set_of_weights_serves_any_number_of_users(rng, m, estimates, normalize):
    """Zero columns change nothing, wherever they are."""
    _, y, h, no = draw_system(rng, 8, 6, 3, m, 0.2)
    options = {"estimates": estimates, "normalize": normalize}
    three = make(3, m, 6, **options)
    five = REMIMODetector(5, m, **SMALL, **options)
    build_detector(five, 6)
    five.set_weights(three.get_weights())
    expected = np.asarray(three(y, h, no))
    padded = np.zeros((8, 6, 5), np.complex64)
    where = [4, 0, 2]
    padded[..., where] = h
    got = np.asarray(five(y, padded, no))
    np.testing.assert_allclose(got[:, where], expected, rtol=1e-4, atol=1e-4)
    assert (got[:, [1, 3]] == 0).all()
    # The users of each vector of a batch are counted by themselves
    mixed = padded.copy()
    mixed[4:] = draw_system(rng, 4, 6, 5, m, 0.2)[2]
    alone = np.asarray(five(y[4:], mixed[4:], no[4:]))
    got = np.asarray(five(y, mixed, no))
    np.testing.assert_allclose(got[:4, where], expected[:4], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(got[4:], alone, rtol=1e-4, atol=1e-4)
    # An absent user gets no attention
    maps = five.attention_maps(y, padded, no)
    assert all(np.asarray(a)[..., [1, 3]].max() == 0 for a in maps)


@pytest.mark.parametrize(
    "output, hard_out", [("bit", False), ("symbol", False), ("symbol", True)]
)
def test_fewer_users_than_columns(rng, output, hard_out):
    """An `h` with fewer columns has the result of one with zero columns, without these."""
    _, y, h, no = draw_system(rng, 6, 5, 3, 4, 0.2)
    detector = make(4, 4, 5, output=output, hard_out=hard_out)
    padded = np.concatenate([h, np.zeros((6, 5, 1), np.complex64)], axis=-1)
    expected = np.asarray(detector(y, padded, no))[:, :3]
    got = detector(y, h, no)
    np.testing.assert_allclose(np.asarray(got), expected, rtol=1e-5, atol=1e-5)
    assert detector.compute_output_spec(y, h, no).shape == got.shape
    llrs, symbols = detector.llrs_and_symbols(y, h, no)
    assert llrs.shape == (6, 3, 4) and symbols.shape == (6, 3)
    assert {a.shape for a in detector.attention_maps(y, h, no)} == {(6, 3, 3, 3)}
    blocks = [x.reshape(2, 3, *x.shape[1:]) for x in (y, h, no)]
    assert {a.shape for a in detector.attention_maps(*blocks)} == {(2, 3, 3, 3, 3)}
    with pytest.raises(InvalidInput, match="expected \\[..., 5, 4 or fewer\\]"):
        detector(y, np.ones((6, 5, 5), np.complex64), no)
    with pytest.raises(InvalidInput, match="4 or fewer"):
        detector(y, np.ones((6, 5, 0), np.complex64), no)


@needs_tensorflow
@pytest.mark.parametrize(
    "m, estimates",
    [
        (4, "none"),
        (6, "lmmse-pic"),
        pytest.param(4, "matched-filter", marks=pytest.mark.slow),
        pytest.param(6, "lmmse", marks=pytest.mark.slow),
    ],
)
def test_one_saved_model_for_any_number_of_users(rng, tmp_path, m, estimates):
    import tensorflow as tf

    inputs = (
        keras.Input((5,), dtype="complex64"),
        keras.Input((5, None), dtype="complex64"),
        keras.Input((), dtype="float32"),
    )
    detector = make(4, m, 5, estimates=estimates)
    model = keras.Model(inputs, detector(*inputs))
    assert model.output.shape == (None, None, m)
    model.export(tmp_path / "model", verbose=False)
    loaded = tf.saved_model.load(tmp_path / "model")
    for users in (1, 3, 4):
        _, y, h, no = draw_system(rng, 6, 5, users, m, 0.2)
        expected = np.asarray(detector(y, h, no))
        got = loaded.serve((y, h, no)).numpy()
        np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-3)
    with pytest.raises(tf.errors.InvalidArgumentError):
        loaded.serve((y, np.ones((6, 5, 5), np.complex64), no))


def test_remimo_has_the_published_size():
    """58.6 million parameters with 12 blocks and 16-QAM at 64 antennas."""
    detector = REMIMODetector(16, 4)
    detector.build((None, 64), (None, 64, 16), (None,))
    count = sum(int(np.prod(w.shape)) for w in detector.weights)
    embedding = 321 * 2048 + 2048 + 2048 * 512 + 512
    attention = 3 * (784 * 784 + 784) + 784 * 512 + 512
    feed_forward = 512 * 2048 + 2048 + 2048 * 512 + 512 + 2 * 2 * 512
    predictor = 785 * 393 + 393 + 393 * 197 + 197 + 197 * 16 + 16
    assert count == embedding + 12 * (attention + feed_forward + predictor)
    assert round(count / 1e6, 1) == 58.6
    # 64-QAM has as many logits
    detector = REMIMODetector(32, 6, num_blocks=1)
    detector.build((None, 64), (None, 64, 32), (None,))
    assert sum(int(np.prod(w.shape)) for w in detector.weights) == (
        embedding + attention + feed_forward + predictor
    )


@needs_tensorflow
@pytest.mark.parametrize(
    "m, normalize, no", [(4, False, 1e-8), (6, True, 1e-8), (6, True, 1e-2), (4, False, 1e4)]
)
@pytest.mark.parametrize("estimates", ESTIMATES)
def test_gradients_are_finite_at_any_noise(rng, m, normalize, no, estimates):
    import tensorflow as tf

    symbols, y, h, no = draw_system(rng, 12, 4, 3, m, no)
    h[0], h[1, :, 1] = 0, 0
    options = {"estimates": estimates, "normalize": normalize}
    detector = make(3, m, 4, output="symbol", **options)
    with tf.GradientTape() as tape:
        logits = detector(y, h, no)
        loss = keras.losses.sparse_categorical_crossentropy(symbols, logits, True)
        loss = ops.mean(loss)
    gradients = tape.gradient(loss, detector.trainable_variables)
    assert all(np.isfinite(g.numpy()).all() for g in gradients)
    assert run(detector, y, h, no).shape == (12, 3, 2**m)


def test_remimo_refuses_bad_options():
    for options, message in [
        ({"num_blocks": 0}, "num_blocks: got 0"),
        ({"state_size": 2.5}, "state_size: got 2.5"),
        ({"num_heads": -1}, "num_heads: got -1"),
        ({"factored": "yes"}, "factored: got 'yes', expected True or False"),
        ({"estimates": "mmse"}, "estimates: got 'mmse'.* one of"),
        ({"normalize": 1}, "normalize: got 1, expected True or False"),
    ]:
        with pytest.raises(InvalidInput, match=message):
            REMIMODetector(2, 2, **options)
    with pytest.raises(InvalidInput, match="num_heads: got 99, expected at most"):
        build_detector(REMIMODetector(2, 2, state_size=4, num_heads=99), 2)
