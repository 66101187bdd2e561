"""Linear detectors: matched filter, zero forcing and linear MMSE.

Each estimates every real dimension without bias, knows the variance of the remaining
interference and noise, and demaps the estimate as a PAM level in Gaussian noise.
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
    """Base class of detectors that demap an estimate with Gaussian error."""

    def estimate(self, y, h, no):
        """Unbiased estimates [B, N] and their variances [B, N]."""
        raise NotImplementedError

    def detect(self, y, h, no):
        z, variance = self.estimate(y, h, no)
        return pam_posterior(z, variance, self.points)[0]


@keras.saving.register_keras_serializable("linksim")
class MatchedFilterDetector(LinearDetector):
    """Matched filter, which takes the interference for Gaussian noise."""

    def estimate(self, y, h, no):
        hty, gram = matched_filter(y, h)
        gain = ops.maximum(diagonal(gram), 1e-30)
        leakage = ops.sum(ops.square(gram / gain[..., None]), axis=-1) - 1.0
        interference = self.pam_energy * ops.maximum(leakage, 0.0)
        return hty / gain, interference + no[:, None] / 2.0 / gain


@keras.saving.register_keras_serializable("linksim")
class ZeroForcingDetector(LinearDetector):
    """Zero forcing (ZF), with the noise that it enhances in each stream."""

    needs_full_column_rank = True

    def estimate(self, y, h, no):
        hty, gram = matched_filter(y, h)
        inverse = regularized_inverse(gram, 0.0)
        return matvec(inverse, hty), no[:, None] / 2.0 * diagonal(inverse)


@keras.saving.register_keras_serializable("linksim")
class MMSEDetector(LinearDetector):
    """Linear MMSE with unbiased estimates, so that its LLRs are calibrated.

    With A = (H'H + N0/(2E) I)^-1, the estimate A H'y of dimension i has the gain
    mu_i = [A H'H]_ii and the error variance (1 - mu_i) mu_i E. Division by mu_i removes
    the bias and leaves the variance E (1 - mu_i)/mu_i = N0/2 A_ii/mu_i.
    """

    def estimate(self, y, h, no):
        hty, gram = matched_filter(y, h)
        return mmse_estimate(hty, gram, no, self.pam_energy)


@keras.saving.register_keras_serializable("linksim")
class BiasedMMSEDetector(LinearDetector):
    """MMSE as the published comparisons have it: half the noise loaded, and biased.

    It exists to reproduce the "MMSE" of [Pratik21], Fig. 7, and of [Khani20]. Use `mmse`
    for anything else. The filter loads half the noise variance,
    A = (H'H + N0/(4E) I)^-1, and the estimate A H'y is sliced with its bias.
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
    """Unbiased linear MMSE estimates and their variances.

    Args:
        hty: float32 [B, N], `H'y`.
        gram: float32 [B, N, N], `H'H`.
        no: float32 [B], N0.
        energy: E, mean square of a real dimension.

    Returns:
        Estimates and variances, float32 [B, N].
    """
    inverse, gain, variance = mmse_filter(gram, no, energy)
    return matvec(inverse, hty) / gain, variance


def mmse_filter(gram, no, energy):
    """The linear MMSE filter; arguments as in `mmse_estimate`.

    Args:
        energy: E, a number or float32 [B, N].

    Returns:
        A = (H'H + N0/(2E) I)^-1 [B, N, N]; the gains diag(A H'H) [B, N], by which
        `A H'y` is divided to be unbiased; and the variances [B, N] that it then has.
    """
    half_no = no[:, None] / 2.0
    inverse = regularized_inverse(gram, half_no / energy)
    # The gain comes from products because 1 - N0/(2E) A_ii cancels at low SNR
    gain = ops.maximum(ops.sum(inverse * gram, axis=-1), 1e-30)
    return inverse, gain, half_no * diagonal(inverse) / gain
