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


@keras.saving.register_keras_serializable("linksim")
class OAMPDetector(Detector):
    """OAMP (Ma and Ping, IEEE Access 5, 2017) with the LMMSE linear step.

    Per iteration, in real dimensions with noise s2 = N0/2:
    v2 = (|y - Hx|^2 - 2M s2)/tr(H'H); W_hat = v2 H'(v2 HH' + s2 I)^-1;
    W = N W_hat/tr(W_hat H); r = x + W(y - Hx), B = I - WH,
    tau2 = v2 tr(BB')/N + s2 tr(WW')/N; then x is the posterior mean of r at tau2.
    Everything is computed from N x N matrices.

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
        hty, gram = matched_filter(y, h)
        s2 = no[:, None] / 2.0
        trace = ops.maximum(ops.sum(diagonal(gram), axis=-1, keepdims=True), 1e-30)
        n = float(self.num_dims)

        x = ops.zeros_like(hty)
        lagged = self.pam_energy * ops.ones_like(s2)
        logits = None
        for _ in range(self.num_iterations):
            residual = y - matvec(h, x)
            power = ops.sum(ops.square(residual), axis=-1, keepdims=True)
            v2 = ops.maximum((power - y.shape[-1] * s2) / trace, _MIN_VARIANCE)
            w2 = lagged if self.lagged_variance else v2
            lagged = v2
            # P = (G + s2/w2 I)^-1: W_hat = P H' and W = c P H'. The traces are
            # taken of the products themselves: closed forms in tr(P) and tr(P^2)
            # cancel in float32 when w2 is small.
            p = regularized_inverse(gram, s2 / w2)
            pg = ops.matmul(p, gram)
            trace_pg = ops.sum(diagonal(pg), axis=-1, keepdims=True)
            c = n / ops.maximum(trace_pg, 1e-30)
            wh = c[..., None] * pg
            wide = c[..., None] * p
            trace_bb = ops.sum(ops.square(ops.eye(self.num_dims) - wh), axis=(-2, -1))
            trace_bb = trace_bb[:, None]
            trace_ww = ops.sum(wh * wide, axis=(-2, -1))[:, None]
            tau2 = (v2 * trace_bb + s2 * trace_ww) / n
            tau2 = ops.maximum(tau2, _MIN_VARIANCE)
            r = x + c * matvec(p, hty - matvec(gram, x))
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
