"""The LDPC codes of IEEE 802.11n: twelve parity-check matrices of three lengths and four rates.

A matrix consists of square blocks of z rows, zeros or shifted identities, in 24 columns of
blocks ([IEEE20], 19.3.11.7 and Annex F). The columns of the parity bits are the same at
every length of a rate: three identities in the first of them, the outer ones shifted by one,
and two diagonals in the others, so that the parity bits follow one from the other.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from linksim.errors import InvalidInput

_COLUMNS = 24

# Shifts of the blocks in the columns of the information bits, by length and rate; "-" is a
# block of zeros ([IEEE20], Tables F-1 to F-3)
_SHIFTS = {
    (648, "1/2"): """
        0 - - - 0 0 - - 0 - - 0
        22 0 - - 17 - 0 0 12 - - -
        6 - 0 - 10 - - - 24 - 0 -
        2 - - 0 20 - - - 25 0 - -
        23 - - - 3 - - - 0 - 9 11
        24 - 23 1 17 - 3 - 10 - - -
        25 - - - 8 - - - 7 18 - -
        13 24 - - 0 - 8 - 6 - - -
        7 20 - 16 22 10 - - 23 - - -
        11 - - - 19 - - - 13 - 3 17
        25 - 8 - 23 18 - 14 9 - - -
        3 - - - 16 - - 2 25 5 - -""",
    (648, "2/3"): """
        25 26 14 - 20 - 2 - 4 - - 8 - 16 - 18
        10 9 15 11 - 0 - 1 - - 18 - 8 - 10 -
        16 2 20 26 21 - 6 - 1 26 - 7 - - - -
        10 13 5 0 - 3 - 7 - - 26 - - 13 - 16
        23 14 24 - 12 - 19 - 17 - - - 20 - 21 -
        6 22 9 20 - 25 - 17 - 8 - 14 - 18 - -
        14 23 21 11 20 - 24 - 18 - 19 - - - - 22
        17 11 11 20 - 21 - 26 - 3 - - 18 - 26 -""",
    (648, "3/4"): """
        16 17 22 24 9 3 14 - 4 2 7 - 26 - 2 - 21 -
        25 12 12 3 3 26 6 21 - 15 22 - 15 - 4 - - 16
        25 18 26 16 22 23 9 - 0 - 4 - 4 - 8 23 11 -
        9 7 0 1 17 - - 7 3 - 3 23 - 16 - - 21 -
        24 5 26 7 1 - - 15 24 15 - 8 - 13 - 13 - 11
        2 2 19 14 24 1 15 19 - 21 - 2 - 24 - 3 - 2""",
    (648, "5/6"): """
        17 13 8 21 9 3 18 12 10 0 4 15 19 2 5 10 26 19 13 13
        3 12 11 14 11 25 5 18 0 9 2 26 26 10 24 7 14 20 4 2
        22 16 4 3 10 21 12 5 21 14 19 5 - 8 5 18 11 5 5 15
        7 7 14 14 4 16 16 24 24 10 1 7 15 6 10 26 8 18 21 14""",
    (1296, "1/2"): """
        40 - - - 22 - 49 23 43 - - -
        50 1 - - 48 35 - - 13 - 30 -
        39 50 - - 4 - 2 - - - - 49
        33 - - 38 37 - - 4 1 - - -
        45 - - - 0 22 - - 20 42 - -
        51 - - 48 35 - - - 44 - 18 -
        47 11 - - - 17 - - 51 - - -
        5 - 25 - 6 - 45 - 13 40 - -
        33 - - 34 24 - - - 23 - - 46
        1 - 27 - 1 - - - 38 - 44 -
        - 18 - - 23 - - 8 0 35 - -
        49 - 17 - 30 - - - 34 - - 19""",
    (1296, "2/3"): """
        39 31 22 43 - 40 4 - 11 - - 50 - - - 6
        25 52 41 2 6 - 14 - 34 - - - 24 - 37 -
        43 31 29 0 21 - 28 - - 2 - - 7 - 17 -
        20 33 48 - 4 13 - 26 - - 22 - - 46 42 -
        45 7 18 51 12 25 - - - 50 - - 5 - - -
        35 40 32 16 5 - - 18 - - 43 51 - 32 - -
        9 24 13 22 28 - - 37 - - 25 - - 52 - 13
        32 22 4 21 16 - - - 27 28 - 38 - - - 8""",
    (1296, "3/4"): """
        39 40 51 41 3 29 8 36 - 14 - 6 - 33 - 11 - 4
        48 21 47 9 48 35 51 - 38 - 28 - 34 - 50 - 50 -
        30 39 28 42 50 39 5 17 - 6 - 18 - 20 - 15 - 40
        29 0 1 43 36 30 47 - 49 - 47 - 3 - 35 - 34 -
        1 32 11 23 10 44 12 7 - 48 - 4 - 9 - 17 - 16
        13 7 15 47 23 16 47 - 43 - 29 - 52 - 2 - 53 -""",
    (1296, "5/6"): """
        48 29 37 52 2 16 6 14 53 31 34 5 18 42 53 31 45 - 46 52
        17 4 30 7 43 11 24 6 14 21 6 39 17 40 47 7 15 41 19 -
        7 2 51 31 46 23 16 11 53 40 10 7 46 53 33 35 - 25 35 38
        19 48 41 1 10 7 36 47 5 29 52 52 31 10 26 6 3 2 - 51""",
    (1944, "1/2"): """
        57 - - - 50 - 11 - 50 - 79 -
        3 - 28 - 0 - - - 55 7 - -
        30 - - - 24 37 - - 56 14 - -
        62 53 - - 53 - - 3 35 - - -
        40 - - 20 66 - - 22 28 - - -
        0 - - - 8 - 42 - 50 - - 8
        69 79 79 - - - 56 - 52 - - -
        65 - - - 38 57 - - 72 - 27 -
        64 - - - 14 52 - - 30 - - 32
        - 45 - 70 0 - - - 77 9 - -
        2 56 - 57 35 - - - - - 12 -
        24 - 61 - 60 - - 27 51 - - 16""",
    (1944, "2/3"): """
        61 75 4 63 56 - - - - - - 8 - 2 17 25
        56 74 77 20 - - - 64 24 4 67 - 7 - - -
        28 21 68 10 7 14 65 - - - 23 - - - 75 -
        48 38 43 78 76 - - - - 5 36 - 15 72 - -
        40 2 53 25 - 52 62 - 20 - - 44 - - - -
        69 23 64 10 22 - 21 - - - - - 68 23 29 -
        12 0 68 20 55 61 - 40 - - - 52 - - - 44
        58 8 34 64 78 - - 11 78 24 - - - - - 58""",
    (1944, "3/4"): """
        48 29 28 39 9 61 - - - 63 45 80 - - - 37 32 22
        4 49 42 48 11 30 - - - 49 17 41 37 15 - 54 - -
        35 76 78 51 37 35 21 - 17 64 - - - 59 7 - - 32
        9 65 44 9 54 56 73 34 42 - - - 35 - - - 46 39
        3 62 7 80 68 26 - 80 55 - 36 - 26 - 9 - 72 -
        26 75 33 21 69 59 3 38 - - - 35 - 62 36 26 - -""",
    (1944, "5/6"): """
        13 48 80 66 4 74 7 30 76 52 37 60 - 49 73 31 74 73 23 -
        69 63 74 56 64 77 57 65 6 16 51 - 64 - 68 9 48 62 54 27
        51 15 0 80 24 25 42 54 44 71 71 9 67 35 - 58 - 29 - 53
        16 29 36 41 44 56 59 37 50 24 - 65 4 65 52 - 4 - 73 52""",
}
RATES = tuple(dict.fromkeys(Fraction(rate) for _, rate in _SHIFTS))
# {(n, k): rate} of all codes
SIZES = {(n, int(n * Fraction(rate))): Fraction(rate) for n, rate in _SHIFTS}


def wifi_rate(rate: float) -> Fraction:
    """The rate of IEEE 802.11n that a decimal number means, such as 5/6 for 0.833.

    Raises:
        InvalidInput: there is none within 0.005.
    """
    nearest = min(RATES, key=lambda known: abs(float(known) - rate))
    if abs(float(nearest) - rate) > 0.005:
        raise InvalidInput(
            f"code.rate: got {rate}, expected one of {', '.join(map(str, RATES))} of the "
            "802.11n code, as a decimal number"
        )
    return nearest


def base_matrix(num_coded_bits: int, rate: Fraction) -> np.ndarray:
    """Shifts of all blocks of a parity-check matrix, int [24 (1 - rate), 24].

    Args:
        num_coded_bits: n, 648, 1296 or 1944.
        rate: one of `RATES`.

    Returns:
        The shift of each block; -1 is a block of zeros.
    """
    text = _SHIFTS[num_coded_bits, str(rate)].split()
    rows = int(_COLUMNS * (1 - rate))
    shifts = np.array([-1 if word == "-" else int(word) for word in text])
    parity = np.full((rows, rows), -1)
    parity[[0, rows // 2, rows - 1], 0] = 1, 0, 1
    for column in range(1, rows):
        parity[column - 1 : column + 1, column] = 0
    return np.concatenate([shifts.reshape(rows, _COLUMNS - rows), parity], axis=1)


def wifi_matrix(num_coded_bits: int, rate: Fraction) -> np.ndarray:
    """A parity-check matrix of IEEE 802.11n, float64 [n - k, n], 0 or 1.

    The information bits come first. Arguments are those of `base_matrix`.
    """
    shifts = base_matrix(num_coded_bits, rate)
    z = num_coded_bits // _COLUMNS
    identity = np.eye(z)
    zeros = np.zeros((z, z))
    return np.block(
        [[np.roll(identity, s, axis=1) if s >= 0 else zeros for s in row] for row in shifts]
    )
