"""Hypotheses about one dimension that are followed through all others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from linksim.backend import Tensor, constant, take_along_axis
from linksim.constellation import level_distance, nearest_pam
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
    state: EPState,
    y: Tensor,
    h: Tensor,
    no: Tensor,
    points: Sequence[float],
    prior: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Test every level of every dimension.

    A hypothesis fixes one dimension at one level. The other dimensions are decided one
    after the other, the most certain first: each takes the most likely level given all that
    is decided so far, which without a prior is the one nearest to its cavity. That makes N L
    candidate vectors, whose exact likelihoods, times their priors, are compared. Each
    decision also gives the probability of the levels that it did not take.

    Args:
        state: the approximation of expectation propagation; it says how dimensions
            depend on each other before they are decided.
        y, h, no: the real system.
        points: float32 [L], the levels.
        prior: float32 [B, N, L], log-probabilities of the levels up to a constant, or None.

    Returns:
        - float32 [B, N, L]: the largest log-likelihood of a candidate that has the level,
          relative to the best one, at least -1e4;
        - float32 [B, N, L]: the sum, over the decisions of the path, of the log of the
          probability of all levels over that of the level taken, at least 0.
    """
    n, size = h.shape[-1], len(points)
    levels = constant(points)
    order = ops.argsort(state.variance, axis=-1)  # [B, N]
    back = ops.argsort(order, axis=-1)[..., None]
    matrix = _sorted_matrix(state.covariance, order) * (no / 2.0)[:, None, None]
    mean, precision, shift = (
        batch_last(_sorted(x, order)) for x in (state.mean, state.precision, state.shift)
    )
    known = None if prior is None else batch_last(_sorted(prior, order[..., None]))
    paths, left_out, prior_of_path = _paths(
        batch_last(matrix), mean, precision, shift, points, known
    )
    # Likelihoods relative to those of a reference, whose residual is accurate in float32
    reference = nearest_pam(state.mean, points)
    residual = matvec(ops.swapaxes(h, -1, -2), y - matvec(h, reference))
    gram = _sorted_matrix(state.gram, order)
    candidates = ops.reshape(paths, (n, n * size, -1))
    steps = batch_first(candidates) - _sorted(reference, order)[..., None]
    inner = _sorted(residual, order)[..., None] - 0.5 * ops.matmul(gram, steps)
    metrics = ops.sum(steps * inner, axis=1) / (no / 2.0)[:, None]  # [B, N L]
    if prior is not None:
        metrics = metrics + batch_first(ops.reshape(prior_of_path, (n * size, -1)))
    metrics = metrics - ops.amax(metrics, axis=-1, keepdims=True)
    metrics = batch_last(ops.maximum(metrics, _FLOOR))[None]
    near = level_distance(points) / 4
    best = [
        ops.amax(ops.where(ops.abs(candidates - levels[i]) < near, metrics, _FLOOR), axis=1)
        for i in range(size)
    ]
    return tuple(
        take_along_axis(batch_first(x), back, axis=1)
        for x in (ops.stack(best, axis=1), left_out)
    )


def _sorted(values, order):
    return take_along_axis(values, order, axis=1)


def _sorted_matrix(matrix, order):
    rows = take_along_axis(matrix, order[:, :, None], axis=1)
    return take_along_axis(rows, order[:, None, :], axis=2)


def _paths(
    covariance: Tensor,
    mean: Tensor,
    precision: Tensor,
    shift: Tensor,
    points: Sequence[float],
    prior: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor | float]:
    """The candidates of all hypotheses, with the batch last.

    Dimensions are decided in their order. Given a hypothesis about dimension i and the
    decisions before p, the covariance of the rest is S - s_i s_i'/S_ii, where S is given the
    decisions alone; so one S serves all hypotheses, and the work grows with N^3 L.

    Args:
        covariance: float32 [N, N, B].
        mean, precision, shift: float32 [N, B].
        points: float32 [L].
        prior: float32 [N, L, B], or None.

    Returns:
        Candidates float32 [N, N, L, B], whose axes are dimension, dimension of the
        hypothesis, its level; what their paths left out, float32 [N, L, B]; and the prior of
        the candidates, float32 [N, L, B].
    """
    n = mean.shape[0]
    levels = constant(points)[None, :, None]
    variance = _diagonal(covariance)
    least = _LEAST * variance
    # [dimension, dimension of the hypothesis, its level, B]
    means = (covariance / variance)[:, :, None] * (levels - mean[:, None])
    means = mean[:, None, None] + means
    own = ops.broadcast_to(levels, (1, len(points), ops.shape(mean)[-1]))
    none = ops.zeros_like(own)
    taken, left_out, prior_of_path = [], 0.0, 0.0
    for p in range(n):
        # Dimensions p, p + 1, ... given those before; hypotheses about p itself know it,
        # those before p are among the decisions, and those after p are still to be given
        row, rest = covariance[0], covariance[:, 0]
        later = row[1:] / ops.maximum(_diagonal(covariance)[1:], least[p + 1 :])
        s_before = ops.maximum(row[:1], least[p])
        s_later = ops.maximum(row[:1] - later * row[1:], least[p])
        s = ops.concatenate([s_before] * (p + 1) + [s_later], axis=0)  # [N, B]
        cavity = ops.maximum(1.0 / s - precision[p], 1e-9 / s)[:, None]
        centre = (means[0] / s[:, None] - shift[p]) / cavity
        x = nearest_pam(centre, points)
        # (l - centre)^2 - (x - centre)^2, without the rounding of a difference of squares
        scores = [
            -0.5 * cavity * ops.maximum((level - x) * (level + x - 2 * centre), 0.0)
            for level in points
        ]
        if prior is not None:
            x, scores, known = _with_prior(x, scores, prior[p], points)
            own_known = ops.broadcast_to(prior[p][None], ops.shape(none))
            known = ops.concatenate([known[:p], own_known, known[p + 1 :]], axis=0)
            prior_of_path = prior_of_path + known
        # The level taken counts 1, but for rounding
        lost = ops.log(ops.maximum(sum(map(ops.exp, scores)), 1.0))
        left_out = left_out + ops.concatenate([lost[:p], none, lost[p + 1 :]], axis=0)
        x = ops.concatenate([x[:p], own, x[p + 1 :]], axis=0)
        taken.append(x)
        if p < n - 1:
            before = (rest[1:] / s_before)[:, None]  # [rest, 1, B]
            after = (rest[1:, None] - covariance[1:, 1:] * later) / s_later
            gain = ops.concatenate([before] * p + [ops.zeros_like(before), after], axis=1)
            means = means[1:] + gain[:, :, None] * (x - means[0])
            covariance = covariance[1:, 1:] - rest[1:, None] * (row[1:] / s_before)
    return ops.stack(taken), left_out, prior_of_path


def _with_prior(
    nearest: Tensor, scores: list[Tensor], prior: Tensor, points: Sequence[float]
) -> tuple[Tensor, list[Tensor], Tensor]:
    """Decide by likelihood and prior.

    Args:
        nearest: float32 [N, L, B], the most likely levels without the prior, which a prior
            of zeros must not change by rounding.
        scores: log-likelihoods of each level relative to that of `nearest`.
        prior: float32 [L, B].

    Returns:
        The levels decided, the scores relative to theirs, and their prior.
    """
    near = level_distance(points) / 4
    known = sum(
        ops.where(ops.abs(nearest - level) < near, prior[i], 0.0)
        for i, level in enumerate(points)
    )
    scores = [score + (prior[i] - known) for i, score in enumerate(scores)]
    best, x, known_x = ops.zeros_like(nearest), nearest, known
    for i, level in enumerate(points):
        better = scores[i] > best
        best = ops.where(better, scores[i], best)
        x = ops.where(better, level, x)
        known_x = ops.where(better, prior[i], known_x)
    return x, [score - best for score in scores], known_x


def _diagonal(matrices):
    """Diagonals [N, B] of matrices [N, N, B]."""
    return ops.stack([matrices[i, i] for i in range(matrices.shape[0])])


@keras.saving.register_keras_serializable("linksim")
class LORDDetector(Detector):
    """Layered orthogonal lattice detection (LORD) [Siti06], started from EP.

    Every level of every real dimension is tried, and each of these hypotheses is followed
    through the other dimensions by successive decisions, as `hypotheses` does. No level
    lacks a candidate, so every LLR compares two, and permuting the streams permutes the
    result. [Siti06] decides by zero forcing; here, a few steps of expectation propagation
    [Cespedes14] say what to expect of dimensions that are not decided yet. With
    "maxlog" the LLRs compare the best candidates. With "app", the default, the likelihood of
    a hypothesis also has the levels that its path left out.

    The work grows with N^3 L.

    Args:
        num_updates: the number of updates of expectation propagation; 0 is LMMSE.
        damping: weight of the old factors of expectation propagation, in [0, 1].

    Raises:
        InvalidInput: (a `ValueError`) an option is out of range.
    """

    accepts_prior = True

    def __init__(
        self, *args: Any, num_updates: int = 1, damping: float = 0.5, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        check_int("num_updates", num_updates, minimum=0)
        check_real("damping", damping, low=0, high=1)
        self.num_updates = int(num_updates)
        self.damping = float(damping)

    def detect(self, y: Tensor, h: Tensor, no: Tensor, prior: Tensor | None = None) -> Tensor:
        settings = self.num_updates, self.damping, accurate_variance(self.levels)
        state = ep_states(y, h, no, self.levels, *settings, prior)[-1]
        best, left_out = hypotheses(state, y, h, no, self.levels, prior)
        return best if self.demapping_method == "maxlog" else best + left_out

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_updates": self.num_updates,
            "damping": self.damping,
        }
