"""How far the LLRs of two backends, or of two devices, are apart."""

from __future__ import annotations

import numpy as np

#: LLRs that are this close are equal but for rounding
LIMIT = 2e-3


def differences(llrs: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """|difference| of LLRs over |LLR| + a tenth of the range of all + 0.05.

    Rounding grows with the LLRs, which are as large as those of the most certain bit.

    Args:
        llrs: float32, what is compared; a NaN is infinitely far from anything.
        expected: float32 of the same shape, of the reference.
    """
    expected = expected.astype(float)
    scale = np.abs(expected) + 0.1 * np.ptp(expected) + 0.05
    return np.nan_to_num(np.abs(llrs - expected) / scale, nan=np.inf)


def agreement(llrs: np.ndarray, expected: np.ndarray) -> dict[str, float]:
    """The largest of `differences`, and the share of them beyond `LIMIT`."""
    found = differences(llrs, expected)
    return {"largest": float(found.max()), "share_beyond": float(np.mean(found > LIMIT))}
