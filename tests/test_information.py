"""Mutual information of bits and LLRs."""

import numpy as np
import pytest

from linksim.information import gaussian_llrs, llr_deviation


def _information(deviation):
    """J(sigma) by numerical integration over the LLR of a bit 1, in bits."""
    x = np.linspace(-12, 12, 20001)
    llr = deviation**2 / 2 + deviation * x
    density = np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)
    return 1 - np.trapezoid(density * np.logaddexp(0, -llr), x) / np.log(2)


@pytest.mark.parametrize("information", [0.0, 0.003, 0.1, 0.5, 0.9, 0.99])
def test_the_deviation_gives_the_information(information):
    deviation = float(llr_deviation(np.float32(information)))
    assert _information(deviation) == pytest.approx(information, abs=2e-3)


def test_gaussian_llrs_are_those_of_their_bits():
    rng = np.random.default_rng(1)
    bits = rng.integers(0, 2, 200_000).astype(np.float32)
    llrs = gaussian_llrs(bits, np.float32(2.0), rng.normal(size=bits.size).astype(np.float32))
    llrs = np.asarray(llrs)
    near = np.abs(llrs - 1.0) < 0.1
    odds = np.log(np.mean(bits[near]) / np.mean(1 - bits[near]))
    assert odds == pytest.approx(1.0, abs=0.1)
    measured = 1 - np.mean(np.logaddexp(0, -(2 * bits - 1) * llrs)) / np.log(2)
    assert measured == pytest.approx(_information(2.0), abs=5e-3)
    assert not np.any(np.asarray(gaussian_llrs(bits, np.float32(0.0), llrs)))
