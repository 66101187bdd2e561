"""Linear algebra with binary matrices, over GF(2)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class SystematicForm(NamedTuple):
    """How the bits of a codeword follow from its information bits."""

    generator: np.ndarray  # float32 [k, n], 0 or 1
    information: np.ndarray  # columns of the information bits, ascending, int [k]


def systematic_form(pcm: np.ndarray) -> SystematicForm:
    """A generator matrix of the code of a parity-check matrix.

    The parity bits are as far to the right as the matrix allows, so that the information
    bits come first where its last columns have an inverse. Rows that are sums of others say
    nothing, and k is n less the rank.

    Args:
        pcm: parity-check matrix [checks, n], 0 or 1.

    Returns:
        The `SystematicForm`; its generator is the identity in the information columns.
    """
    pcm = np.asarray(pcm).astype(bool)
    checks, n = pcm.shape
    # Columns in reverse order, eight to a byte, so that elimination begins at the right end
    rows = np.packbits(pcm[:, ::-1], axis=1)
    pivots: list[int] = []
    for column in range(n):
        used = len(pivots)
        if used == checks:
            break
        byte, mask = column // 8, 128 >> column % 8
        ones = np.flatnonzero(rows[:, byte] & mask)
        below = ones[ones >= used]
        if not len(below):
            continue
        rows[[used, below[0]]] = rows[[below[0], used]]
        # The row that came up from `used` has a one only if it was among the others
        others = np.flatnonzero(rows[:, byte] & mask)
        rows[others[others != used]] ^= rows[used]
        pivots.append(column)
    reduced = np.unpackbits(rows[: len(pivots)], axis=1, count=n)[:, ::-1]
    parity = n - 1 - np.array(pivots, int)
    information = np.setdiff1d(np.arange(n), parity)
    generator = np.zeros((len(information), n), np.float32)
    generator[np.arange(len(information)), information] = 1
    generator[:, parity] = reduced[:, information].T
    return SystematicForm(generator, information)
