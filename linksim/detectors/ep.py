"""Expectation propagation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
from keras import ops

from linksim.backend import Tensor
from linksim.constellation import level_distance, mean_square, pam_moments, pam_posterior
from linksim.detectors.base import Detector
from linksim.detectors.real import (
    MIN_SYMBOL_VARIANCE,
    diagonal,
    matched_filter,
    matvec,
    regularized_inverse,
)
from linksim.errors import check_int, check_real

# Relative to the mean gain: several times the rounding of float32, so that a channel with two
# equal columns does not give a singular matrix
_RIDGE = 6e-7


class EPState(NamedTuple):
    """The approximation of expectation propagation after some iterations.

    The posterior of all dimensions is approximated by a Gaussian. It is the likelihood
    times a Gaussian factor of each dimension, which stands for the levels of that one.
    The cavity of a dimension is its marginal without its own factor.
    """

    gram: Tensor  # H'H, float32 [B, N, N]
    precision: Tensor  # of the factors, float32 [B, N]
    shift: Tensor  # of the factors: precision times mean, float32 [B, N]
    covariance: Tensor  # of the approximation over N0/2, float32 [B, N, N]
    mean: Tensor  # of the approximation, float32 [B, N]
    variance: Tensor  # of the approximation, float32 [B, N]
    cavity_mean: Tensor  # float32 [B, N]
    cavity_variance: Tensor  # float32 [B, N]
    logits: Tensor  # of the levels in the cavities, with the prior, float32 [B, N, L]


def ep_states(
    y: Tensor,
    h: Tensor,
    no: Tensor,
    points: Sequence[float],
    num_iterations: int,
    damping: float,
    least_variance: float = MIN_SYMBOL_VARIANCE,
    prior: Tensor | None = None,
) -> list[EPState]:
    """Run expectation propagation [Cespedes14].

    Args:
        y, h, no: the real system, as `Detector.detect` takes it.
        points: float32 [L], the levels.
        num_iterations: the number of updates of the factors.
        damping: weight of the old factors, in [0, 1].
        least_variance: the smallest variance of a level that a factor is made from.
        prior: float32 [B, N, L], log-probabilities of the levels up to a constant, or None.

    Returns:
        The states after 0, 1, ..., `num_iterations` updates. State 0 is LMMSE, with the
        means and variances of the prior.
    """
    hty, gram = matched_filter(y, h)
    half_no = no[:, None] / 2.0
    if prior is None:
        precision = ops.ones_like(hty) / mean_square(points)
        shift = ops.zeros_like(hty)
    else:
        mean, variance = pam_moments(prior, points)
        precision = 1.0 / ops.maximum(variance, least_variance)
        shift = mean * precision
    states = []
    for remaining in reversed(range(num_iterations + 1)):
        load = half_no * precision
        inverse = regularized_inverse(gram, load, ridge=_RIDGE)
        # Rounding can make it indefinite. The diagonal of an exact one has this bound
        least = 1.0 / (diagonal(gram) + load) - diagonal(inverse)
        inverse = inverse + ops.maximum(least, 0.0)[..., None] * ops.eye(gram.shape[-1])
        mean = matvec(inverse, hty + half_no * shift)
        variance = half_no * diagonal(inverse)
        cavity_v = 1.0 / ops.maximum(1.0 / variance - precision, 1e-30)
        cavity_v = ops.clip(cavity_v, MIN_SYMBOL_VARIANCE, 1e6)
        cavity_x = cavity_v * (mean / variance - shift)
        logits, x, v = pam_posterior(cavity_x, cavity_v, points, prior)
        approximation = inverse, mean, variance, cavity_x, cavity_v, logits
        states.append(EPState(gram, precision, shift, *approximation))
        if remaining:
            v = ops.maximum(v, least_variance)
            new_precision = 1.0 / v - 1.0 / cavity_v
            new_shift = x / v - cavity_x / cavity_v
            # A factor of negative precision is no Gaussian; the old one stays
            valid = new_precision >= 0
            precision = _damped(ops.where(valid, new_precision, precision), precision, damping)
            shift = _damped(ops.where(valid, new_shift, shift), shift, damping)
    return states


def accurate_variance(points: Sequence[float]) -> float:
    """A `least_variance` with which cavities are accurate in float32.

    The precision of a cavity is a difference of two numbers as large as the precision of a
    factor, so factors must not be too precise. The variance is still small compared with
    the distance of the levels.
    """
    return 2.5e-4 * level_distance(points) ** 2


def _damped(new, old, damping):
    return (1.0 - damping) * new + damping * old


@keras.saving.register_keras_serializable("linksim")
class EPDetector(Detector):
    """Expectation propagation (EP) [Cespedes14].

    Moment matching refines a Gaussian factor for each real dimension. More iterations help
    a little on channels with independent entries, and make LLRs far too sure where the
    channel is ill-conditioned: with Sionna's ten iterations, a CDL-C link of 16 antennas
    and 8 streams loses most of the information that LMMSE has. Over the links of
    results/papers/pepnet, the default loses little to the best setting of each, and is
    ahead of LMMSE on all. The options `num_iterations=10, damping=0.9,
    demapping_method="maxlog"` give the LLRs of Sionna's `EPDetector`, whose variance floor
    this has.

    Args:
        num_iterations: the number of cavities, the last of which gives the LLRs; one is
            LMMSE.
        damping: weight of the old factors, in [0, 1].

    Raises:
        InvalidInput: (a `ValueError`) an option is out of range.
    """

    accepts_prior = True

    def __init__(
        self, *args: Any, num_iterations: int = 2, damping: float = 0.3, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        check_int("num_iterations", num_iterations)
        check_real("damping", damping, low=0, high=1)
        self.num_iterations = int(num_iterations)
        self.damping = float(damping)

    def detect(self, y: Tensor, h: Tensor, no: Tensor, prior: Tensor | None = None) -> Tensor:
        settings = self.levels, self.num_iterations - 1, self.damping
        return ep_states(y, h, no, *settings, prior=prior)[-1].logits

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_iterations": self.num_iterations,
            "damping": self.damping,
        }
