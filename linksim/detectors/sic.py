"""Interference cancellation: ZF-SIC, ordered V-BLAST and one parallel pass."""

import keras
from keras import ops

from linksim.backend import constant, pad
from linksim.constellation import nearest_pam, pam_posterior
from linksim.detectors.base import Detector
from linksim.detectors.linear import LinearDetector
from linksim.detectors.real import (
    diagonal,
    interleaved_order,
    interleaved_qr,
    matched_filter,
    matvec,
    regularized_inverse,
)


@keras.saving.register_keras_serializable("linksim")
class ZFSICDetector(Detector):
    """Zero forcing with successive cancellation (ZF-SIC) by QR, without ordering.

    Streams are decided from the last to the first [Arvinte20, Algorithm 1]. The LLRs use
    the noise variance N0, which the printed formula omits.
    """

    needs_full_column_rank = True

    def detect(self, y, h, no):
        y, r = interleaved_qr(y, h, self.num_streams, self.is_real)
        logits = successive_cancellation(y, r, no, self.levels)
        # Undo the interleaving of real and imaginary parts
        order = interleaved_order(self.num_streams, self.is_real)
        by_dim = dict(zip(order, logits))
        return ops.stack([by_dim[i] for i in range(self.num_dims)], axis=1)


def successive_residuals(y, r, points, no=None, prior=None):
    """Solve a triangular system by decisions, from the last dimension to the first.

    Args:
        y: float32 [B, N].
        r: float32 [B, N, N], upper triangular.
        points: PAM levels, [L].
        no: float32 [B], N0, which decisions with a prior depend on.
        prior: float32 [B, N, L], log-probabilities of the levels up to a constant, or None
            where all are equally likely.

    Returns:
        list of N tensors [B], each observation minus the contribution of the hard
        decisions on the dimensions after it.
    """
    residuals, decided = {}, {}
    for i in reversed(range(y.shape[-1])):
        residual = y[:, i]
        for j, x in decided.items():
            residual = residual - r[:, i, j] * x
        residuals[i] = residual
        z, power = _scalar_estimate(residual, r[:, i, i])
        if prior is None:
            decided[i] = nearest_pam(z, points)
        else:
            likely = pam_posterior(z, no / 2.0 / power, points, prior[:, i])[0]
            decided[i] = ops.take(constant(points), ops.argmax(likely, axis=-1))
    return [residuals[i] for i in range(y.shape[-1])]


def successive_cancellation(y, r, no, points, prior=None):
    """PAM logits of `successive_residuals`, a-posteriori.

    Args:
        y, r, points, prior: as there.
        no: float32 [B], N0.

    Returns:
        list of N tensors [B, L].
    """
    logits = []
    for i, residual in enumerate(successive_residuals(y, r, points, no, prior)):
        z, power = _scalar_estimate(residual, r[:, i, i])
        known = None if prior is None else prior[:, i]
        logits.append(pam_posterior(z, no / 2.0 / power, points, known)[0])
    return logits


def _scalar_estimate(residual, gain):
    """residual/gain and gain^2, both finite if the gain is zero."""
    power = ops.maximum(ops.square(gain), 1e-30)
    return gain * residual / power, power


class VBLASTDetector(Detector):
    """Base class of V-BLAST [Wolniansky98]: the stream with least noise is decided next.

    After each decision a block downdate removes the stream from the inverse of the
    loaded Gram matrix, so all streams together cost O(K^3).
    """

    def load(self, no):
        """The number that is added to the diagonal of the Gram matrix, [B]."""
        raise NotImplementedError

    def detect(self, y, h, no):
        hty, gram = matched_filter(y, h)
        load = self.load(no)
        inverse = regularized_inverse(gram, load[:, None])
        # No stream has a smaller error variance than 1/(G_ii + load), which it has
        # without interference. Less than half of it is rounding in a singular channel.
        least = 0.5 / (diagonal(gram) + load[:, None] + 1e-30)
        batch = ops.shape(hty)[0]
        dims, streams = self.num_dims, self.num_streams
        per_stream = dims // streams
        remaining = ops.ones((batch, streams))
        logits = ops.zeros((batch, dims, len(self.levels)))
        for _ in range(streams):
            # Error variance of each stream, infinite for those already decided
            diag = ops.reshape(diagonal(inverse), (-1, per_stream, streams))
            cost = ops.where(remaining > 0, ops.mean(diag, axis=1), float("inf"))
            best = ops.one_hot(ops.argmin(cost, axis=-1), streams, dtype="float32")
            picked = ops.tile(best, (1, per_stream))  # [B, N]
            z, variance = self._estimate(hty, inverse, least, load, no)
            new_logits, mean, _ = pam_posterior(z, variance, self.levels)
            # A product with `picked` would not do: logits of the other streams may be
            # infinite
            logits = ops.where(picked[..., None] > 0, new_logits, logits)
            decision = picked * nearest_pam(z, self.levels)
            hty = hty - matvec(gram, decision)
            inverse = _remove(inverse, best, per_stream)
            remaining = remaining - best
        return logits

    def _estimate(self, hty, inverse, least, load, no):
        # With P = (G + load I)^-1 the gain is mu = 1 - load P_ii, and the variance after
        # division by it is N0/2 P_ii/mu. For zero forcing the load is zero.
        diag = ops.maximum(diagonal(inverse), least)
        gain = ops.maximum(1.0 - load[:, None] * diag, 1e-6)
        return matvec(inverse, hty) / gain, no[:, None] / 2.0 * diag / gain


def _remove(inverse, best, per_stream):
    """Remove one stream of each batch element from an inverse Gram matrix.

    The two real dimensions of the stream are removed one after the other by a Schur
    complement. Their rows and columns become zero.
    """
    streams = best.shape[-1]
    for part in range(per_stream):
        unit = pad(best, ((0, 0), (part * streams, (per_stream - 1 - part) * streams)))
        column = matvec(inverse, unit)
        keep = 1.0 - unit
        # In a singular channel rounding could make the pivot so small that another error
        # variance becomes negative
        variance = ops.maximum(diagonal(inverse), 1e-30)
        least = ops.amax(keep * column * (column / variance), axis=-1)
        pivot = ops.maximum(ops.sum(column * unit, axis=-1), ops.maximum(least, 1e-30))
        scaled = column / pivot[:, None]
        inverse = inverse - column[:, :, None] * scaled[:, None, :]
        inverse = ops.where(keep[:, :, None] * keep[:, None, :] > 0, inverse, 0.0)
    return inverse


@keras.saving.register_keras_serializable("linksim")
class VBLASTZFDetector(VBLASTDetector):
    """V-BLAST with zero forcing, the stream with the least noise first [Wolniansky98]."""

    needs_full_column_rank = True

    def load(self, no):
        return 0.0 * no


@keras.saving.register_keras_serializable("linksim")
class VBLASTMMSEDetector(VBLASTDetector):
    """V-BLAST with MMSE filters, the stream with the highest SINR first [Wolniansky98]."""

    def load(self, no):
        return no / 2.0 / self.pam_energy


@keras.saving.register_keras_serializable("linksim")
class ZFPICDetector(LinearDetector):
    """Zero forcing, then one pass of parallel interference cancellation (ZF-PIC).

    This is the "V-BLAST" of the comparisons in [Pratik21] and [Khani20]. As there, the
    noise variance takes the cancellation to be perfect.
    """

    needs_full_column_rank = True

    def estimate(self, y, h, no):
        hty, gram = matched_filter(y, h)
        decided = nearest_pam(matvec(regularized_inverse(gram, 0.0), hty), self.levels)
        gain = ops.maximum(diagonal(gram), 1e-30)
        z = decided + (hty - matvec(gram, decided)) / gain
        return z, no[:, None] / 2.0 / gain
