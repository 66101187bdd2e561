"""Detectors against brute force, closed forms and NumPy written from the equations.

Runs on any Keras backend: `KERAS_BACKEND=jax python -m pytest tests/test_detectors.py`.
"""

import functools

import keras
import numpy as np
import pytest
from keras import ops

from linksim.backend import compiled
from linksim.constellation import bit_labels, pam_points, qam_points
from linksim.detectors import AMPDetector
from linksim.detectors.real import interleaved_order, small_interleaved_qr
from linksim.errors import InvalidInput
from linksim.registry import (
    create_detector,
    describe_detector,
    is_learned,
    list_detectors,
)
from tests.conftest import draw_system, slow_but
from tests.systems import brute_force, run, to_llrs

# Networks that detect nothing before they are trained; an untrained OAMP-Net is OAMP
NETWORKS = [n for n in list_detectors() if is_learned(n) and "oamp" not in n]
OWN = [n for n in list_detectors() if not n.startswith("sionna-") and n not in NETWORKS]
TRACED = [name for name in OWN if name != "sdr-cvxpy"]
# Presets of the class of `oampnet2`, and slow to trace
ALIKE = ("oampnet", "wes-oampnet", "rwes-oampnet")
FULL_RANK = ["zf", "zf-sic", "vblast-zf", "zf-pic", "kbest", "sphere"]


@functools.cache
def make(name, num_streams, m, **options):
    options = {**{"kbest": {"k": 16}, "amp": {"num_iterations": 8}}.get(name, {}), **options}
    return create_detector(name, num_streams=num_streams, num_bits_per_symbol=m, **options)


# --- exact detectors ---------------------------------------------------------------


@pytest.mark.parametrize("num_rx, streams, m", [(3, 2, 2), (2, 2, 1), (5, 4, 4), (1, 2, 2)])
def test_gram_schmidt_is_qr(rng, num_rx, streams, m):
    """R'R = H'H and R'z = H'y with R upper triangular, its diagonal positive."""
    y, h = rng.normal(size=(7, 2 * num_rx)), rng.normal(size=(7, num_rx, streams))
    h = h + 1j * rng.normal(size=h.shape) * (m > 1)
    h = (
        np.concatenate([h.real, h.imag], 1)
        if m == 1
        else np.block([[h.real, -h.imag], [h.imag, h.real]])
    )
    args = [ops.convert_to_tensor(x.astype(np.float32)) for x in (y, h)]
    z, r = (ops.convert_to_numpy(x) for x in small_interleaved_qr(*args, streams, m == 1))
    ordered = h[..., interleaved_order(streams, m == 1)]
    gram = np.einsum("bki,bkj->bij", ordered, ordered)
    np.testing.assert_allclose(np.einsum("bki,bkj->bij", r, r), gram, atol=1e-4)
    filtered = np.einsum("bki,bk->bi", ordered, y)
    np.testing.assert_allclose(np.einsum("bki,bk->bi", r, z), filtered, atol=1e-4)
    np.testing.assert_array_equal(r, np.triu(r))
    assert (np.diagonal(r, axis1=1, axis2=2) >= 0).all()


@pytest.mark.parametrize(
    "num_rx, streams, m, method",
    [
        # One stream, two streams, several, and BPSK
        *[(*size, "app") for size in [(1, 1, 6), (2, 2, 4), (4, 4, 2), (4, 5, 1)]],
        *[(*size, "maxlog") for size in [(1, 1, 6), (2, 2, 4), (4, 4, 2), (4, 5, 1)]],
        *[(3, 2, 6, "app"), (2, 2, 1, "maxlog"), (1, 2, 2, "app"), (2, 3, 2, "maxlog")],
    ],
)
def test_ml_is_brute_force(rng, num_rx, streams, m, method):
    _, y, h, no = draw_system(rng, 30, num_rx, streams, m, 0.1)
    logits = brute_force(y, h, no, m, method)
    expected = to_llrs(logits, m, method)
    llrs = run(make("ml", streams, m, demapping_method=method), y, h, no)
    np.testing.assert_allclose(llrs, expected, atol=1e-3, rtol=1e-4)
    # Small chunks do not change the result
    small = make("ml", streams, m, demapping_method=method, max_elements=9000)
    np.testing.assert_allclose(run(small, y, h, no), llrs, atol=1e-4, rtol=1e-5)
    soft = make("ml", streams, m, demapping_method=method, output="symbol")
    got = run(soft, y, h, no)
    got = got - got.max(-1, keepdims=True)
    expected = logits - logits.max(-1, keepdims=True)
    np.testing.assert_allclose(got, expected, atol=2e-3, rtol=1e-4)


@pytest.mark.parametrize(
    "num_rx, streams, m, no",
    [
        *[(2, 2, 4, 0.02), (2, 2, 4, 0.5), (4, 3, 2, 0.5)],
        *[(3, 3, 4, 0.02), (3, 3, 4, 0.5), (4, 5, 1, 0.02)],
    ],
)
def test_sphere_is_brute_force_maxlog(rng, num_rx, streams, m, no):
    _, y, h, no = draw_system(rng, 20, num_rx, streams, m, no, correlation=0.5)
    expected = to_llrs(brute_force(y, h, no, m, "max"), m, "max")
    detector = make("sphere", streams, m)
    clipped = np.clip(expected, -20, 20)
    np.testing.assert_allclose(run(detector, y, h, no), clipped, atol=1e-3)
    exact = make("sphere", streams, m, llr_clip=None)
    np.testing.assert_allclose(run(exact, y, h, no), expected, atol=2e-3, rtol=1e-3)


def test_sphere_counts_the_nodes_that_it_visits(rng):
    _, y, h, no = draw_system(rng, 4, 6, 6, 4, 0.02)
    detector = make("sphere", 6, 4)
    visits = np.asarray(compiled(detector.visited_nodes)(y, h, no))
    assert visits.shape == (4,)
    # At least one path, and far less than the 4^12 leaves
    assert visits.min() >= 12 and visits.max() < 10**5
    # The search may be bounded; its result is then the best so far
    bounded = make("sphere", 6, 4, max_visits=5)
    assert np.asarray(bounded.visited_nodes(y, h, no)).max() <= 5
    assert np.isfinite(np.asarray(bounded(y, h, no))).all()


def test_kbest_with_all_paths_is_maxlog(rng):
    _, y, h, no = draw_system(rng, 50, 3, 2, 4, 0.1)
    expected = to_llrs(brute_force(y, h, no, 4, "max"), 4, "max")
    got = run(make("kbest", 2, 4, k=256), y, h, no)
    np.testing.assert_allclose(got, np.clip(expected, -20, 20), atol=1e-3)


def test_ml_refuses_what_it_cannot_enumerate():
    with pytest.raises(InvalidInput, match="hypotheses.*sphere"):
        make("ml", 16, 4)


# --- linear detectors and interference cancellation --------------------------------


@pytest.mark.parametrize("m", [1, 2, 4])
def test_linear_detectors_are_their_formulas(rng, m):
    """The formulas are complex for QAM, and those of the real 2M x K system for BPSK."""
    _, y, h, no = draw_system(rng, 40, 6, 4, m, 0.3)
    if m == 1:
        y_, h_ = np.concatenate([y.real, y.imag], -1), np.concatenate([h.real, h.imag], -2)
        noise = no / 2  # per real dimension
    else:
        y_, h_, noise = y, h, no
    y_, h_ = y_.astype(np.complex128), h_.astype(np.complex128)
    hh = np.conj(np.swapaxes(h_, -1, -2))
    gram, eye = hh @ h_, np.eye(4)

    def expected(weights):
        """The unbiased estimate that weights make, and its exact error variance."""
        gains = weights @ h_
        own = np.einsum("bkk->bk", gains)
        z = np.einsum("bkm,bm->bk", weights, y_) / own
        leak = (np.abs(gains) ** 2).sum(-1) - np.abs(own) ** 2
        noise_power = noise[:, None] * (np.abs(weights) ** 2).sum(-1)
        return z, (leak + noise_power) / np.abs(own) ** 2

    for name, weights in {
        "mf": hh,
        "zf": np.linalg.inv(gram) @ hh,
        "mmse": np.linalg.inv(gram + noise[:, None, None] * eye) @ hh,
    }.items():
        z, variance = expected(weights)
        scale = 2 if m == 1 else 1  # real noise: exp(-d^2/(2 v))
        distance = np.abs(z[..., None] - qam_points(m)) ** 2
        logits = -distance / (scale * variance[..., None])
        got = run(make(name, 4, m), y, h, no)
        np.testing.assert_allclose(
            got, to_llrs(logits, m, "app"), rtol=2e-3, atol=2e-3, err_msg=name
        )


def zf_sic_reference(y, h, no, m):
    """[Arvinte20], Algorithm 1, in complex arithmetic."""
    points, llrs = qam_points(m), []
    for yi, hi, ni in zip(y.astype(complex), h.astype(complex), no):
        q, r = np.linalg.qr(hi)
        z = q.conj().T @ yi
        x, rows = np.zeros(hi.shape[1], complex), {}
        for k in reversed(range(hi.shape[1])):
            residual = z[k] - r[k, k + 1 :] @ x[k + 1 :]
            distance = np.abs(residual - r[k, k] * points) ** 2
            rows[k] = to_llrs(-distance / ni, m, "app")
            x[k] = points[distance.argmin()]
        llrs.append([rows[k] for k in range(hi.shape[1])])
    return np.array(llrs)


def vblast_reference(y, h, no, m, mmse):
    """Ordered successive cancellation with a new nulling matrix for every stream."""
    points, llrs = qam_points(m), []
    for yi, hi, ni in zip(y.astype(complex), h.astype(complex), no):
        left, rows = list(range(hi.shape[1])), {}
        while left:
            sub = hi[:, left]
            gram = sub.conj().T @ sub
            inverse = np.linalg.inv(gram + (ni if mmse else 0) * np.eye(len(left)))
            best = int(np.argmin(np.diag(inverse).real))
            gain = (inverse @ gram)[best, best].real
            z = (inverse @ sub.conj().T @ yi)[best] / gain
            variance = ni * inverse[best, best].real / gain
            distance = np.abs(z - points) ** 2
            stream = left.pop(best)
            rows[stream] = to_llrs(-distance / variance, m, "app")
            yi = yi - hi[:, stream] * points[distance.argmin()]
        llrs.append([rows[k] for k in range(hi.shape[1])])
    return np.array(llrs)


def test_successive_cancellation_is_its_algorithm(rng):
    m = 4
    _, y, h, no = draw_system(rng, 60, 5, 4, m, 0.05)
    for name, expected in {
        "zf-sic": zf_sic_reference(y, h, no, m),
        "vblast-zf": vblast_reference(y, h, no, m, mmse=False),
        "vblast-mmse": vblast_reference(y, h, no, m, mmse=True),
    }.items():
        got = run(make(name, 4, m), y, h, no)
        np.testing.assert_allclose(got, expected, rtol=5e-3, atol=5e-3, err_msg=name)


def test_zf_pic_cancels_once(rng):
    m, points = 4, qam_points(4)
    _, y, h, no = draw_system(rng, 60, 6, 4, m, 0.1)
    llrs = []
    for yi, hi, ni in zip(y.astype(complex), h.astype(complex), no):
        zf = np.linalg.pinv(hi) @ yi
        x = points[np.abs(zf[:, None] - points).argmin(-1)]
        norm = (np.abs(hi) ** 2).sum(0)
        z = [hi[:, k].conj() @ (yi - hi @ x + hi[:, k] * x[k]) / norm[k] for k in range(4)]
        distance = np.abs(np.array(z)[:, None] - points) ** 2
        llrs.append(to_llrs(-distance / (ni / norm)[:, None], m, "app"))
    got = run(make("zf-pic", 4, m), y, h, no)
    np.testing.assert_allclose(got, llrs, rtol=2e-3, atol=2e-3)


# --- message passing ---------------------------------------------------------------


def pam_moments(z, v, points):
    weight = np.exp(
        -((z[:, None] - points) ** 2 - ((z[:, None] - points) ** 2).min(-1)[:, None])
        / (2 * v[:, None])
    )
    weight /= weight.sum(-1, keepdims=True)
    mean = weight @ points
    return mean, (weight * (points - mean[:, None]) ** 2).sum(-1)


def real_system(y, h):
    y = np.concatenate([y.real, y.imag]).astype(np.float64)
    return y, np.block([[h.real, -h.imag], [h.imag, h.real]]).astype(np.float64)


def pam_llrs(z, v, m):
    points = pam_points(m).astype(np.float64)
    logits = -((z[:, None] - points) ** 2) / (2 * v[:, None])
    half = to_llrs(logits, m // 2, "app")
    k = len(z) // 2
    return np.stack([half[:k], half[k:]], -1).reshape(k, m)


@pytest.mark.parametrize("normalize", [True, False])
def test_amp_is_its_recursion(rng, normalize):
    m, points = 4, pam_points(4).astype(np.float64)
    _, y, h, no = draw_system(rng, 20, 24, 6, m, 1.0)
    y, h, no = (y / np.sqrt(24)).astype("c8"), (h / np.sqrt(24)).astype("c8"), no / 24
    expected = []
    for yi, hi, ni in zip(y, h, no):
        yr, hr = real_system(yi, hi)
        g = np.sqrt((hr**2).sum() / hr.shape[1]) if normalize else 1.0
        yr, hr, s2 = yr / g, hr / g, ni / 2 / g**2
        beta = hr.shape[1] / hr.shape[0]
        x, r, tau = np.zeros(hr.shape[1]), yr, beta * np.mean(points**2) / s2
        for _ in range(8):
            v = s2 * (1 + tau) * np.ones(len(x))
            z = x + hr.T @ r
            x, spread = pam_moments(z, v, points)
            new = beta * spread.mean() / s2
            r = yr - hr @ x + new / (1 + tau) * r
            tau = new
        expected.append(pam_llrs(z, v, m))
    got = run(make("amp", 6, m, num_iterations=8, normalize=normalize), y, h, no)
    np.testing.assert_allclose(got, expected, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("lagged", [False, True])
@pytest.mark.parametrize("divergence_free", [False, True])
def test_oamp_is_its_recursion(rng, lagged, divergence_free):
    m, points = 4, pam_points(4).astype(np.float64)
    _, y, h, no = draw_system(rng, 20, 12, 4, m, 0.5)
    expected = []
    for yi, hi, ni in zip(y, h, no):
        yr, hr = real_system(yi, hi)
        (rows, n), s2 = hr.shape, ni / 2
        x, old = np.zeros(n), np.mean(points**2)
        for _ in range(4):
            residual = yr - hr @ x
            v2 = max((residual @ residual - rows * s2) / np.trace(hr.T @ hr), 1e-9)
            w2, old = (old if lagged else v2), v2
            w_hat = w2 * hr.T @ np.linalg.inv(w2 * hr @ hr.T + s2 * np.eye(rows))
            w = n / np.trace(w_hat @ hr) * w_hat
            b = np.eye(n) - w @ hr
            tau2 = v2 / n * np.trace(b @ b.T) + s2 / n * np.trace(w @ w.T)
            r = x + w @ residual
            x, spread = pam_moments(r, tau2 * np.ones(n), points)
            if divergence_free:
                v = min(spread.mean(), 0.99 * tau2)
                x = (tau2 * x - v * r) / (tau2 - v)
        expected.append(pam_llrs(r, tau2 * np.ones(n), m))
    detector = make(
        "oamp", 4, m, num_iterations=4, lagged_variance=lagged, divergence_free=divergence_free
    )
    np.testing.assert_allclose(run(detector, y, h, no), expected, rtol=2e-2, atol=2e-2)


def test_ep_is_its_recursion(rng):
    m, points = 4, pam_points(4).astype(np.float64)
    _, y, h, no = draw_system(rng, 30, 6, 4, m, 0.2)
    expected = []
    for yi, hi, ni in zip(y, h, no):
        yr, hr = real_system(yi, hi)
        s2 = ni / 2
        precision, shift = np.ones(8) / np.mean(points**2), np.zeros(8)
        for _ in range(5):
            sigma = np.linalg.inv(hr.T @ hr / s2 + np.diag(precision))
            mu, diag = sigma @ (hr.T @ yr / s2 + shift), np.diag(sigma)
            cavity = np.maximum(1 / (1 / diag - precision), 1e-6)
            z = cavity * (mu / diag - shift)
            x, v = pam_moments(z, cavity, points)
            v = np.maximum(v, 1e-6)
            new = 1 / v - 1 / cavity
            keep = new < 0
            new_shift = np.where(keep, shift, x / v - z / cavity)
            precision = 0.1 * np.where(keep, precision, new) + 0.9 * precision
            shift = 0.1 * new_shift + 0.9 * shift
        expected.append(pam_llrs(z, cavity, m))
    detector = make("ep", 4, m, num_iterations=5, damping=0.9)
    np.testing.assert_allclose(run(detector, y, h, no), expected, rtol=2e-2, atol=2e-2)


# --- properties of all -------------------------------------------------------------


def systems(rng, name, m=4, streams=4, num_rx=6, batch=24, no=0.1):
    if name in ("amp", "mf"):
        num_rx = 12 * num_rx  # interference-limited otherwise
    if name == "sdr-cvxpy":
        batch = 4
    return draw_system(rng, batch, num_rx, streams, m, no)


def call(name, detector, *args):
    return np.asarray(detector(*args)) if name == "sdr-cvxpy" else run(detector, *args)


@pytest.mark.parametrize(
    "name, m",
    [
        # Shapes and numbers of streams are tested with QPSK
        pytest.param(
            *(name, m),
            marks=[pytest.mark.slow] if m == 2 or (name in ALIKE and m != 4) else [],
        )
        for name in OWN
        for m in (1, 2, 4, 6)
    ],
)
def test_noise_free_symbols_are_recovered(rng, name, m):
    """Decisions, the sign of LLRs, and for one modulation all four outputs."""
    symbols, y, h, _ = systems(rng, name, m, streams=2, num_rx=8, batch=12, no=0.0)
    no = np.full(len(y), 1e-3, np.float32)
    bits = bit_labels(m)[symbols]
    llrs = call(name, make(name, 2, m), y, h, no)
    assert llrs.shape == symbols.shape + (m,) and llrs.dtype == np.float32
    np.testing.assert_array_equal(llrs > 0, bits == 1)
    index = call(name, make(name, 2, m, output="symbol", hard_out=True), y, h, no)
    assert index.dtype == np.int32
    np.testing.assert_array_equal(index, symbols)
    if m != 4:
        return
    hard = call(name, make(name, 2, m, hard_out=True), y, h, no)
    np.testing.assert_array_equal(hard, bits)
    logits = call(name, make(name, 2, m, output="symbol"), y, h, no)
    np.testing.assert_array_equal(logits.argmax(-1), symbols)


@pytest.mark.parametrize("name", OWN)
def test_permuting_streams_permutes_the_result(rng, name):
    _, y, h, no = systems(rng, name)
    order = np.array([2, 0, 3, 1])
    detector = make(name, 4, 4)
    straight = call(name, detector, y, h, no)[:, order]
    permuted = call(name, detector, y, h[..., order], no)
    if name == "zf-sic":  # it has no ordering, so the order of the streams matters
        assert np.abs(straight - permuted).max() > 1
        return
    # k-best breaks ties between real and imaginary columns by position
    close = np.isclose(straight, permuted, rtol=1e-2, atol=1e-2)
    assert close.mean() > (0.97 if name == "kbest" else 0.999)


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_scaling_y_h_and_noise_changes_nothing(rng, name, scale):
    _, y, h, no = systems(rng, name)
    detector = make(name, 4, 4)
    expected = call(name, detector, y, h, no)
    scaled = call(
        name,
        detector,
        (y * scale).astype(np.complex64),
        (h * scale).astype(np.complex64),
        (no * scale**2).astype(np.float32),
    )
    close = np.isclose(scaled, expected, rtol=1e-2, atol=2e-2)
    # EP's and OAMP's variance floors are absolute, K-best breaks ties by rounding
    assert close.mean() > 0.97


@pytest.mark.parametrize("name", slow_but(set(TRACED) - set(ALIKE), TRACED))
def test_shapes_any_batch_rank_and_single_stream(rng, name):
    _, y, h, no = systems(rng, name)
    detector = make(name, 4, 4)
    flat = run(detector, y, h, no)
    lead = (2, 3, 4)
    stacked = run(
        detector,
        y.reshape(lead + y.shape[1:]),
        h.reshape(lead + h.shape[1:]),
        no.reshape(lead),
    )
    assert stacked.shape == lead + (4, 4)
    np.testing.assert_allclose(stacked.reshape(flat.shape), flat, rtol=1e-4, atol=1e-4)
    one = run(detector, y[0], h[0], no[0])
    assert one.shape == (4, 4)
    np.testing.assert_allclose(one, flat[0], rtol=2e-3, atol=2e-3)
    # K = 1 and K = M
    symbols, y, h, no = draw_system(rng, 10, 4, 1, 2, 1e-3)
    got = run(make(name, 1, 2, output="symbol", hard_out=True), y, h, no)
    np.testing.assert_array_equal(got, symbols)
    _, y, h, no = draw_system(rng, 10, 3, 3, 2, 0.1)
    assert np.isfinite(run(make(name, 3, 2), y, h, no)).all()


@pytest.mark.parametrize("name", OWN)
def test_covariance_of_white_noise_equals_its_variance(rng, name):
    _, y, h, no = systems(rng, name)
    s = (no[:, None, None] * np.eye(y.shape[-1])).astype(np.complex64)
    detector = make(name, 4, 4)
    # N0 is the mean of M numbers here, and EP amplifies its rounding
    np.testing.assert_allclose(
        call(name, detector, y, h, s), call(name, detector, y, h, no), rtol=1e-2, atol=1e-3
    )


@pytest.mark.parametrize("name", ["mmse", "ml", "amp"])
@pytest.mark.parametrize("number", [0.25, np.float64(0.25), np.float32(0.25), 1])
def test_noise_variance_may_be_a_number(rng, name, number):
    _, y, h, no = draw_system(rng, 5, 4, 3, 4, 0.1)
    detector = make(name, 3, 4)
    expected = detector(y, h, np.full_like(no, number))
    np.testing.assert_array_equal(detector(y, h, number), expected)
    np.testing.assert_array_equal(detector(y, h, s=number), expected)
    for wrong in (0, -0.25):
        with pytest.raises(InvalidInput, match="expected > 0"):
            detector(y, h, wrong)


@pytest.mark.parametrize("name", ["mmse", "ml", "zf-sic"])
def test_coloured_noise_is_whitened(rng, name):
    _, y, h, _ = draw_system(rng, 16, 4, 2, 4, 0.1)
    root = rng.normal(size=(16, 4, 4)) + 1j * rng.normal(size=(16, 4, 4))
    s = (root @ np.conj(np.swapaxes(root, -1, -2)) * 0.05 + 0.05 * np.eye(4)).astype(
        np.complex64
    )
    factor = np.linalg.cholesky(s.astype(complex))
    white_y = np.linalg.solve(factor, y[..., None])[..., 0].astype(np.complex64)
    white_h = np.linalg.solve(factor, h).astype(np.complex64)
    detector = make(name, 2, 4)
    expected = run(detector, white_y, white_h, np.ones(16, np.float32))
    np.testing.assert_allclose(run(detector, y, h, s), expected, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("name", FULL_RANK)
def test_too_few_antennas_are_refused(rng, name):
    _, y, h, no = draw_system(rng, 2, 2, 3, 2, 0.1)
    with pytest.raises(InvalidInput, match="2 receive antennas for 3 streams"):
        make(name, 3, 2)(y, h, no)


@pytest.mark.parametrize("name", sorted(set(TRACED) - set(FULL_RANK)))
def test_more_streams_than_antennas_where_possible(rng, name):
    _, y, h, no = draw_system(rng, 4, 2, 3, 2, 0.1)
    assert np.isfinite(run(make(name, 3, 2), y, h, no)).all()


@pytest.mark.parametrize("name", TRACED)
def test_degenerate_channels_give_finite_output(rng, name):
    _, y, h, no = systems(rng, name)
    h[0] = 0
    h[1, :, 1] = h[1, :, 0]
    assert np.isfinite(run(make(name, 4, 4), y, h, no)).all()


@pytest.mark.parametrize("name", OWN)
def test_bad_input_is_named(rng, name):
    _, y, h, no = draw_system(rng, 2, 4, 3, 4, 0.1)
    detector = make(name, 3, 4)
    cases = [
        ((y.real.copy(), h, no), "y has dtype float32, expected complex64"),
        ((y, h[0, 0], no), "expected \\[..., M\\] and \\[..., M, K\\]"),
        ((y, h[:, :3], no), "h has shape \\(2, 3, 3\\)"),
        ((y, h[..., :2], no), "num_streams=3"),
        ((y, np.tile(h, (3, 1, 1)), no), "h cannot be broadcast to \\(2,\\)"),
        ((y, h[None], no), "h cannot be broadcast to \\(2,\\)"),
        ((y[0], h, no[0]), "h cannot be broadcast to \\(\\)"),
        ((y, h, np.tile(no, 2)), "s has shape \\(4,\\)"),
        ((y, h, no[None]), "s has shape \\(1, 2\\)"),
        ((y, h, np.eye(3, dtype=np.complex64)), "s has shape \\(3, 3\\)"),
        ((y, h, no.astype(np.int32)), "s has dtype int32"),
        ((y, h, no * 0), "noise variance N0 is 0"),
        ((y, h, -no), "expected > 0"),
        ((y * np.float32("nan"), h, no), "y contains NaN or inf"),
        ((y, h / np.float32(0), no), "contains NaN or inf"),
    ]
    if keras.backend.backend() == "tensorflow":  # JAX rounds it to complex64 itself
        cases.append(((y.astype(complex), h, no), "y has dtype complex128"))
    for args, message in cases:
        with np.errstate(all="ignore"), pytest.raises(InvalidInput, match=message):
            detector(*args)


@pytest.mark.parametrize("name", OWN + NETWORKS)
def test_config_round_trip_and_unknown_options(name):
    detector = make(name, 3, 4, output="symbol")
    config = detector.get_config()
    again = type(detector).from_config(config)
    assert again.get_config() == config
    with pytest.raises(InvalidInput, match="unknown option frequency"):
        make(name, 3, 4, frequency=3)
    with pytest.raises(InvalidInput, match="output"):
        make(name, 3, 4, output="bits")
    with pytest.raises(InvalidInput, match="num_streams"):
        make(name, 0, 4)
    if name != "pepnet":  # whose weights fit every system
        refusal = "no weights of" if is_learned(name) else "classical detector, without"
        with pytest.raises(InvalidInput, match=refusal):
            make(name, 3, 4, pretrained=True)


def test_unknown_detector_is_refused():
    with pytest.raises(InvalidInput, match="'mmmse'.*mmse"):
        make("mmmse", 2, 2)


def test_every_detector_is_described():
    for name in list_detectors():
        if keras.backend.backend() == "tensorflow" or not name.startswith("sionna"):
            assert len(describe_detector(name)) > 10


def test_amp_damping_helps_where_amp_diverges(rng):
    """On a nearly square system AMP does not converge, and damping avoids errors."""
    symbols, y, h, no = draw_system(rng, 400, 8, 6, 2, 0.1)
    wrong = {
        d: np.mean(run(AMPDetector(6, 2, "symbol", True, damping=d), y, h, no) != symbols)
        for d in (0.0, 0.5)
    }
    assert wrong[0.5] < wrong[0.0]
