"""Approximate message passing, for channels with independent entries."""

import keras
from keras import ops

from linksim.constellation import pam_posterior
from linksim.detectors.base import Detector
from linksim.detectors.oamp import start_of_iterations
from linksim.detectors.real import diagonal, matched_filter, matvec
from linksim.errors import InvalidInput, check_int, check_real

# The largest load, relative to the interference of a stream that the channel has
_MOST_LOAD = 4.0


@keras.saving.register_keras_serializable("linksim")
class AMPDetector(Detector):
    """Approximate message passing (AMP), for channels with independent entries.

    This is LAMA [Jeon15], as [Pratik21] and [Khani20] compare with. The columns of H have
    unit norm on average, beta = K/M is the load, and tau is the residual variance
    relative to N0. One iteration is:
        - z = x + H'r;
        - x and v are the posterior mean and variance given z, with noise N0 (1 + tau);
        - tau_new = beta v/N0;
        - r <- y - H x + tau_new/(1 + tau) r.
    It is computed from `H'y` and `H'H`. With a prior, x and v start at its mean and variance,
    and each posterior includes it.

    The load stands for the interference of a stream, sum_j |h_i'h_j|^2 over the others, to
    which it tends for independent entries in large systems. In a channel with nearly
    orthogonal columns that sum is far smaller, and with K/M the result would be worse than
    that of a matched filter. So beta is at most four times the mean of that sum, which
    hardly ever is the smaller of the two for independent entries. One stream has no
    interference and needs one exact step. Both make the detector reach the error rate of
    the AWGN channel where there is no interference.

    Expect error floors on correlated channels and when K is close to M.

    Args:
        num_iterations: the number of iterations.
        damping: weight of the old estimate and variance, in [0, 0.999].
        normalize: scale each channel to unit mean column energy first. The result then
            does not depend on the scale of y, H and N0. The published comparisons do not
            scale; their channel entries have variance 1/M. Without scaling the SER on the
            i.i.d. 64x16 channels of [Pratik21] is 1 to 5 % higher.

    Raises:
        InvalidInput: (a `ValueError`) an option is out of range.
    """

    accepts_prior = True
    xla_on_cpu = True

    def __init__(self, *args, num_iterations=50, damping=0.0, normalize=True, **kwargs):
        super().__init__(*args, **kwargs)
        check_int("num_iterations", num_iterations)
        check_real("damping", damping, low=0, high=0.999)
        if not isinstance(normalize, bool):
            raise InvalidInput(f"normalize: got {normalize!r}, expected True or False")
        self.num_iterations = int(num_iterations)
        self.damping = float(damping)
        self.normalize = normalize

    def detect(self, y, h, no, prior=None):
        hty, gram = matched_filter(y, h)
        half_no = no[:, None] / 2.0
        if self.num_streams == 1:
            own = ops.maximum(diagonal(gram), 1e-30)
            return pam_posterior(hty / own, half_no / own, self.levels, prior)[0]
        if self.normalize:
            # H and y are divided by g and N0 by g^2, where g^2 is the mean column energy
            energy = ops.mean(diagonal(gram), axis=-1)
            energy = ops.maximum(energy, 1e-30)[:, None]
            hty, gram = hty / energy, gram / energy[..., None]
            half_no = no[:, None] / (2.0 * energy)
        load = self.num_dims / y.shape[-1]
        others = 1.0 - ops.eye(self.num_dims)
        interference = ops.sum(ops.square(gram * others), axis=(-2, -1)) / self.num_dims
        load = ops.minimum(load, _MOST_LOAD * interference)[:, None]

        x, variance = start_of_iterations(hty, prior, self.levels)
        htr = hty if prior is None else hty - matvec(gram, x)  # H'r
        variance = variance * load  # tau N0/2
        logits = None
        for _ in range(self.num_iterations):
            effective = half_no + variance
            logits, mean, spread = pam_posterior(x + htr, effective, self.levels, prior)
            spread = load * ops.mean(spread, axis=-1, keepdims=True)
            keep = self.damping
            x = keep * x + (1.0 - keep) * mean
            variance = keep * variance + (1.0 - keep) * spread
            htr = hty - matvec(gram, x) + variance / effective * htr
        return logits

    def get_config(self):
        return {
            **super().get_config(),
            "num_iterations": self.num_iterations,
            "damping": self.damping,
            "normalize": self.normalize,
        }
