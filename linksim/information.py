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


def bit_information(bits: Tensor, llrs: Tensor) -> Tensor:
    """What LLRs tell of their bits, in bits, float32 [...].

    It is 1 - log2(1 + exp(-x llr)) with x = 2b - 1, whose mean is the mutual information of
    bit and LLR where the LLR is what it says it is, log p(b=1)/p(b=0). Of LLRs that are not
    calibrated the mean is less than their mutual information: it is what a decoder gets that
    takes them at their word, and falls below 0 where they are sure and wrong.

    Args:
        bits: float32 [...], 0 or 1, uniformly distributed.
        llrs: float32 [...].
    """
    return 1.0 - ops.softplus((1.0 - 2.0 * bits) * llrs) / np.log(2.0)
