"""Interference cancellation: ZF-SIC, ordered V-BLAST and one parallel pass."""

import keras
from keras import ops

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
    """ZF-SIC by QR decomposition, from the last stream to the first, unordered.

    EQ-Net (004_979a1825df3dec03.txt), Algorithm 1; the LLRs use the noise variance
    N0 that the extracted formula omits.
    """

    needs_full_column_rank = True

    def detect(self, y, h, no):
        y, r = interleaved_qr(y, h, self.num_streams, self.is_real)
        logits = successive_cancellation(y, r, no, self.points)
        # Back from interleaved to stacked order
        order = interleaved_order(self.num_streams, self.is_real)
        by_dim = dict(zip(order, logits))
        return ops.stack([by_dim[i] for i in range(self.num_dims)], axis=1)


def successive_residuals(y, r, points):
    """A triangular system solved from its last dimension to its first, by decisions.

    Args:
        y: float32 [B, N].
        r: float32 [B, N, N], upper triangular.
        points: PAM levels, [L].

    Returns:
        list of N tensors [B]: each observation with the hard decisions of the
        dimensions after it taken away.
    """
    residuals, decided = {}, {}
    for i in reversed(range(y.shape[-1])):
        residual = y[:, i]
        for j, x in decided.items():
            residual = residual - r[:, i, j] * x
        residuals[i] = residual
        z, _ = _scalar_estimate(residual, r[:, i, i])
        decided[i] = nearest_pam(z, points)
    return [residuals[i] for i in range(y.shape[-1])]


def successive_cancellation(y, r, no, points):
    """PAM logits, a list of N tensors [B, L], of `successive_residuals`.

    Args:
        no: float32 [B], N0.
    """
    logits = []
    for i, residual in enumerate(successive_residuals(y, r, points)):
        z, power = _scalar_estimate(residual, r[:, i, i])
        logits.append(pam_posterior(z, no / 2.0 / power, points)[0])
    return logits


def _scalar_estimate(residual, gain):
    """residual/gain and gain^2, finite for a zero gain."""
    power = ops.maximum(ops.square(gain), 1e-30)
    return gain * residual / power, power


class VBLASTDetector(Detector):
    """Ordered successive cancellation: the stream with least noise goes next.

    After each decision the stream is removed from the inverse of the loaded Gram
    matrix by a block downdate, so that all streams cost O(K^3) together.
    """

    def load(self, no):
        """What is added to the diagonal of the Gram matrix, [B]."""
        raise NotImplementedError

    def detect(self, y, h, no):
        hty, gram = matched_filter(y, h)
        load = self.load(no)
        inverse = regularized_inverse(gram, load[:, None])
        # A stream without interference has the error variance 1/(G_ii + load); half of
        # it is only met by rounding, in singular channels
        least = 0.5 / (diagonal(gram) + load[:, None] + 1e-30)
        batch = ops.shape(hty)[0]
        dims, streams = self.num_dims, self.num_streams
        per_stream = dims // streams
        remaining = ops.ones((batch, streams))
        logits = ops.zeros((batch, dims, len(self.points)))
        for _ in range(streams):
            # Error variance E_ii of each stream, largest for those already gone
            diag = ops.reshape(diagonal(inverse), (-1, per_stream, streams))
            cost = ops.where(remaining > 0, ops.mean(diag, axis=1), float("inf"))
            best = ops.one_hot(ops.argmin(cost, axis=-1), streams, dtype="float32")
            picked = ops.tile(best, (1, per_stream))  # [B, N]
            z, variance = self._estimate(hty, inverse, least, load, no)
            new_logits, mean, _ = pam_posterior(z, variance, self.points)
            # Not a product: the logits of streams already gone may be infinite
            logits = ops.where(picked[..., None] > 0, new_logits, logits)
            decision = picked * nearest_pam(z, self.points)
            hty = hty - matvec(gram, decision)
            inverse = _remove(inverse, best, per_stream)
            remaining = remaining - best
        return logits

    def _estimate(self, hty, inverse, least, load, no):
        # With P = (G + load I)^-1: gain mu = 1 - load P_ii, noise N0/2 P_ii mu
        # (+ the bias); for ZF the load is zero and this is N0/2 P_ii.
        diag = ops.maximum(diagonal(inverse), least)
        gain = ops.maximum(1.0 - load[:, None] * diag, 1e-6)
        return matvec(inverse, hty) / gain, no[:, None] / 2.0 * diag / gain


def _remove(inverse, best, per_stream):
    """Inverse of the Gram matrix without one stream per batch element.

    The rows and columns of the removed stream become zero. Its two real
    dimensions are taken out one after the other (Schur complement).
    """
    streams = best.shape[-1]
    for part in range(per_stream):
        unit = ops.pad(best, ((0, 0), (part * streams, (per_stream - 1 - part) * streams)))
        column = matvec(inverse, unit)
        keep = 1.0 - unit
        # No less than what leaves the other error variances positive, which holds but for
        # the rounding of a singular channel
        variance = ops.maximum(diagonal(inverse), 1e-30)
        least = ops.max(keep * column * (column / variance), axis=-1)
        pivot = ops.maximum(ops.sum(column * unit, axis=-1), ops.maximum(least, 1e-30))
        scaled = column / pivot[:, None]
        inverse = inverse - column[:, :, None] * scaled[:, None, :]
        inverse = ops.where(keep[:, :, None] * keep[:, None, :] > 0, inverse, 0.0)
    return inverse


@keras.saving.register_keras_serializable("linksim")
class VBLASTZFDetector(VBLASTDetector):
    """V-BLAST with zero-forcing nulling, ordered by post-detection noise."""

    needs_full_column_rank = True

    def load(self, no):
        return 0.0 * no


@keras.saving.register_keras_serializable("linksim")
class VBLASTMMSEDetector(VBLASTDetector):
    """V-BLAST with MMSE nulling, ordered by post-detection SINR."""

    def load(self, no):
        return no / 2.0 / self.pam_energy


@keras.saving.register_keras_serializable("linksim")
class ZFPICDetector(LinearDetector):
    """Zero forcing, slicing, and one parallel interference cancellation.

    This is the "V-BLAST" of the comparisons in RE-MIMO
    (000_6f68bbc11e3dc672.txt) and MMNet. The cancellation counts as perfect in
    the noise variance, as there.
    """

    needs_full_column_rank = True

    def estimate(self, y, h, no):
        hty, gram = matched_filter(y, h)
        decided = nearest_pam(matvec(regularized_inverse(gram, 0.0), hty), self.points)
        gain = ops.maximum(diagonal(gram), 1e-30)
        z = decided + (hty - matvec(gram, decided)) / gain
        return z, no[:, None] / 2.0 / gain
