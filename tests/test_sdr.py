"""The batched semidefinite relaxation against cvxpy and against ML."""

import numpy as np
import pytest

from linksim.backend import compiled
from linksim.constellation import qam_points
from linksim.detectors.sdr import SDRDetector, SDRReferenceDetector, lifted_problem
from linksim.errors import InvalidInput
from tests.conftest import draw_system
from tests.systems import brute_force, real_tensors, run


def integer_system(y, h, detector):
    """y and H of the integer levels, as `solve` takes them."""
    y, h = real_tensors(y, h)
    h = h[..., : detector.num_dims]
    return y.astype(np.float32), (h * detector.level_scale).astype(np.float32)


@pytest.mark.parametrize(
    "m, num_rx, k, no, correlation, num_sweeps",
    [
        (1, 12, 8, 0.5, 0.0, 50),
        (2, 8, 6, 0.3, 0.0, 50),
        (4, 16, 6, 0.1, 0.0, 50),
        (4, 16, 6, 0.1, 0.7, 100),
        (6, 10, 4, 0.01, 0.0, 50),
        # With 6 rows, r = 4 is the smallest with r(r + 1)/2 > 6
        (1, 6, 5, 0.3, 0.0, 50),
        (2, 4, 4, 0.1, 0.0, 300),
        (4, 4, 4, 0.1, 0.0, 300),
    ],
)
def test_it_reaches_the_optimum_of_cvxpy(rng, m, num_rx, k, no, correlation, num_sweeps):
    """X is feasible, its cost is within 1e-3 of the optimum, and so is its last column."""
    _, y, h, _ = draw_system(rng, 12, num_rx, k, m, no, correlation)
    detector = SDRDetector(k, m, num_sweeps=num_sweeps)
    y, h = integer_system(y, h, detector)
    v = np.asarray(compiled(detector.factor)(y, h), np.float64)
    lifted = v @ v.transpose(0, 2, 1)
    diagonal = np.einsum("bii->bi", lifted)
    bound = 1 if m <= 2 else (2 ** (m // 2) - 1) ** 2
    assert diagonal[:, :-1].min() > 1 - 1e-4 and diagonal[:, :-1].max() < bound + 1e-3
    np.testing.assert_allclose(diagonal[:, -1], 1, atol=1e-4)
    solver = lifted_problem(detector.num_dims, len(detector.points))
    for i in range(len(y)):
        best, column = solver(y[i], h[i])
        gram, hty = h[i].T.astype(float) @ h[i], h[i].T.astype(float) @ y[i]
        cost = np.sum(gram * lifted[i, :-1, :-1]) - 2 * hty @ lifted[i, :-1, -1]
        cost += y[i].astype(float) @ y[i]
        assert cost == pytest.approx(best, rel=1e-3, abs=1e-3 * float(y[i] @ y[i]))
        np.testing.assert_allclose(lifted[i, :-1, -1], column, atol=0.1)


@pytest.mark.parametrize("m", [1, 2, 4])
def test_it_decides_as_the_reference_does(rng, m):
    symbols, y, h, no = draw_system(rng, 30, 8, 4, m, 0.2)
    options = {"output": "symbol", "hard_out": True}
    ours = run(SDRDetector(4, m, num_sweeps=60, **options), y, h, no)
    theirs = np.asarray(SDRReferenceDetector(4, m, **options)(y, h, no))
    assert np.mean(ours != theirs) <= 0.01
    logits = run(SDRDetector(4, m, num_sweeps=60), y, h, no)
    expected = np.asarray(SDRReferenceDetector(4, m)(y, h, no))
    same = (ours == theirs).all(-1)
    np.testing.assert_allclose(logits[same], expected[same], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("m, batch", [(1, 200), (2, 200), (4, 60)])
def test_it_decides_almost_like_ml(rng, m, batch):
    """It relaxes the ML problem, so it is near ML's error rate and never of lower cost."""
    symbols, y, h, no = draw_system(rng, batch, 6, 4, m, 0.05)
    sdr = run(SDRDetector(4, m, output="symbol", hard_out=True), y, h, no)
    ml = brute_force(y, h, no, m, "max").argmax(-1)
    assert np.mean(sdr != symbols) <= np.mean(ml != symbols) + 0.03
    cost = [
        (np.abs(y - np.einsum("bmk,bk->bm", h, qam_points(m)[s])) ** 2).sum(-1)
        for s in (sdr, ml)
    ]
    assert (cost[0] >= cost[1] * (1 - 1e-5)).all()


def test_a_vector_does_not_depend_on_its_batch(rng):
    _, y, h, no = draw_system(rng, 9, 8, 4, 4, 0.2)
    detector = SDRDetector(4, 4)
    whole = run(detector, y, h, no)
    np.testing.assert_allclose(run(detector, y[4:5], h[4:5], no[4:5]), whole[4:5], rtol=1e-4)


def test_the_reference_refuses_to_be_traced(rng):
    _, y, h, no = draw_system(rng, 2, 2, 2, 2, 0.1)
    with pytest.raises(InvalidInput, match="sdr-cvxpy: works eagerly only"):
        run(SDRReferenceDetector(2, 2), y, h, no)


def test_bad_options_are_refused():
    with pytest.raises(InvalidInput, match="num_sweeps: got 0"):
        SDRDetector(2, 2, num_sweeps=0)
