"""Linear detectors: matched filter, zero forcing and linear MMSE.

Each estimates every real dimension without bias, knows the variance of the remaining
interference and noise, and demaps the estimate as a PAM level in Gaussian noise.
"""

import keras
from keras import ops

from linksim.constellation import mean_square, pam_moments, pam_posterior
from linksim.detectors.base import Detector
from linksim.detectors.inputs import check_covariance, check_finite
from linksim.detectors.real import (
    complex_to_real_matrix,
    diagonal,
    matched_filter,
    matvec,
    regularized_inverse,
)
from linksim.errors import InvalidInput


class LinearDetector(Detector):
    """Base class of detectors that demap an estimate with Gaussian error."""

    def estimate(self, y, h, no):
        """Unbiased estimates [B, N] and their variances [B, N].

        With `accepts_prior`, the prior is a fourth argument, as in `detect`. The estimate of
        a dimension uses the prior of the others.
        """
        raise NotImplementedError

    def detect(self, y, h, no, prior=None):
        given = (y, h, no) if prior is None else (y, h, no, prior)
        z, variance = self.estimate(*given)
        return pam_posterior(z, variance, self.levels, prior)[0]


@keras.saving.register_keras_serializable("linksim")
class MatchedFilterDetector(LinearDetector):
    """Matched filter, which takes the interference for Gaussian noise.

    The filter of stream i is h_i/|h_i|^2. In coloured noise of covariance S it is the same,
    and the noise that it lets through is h_i'S h_i/|h_i|^4, as in Sionna's `LinearDetector`.
    The filter matched to both channel and noise is S^-1 h_i. It has the larger SNR in each
    stream, but more interference between several streams as a rule.

    Args:
        whiten: use S^-1 h_i in coloured noise.

    Raises:
        InvalidInput: (a `ValueError`) an option is out of range.
    """

    def __init__(self, *args, whiten=False, **kwargs):
        super().__init__(*args, **kwargs)
        if not isinstance(whiten, bool):
            raise InvalidInput(f"whiten: got {whiten!r}, expected True or False")
        self.whiten = whiten

    def _whitened(self, y, h, s):
        if self.whiten:
            return super()._whitened(y, h, s)
        check_finite(self._who, y=y, h=h)
        check_covariance(self._who, s)
        s = complex_to_real_matrix(s)
        no = ops.mean(diagonal(s), axis=-1)
        colour, eye = s / no[:, None, None], ops.eye(s.shape[-1])
        # As in `whiten`, what is white but for rounding counts as white
        colour = ops.where(ops.abs(colour - eye) <= 1e-6, eye, colour)
        # `estimate` finds the columns times the noise's covariance beside the columns
        h = ops.concatenate([h, ops.matmul(colour, h)], axis=-1)
        return y, h, ops.broadcast_to(no, ops.shape(y)[:1])

    def estimate(self, y, h, no):
        h, coloured = h[..., : self.num_dims], h[..., self.num_dims :]
        hty, gram = matched_filter(y, h)
        gain = ops.maximum(diagonal(gram), 1e-30)
        leakage = ops.sum(ops.square(gram / gain[..., None]), axis=-1) - 1.0
        interference = self.pam_energy * ops.maximum(leakage, 0.0)
        noise = no[:, None] / 2.0 / gain
        if coloured.shape[-1]:
            powers = [ops.maximum(ops.sum(h * x, axis=-2), 1e-30) for x in (coloured, h)]
            noise = noise * powers[0] / powers[1]
        return hty / gain, interference + noise

    def get_config(self):
        return {**super().get_config(), "whiten": self.whiten}


@keras.saving.register_keras_serializable("linksim")
class ZeroForcingDetector(LinearDetector):
    """Zero forcing (ZF), with the noise that it enhances in each stream.

    In coloured noise of covariance S it is (H'S^-1 H)^-1 H'S^-1, which of all filters
    without interference lets the least noise through. Sionna's `LinearDetector` takes
    (H'H)^-1 H' there, and is worse.
    """

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

    With a prior this is parallel interference cancellation (MMSE-PIC, [Wang99]) in real
    dimensions. The prior's means m are subtracted, and with the prior's variances v the one
    matrix A = (H'H diag(v/E) + N0/(2E) I)^-1 serves all dimensions [Studer11]: the estimate
    is m_i + [A H'(y - H m)]_i/mu_i, with mu_i and its variance as above. Neither depends on
    m_i or v_i: the estimate of a dimension uses the prior of the others, and its own prior
    is added to the demapped estimate.
    """

    accepts_prior = True

    def estimate(self, y, h, no, prior=None):
        if prior is not None:
            return mmse_pic_estimate(y, h, no, prior, self.levels)
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


def mmse_pic_estimate(y, h, no, prior, points):
    """Unbiased MMSE-PIC estimates and their variances, see `MMSEDetector`.

    Args:
        y: float32 [B, 2M].
        h: float32 [B, 2M, N].
        no: float32 [B], N0.
        prior: float32 [B, N, L], log-probabilities of the levels up to a constant.
        points: the levels [L].

    Returns:
        Estimates and variances, float32 [B, N].
    """
    energy = mean_square(points)
    mean, variance = pam_moments(prior, points)
    hty, gram = matched_filter(y - matvec(h, mean), h)
    share = variance / energy
    # The gain and the variance are those of `mmse_filter`, but A is not symmetric
    half_no = no[:, None] / 2.0
    inverse = regularized_inverse(gram * share[:, None], half_no / energy)
    gain = ops.maximum(ops.sum(inverse * gram, axis=-1), 1e-30)
    return mean + matvec(inverse, hty) / gain, half_no * diagonal(inverse) / gain


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
