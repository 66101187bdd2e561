"""DetNet and MMNet against NumPy written from the equations. Runs on any backend."""

import keras
import numpy as np
import pytest
from keras import ops

from linksim.constellation import pam_points, qam_points
from linksim.detectors.detnet import DetNetDetector
from linksim.detectors.linear import ZeroForcingDetector
from linksim.detectors.mmnet import MMNetDetector, MMNetIIDDetector
from linksim.detectors.perchannel import FixedChannelDetector
from linksim.detectors.real import complex_to_real_channel
from linksim.errors import InvalidInput
from linksim.registry import build_detector
from tests.conftest import draw_system
from tests.systems import needs_tensorflow, randomize, real_system, run, to_llrs

# --- DetNet ------------------------------------------------------------------------


def detnet_reference(detector, y, h, no):
    """The x of every layer, and the logits of the last one."""
    m, keep = detector.num_bits_per_symbol, detector.residual
    points = pam_points(m).astype(float)
    y, h = real_system(y, h, m)
    extra = np.zeros((len(y), 0))
    hty, gram = np.einsum("bmn,bm->bn", h, y), np.einsum("bmn,bmk->bnk", h, h)
    if detector.normalize:
        gain = np.einsum("bnn->b", gram) / gram.shape[-1] + no / 2
        hty, gram = hty / gain[:, None], gram / gain[:, None, None]
        extra = np.log(2 * gain / no)[:, None]
    x, a, out, every = np.zeros_like(hty), np.zeros((len(y), detector.auxiliary_size)), 0, []

    def dense(layer, z):
        return z @ np.asarray(layer.kernel) + np.asarray(layer.bias)

    for r, layer in enumerate(detector.unfolded):
        z = np.concatenate([hty, x, np.einsum("bnk,bk->bn", gram, x), a, extra], -1)
        u = np.maximum(dense(layer.hidden, z), 0)
        new = dense(layer.head, u)
        if detector.head == "soft-sign":
            # -1 + relu(x + t)/|t| - relu(x - t)/|t|
            t = abs(float(detector.widths[r])) + 1e-5
            new = -1 + np.maximum(new + t, 0) / t - np.maximum(new - t, 0) / t
            new = new * points.max()
        out = (1 - keep) * new + keep * out
        if r < detector.num_layers - 1:
            a = (1 - keep) * dense(layer.auxiliary, u) + keep * a
        if detector.head == "soft-sign":
            x = out
            variance = np.exp(float(detector.log_variances[r]))
            logits = -((x[..., None] - points) ** 2) / (2 * variance)
        else:
            logits = out.reshape(len(y), -1, len(points))
            pmf = np.exp(logits - logits.max(-1, keepdims=True))
            x = (pmf * points).sum(-1) / pmf.sum(-1)
        every.append(x)
    return every, logits


@pytest.mark.parametrize("head", ["one-hot", "soft-sign"])
@pytest.mark.parametrize("m, normalize", [(1, False), (2, True), (4, False), (6, True)])
def test_detnet_is_its_equations(rng, head, m, normalize):
    _, y, h, no = draw_system(rng, 20, 5, 3, m, 0.3)
    options = {"num_layers": 4, "head": head, "normalize": normalize, "residual": 0.6}
    detector = randomize(DetNetDetector(3, m, **options))
    expected, logits = detnet_reference(detector, y, h, no)
    system = [x.astype(np.float32) for x in real_system(y, h, m)]
    got = detector.all_estimates(*system, no)
    assert len(got) == 4
    for a, b in zip(got, expected):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
    got = detector.all_logits(*system, no)[-1]
    np.testing.assert_allclose(got, logits, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(detector.detect(*system, no), got, rtol=1e-5, atol=1e-5)


def test_detnet_has_the_published_sizes():
    """For 60x30 BPSK L = 90, and u and a have 8K and 2K entries."""
    detector = DetNetDetector(30, 1, head="soft-sign")
    assert len(detector.unfolded) == 90
    hidden = detector.unfolded[0].hidden.kernel.shape
    assert tuple(hidden) == (3 * 30 + 60, 240)
    # A complex system has twice as many dimensions
    detector = DetNetDetector(3, 4)
    sizes = detector.num_layers, detector.hidden_size, detector.auxiliary_size
    assert sizes == (9, 48, 12)


@needs_tensorflow
@pytest.mark.parametrize("head", ["one-hot", "soft-sign"])
def test_normalized_detnet_ignores_the_scale(rng, head):
    _, y, h, no = draw_system(rng, 20, 6, 3, 4, 0.1)
    detector = randomize(DetNetDetector(3, 4, num_layers=2, head=head, normalize=True))
    expected = run(detector, y, h, no)
    got = run(detector, 100 * y, 100 * h, 1e4 * no)
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-3)


def test_detnet_refuses_bad_options():
    for options, message in [
        ({"num_layers": 0}, "num_layers: got 0"),
        ({"hidden_size": 1.5}, "hidden_size: got 1.5"),
        ({"residual": 1.0}, "residual"),
        ({"head": "softmax"}, "head: got 'softmax', expected one of: one-hot, soft-sign"),
        ({"normalize": 1}, "normalize: got 1"),
    ]:
        with pytest.raises(InvalidInput, match=message):
            DetNetDetector(2, 2, **options)


# --- MMNet -------------------------------------------------------------------------


def mmnet_reference(y, h, no, m, weights, thetas):
    """LLRs, in complex arithmetic.

    Args:
        weights: function of a vector's index, a layer and H that returns W [K, M].
        thetas: function of a vector's index and a layer that returns theta [N].
    """
    points = qam_points(m).astype(complex)
    llrs = []
    for i, (yi, hi, s2) in enumerate(zip(y.astype(complex), h.astype(complex), no / 2.0)):
        num_rx, k = hi.shape
        x = np.zeros(k, complex)
        for layer in range(3):
            w, theta = weights(i, layer, hi), thetas(i, layer)
            residual = yi - hi @ x
            excess = np.linalg.norm(residual) ** 2 - 2 * num_rx * s2
            spread = np.linalg.norm(np.eye(k) - w @ hi) ** 2
            z = x + w @ residual
            v2 = max(excess / (2 * np.linalg.norm(hi) ** 2), 1e-9)
            # Squares of a complex matrix count twice in the real one, over N = 2K
            tau2 = theta * (v2 * spread + s2 * np.linalg.norm(w) ** 2) / k
            real, imag = tau2[:k, None], tau2[k:, None]
            gap = z[:, None] - points
            logits = -(gap.real**2) / (2 * real) - gap.imag**2 / (2 * imag)
            pmf = np.exp(logits - logits.max(-1, keepdims=True))
            x = (pmf * points).sum(-1) / pmf.sum(-1)
        llrs.append(to_llrs(logits, m, "app"))
    return np.array(llrs)


def make_mmnet(rng, num_rx, k, m, num_channels):
    detector = MMNetDetector(k, m, num_layers=3, num_channels=num_channels)
    build_detector(detector, num_rx)
    channels = draw_system(rng, num_channels, num_rx, k, m, 1.0)[2]
    detector.set_channels(channels)
    w = rng.normal(size=detector.linear.shape) * 0.2
    detector.linear.assign(w.astype(np.float32))
    detector.theta.assign(rng.uniform(0.5, 2, detector.theta.shape).astype(np.float32))
    return detector, channels, w[..., 0] + 1j * w[..., 1], np.asarray(detector.theta)


@pytest.mark.parametrize("m", [4, 6])
def test_mmnet_is_its_equations_and_takes_the_nearest_channel(rng, m):
    num_rx, k, count = 6, 3, 4
    detector, channels, w, theta = make_mmnet(rng, num_rx, k, m, count)
    _, y, h, no = draw_system(rng, 12, num_rx, k, m, 0.1)
    owner = rng.integers(0, count, 12)
    h = channels[owner] + 0.05 * h  # close to one of them
    expected = mmnet_reference(
        y, h, no, m, lambda i, t, _: w[owner[i], t], lambda i, t: theta[owner[i], t]
    )
    got = run(detector, y, h.astype(np.complex64), no)
    scale = np.maximum(np.abs(expected), 1)
    np.testing.assert_allclose(got / scale, expected / scale, atol=2e-4)


@pytest.mark.parametrize("m", [1, 2])
def test_mmnet_by_channel_is_mmnet(rng, m):
    detector, channels, _, _ = make_mmnet(rng, 5, 2, m, 3)
    h = np.repeat(channels, 4, axis=0)
    _, y, _, no = draw_system(rng, 12, 5, 2, m, 0.1)
    system = [x.astype(np.float32) for x in real_system(y, h, m)]
    for a, b in zip(
        detector.all_logits(*system, no), detector.all_logits_by_channel(*system, no)
    ):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3)
    with pytest.raises(InvalidInput, match="batch size 11, expected a multiple"):
        detector.all_logits_by_channel(*[x[:11] for x in system], no[:11])


def test_mmnet_with_zero_forcing_weights_is_zero_forcing(rng):
    """With the pseudoinverse as W, |I - WH| = 0 and tau2 is the mean noise variance."""
    _, y, h, no = draw_system(rng, 40, 6, 3, 4, 0.05)
    h = np.repeat(h[:1], 40, axis=0)
    y = y[:1] + 0.3 * y
    detector = MMNetDetector(3, 4, num_layers=1, hard_out=True)
    build_detector(detector, 6)
    w = np.linalg.pinv(h[0])[None, None]
    detector.linear.assign(np.stack([w.real, w.imag], -1).astype(np.float32))
    detector.theta.assign(np.ones(detector.theta.shape, np.float32))
    expected = ZeroForcingDetector(3, 4, hard_out=True)(y, h, no)
    np.testing.assert_array_equal(detector(y, h, no), expected)


def test_mmnet_iid_is_its_equations(rng):
    _, y, h, no = draw_system(rng, 12, 8, 3, 4, 0.5)
    h, no = h / np.sqrt(8).astype(np.float32), no / 8
    detector = MMNetIIDDetector(3, 4, num_layers=3)
    scalars = rng.uniform(0.7, 1.3, (3, 2)).astype(np.float32)
    detector.scalars.assign(scalars)
    expected = mmnet_reference(
        y,
        h,
        no,
        4,
        lambda i, t, hi: scalars[t, 0] * hi.conj().T,
        lambda i, t: np.full(6, scalars[t, 1]),
    )
    scale = np.maximum(np.abs(expected), 1)
    np.testing.assert_allclose(run(detector, y, h, no) / scale, expected / scale, atol=2e-4)


def test_mmnet_iid_permutes_with_the_streams(rng):
    _, y, h, no = draw_system(rng, 12, 8, 4, 4, 0.5)
    order = np.array([2, 0, 3, 1])
    detector = MMNetIIDDetector(4, 4, num_layers=3)
    straight = np.asarray(detector(y, h / 3, no))[:, order]
    np.testing.assert_allclose(
        detector(y, h[..., order] / 3, no), straight, rtol=1e-3, atol=1e-3
    )


def test_networks_of_channels_refuse_bad_options():
    for options, message in [
        ({"network_options": 5}, "network_options: got 5, expected a dictionary"),
        ({"network_options": {"depth": 2}}, "network_options: unknown option depth"),
        ({"network": "mmse"}, "network: got 'mmse'.* one of"),
        ({"num_channels": 0}, "num_channels: got 0"),
    ]:
        with pytest.raises(InvalidInput, match=message):
            FixedChannelDetector(2, 2, **options)


def test_warm_start_copies_the_networks(rng):
    old, *_ = make_mmnet(rng, 4, 2, 2, 2)
    new, *_ = make_mmnet(rng, 4, 2, 2, 2)
    new.warm_start(old)
    np.testing.assert_array_equal(new.linear, old.linear)
    np.testing.assert_array_equal(new.theta, old.theta)
    assert np.abs(np.asarray(new.channels) - np.asarray(old.channels)).max() > 0
    other, *_ = make_mmnet(rng, 4, 2, 2, 3)
    with pytest.raises(InvalidInput, match="other: linear has shape"):
        new.warm_start(other)
    with pytest.raises(InvalidInput, match="other: a layer has no weights yet"):
        new.warm_start(MMNetDetector(2, 2, num_layers=3, num_channels=2))
    with pytest.raises(InvalidInput, match="other: got FixedChannelDetector, expected MMNet"):
        new.warm_start(FixedChannelDetector(2, 2, num_channels=2))
    with pytest.raises(InvalidInput, match="h: got shape"):
        new.set_channels(np.zeros((3, 4, 2), np.complex64))


@needs_tensorflow
def test_gradients_are_finite_at_any_noise(rng):
    import tensorflow as tf

    batches = [draw_system(rng, 12, 4, 3, 4, no) for no in (1e-10, 1e-3, 1e4)]
    for _, _, h, _ in batches:
        h[0] = 0
    mmnet, *_ = make_mmnet(rng, 4, 3, 4, 3)
    detectors = [mmnet, MMNetIIDDetector(3, 4, num_layers=3)]
    detectors += [DetNetDetector(3, 4, num_layers=3, normalize=n) for n in (False, True)]
    detectors.append(DetNetDetector(3, 4, num_layers=3, head="soft-sign"))
    fixed = FixedChannelDetector(3, 4, network_options={"num_layers": 2}, num_channels=3)
    build_detector(fixed, 4)
    detectors.append(fixed)
    for detector in detectors:
        detector.output_type = "symbol"

        # In a graph, as in training, because loops compiled by XLA have no eager gradient
        @tf.function(autograph=False)
        def gradients(symbols, y, h, no, detector=detector):
            with tf.GradientTape() as tape:
                logits = detector(y, h, no)
                loss = keras.losses.sparse_categorical_crossentropy(symbols, logits, True)
                loss = ops.mean(loss)
                if isinstance(detector, DetNetDetector) and detector.head == "soft-sign":
                    # Cross-entropy trains the variances alone
                    system = complex_to_real_channel(y, h)
                    loss = loss + ops.mean(ops.square(detector.all_estimates(*system, no)))
            return tape.gradient(loss, detector.trainable_variables)

        for batch in batches:
            for gradient in gradients(*map(tf.constant, batch)):
                assert gradient is not None
                assert np.isfinite(tf.convert_to_tensor(gradient).numpy()).all()
