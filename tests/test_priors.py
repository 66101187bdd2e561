"""Detectors that are told what is known beforehand.

Limits, brute force and Sionna, for all detectors that accept a prior.
"""

import functools

import keras
import numpy as np
import pytest

from linksim.constellation import bit_labels, pam_moments, pam_points, qam_points
from linksim.detectors.capabilities import ACCEPT_PRIOR
from linksim.errors import InvalidInput
from linksim.registry import DETECTORS, create_detector, list_detectors
from tests.conftest import draw_system, slow_but
from tests.short_networks import OPTIONS
from tests.systems import brute_force, needs_tensorflow, real_system, run, to_llrs

OURS = [name for name in ACCEPT_PRIOR if not name.startswith("sionna-")]
# Of two names of one class with other weights, one
DISTINCT = [n for n in OURS if n not in ("oampnet", "rwes-oampnet", "remimo-mf")]
# These have no BPSK, and one order of the streams
NETWORKS = ["eqnet-l-prior"]
SAVED = ["mmse", "ml", "ep", "oampnet2", "remimo-pic"]
QUICK = ("mmse", "ml", "kbest", "ep", "amp", "oampnet2", "remimo-pic")
# They know the variance of what is cancelled stream by stream
BY_STREAM = ["mmse", "ml", "sphere", "kbest", "ep", "lord"]
M, K, BITS = 6, 3, 4
CERTAIN = 100.0


@functools.cache
def make(name, num_streams=K, m=BITS, **options):
    keras.utils.set_random_seed(3)
    options = {**OPTIONS.get(name, {}), **options}
    return create_detector(name, num_streams=num_streams, num_bits_per_symbol=m, **options)


def draw(rng, batch=24, num_rx=M, streams=K, m=BITS, no=0.3):
    """y, h, no, random LLRs [B, K, m] to go with them, and the symbols sent."""
    symbols, y, h, no = draw_system(rng, batch, num_rx, streams, m, no)
    llrs = rng.normal(size=(batch, streams, m)).astype(np.float32) * 3
    return y, h, no, llrs, symbols


def symbol_logits(llrs):
    """Logits [..., 2^m] of symbols whose bits have these LLRs, up to a constant."""
    return llrs @ bit_labels(llrs.shape[-1]).T.astype(np.float32)


def pam_prior(llrs):
    """Log-probabilities [B, N, L] of the levels, up to a constant."""
    m = llrs.shape[-1]
    if m > 1:
        llrs = np.concatenate([llrs[..., 0::2], llrs[..., 1::2]], axis=-2)
    return symbol_logits(llrs)


def certain(symbols, m, size=CERTAIN):
    return (size * (2.0 * bit_labels(m)[symbols] - 1.0)).astype(np.float32)


# --- who accepts one ------------------------------------------------------------------


def test_the_list_of_those_that_accept_is_true():
    found = [
        name
        for name in list_detectors()
        # Other tests register detectors of their own
        if not DETECTORS.entry(name).own
        and create_detector(name, num_streams=2, num_bits_per_symbol=2).accepts_prior
    ]
    assert found == list(ACCEPT_PRIOR)


@pytest.mark.parametrize("name", [n for n in list_detectors() if n not in ACCEPT_PRIOR])
def test_the_others_refuse_and_name_those_that_accept(rng, name):
    y, h, no, llrs, _ = draw(rng, 2, m=2)
    with pytest.raises(InvalidInput) as error:
        make(name, m=2)(y, h, no, llrs)
    assert "prior: " in str(error.value) and "cannot use" in str(error.value)
    assert ", ".join(ACCEPT_PRIOR) in str(error.value)


# --- limits ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, m",
    [
        pytest.param(name, m, marks=[] if name in quick else [pytest.mark.slow])
        for m, quick in ((4, DISTINCT), (1, ("mmse", "ml", "amp")))
        for name in OURS
        if m > 1 or name not in NETWORKS
    ],
)
def test_a_prior_of_zeros_changes_no_bit(rng, name, m):
    y, h, no, llrs, _ = draw(rng, 8, m=m)
    nothing = np.zeros_like(llrs)
    graph = run(make(name, m=m), y, h, no)
    got = run(make(name, m=m), y, h, no, nothing)
    if name == "sphere":  # slow in eager calls
        np.testing.assert_array_equal(got, graph)
        return
    # TensorFlow adds the terms of some sums of a graph in the order of their names
    np.testing.assert_allclose(got, graph, rtol=1e-3, atol=1e-3)
    for output in ("bit", "symbol"):
        detector = make(name, m=m, output=output)
        plain = np.asarray(detector(y, h, no))
        for prior in (nothing, np.full((8, K, 2**m), 2, np.float32)):
            np.testing.assert_array_equal(np.asarray(detector(y, h, no, prior)), plain)


@pytest.mark.parametrize("m", [1, 4])
@pytest.mark.parametrize("name, no", [*[(name, 0.3) for name in BY_STREAM], ("mmse", 1e-3)])
def test_certain_interference_is_none(rng, name, m, no):
    """The LLRs of a stream are then those of its matched filter, for which no other is there.

    At high SNR an LLR of 100 is not certain: the channel may say more against it. Only
    `mmse` takes all other streams by their priors alone.
    """
    options = {"demapping_method": "maxlog"}
    if name in ("kbest", "sphere"):
        options["llr_clip"] = 1e6
    if name == "kbest":
        options["k"] = 300
    y, h, no, llrs, symbols = draw(rng, m=m, no=no, batch=12)
    points = qam_points(m)
    for k in range(K):
        prior = certain(symbols, m)
        prior[:, k] = llrs[:, k]
        others = np.delete(h, k, axis=-1)
        rest = y - np.einsum("bmk,bk->bm", others, points[np.delete(symbols, k, axis=-1)])
        alone = brute_force(rest, h[..., k : k + 1], no, m, "max")[:, 0]
        expected = to_llrs(alone + symbol_logits(llrs[:, k]), m, "max")
        got = run(make(name, m=m, **options), y, h, no, prior)[:, k]
        np.testing.assert_allclose(got, expected, rtol=5e-3, atol=2e-2)


@pytest.mark.parametrize("name", ["amp", "oamp", "oampnet2", "wes-oampnet"])
def test_certain_interference_is_little_for_an_average_variance(rng, name):
    """These estimate one variance for all streams; errors become far fewer all the same."""
    y, h, no, llrs, symbols = draw(rng, 300, num_rx=8, streams=6, no=0.4)
    bits = bit_labels(BITS)[symbols]
    prior = certain(symbols, BITS)
    prior[:, 0] = 0
    detector = make(name, 6)
    errors = [
        np.mean((run(detector, *args)[:, 0] > 0) != bits[:, 0])
        for args in ((y, h, no, np.zeros_like(prior)), (y, h, no, prior))
    ]
    bound = make("ml", 1)
    rest = y - np.einsum("bmk,bk->bm", h[..., 1:], qam_points(BITS)[symbols[:, 1:]])
    best = np.mean((run(bound, rest, h[..., :1], no)[:, 0] > 0) != bits[:, 0])
    assert errors[1] < 0.5 * errors[0] and errors[1] < 1.3 * best + 0.01


@pytest.mark.parametrize("name", slow_but(QUICK, DISTINCT))
def test_what_is_certain_stays_certain(rng, name):
    """Even where the channel says otherwise, and beside streams of which nothing is known."""
    y, h, no, llrs, symbols = draw(rng, no=1.0)
    prior = certain(15 - symbols, BITS)
    prior[:, 1:] = 0
    got = run(make(name), y, h, no, prior)
    np.testing.assert_array_equal(got[:, 0] > 0, prior[:, 0] > 0)


# --- brute force ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, num_rx, streams, m, method",
    [
        *[("ml", *size, method) for method in ("app", "maxlog")
          for size in [(2, 1, 6), (2, 2, 4), (2, 2, 1), (3, 3, 2), (4, 4, 1)]],
        *[("sphere", *size, "maxlog") for size in [(2, 2, 4), (3, 3, 2), (4, 4, 1)]],
        *[("kbest", *size, "maxlog") for size in [(2, 2, 4), (3, 3, 2), (4, 4, 1)]],
    ],
)  # fmt: skip
@pytest.mark.parametrize("size", [1, 30])
def test_it_is_brute_force(rng, name, num_rx, streams, m, method, size):
    """Over all vectors, with weak priors, and with such as the channel contradicts."""
    y, h, no, llrs, _ = draw(rng, 20, num_rx, streams, m, no=0.2)
    llrs = llrs * size
    options = {"llr_clip": 1e6} if name != "ml" else {}
    if name == "kbest":
        options["k"] = 256
    prior = symbol_logits(np.clip(llrs, -CERTAIN, CERTAIN).astype(float))
    expected = brute_force(y, h, no, m, "app" if method == "app" else "max", prior)
    detector = make(name, streams, m, demapping_method=method, **options)
    got = run(detector, y, h, no, llrs)
    reduce = "app" if method == "app" else "max"
    np.testing.assert_allclose(got, to_llrs(expected, m, reduce), rtol=2e-3, atol=5e-3)
    if name == "ml":
        soft = run(make(name, streams, m, demapping_method=method, output="symbol"),
                   y, h, no, llrs)  # fmt: skip
        difference = soft - expected
        difference -= difference.mean(-1, keepdims=True)
        np.testing.assert_allclose(difference, 0, atol=2e-2)
        small = make(name, streams, m, demapping_method=method, max_elements=700)
        np.testing.assert_allclose(run(small, y, h, no, llrs), got, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("name", ["kbest", "sphere"])
def test_a_clip_bounds_what_the_channel_adds(rng, name):
    """It bounded the sum, so that a receiver that takes the prior off got LLRs of the wrong
    sign."""
    for m in (2, 4):
        y, h, no, llrs, _ = draw(rng, m=m, no=0.1)
        llrs = np.clip(llrs * 10, -90, 90)
        options = {"k": 3 if m == 4 else 64} if name == "kbest" else {}
        exact = run(make("ml", m=m, demapping_method="maxlog"), y, h, no, llrs) - llrs
        added = run(make(name, m=m, llr_clip=5.0, **options), y, h, no, llrs) - llrs
        assert np.abs(exact).max() > 8 and np.abs(llrs).max() > 50
        assert np.abs(added).max() <= 5.001
        if m == 2:  # a level is a bit
            np.testing.assert_allclose(added, np.clip(exact, -5, 5), atol=1e-3)


# --- each against its equations ---------------------------------------------------------


@pytest.mark.parametrize("m", [1, 2, 4])
def test_mmse_is_parallel_interference_cancellation(rng, m):
    """With a filter of its own for every dimension, in double precision [Wang99]."""
    y, h, no, llrs, _ = draw(rng, streams=4, m=m)
    prior = pam_prior(llrs)
    points = pam_points(m).astype(float)
    pmf = np.exp(prior - prior.max(-1, keepdims=True))
    pmf = pmf / pmf.sum(-1, keepdims=True)
    mean = pmf @ points
    variance = pmf @ points**2 - mean**2
    logits = np.zeros(prior.shape)
    for b, (yr, hr) in enumerate(zip(*real_system(y, h, m))):
        for i in range(hr.shape[1]):
            others = np.delete(np.arange(hr.shape[1]), i)
            rest = yr - hr[:, others] @ mean[b, others]
            noise = hr[:, others] * variance[b, others] @ hr[:, others].T
            noise += no[b] / 2 * np.eye(len(yr))
            f = np.linalg.solve(noise, hr[:, i])
            snr = f @ hr[:, i]
            logits[b, i] = -((f @ rest / snr - points) ** 2) * snr / 2 + prior[b, i]
    half = to_llrs(logits, max(m // 2, 1), "app")
    k = half.shape[1] // 2
    expected = half if m == 1 else np.stack([half[:, :k], half[:, k:]], -1).reshape(-1, k, m)
    np.testing.assert_allclose(
        run(make("mmse", 4, m), y, h, no, llrs), expected, rtol=2e-3, atol=2e-3
    )


@pytest.mark.parametrize("method", ["app", "maxlog"])
@pytest.mark.parametrize("m", [2, 4])
@needs_tensorflow
def test_mmse_is_sionnas(rng, m, method):
    """Where the two dimensions of a symbol are known equally well: Sionna filters complex
    symbols, which have one variance. Its LLRs are extrinsic."""
    y, h, no, llrs, _ = draw(rng, streams=4, m=m)
    sign = np.where(rng.random((24, 4, m // 2)) < 0.5, -1, 1)
    sign[..., 1:] = 1  # the bits of the amplitudes are alike
    llrs[..., 1::2] = sign * llrs[..., 0::2]
    options = {"demapping_method": method}
    theirs = make("sionna-mmse-pic", 4, m, num_iter=1, **options)
    got = run(make("mmse", 4, m, **options), y, h, no, llrs)
    np.testing.assert_allclose(got, theirs(y, h, no, llrs), rtol=1e-2, atol=2e-2)
    # Their block returns what the channel adds
    s = no[:, None, None] * np.eye(M, dtype=np.complex64)
    extrinsic = theirs.detector(y, h, s, llrs)
    np.testing.assert_allclose(got - llrs, extrinsic, rtol=1e-2, atol=2e-2)


@pytest.mark.parametrize("lagged", [False, True])
def test_message_passing_starts_at_the_prior(rng, lagged):
    """OAMP and AMP against their recursions in double precision."""
    y, h, no, llrs, _ = draw(rng, 16, num_rx=12, streams=4, no=1.0)
    points, priors = pam_points(BITS).astype(float), pam_prior(llrs)

    def posterior(z, v, prior):
        logits = -((z[:, None] - points) ** 2) / (2 * v) + prior
        pmf = np.exp(logits - logits.max(-1, keepdims=True))
        pmf = pmf / pmf.sum(-1, keepdims=True)
        mean = pmf @ points
        return logits, mean, pmf @ points**2 - mean**2

    oamp, amp = [], []
    for yr, hr, ni, prior in zip(*real_system(y, h, BITS), no, priors):
        (rows, n), s2 = hr.shape, ni / 2
        start = posterior(np.zeros(n), np.inf, prior)[1:]
        x, old = start[0], start[1].mean()
        for _ in range(3):
            residual = yr - hr @ x
            v2 = max((residual @ residual - rows * s2) / np.trace(hr.T @ hr), 1e-9)
            w2, old = (old if lagged else v2), v2
            w = w2 * hr.T @ np.linalg.inv(w2 * hr @ hr.T + s2 * np.eye(rows))
            w *= n / np.trace(w @ hr)
            b = np.eye(n) - w @ hr
            tau2 = v2 / n * np.trace(b @ b.T) + s2 / n * np.trace(w @ w.T)
            logits, x, _ = posterior(x + w @ residual, tau2, prior)
        oamp.append(logits)
        beta, x, tau = n / rows, start[0], n / rows * start[1].mean() / s2
        r = yr - hr @ x
        for _ in range(3):
            logits, x, spread = posterior(x + hr.T @ r, s2 * (1 + tau), prior)
            new = beta * spread.mean() / s2
            r = yr - hr @ x + new / (1 + tau) * r
            tau = new
        amp.append(logits)
    options = {"num_iterations": 3}
    for detector, logits, args in (
        (make("oamp", 4, lagged_variance=lagged, **options), oamp, (y, h, no)),
        # The load is never above that of channels with columns of unit energy, and here it
        # is not limited by the interference
        (make("amp", 4, normalize=False, **options), amp, (y, h, no)),
    ):
        half = to_llrs(np.array(logits), BITS // 2, "app")
        expected = np.stack([half[:, :4], half[:, 4:]], -1).reshape(-1, 4, BITS)
        got = run(detector, *args, llrs)
        np.testing.assert_allclose(got, expected, rtol=2e-2, atol=2e-2)


def test_moments_of_what_is_nearly_certain():
    """The variance was a difference of numbers near 1, and came out as 1e-7."""
    points = pam_points(4)
    logits = np.array([[0, -30, -40, -50], [0, 0, 0, 0], [0, -2, -3, -1]], np.float32)
    mean, variance = (np.asarray(x) for x in pam_moments(logits, points))
    pmf = np.exp(logits.astype(float))
    pmf /= pmf.sum(-1, keepdims=True)
    exact = pmf @ points.astype(float)
    spread = np.sum(pmf * (points - exact[:, None]) ** 2, axis=-1)
    np.testing.assert_allclose(mean, exact, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(variance, spread, rtol=1e-4, atol=1e-12)
    assert mean[1] == 0 and variance[1] == np.float32(np.mean(points.astype(float) ** 2))


# --- the call ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", slow_but(QUICK, [n for n in DISTINCT if n not in NETWORKS]))
def test_permuting_streams_and_priors_permutes_the_result(rng, name):
    y, h, no, llrs, _ = draw(rng)
    order = np.array([2, 0, 1])
    straight = run(make(name), y, h, no, llrs)[:, order]
    permuted = run(make(name), y, h[..., order], no, llrs[:, order])
    close = np.isclose(straight, permuted, rtol=1e-2, atol=1e-2)
    assert close.mean() > (0.95 if name in ("kbest", "lord", "pep") else 0.999)


@pytest.mark.parametrize("name, m", [*[(name, 4) for name in QUICK], ("mmse", 1)])
def test_logits_say_the_same_as_llrs(rng, name, m):
    y, h, no, llrs, _ = draw(rng, m=m)
    expected = run(make(name, m=m), y, h, no, llrs)
    got = run(make(name, m=m), y, h, no, symbol_logits(llrs) - 5)
    close = np.isclose(got, expected, rtol=1e-2, atol=1e-2)
    assert close.mean() > 0.98


@pytest.mark.parametrize("name", [n for n in DISTINCT if n != "sphere"])  # slow if eager
def test_priors_broadcast_and_all_outputs_agree(rng, name):
    y, h, no, llrs, _ = draw(rng, 6)
    y, h, no = y.reshape(2, 3, M), h.reshape(2, 3, M, K), no.reshape(2, 3)
    detector = make(name)
    for prior in (llrs[0], llrs[:1], llrs[:3], llrs[:2, None]):
        full = np.ascontiguousarray(np.broadcast_to(prior, (2, 3, K, BITS)))
        expected = np.asarray(detector(y, h, no, full))
        np.testing.assert_allclose(detector(y, h, no, prior), expected, rtol=1e-4, atol=1e-3)
    llr, symbols = detector.llrs_and_symbols(y, h, no, full)
    np.testing.assert_allclose(llr, expected, rtol=1e-4, atol=1e-3)
    hard = make(name, output="symbol", hard_out=True)(y, h, no, full)
    np.testing.assert_array_equal(hard, symbols)
    logits = np.asarray(make(name, output="symbol")(y, h, no, full))
    np.testing.assert_array_equal(logits.argmax(-1), symbols)


@pytest.mark.parametrize("name", DISTINCT)
def test_no_vectors_with_priors(name):
    y, h = np.zeros((0, M), np.complex64), np.zeros((0, M, K), np.complex64)
    prior = np.zeros((0, K, BITS), np.float32)
    for given in (prior, np.zeros((K, BITS), np.float32)):
        assert tuple(make(name)(y, h, 0.1, given).shape) == (0, K, BITS)


@needs_tensorflow
@pytest.mark.parametrize("name", slow_but(QUICK, DISTINCT))
def test_priors_of_an_unknown_batch_size(rng, name):
    """In a graph that is traced once, for LLRs and for no vectors at all."""
    import tensorflow as tf

    y, h, no, llrs, _ = draw(rng, 5)
    detector = make(name)
    graph = tf.function(
        lambda *args: detector(*args),
        autograph=False,
        input_signature=[
            tf.TensorSpec([None, *x.shape[1:]], x.dtype) for x in (y, h, no, llrs)
        ],
    )
    np.testing.assert_allclose(
        graph(y, h, no, llrs), detector(y, h, no, llrs), rtol=1e-2, atol=1e-2
    )
    assert graph(y[:0], h[:0], no[:0], llrs[:0]).shape == (0, K, BITS)


@pytest.mark.parametrize(
    "name, m",
    [
        *[pytest.param(n, 1, marks=pytest.mark.slow) for n in DISTINCT if n not in NETWORKS],
        *[
            pytest.param(n, 4, marks=[] if n in QUICK else [pytest.mark.slow])
            for n in DISTINCT
        ],
    ],
)
def test_extreme_inputs_with_priors_are_finite(rng, name, m):
    """Noise and channels of any size, singular channels, and priors of infinity."""
    y, h, _, llrs, _ = draw(rng, 20, m=m)
    no = np.float32(10.0) ** np.linspace(-12, 12, 20, dtype=np.float32)
    h[3:5], h[5:8] = 0, h[5:8, :, :1]
    h[8:10] *= 1e-9
    llrs[:, 0] = np.where(llrs[:, 0] > 0, np.inf, -np.inf)
    detector = make(name, m=m, **({"max_visits": 40} if name == "sphere" else {}))
    for prior in (llrs, symbol_logits(np.clip(llrs, -1e37, 1e37))):
        out = run(detector, y, h, no, prior)
        assert np.isfinite(out).all()
        np.testing.assert_array_equal(out[3:5, 0] > 0, llrs[3:5, 0] > 0)


@pytest.mark.parametrize("name", ["remimo-pic", "pepnet"])
def test_priors_of_fewer_streams(rng, name):
    """A column of zeros is a user that is absent; its LLRs are its prior."""
    y, h, no, llrs, _ = draw(rng)
    few = np.asarray(make(name)(y, h[..., :2], no, llrs[:, :2]))
    padded = np.concatenate([h[..., :2], np.zeros_like(h[..., :1])], axis=-1)
    full = np.asarray(make(name)(y, padded, no, llrs))
    np.testing.assert_allclose(full[:, :2], few, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(full[:, 2], llrs[:, 2], rtol=1e-4, atol=1e-4)


@needs_tensorflow
@pytest.mark.parametrize("name", slow_but(SAVED, [*SAVED, *NETWORKS]))
def test_models_with_priors_are_saved(rng, tmp_path, name):
    import tensorflow as tf

    y, h, no, llrs, _ = draw(rng, 5)
    inputs = [
        keras.Input(x.shape[1:], dtype=str(x.dtype), name=n)
        for n, x in (("y", y), ("h", h), ("no", no), ("prior", llrs))
    ]
    model = keras.Model(inputs, make(name)(*inputs))
    expected = np.asarray(make(name)(y, h, no, llrs))
    args = [y, h, no, llrs]
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(again(args), expected, rtol=1e-3, atol=1e-3)
    model.export(tmp_path / "saved", verbose=False)
    loaded = tf.saved_model.load(tmp_path / "saved")
    # Rounding matters to expectation propagation
    close = np.isclose(loaded.serve(args), expected, rtol=1e-3, atol=1e-3)
    assert close.mean() > 0.95


@pytest.mark.parametrize(
    "prior, message",
    [
        (np.zeros((4, K, 3), np.float32), "prior has shape"),
        (np.zeros((4, K + 1, BITS), np.float32), "prior has shape"),
        (np.zeros((3, K, BITS), np.float32), "prior has shape"),
        (np.full((4, K, BITS), np.nan, np.float32), "prior contains NaN"),
    ],
)
def test_wrong_priors_are_refused(rng, prior, message):
    y, h, no, _, _ = draw(rng, 4)
    with pytest.raises(InvalidInput, match=message):
        make("mmse")(y, h, no, prior)


# --- Sionna -----------------------------------------------------------------------------


@needs_tensorflow
@pytest.mark.parametrize("output", ["bit", "symbol"])
def test_sionnas_own_take_llrs_and_logits(rng, output):
    y, h, no, llrs, _ = draw(rng, streams=2)
    for name, ours in (("sionna-ml", "ml"), ("sionna-mmse-pic", None)):
        detector = make(name, 2, output=output)
        plain = detector(y, h, no)
        nothing = detector(y, h, no, np.zeros_like(llrs))
        np.testing.assert_allclose(nothing, plain, rtol=1e-4, atol=1e-4)
        got = detector(y, h, no, llrs)
        if output == "bit":  # up to a constant
            assert np.abs(got - plain).mean() > 0.5
            same = detector(y, h, no, symbol_logits(llrs))
            np.testing.assert_allclose(same, got, rtol=1e-3, atol=1e-2)
        if ours:
            expected = np.asarray(make(ours, 2, output=output)(y, h, no, llrs))
            difference = got - expected
            if output == "symbol":
                difference -= np.mean(difference, axis=-1, keepdims=True)
            np.testing.assert_allclose(difference, 0, atol=1e-2)
        llr, symbols = make(name, 2).llrs_and_symbols(y, h, no, llrs[0])
        np.testing.assert_array_equal(make(name, 2)(y, h, no, llrs[0]), llr)
    with pytest.raises(InvalidInput, match="prior has shape"):
        make("sionna-ml", 2)(y, h, no, llrs[..., :3])
    with pytest.raises(InvalidInput, match="hard_out=False"):
        make("sionna-mmse-pic", 2, hard_out=True)(y, h, no, llrs)


@needs_tensorflow
@pytest.mark.parametrize("output", ["bit", "symbol"])
@pytest.mark.parametrize(
    "name", slow_but(["mmse", "ml", "kbest", "ep", "oamp", "remimo-pic"], ACCEPT_PRIOR)
)
def test_sionnas_ofdm_detector_with_a_prior_takes_ours(rng, name, output):
    import tensorflow as tf
    from sionna.phy.mimo import StreamManagement
    from sionna.phy.ofdm import OFDMDetectorWithPrior, ResourceGrid

    grid = ResourceGrid(
        num_ofdm_symbols=2,
        fft_size=6,
        subcarrier_spacing=30e3,
        num_tx=1,
        num_streams_per_tx=2,
        pilot_pattern="kronecker",
        pilot_ofdm_symbol_indices=[0],
    )
    inner = make(name, 2, output=output)
    detector = OFDMDetectorWithPrior(
        inner,
        output,
        grid,
        StreamManagement(np.ones((1, 1)), 2),
        constellation_type="qam",
        num_bits_per_symbol=BITS,
    )
    y, h, no, llrs, _ = draw(rng, 3 * 2 * 6, num_rx=4, streams=2)
    llrs = llrs.reshape(3, 2, 6, 2, BITS)[:, 1].swapaxes(1, 2)[:, None]  # [3, 1, 2, 6, BITS]
    y_grid = y.reshape(3, 2, 6, 4).transpose(0, 3, 1, 2)[:, None]
    h_grid = h.reshape(3, 2, 6, 4, 2).transpose(0, 3, 4, 1, 2)[:, None, :, None]
    prior = llrs.reshape(3, 1, 2, 6 * BITS) if output == "bit" else symbol_logits(llrs)
    got = detector(
        *map(tf.constant, (y_grid, h_grid, prior)),
        tf.zeros([1, 1, 1, 1, 2, 2, 6]),
        tf.constant(no[0]),
    )
    data = y.reshape(3, 2, 6, 4)[:, 1], h.reshape(3, 2, 6, 4, 2)[:, 1]
    expected = np.asarray(inner(*data, no[0], np.ascontiguousarray(llrs[:, 0].swapaxes(1, 2))))
    expected = expected.swapaxes(1, 2)[:, None].reshape(got.shape)
    close = np.isclose(got, expected, rtol=1e-2, atol=1e-2)
    assert close.mean() > 0.98
