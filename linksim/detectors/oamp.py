"""Orthogonal approximate message passing."""

import keras
from keras import ops

from linksim.constellation import pam_posterior
from linksim.detectors.base import Detector
from linksim.detectors.real import (
    diagonal,
    matched_filter,
    matvec,
    regularized_inverse,
)
from linksim.errors import InvalidInput, check_int

_MIN_VARIANCE = 1e-9
# Relative to N0/2: what is received through a weaker channel is taken as noise
_MIN_GAIN = 1e-8
# Relative to the mean of the diagonal: what LU factors of a singular H'H need
_RIDGE = 5e-7


def matched_system(y, h, no):
    """What every iteration uses.

    A channel 80 dB below the noise, such as a zero channel, is replaced by H'y = 0 and
    H'H = 1e-8 s2 I: the posterior is then uniform, and its gradients finite.

    Args:
        y: float32 [B, 2M].
        h: float32 [B, 2M, N].
        no: float32 [B].

    Returns:
        s2 = N0/2 [B, 1] and the pair `H'y` [B, N], `H'H` [B, N, N].
    """
    hty, gram = matched_filter(y, h)
    s2 = no[:, None] / 2.0
    gain = _MIN_GAIN * s2
    weak = ops.mean(diagonal(gram), axis=-1, keepdims=True) <= gain
    hty = ops.where(weak, 0.0, hty)
    gram = ops.where(weak[..., None], gain[..., None] * ops.eye(gram.shape[-1]), gram)
    return s2, (hty, gram)


def linear_step(y, h, s2, matched, x, lagged=None, gamma=1.0, theta=1.0):
    """The LMMSE step of OAMP, with the step sizes of OAMP-Net2.

    In real dimensions: v2 = (|y - Hx|^2 - 2M s2)/tr(H'H);
    W_hat = v2 H'(v2 HH' + s2 I)^-1; W = N W_hat/tr(W_hat H);
    r = x + gamma W(y - Hx); B = I - theta WH;
    tau2 = v2 tr(BB')/N + theta^2 s2 tr(WW')/N.
    Everything is computed from N x N matrices.

    Args:
        y: float32 [B, 2M].
        h: float32 [B, 2M, N].
        s2: float32 [B, 1], noise variance of a real dimension.
        matched: `H'y` [B, N] and `H'H` [B, N, N], of `matched_system`.
        x: float32 [B, N], the estimate so far.
        lagged: float32 [B, 1], the v2 that W uses instead of the current one.
        gamma: step size, a number or float32 [B, 1].
        theta: correction of the variance, a number or float32 [B, 1].

    Returns:
        r [B, N], its error variance tau2 [B, 1] and v2 [B, 1].
    """
    hty, gram = matched
    n = float(gram.shape[-1])
    trace = ops.sum(diagonal(gram), axis=-1, keepdims=True)
    power = ops.sum(ops.square(y - matvec(h, x)), axis=-1, keepdims=True)
    v2 = ops.maximum((power - y.shape[-1] * s2) / trace, _MIN_VARIANCE)
    # P = (G + s2/v2 I)^-1: W_hat = P H' and W = c P H'. The traces are taken of
    # the products themselves: closed forms in tr(P) and tr(P^2) cancel in
    # float32 when v2 is small.
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
    return r, ops.maximum(tau2, _MIN_VARIANCE), v2


@keras.saving.register_keras_serializable("linksim")
class OAMPDetector(Detector):
    """OAMP (Ma and Ping, IEEE Access 5, 2017) with the LMMSE linear step.

    Per iteration, in real dimensions with noise s2 = N0/2: r and tau2 from
    `linear_step`; then x is the posterior mean of r at tau2.

    Args:
        num_iterations: iterations.
        lagged_variance: use v2 of the previous iteration in W, as the published
            code of OAMP-Net2 does; the papers, and the default, use the current.
        divergence_free: orthogonalise the denoiser, x <- (tau2 E[x|r] - v r) /
            (tau2 - v) with v the posterior variance, as in the OAMP paper; the
            default is the plain posterior mean of the OAMP-Net papers.
    """

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

    def detect(self, y, h, no):
        s2, matched = matched_system(y, h, no)
        x = ops.zeros_like(matched[0])
        v2 = self.pam_energy * ops.ones_like(s2)
        logits = None
        for _ in range(self.num_iterations):
            lagged = v2 if self.lagged_variance else None
            r, tau2, v2 = linear_step(y, h, s2, matched, x, lagged)
            logits, x, v = pam_posterior(r, tau2, self.points)
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
