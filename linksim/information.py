"""Mutual information of bits and their LLRs."""

from __future__ import annotations

import numpy as np
from keras import ops

from linksim.backend import Tensor

# [Brannstrom05], eq. 19: J(sigma) = (1 - 2^(-H1 sigma^(2 H2)))^H3
_H1, _H2, _H3 = 0.3073, 0.8935, 1.1064


def llr_deviation(information: Tensor) -> Tensor:
    """The deviation of Gaussian LLRs of a given mutual information [Brannstrom05].

    An LLR of a bit b that is Gaussian with the deviation sigma and the mean
    (2b - 1) sigma^2/2 is consistent: it is the LLR that it says it is.

    Args:
        information: float [...], mutual information of bit and LLR in bits, in [0, 1).

    Returns:
        sigma, float [...]. The information that it gives differs by less than 0.002 bit
        from what was asked for.
    """
    missing = -ops.log(1.0 - information ** (1.0 / _H3)) / np.log(2.0) / _H1
    return missing ** (1.0 / (2.0 * _H2))


def gaussian_llrs(bits: Tensor, deviation: Tensor, normal: Tensor) -> Tensor:
    """Consistent Gaussian LLRs `log p(b=1)/p(b=0)`.

    Args:
        bits: float32 [...], 0 or 1.
        deviation: float32, broadcast to `bits`; 0 gives LLRs of 0.
        normal: float32 [...], independent standard normal numbers.
    """
    return (bits - 0.5) * ops.square(deviation) + deviation * normal
