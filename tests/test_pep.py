"""Expectation propagation, its pairwise corrections and hypotheses, against NumPy in float64
and exact ML where that is all there is to know."""

import itertools

import numpy as np
import pytest
from keras import ops
from scipy.special import logsumexp, softmax

from linksim import create_detector
from linksim.constellation import pam_points
from linksim.detectors.ep import accurate_variance, ep_states
from linksim.detectors.lord import hypotheses
from linksim.detectors.pairs import AllPairs, StrongestPairs, pair_terms
from linksim.detectors.pepnet import evidence
from linksim.errors import InvalidInput
from tests.systems import brute_force, needs_tensorflow, real_system, run, to_llrs


def _system(rng, batch, num_rx, num_streams, m, no):
    """A random complex system: y, h, N0."""
    shape = (batch, num_rx, num_streams)
    h = (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64) / 2**0.5
    levels = pam_points(m)
    x = rng.choice(levels, (batch, num_streams)).astype(np.complex64)
    if m > 1:
        x = x + 1j * rng.choice(levels, (batch, num_streams))
    noise = rng.normal(size=(batch, num_rx)) + 1j * rng.normal(size=(batch, num_rx))
    y = np.einsum("bmk,bk->bm", h, x) + noise * (no / 2) ** 0.5
    return y.astype(np.complex64), h, np.full(batch, no, np.float32)


def _real(y, h, m):
    return [x.astype(np.float32) for x in real_system(y, h, m)]


def _prior(rng, known, batch, dims, size):
    """Log-probabilities of levels up to a constant, float32 [B, N, L], or None."""
    if not known:
        return None
    logits = 1.5 * rng.normal(size=(batch, dims, size))
    return (logits - logits.max(axis=-1, keepdims=True)).astype(np.float32)


def _of(prior, b):
    """The prior of one vector in float64, zero if there is none."""
    return 0.0 if prior is None else prior[b].astype(np.float64)


def _numpy_ep(y, h, no, points, updates, damping, prior=0.0):
    """Expectation propagation by the equations of [Cespedes14], one vector, float64. With a
    prior, the factors start with its moments, and stand for levels of that probability."""
    least = accurate_variance(points)
    y, h, points = (np.asarray(x, np.float64) for x in (y, h, points))
    precision_of_y, shift_of_y = h.T @ h / (no / 2), h.T @ y / (no / 2)
    p = softmax(prior + np.zeros((h.shape[1], len(points))), axis=1)
    factor = 1 / np.maximum(p @ points**2 - (p @ points) ** 2, least)
    shift = (p @ points) * factor
    for update in range(updates + 1):
        covariance = np.linalg.inv(precision_of_y + np.diag(factor))
        mean = covariance @ (shift_of_y + shift)
        cavity_v = 1 / (1 / np.diag(covariance) - factor)
        cavity_m = cavity_v * (mean / np.diag(covariance) - shift)
        logits = prior - (points - cavity_m[:, None]) ** 2 / (2 * cavity_v[:, None])
        p = np.exp(logits - logsumexp(logits, axis=1, keepdims=True))
        x = p @ points
        v = np.maximum(p @ points**2 - x**2, least)
        if update < updates:
            wanted, wanted_shift = 1 / v - 1 / cavity_v, x / v - cavity_m / cavity_v
            valid = wanted >= 0
            factor = np.where(valid, (1 - damping) * wanted + damping * factor, factor)
            shift = np.where(valid, (1 - damping) * wanted_shift + damping * shift, shift)
    return covariance, mean, factor, shift, logits


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("m, streams", [(4, 3), (6, 2), (1, 4)])
def test_expectation_propagation_follows_its_equations(m, streams, known):
    rng = np.random.default_rng(1)
    y, h, no = _system(rng, 6, streams + 1, streams, m, 0.3)
    y, h = _real(y, h, m)
    points = pam_points(m)
    prior = _prior(rng, known, 6, h.shape[-1], len(points))
    states = ep_states(y, h, no, points, 3, 0.4, accurate_variance(points), prior)
    for updates in (0, 1, 3):
        got = states[updates]
        for b in range(6):
            covariance, mean, factor, shift, logits = _numpy_ep(
                y[b], h[b], 0.3, pam_points(m), updates, 0.4, _of(prior, b)
            )
            half_no = 0.15
            np.testing.assert_allclose(got.covariance[b] * half_no, covariance, 2e-4, 1e-6)
            np.testing.assert_allclose(got.mean[b], mean, 1e-3, 2e-4)
            np.testing.assert_allclose(got.precision[b], factor, 2e-3, 1e-3)
            np.testing.assert_allclose(got.shift[b], shift, 2e-3, 2e-3)
            np.testing.assert_allclose(
                softmax(np.asarray(got.logits[b]), 1), softmax(logits, 1), atol=1e-3
            )


def test_one_iteration_of_ep_is_lmmse():
    rng = np.random.default_rng(2)
    y, h, no = _system(rng, 5, 4, 2, 4, 0.2)
    args = {"num_streams": 2, "num_bits_per_symbol": 4}
    one = create_detector("ep", num_iterations=1, demapping_method="app", **args)
    mmse = create_detector("mmse", demapping_method="app", **args)
    np.testing.assert_allclose(run(one, y, h, no), run(mmse, y, h, no), 1e-3, 1e-3)


def _numpy_pair(state, i, j, points, prior):
    """log p_ij(x_i) by enumeration of one pair, from S of the pair alone."""
    covariance, mean, factor, shift, _ = state
    both = [i, j]
    inverse = np.linalg.inv(covariance[np.ix_(both, both)])
    precision = inverse - np.diag(factor[both])
    moment = inverse @ mean[both] - shift[both]
    table = np.array(
        [
            [moment @ (a, b) - 0.5 * np.array((a, b)) @ precision @ (a, b) for b in points]
            for a in points
        ]
    )
    if np.ndim(prior):
        table = table + prior[i][:, None] + prior[j]
    table = table - logsumexp(table)
    return logsumexp(table, axis=1), table


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("m, streams", [(4, 3), (6, 2), (2, 4), (1, 5)])
def test_pairs_are_those_of_an_enumeration(m, streams, known):
    rng = np.random.default_rng(3)
    y, h, no = _system(rng, 4, streams + 1, streams, m, 0.4)
    y, h = _real(y, h, m)
    points, dims = pam_points(m), h.shape[-1]
    prior = _prior(rng, known, 4, dims, len(points))
    state = ep_states(y, h, no, points, 2, 0.5, accurate_variance(points), prior)[-1]
    terms = pair_terms(state, no, points, AllPairs(dims), prior)
    for b in range(4):
        beforehand = _of(prior, b)
        reference = _numpy_ep(y[b], h[b], 0.4, points, 2, 0.5, beforehand)
        own = reference[4] - logsumexp(reference[4], axis=1, keepdims=True)
        for i in range(dims):
            others = [j for j in range(dims) if j != i]
            for p, j in enumerate(others):
                marginal, table = _numpy_pair(
                    reference, i, j, points.astype(np.float64), beforehand
                )
                got = np.asarray(terms.marginal[i, p, :, b])
                np.testing.assert_allclose(got, np.exp(marginal), atol=2e-3)
                likely = (np.exp(marginal) > 1e-3) & (np.exp(own[i]) > 1e-3)
                correction = np.asarray(terms.correction[i, p, :, b])
                np.testing.assert_allclose(
                    correction[likely], (marginal - own[i])[likely], atol=0.03
                )
                other, _ = _numpy_pair(reference, j, i, points.astype(np.float64), beforehand)
                outer = marginal[:, None] + other[None]
                information = np.sum(np.exp(table) * (table - outer))
                assert float(terms.information[i, p, b]) == pytest.approx(
                    information, abs=2e-3
                )


@pytest.mark.parametrize("known", [False, True])
def test_strongest_pairs_are_the_most_correlated_of_all_pairs(known):
    rng = np.random.default_rng(4)
    y, h, no = _system(rng, 3, 6, 5, 4, 0.4)
    y, h = _real(y, h, 4)
    points = pam_points(4)
    state = ep_states(y, h, no, points, 2, 0.5, accurate_variance(points))[-1]
    all_pairs = AllPairs(10)
    prior = _prior(rng, known, 3, 10, 4)
    every = pair_terms(state, no, points, all_pairs, prior)
    few = pair_terms(state, no, points, StrongestPairs(state.covariance, 4), prior)
    for i, b in itertools.product(range(10), range(3)):
        strongest = np.argsort(-np.asarray(every.rho2[i, :, b]))[:4]
        np.testing.assert_allclose(
            few.rho2[i, :, b], np.asarray(every.rho2)[i, strongest, b], 1e-4
        )
        np.testing.assert_allclose(
            few.correction[i, :, :, b],
            np.asarray(every.correction)[i, strongest, :, b],
            atol=1e-4,
        )


@pytest.mark.parametrize("num_rx", [2, 4])
def test_two_streams_of_bpsk_are_a_pair_and_exact(num_rx):
    """With two real dimensions the pair is the whole system: pep and lord are ML."""
    rng = np.random.default_rng(5)
    y, h, no = _system(rng, 200, num_rx, 2, 1, 0.8)
    args = {"num_streams": 2, "num_bits_per_symbol": 1}
    for method in ("app", "maxlog"):
        exact = to_llrs(brute_force(y, h, no, 1, method), 1, method)
        lord = create_detector("lord", demapping_method=method, **args)
        np.testing.assert_allclose(run(lord, y, h, no), exact, rtol=1e-3, atol=2e-3)
    exact = to_llrs(brute_force(y, h, no, 1, "app"), 1, "app")
    pep = create_detector("pep", weight=1.0, **args)
    likely = np.abs(exact) < 30  # beyond it, corrections are cut
    np.testing.assert_allclose(run(pep, y, h, no)[likely], exact[likely], 1e-3, 5e-3)


@pytest.mark.parametrize("name", ["pep", "lord"])
def test_two_streams_of_bpsk_with_a_prior_are_exact_too(name):
    rng = np.random.default_rng(15)
    y, h, no = _system(rng, 200, 2, 2, 1, 0.8)
    llrs = (2 * rng.normal(size=(200, 2, 1))).astype(np.float32)
    points = pam_points(1).astype(np.float64)
    vectors = np.array(list(itertools.product(range(2), repeat=2)))
    distances = np.abs(y[:, None] - np.einsum("bmk,vk->bvm", h, points[vectors])) ** 2
    metrics = -np.sum(distances, axis=-1) / no[:, None] + llrs[..., 0] @ vectors.T
    ones = [logsumexp(metrics[:, vectors[:, k] == 1], axis=1) for k in range(2)]
    zeros = [logsumexp(metrics[:, vectors[:, k] == 0], axis=1) for k in range(2)]
    exact = np.stack([a - b for a, b in zip(ones, zeros)], axis=1)[..., None]
    options = {"weight": 1.0} if name == "pep" else {}
    detector = create_detector(name, num_streams=2, num_bits_per_symbol=1, **options)
    likely = np.abs(exact) < 20  # far beyond it, corrections are cut
    got = ops.convert_to_numpy(detector(y, h, no, llrs))
    np.testing.assert_allclose(got[likely], exact[likely], 1e-3, 1e-2)


def _numpy_paths(y, h, no, state, points, prior):
    """Candidates by conditioning the Gaussian on all that was decided before, float64."""
    covariance, mean, factor, shift, _ = state
    dims = len(mean)
    order = np.argsort(np.diag(covariance))
    vectors, left_out = {}, {}
    for i, level in itertools.product(range(dims), range(len(points))):
        known, values, lost = [i], [points[level]], 0.0
        for j in [k for k in order if k != i]:
            gain = covariance[j, known] @ np.linalg.inv(covariance[np.ix_(known, known)])
            s = covariance[j, j] - gain @ covariance[known, j]
            m = mean[j] + gain @ (np.array(values) - mean[known])
            cavity = 1 / s - factor[j]
            centre = (m / s - shift[j]) / cavity
            exponents = -0.5 * cavity * (points - centre) ** 2 + prior[j]
            best = np.argmax(exponents)
            lost += logsumexp(exponents) - exponents[best]
            known.append(j)
            values.append(points[best])
        x = np.zeros(dims)
        x[known] = values
        vectors[i, level], left_out[i, level] = x, lost
    metrics = {
        k: -np.sum((y - h @ x) ** 2) / no
        + sum(prior[i, np.argmin(np.abs(points - x[i]))] for i in range(dims))
        for k, x in vectors.items()
    }
    logits = np.array(
        [
            [
                max(v for k, v in metrics.items() if abs(vectors[k][i] - p) < 1e-9)
                for p in points
            ]
            for i in range(dims)
        ]
    )
    lost = np.array([[left_out[i, n] for n in range(len(points))] for i in range(dims)])
    return logits - logits.max(), lost


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("m, streams, updates", [(4, 2, 1), (4, 3, 2), (2, 4, 2), (1, 5, 1)])
def test_hypotheses_follow_their_paths(m, streams, updates, known):
    rng = np.random.default_rng(6)
    y, h, no = _system(rng, 8, streams + 1, streams, m, 0.3)
    y, h = _real(y, h, m)
    points = pam_points(m)
    prior = _prior(rng, known, 8, h.shape[-1], len(points))
    variance = accurate_variance(points)
    state = ep_states(y, h, no, points, updates, 0.5, variance, prior)[-1]
    best, left_out = hypotheses(state, y, h, no, points, prior)
    for b in range(8):
        beforehand = _of(prior, b) + np.zeros((h.shape[-1], len(points)))
        reference = _numpy_ep(y[b], h[b], 0.3, points, updates, 0.5, beforehand)
        wanted, lost = _numpy_paths(
            y[b].astype(np.float64),
            h[b].astype(np.float64),
            0.3,
            reference,
            points.astype(np.float64),
            beforehand,
        )
        np.testing.assert_allclose(best[b], wanted, rtol=1e-3, atol=5e-3)
        np.testing.assert_allclose(left_out[b], lost, rtol=1e-2, atol=5e-3)


def test_a_candidate_is_never_better_than_ml_and_often_is_it():
    rng = np.random.default_rng(7)
    y, h, no = _system(rng, 300, 4, 3, 2, 0.5)
    args = {"num_streams": 3, "num_bits_per_symbol": 2, "demapping_method": "maxlog"}
    exact = to_llrs(brute_force(y, h, no, 2, "maxlog"), 2, "maxlog")
    got = run(create_detector("lord", **args), y, h, no)
    assert np.mean((got > 0) == (exact > 0)) > 0.99
    assert np.mean(np.abs(got - exact) < 1e-2) > 0.9


def _pepnet(streams, m, weights=None, **options):
    """A network with random weights, which are large enough to matter, or given ones."""
    net = create_detector("pepnet", num_streams=streams, num_bits_per_symbol=m, **options)
    net.build()
    rng = np.random.default_rng(8)
    if weights is None:
        weights = [rng.normal(size=w.shape).astype(np.float32) * 0.3 for w in net.weights]
    net.set_weights(weights)
    return net


# N = 4, 16, 18 and 34 real dimensions: paths and all pairs, the most of them, strongest pairs,
# no paths
@pytest.mark.parametrize(
    "m, streams, num_rx", [(4, 2, 3), (4, 8, 8), (4, 9, 10), (4, 17, 20), (1, 3, 3)]
)
def test_one_set_of_weights_serves_every_system_with_its_symmetries(m, streams, num_rx):
    rng = np.random.default_rng(9)
    y, h, no = _system(rng, 12, num_rx, streams, m, 0.2)
    net = _pepnet(streams, m, _pepnet(3, 4).get_weights())
    base = run(net, y, h, no)
    assert np.all(np.isfinite(base)) and np.std(base) > 0.1
    order = rng.permutation(streams)
    permuted = run(net, y, h[..., order], no)
    np.testing.assert_allclose(permuted, base[:, order], rtol=2e-3, atol=2e-2)
    scaled = run(net, 3e3 * y, 3e3 * h, np.float32(9e6) * no)
    np.testing.assert_allclose(scaled, base, rtol=2e-3, atol=2e-2)


def test_streams_without_a_channel_do_not_change_the_others():
    rng = np.random.default_rng(10)
    y, h, no = _system(rng, 20, 4, 3, 4, 0.2)
    weights = _pepnet(3, 4).get_weights()
    few = run(_pepnet(3, 4, weights), y, h, no)
    some = run(_pepnet(5, 4, weights), y, h, no)
    assert some.shape == few.shape
    np.testing.assert_allclose(some, few, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("no", [1e-8, 1e8])
@needs_tensorflow
def test_gradients_are_finite_at_extreme_noise(no):
    import tensorflow as tf

    rng = np.random.default_rng(11)
    y, h, _ = _system(rng, 6, 4, 3, 4, 1e-4)
    net = _pepnet(3, 4)
    y, h = _real(y, h, 4)
    y, h = tf.constant(y), tf.constant(h)
    with tf.GradientTape() as tape:
        tape.watch([y, h])
        logits = net.detect(y, h, tf.fill([6], np.float32(no)))
        total = tf.reduce_sum(tf.nn.log_softmax(logits)[..., 0])
    for gradient in tape.gradient(total, [y, h, *net.trainable_variables]):
        assert np.all(np.isfinite(gradient))


def test_evidence_of_one_dimension_is_that_of_the_cavity():
    rng = np.random.default_rng(12)
    y, h, no = _system(rng, 5, 2, 1, 1, 0.5)
    y, h = _real(y, h, 1)
    found = evidence(y, h, no, pam_points(1))
    assert not np.any(found.corrections) and not np.any(found.left_out)
    np.testing.assert_allclose(found.hypotheses, found.marginals)
    # One stream of BPSK has no interference: LLRs are those of a matched filter
    exact = 4 * np.einsum("bm,bm->b", y, h[..., 0]) / no * pam_points(1)[1]
    got = ops.convert_to_numpy(found.marginals)
    np.testing.assert_allclose(got[0, 1] - got[0, 0], exact, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "name, option, value",
    [
        ("pep", "weight", 1.5),
        ("pep", "num_partners", 0),
        ("pep", "num_updates", -1),
        ("lord", "damping", "a lot"),
        ("pepnet", "width", 0),
        ("pepnet", "pair_width", 2.5),
    ],
)
def test_options_are_checked(name, option, value):
    with pytest.raises(InvalidInput, match=option):
        create_detector(name, num_streams=2, num_bits_per_symbol=4, **{option: value})


@needs_tensorflow
@pytest.mark.parametrize("name", ["ep", "pep", "lord", "pepnet"])
def test_singular_channels_at_any_noise_give_finite_llrs(name):
    rng = np.random.default_rng(13)
    for m, num_rx, streams in ((4, 4, 4), (2, 2, 4), (1, 3, 3)):
        pretrained = {"pretrained": True} if name == "pepnet" else {}
        detector = create_detector(
            name, num_streams=streams, num_bits_per_symbol=m, **pretrained
        )
        y, h, _ = _system(rng, 60, num_rx, streams, m, 1e-4)
        equal, near, rank_one, absent = (h.copy() for _ in range(4))
        equal[..., 1] = h[..., 0]
        near[..., 1] = h[..., 0] + 1e-5 * h[..., 1]
        rank_one[:] = h[:, :, :1] * h[:, :1]
        absent[..., 0] = 0
        for no in (1e-12, 1e-9, 1e-6, 1e6):
            for channel in (h, equal, near, rank_one, absent):
                llr = run(detector, y, channel, np.full(60, no, np.float32))
                assert np.all(np.isfinite(llr)), (m, no)


def test_what_a_path_left_out_is_never_negative():
    rng = np.random.default_rng(14)
    y, h, no = _system(rng, 100, 4, 4, 4, 1e-10)
    y, h = _real(y, h, 4)
    state = ep_states(y, h, no, pam_points(4), 1, 0.5)[-1]
    assert np.min(hypotheses(state, y, h, no, pam_points(4))[1]) >= 0
