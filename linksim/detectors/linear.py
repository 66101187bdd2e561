"""Linear detectors: matched filter, zero forcing and linear MMSE.

Each gives an unbiased estimate of every real dimension with the variance of its
remaining interference and noise, and demaps it as a PAM level in Gaussian noise.
"""

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


class LinearDetector(Detector):
    """A detector whose posterior is Gaussian around a linear estimate."""

    def estimate(self, y, h, no):
        """Unbiased estimates [B, N] and their variances [B, N]."""
        raise NotImplementedError

    def detect(self, y, h, no):
        z, variance = self.estimate(y, h, no)
        return pam_posterior(z, variance, self.points)[0]


@keras.saving.register_keras_serializable("linksim")
class MatchedFilterDetector(LinearDetector):
    """Matched filter; the interference counts as Gaussian noise."""

    def estimate(self, y, h, no):
        hty, gram = matched_filter(y, h)
        gain = ops.maximum(diagonal(gram), 1e-30)
        leakage = ops.sum(ops.square(gram / gain[..., None]), axis=-1) - 1.0
        interference = self.pam_energy * ops.maximum(leakage, 0.0)
        return hty / gain, interference + no[:, None] / 2.0 / gain


@keras.saving.register_keras_serializable("linksim")
class ZeroForcingDetector(LinearDetector):
    """Zero forcing with the per-stream noise it enhances."""

    needs_full_column_rank = True

    def estimate(self, y, h, no):
        hty, gram = matched_filter(y, h)
        inverse = regularized_inverse(gram, 0.0)
        return matvec(inverse, hty), no[:, None] / 2.0 * diagonal(inverse)


@keras.saving.register_keras_serializable("linksim")
class MMSEDetector(LinearDetector):
    """Linear MMSE with unbiased estimates, so that its LLRs are calibrated.

    The estimate of stream i has gain mu_i = [A H'H]_ii and error variance
    (1 - mu_i) mu_i E; after division by mu_i the noise variance is
    E (1 - mu_i)/mu_i = N0/2 A_ii / mu_i, with A = (H'H + N0/(2E) I)^-1.
    """

    def estimate(self, y, h, no):
        hty, gram = matched_filter(y, h)
        return mmse_estimate(hty, gram, no, self.pam_energy)


@keras.saving.register_keras_serializable("linksim")
class BiasedMMSEDetector(LinearDetector):
    """MMSE as the comparisons of RE-MIMO and MMNet have it; use `mmse` instead.

    Half the noise variance is loaded, A = (H'H + N0/(4E) I)^-1, and the biased
    estimate is sliced. This, not the LMMSE estimate, gives the published SER of
    "MMSE" (RE-MIMO, 000_6f68bbc11e3dc672.txt, Fig. 7).
    """

    def estimate(self, y, h, no):
        hty, gram = matched_filter(y, h)
        half_no = no[:, None] / 2.0
        inverse = regularized_inverse(gram, half_no / self.pam_energy / 2.0)
        filtered = ops.matmul(inverse, gram)
        leakage = ops.square(filtered - ops.eye(self.num_dims))
        interference = self.pam_energy * ops.sum(leakage, axis=-1)
        noise = half_no * ops.sum(filtered * inverse, axis=-1)
        return matvec(inverse, hty), interference + noise


def mmse_estimate(hty, gram, no, energy):
    """Unbiased MMSE estimates [B, N] and variances from `H'y` and `H'H`."""
    inverse, gain, variance = mmse_filter(gram, no, energy)
    return matvec(inverse, hty) / gain, variance


def mmse_filter(gram, no, energy):
    """A = (H'H + N0/(2E) I)^-1 [B, N, N], the gains diag(A H'H) that `A H'y` is divided by
    to be unbiased, and the variances of that, [B, N]."""
    half_no = no[:, None] / 2.0
    inverse = regularized_inverse(gram, half_no / energy)
    # diag(A G) from products, exact where 1 - mu cancels (low SNR) and where it
    # does not; 1 - mu = N0/(2E) A_ii without cancellation at high SNR
    gain = ops.maximum(ops.sum(inverse * gram, axis=-1), 1e-30)
    return inverse, gain, half_no * diagonal(inverse) / gain
