"""Orthogonal approximate message passing."""

import keras
from keras import ops

from linksim.constellation import mean_square, pam_moments, pam_posterior
from linksim.detectors.base import Detector
from linksim.detectors.real import (
    MIN_ERROR_VARIANCE,
    diagonal,
    matched_filter,
    matvec,
    regularized_inverse,
)
from linksim.errors import InvalidInput, check_int

# Mean gain relative to N0/2, below which a channel counts as zero
_MIN_GAIN = 1e-8
# Added to a singular H'H for its LU factors, relative to the mean of its diagonal
_RIDGE = 5e-7


def matched_system(y, h, no):
    """Compute what all iterations use.

    A channel 80 dB or more below the noise is replaced by H'y = 0 and H'H = 1e-8 s2 I.
    Its posterior is then uniform and has finite gradients.

    Args:
        y: float32 [B, 2M].
        h: float32 [B, 2M, N].
        no: float32 [B].

    Returns:
        s2 = N0/2 [B, 1], and the pair of `H'y` [B, N] and `H'H` [B, N, N].
    """
    hty, gram = matched_filter(y, h)
    s2 = no[:, None] / 2.0
    gain = _MIN_GAIN * s2
    weak = ops.mean(diagonal(gram), axis=-1, keepdims=True) <= gain
    hty = ops.where(weak, 0.0, hty)
    gram = ops.where(weak[..., None], gain[..., None] * ops.eye(gram.shape[-1]), gram)
    return s2, (hty, gram)


def start_of_iterations(hty, prior, points):
    """The estimate before the first iteration and its error variance.

    Args:
        hty: float32 [B, N], for its shape.
        prior: float32 [B, N, L], log-probabilities of the levels, or None.
        points: the levels, [L].

    Returns:
        The means float32 [B, N] of the prior, and the average [B, 1] of its variances. If all
        levels are equally likely these are exactly 0 and their mean square.
    """
    energy = mean_square(points)
    if prior is None:
        return ops.zeros_like(hty), energy * ops.ones_like(hty[:, :1])
    x, variances = pam_moments(prior, points)
    return x, energy + ops.mean(variances - energy, axis=-1, keepdims=True)


def linear_step(y, h, s2, matched, x, lagged=None, gamma=1.0, theta=1.0):
    """The LMMSE step of OAMP [Ma17], with the step sizes of OAMP-Net2 [He20].

    In real dimensions it is:
        - v2 = (|y - Hx|^2 - 2M s2)/tr(H'H);
        - W_hat = v2 H'(v2 HH' + s2 I)^-1 and W = N W_hat/tr(W_hat H);
        - r = x + gamma W(y - Hx);
        - tau2 = v2 tr(BB')/N + theta^2 s2 tr(WW')/N with B = I - theta WH.
    It is computed from N x N matrices.

    Args:
        y: float32 [B, 2M].
        h: float32 [B, 2M, N].
        s2: float32 [B, 1], noise variance of a real dimension.
        matched: `H'y` [B, N] and `H'H` [B, N, N], from `matched_system`.
        x: float32 [B, N], the estimate so far.
        lagged: float32 [B, 1], the v2 that W uses instead of the current one, or None.
        gamma: step size, a number or float32 [B, 1].
        theta: correction of the variance, a number or float32 [B, 1].

    Returns:
        r [B, N], its error variance tau2 [B, 1] and v2 [B, 1].
    """
    hty, gram = matched
    n = float(gram.shape[-1])
    trace = ops.sum(diagonal(gram), axis=-1, keepdims=True)
    power = ops.sum(ops.square(y - matvec(h, x)), axis=-1, keepdims=True)
    v2 = ops.maximum((power - y.shape[-1] * s2) / trace, MIN_ERROR_VARIANCE)
    # With P = (G + s2/v2 I)^-1, W_hat = P H' and W = c P H'. The traces are those of the
    # products themselves, because closed forms in tr(P) and tr(P^2) cancel in float32
    # when v2 is small.
    load = s2 / (v2 if lagged is None else lagged) + _RIDGE * trace / n
    p = regularized_inverse(gram, load)
    pg = ops.matmul(p, gram)
    trace_pg = ops.sum(diagonal(pg), axis=-1, keepdims=True)
    c = n / trace_pg
    r = x + gamma * c * matvec(p, hty - matvec(gram, x))
    scale = ops.expand_dims(theta * c, -1)
    wh, wide = scale * pg, scale * p
    b = ops.eye(gram.shape[-1]) - wh
    trace_bb = ops.sum(ops.square(b), axis=(-2, -1))[:, None]
    trace_ww = ops.sum(wh * wide, axis=(-2, -1))[:, None]
    tau2 = (v2 * trace_bb + s2 * trace_ww) / n
    return r, ops.maximum(tau2, MIN_ERROR_VARIANCE), v2


@keras.saving.register_keras_serializable("linksim")
class OAMPDetector(Detector):
    """Orthogonal AMP (OAMP) with the LMMSE linear step [Ma17].

    In each iteration `linear_step` gives r and tau2, and x becomes the posterior mean
    given r with error variance tau2. x starts at zero, or at the mean of the prior.

    Args:
        num_iterations: the number of iterations.
        lagged_variance: use v2 of the previous iteration in W, as the published code of
            OAMP-Net2 does. The default is the current one, as in the papers.
        divergence_free: orthogonalise the denoiser,
            x <- (tau2 E[x|r] - v r)/(tau2 - v), where v is the posterior variance, as in
            [Ma17]. The default is the plain posterior mean, as in [He18] and [He20].

    Raises:
        InvalidInput: (a `ValueError`) an option is out of range.
    """

    accepts_prior = True

    def __init__(
        self,
        *args,
        num_iterations=10,
        lagged_variance=False,
        divergence_free=False,
        **kwargs,
    ):
        super().__init__(*args, **kwargs)
        check_int("num_iterations", num_iterations)
        for name, value in (
            ("lagged_variance", lagged_variance),
            ("divergence_free", divergence_free),
        ):
            if not isinstance(value, bool):
                raise InvalidInput(f"{name}: got {value!r}, expected True or False")
        self.num_iterations = int(num_iterations)
        self.lagged_variance = lagged_variance
        self.divergence_free = divergence_free

    def detect(self, y, h, no, prior=None):
        s2, matched = matched_system(y, h, no)
        x, v2 = start_of_iterations(matched[0], prior, self.levels)
        logits = None
        for _ in range(self.num_iterations):
            lagged = v2 if self.lagged_variance else None
            r, tau2, v2 = linear_step(y, h, s2, matched, x, lagged)
            logits, x, v = pam_posterior(r, tau2, self.levels, prior)
            if self.divergence_free:
                v = ops.minimum(ops.mean(v, axis=-1, keepdims=True), 0.99 * tau2)
                x = (tau2 * x - v * r) / (tau2 - v)
        return logits

    def get_config(self):
        return {
            **super().get_config(),
            "num_iterations": self.num_iterations,
            "lagged_variance": self.lagged_variance,
            "divergence_free": self.divergence_free,
        }
