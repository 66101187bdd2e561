"""Expectation propagation."""

import keras
from keras import ops

from linksim.constellation import pam_posterior
from linksim.detectors.base import Detector
from linksim.detectors.real import (
    MIN_SYMBOL_VARIANCE,
    diagonal,
    matched_filter,
    matvec,
    regularized_inverse,
)
from linksim.errors import check_int, check_real


@keras.saving.register_keras_serializable("linksim")
class EPDetector(Detector):
    """Expectation propagation (EP) [Cespedes14].

    A Gaussian factor with precision lambda and shift gamma stands for the prior of each
    real dimension. Moment matching refines the factors. Damping and the variance floor
    are those of Sionna's `EPDetector`.

    Args:
        num_iterations: the number of moment-matching iterations.
        damping: weight of the old factors, in [0, 1].

    Raises:
        InvalidInput: (a `ValueError`) an option is out of range.
    """

    demapping_methods = ("maxlog", "app")

    def __init__(self, *args, num_iterations=10, damping=0.9, **kwargs):
        super().__init__(*args, **kwargs)
        check_int("num_iterations", num_iterations)
        check_real("damping", damping, low=0, high=1)
        self.num_iterations = int(num_iterations)
        self.damping = float(damping)

    def detect(self, y, h, no):
        hty, gram = matched_filter(y, h)
        half_no = no[:, None] / 2.0
        precision = ops.ones_like(hty) / self.pam_energy
        shift = ops.zeros_like(hty)
        logits = None
        for _ in range(self.num_iterations):
            inverse = regularized_inverse(gram, half_no * precision)
            mean = matvec(inverse, hty + half_no * shift)
            variance = half_no * diagonal(inverse)
            # The cavity is the approximation without the factor of this dimension
            cavity_v = 1.0 / ops.maximum(1.0 / variance - precision, 1e-30)
            cavity_v = ops.clip(cavity_v, MIN_SYMBOL_VARIANCE, 1e6)
            cavity_x = cavity_v * (mean / variance - shift)
            logits, x, v = pam_posterior(cavity_x, cavity_v, self.points)
            v = ops.maximum(v, MIN_SYMBOL_VARIANCE)
            new_precision = 1.0 / v - 1.0 / cavity_v
            new_shift = x / v - cavity_x / cavity_v
            valid = new_precision >= 0
            precision = self._damp(ops.where(valid, new_precision, precision), precision)
            shift = self._damp(ops.where(valid, new_shift, shift), shift)
        return logits

    def _damp(self, new, old):
        return (1.0 - self.damping) * new + self.damping * old

    def get_config(self):
        return {
            **super().get_config(),
            "num_iterations": self.num_iterations,
            "damping": self.damping,
        }
