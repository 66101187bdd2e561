"""Hypotheses about one dimension that are followed through all others."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from linksim.backend import Tensor
from linksim.constellation import nearest_pam
from linksim.detectors.base import Detector
from linksim.detectors.ep import EPState, accurate_variance, ep_states
from linksim.detectors.pairs import batch_first, batch_last
from linksim.detectors.real import matvec
from linksim.errors import check_int, check_real

# Log-likelihoods are kept down to here, relative to the best
_FLOOR = -1e4
# Smallest variance of a dimension given others, relative to its own
_LEAST = 1e-6


def hypotheses(
    state: EPState, y: Tensor, h: Tensor, no: Tensor, points: np.ndarray
) -> tuple[Tensor, Tensor]:
    """Test every level of every dimension.

    A hypothesis fixes one dimension at one level. The other dimensions are decided one
    after the other, the most certain first: each takes the level nearest to its cavity
    given all that is decided so far. That makes N L candidate vectors, whose exact
    likelihoods are compared, and for each hypothesis the sum over the levels that were not
    taken, as far as the path saw them.

    Args:
        state: the approximation of expectation propagation; it says how dimensions
            depend on each other before they are decided.
        y, h, no: the real system.
        points: float32 [L], the levels.

    Returns:
        - float32 [B, N, L]: the largest log-likelihood of a candidate that has the level,
          relative to the best one;
        - float32 [B, N, L]: the log of what the path of the hypothesis left out, relative
          to what it took, at least 0.
    """
    n, size = h.shape[-1], len(points)
    levels = ops.convert_to_tensor(points)
    order = ops.argsort(state.variance, axis=-1)  # [B, N]
    back = ops.argsort(order, axis=-1)[..., None]
    matrix = _sorted_matrix(state.covariance, order) * (no / 2.0)[:, None, None]
    mean, precision, shift = (
        batch_last(_sorted(x, order)) for x in (state.mean, state.precision, state.shift)
    )
    paths, left_out = _paths(batch_last(matrix), mean, precision, shift, points)
    # Likelihoods relative to those of a reference, whose residual is accurate in float32
    reference = nearest_pam(state.mean, points)
    residual = matvec(ops.swapaxes(h, -1, -2), y - matvec(h, reference))
    gram = _sorted_matrix(ops.matmul(ops.swapaxes(h, -1, -2), h), order)
    candidates = ops.reshape(paths, (n, n * size, -1))
    steps = batch_first(candidates) - _sorted(reference, order)[..., None]
    inner = _sorted(residual, order)[..., None] - 0.5 * ops.matmul(gram, steps)
    metrics = ops.sum(steps * inner, axis=1) / (no / 2.0)[:, None]  # [B, N L]
    metrics = metrics - ops.max(metrics, axis=-1, keepdims=True)
    metrics = batch_last(ops.maximum(metrics, _FLOOR))[None]
    near = 0.5 * (float(np.max(points)) / (size - 1))
    best = [
        ops.max(ops.where(ops.abs(candidates - levels[i]) < near, metrics, _FLOOR), axis=1)
        for i in range(size)
    ]
    return tuple(
        ops.take_along_axis(batch_first(x), back, axis=1)
        for x in (ops.stack(best, axis=1), left_out)
    )


def _sorted(values, order):
    return ops.take_along_axis(values, order, axis=1)


def _sorted_matrix(matrix, order):
    rows = ops.take_along_axis(matrix, order[:, :, None], axis=1)
    return ops.take_along_axis(rows, order[:, None, :], axis=2)


def _paths(
    covariance: Tensor, mean: Tensor, precision: Tensor, shift: Tensor, points: np.ndarray
) -> tuple[Tensor, Tensor]:
    """The candidates of all hypotheses, with the batch last.

    Args:
        covariance: float32 [N, N, B].
        mean, precision, shift: float32 [N, B].
        points: float32 [L].

    Returns:
        Candidates float32 [N, N, L, B], whose axes are dimension, dimension of the
        hypothesis, its level; and what their paths left out, float32 [N, L, B].
    """
    n = mean.shape[0]
    levels = ops.convert_to_tensor(points)[None, :, None]
    # Row p has the p-th other dimension of each dimension
    roots = np.arange(n)
    others = np.array([[j for j in range(n) if j != i] for i in range(n)], int)
    others = others.reshape(n, n - 1).T
    flat = ops.reshape(covariance, (n * n, -1))

    def entries(rows, columns):
        rows, columns = np.broadcast_arrays(rows, columns)
        taken = ops.take(flat, (rows * n + columns).reshape(-1), axis=0)
        return ops.reshape(taken, (*rows.shape, -1))

    def at_others(values):
        return ops.reshape(ops.take(values, others.reshape(-1), axis=0), (n - 1, n, -1))

    taken, left_out = [], 0.0
    if n > 1:
        # Mean and covariance of the others, given the dimension of the hypothesis
        with_root = entries(others, roots)  # [N - 1, N, B]
        gain = with_root / entries(roots, roots)
        spread = entries(others[:, None], others[None]) - gain[:, None] * with_root[None]
        mean_p = at_others(mean)[:, :, None] + gain[:, :, None] * (levels - mean[:, None])
        precision_p, shift_p = at_others(precision), at_others(shift)
        least = _LEAST * entries(others, others)
    for p in range(n - 1):
        s = ops.maximum(spread[0, 0], least[p])
        cavity = ops.maximum(1.0 / s - precision_p[p], 1e-9 / s)[:, None]
        centre = (mean_p[0] / s[:, None] - shift_p[p][:, None]) / cavity
        x = nearest_pam(centre, points)
        # (l - centre)^2 - (x - centre)^2, without the rounding of a difference of squares
        excess = sum(
            ops.exp(-0.5 * cavity * ops.maximum((level - x) * (level + x - 2 * centre), 0.0))
            for level in points.tolist()
        )
        left_out = left_out + ops.log(excess)
        taken.append(x)
        gain = spread[1:, 0] / s
        mean_p = mean_p[1:] + gain[:, :, None] * (x - mean_p[0])
        spread = spread[1:, 1:] - gain[:, None] * spread[0, 1:]
    own = ops.broadcast_to(levels, (1, len(points), ops.shape(mean)[-1]))
    rows = []
    for j in range(n):
        # For hypotheses about dimensions before j it is the other number j - 1
        parts = [taken[j - 1][:j]] if j else []
        parts += [own] + ([taken[j][j + 1 :]] if j < n - 1 else [])
        rows.append(ops.concatenate(parts, axis=0))
    if n == 1:
        left_out = ops.zeros_like(rows[0])
    return ops.stack(rows), left_out


@keras.saving.register_keras_serializable("linksim")
class LORDDetector(Detector):
    """Layered orthogonal lattice detection (LORD) [Siti06], started from EP.

    Every level of every real dimension is tried, and each of these hypotheses is followed
    through the other dimensions by successive decisions, as `hypotheses` does. No level
    lacks a candidate, so LLRs need no clipping, and permuting the streams permutes the
    result. [Siti06] decides by zero forcing; here, a few steps of expectation propagation
    [Cespedes14] say what to expect of dimensions that are not decided yet. With
    "maxlog" the LLRs compare the best candidates. With "app", the default, the likelihood of
    a hypothesis also has the levels that its path left out.

    The work grows with N^4, so it is a detector for up to eight streams or so.

    Args:
        num_iterations: the number of updates of expectation propagation; 0 is LMMSE.
        damping: weight of the old factors of expectation propagation, in [0, 1].

    Raises:
        InvalidInput: (a `ValueError`) an option is out of range.
    """

    def __init__(
        self, *args: Any, num_iterations: int = 1, damping: float = 0.5, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        check_int("num_iterations", num_iterations, minimum=0)
        check_real("damping", damping, low=0, high=1)
        self.num_iterations = int(num_iterations)
        self.damping = float(damping)

    def detect(self, y: Tensor, h: Tensor, no: Tensor) -> Tensor:
        least = accurate_variance(self.points)
        settings = self.num_iterations, self.damping, least
        state = ep_states(y, h, no, self.points, *settings)[-1]
        best, left_out = hypotheses(state, y, h, no, self.points)
        return best if self.demapping_method == "maxlog" else best + left_out

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_iterations": self.num_iterations,
            "damping": self.damping,
        }
