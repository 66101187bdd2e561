"""Parity-check matrices of a user, from files in the alist format of David MacKay.

The numbers of a file, by lines: n and the checks m; the largest degree of a column and that of
a row; the degree of each column; that of each row; then for each column the rows of its ones,
counted from 1, and for each row the columns. Lists shorter than the largest degree are filled
with zeros, or end early.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np

from linksim.errors import InvalidInput
from linksim.files import as_path, stamp
from linksim.link.coding.binary import SystematicForm, systematic_form

# The generator matrix of a code is dense: 4 GB at this length and rate 1/2
MAX_LENGTH = 2**15


def read_alist(path: str | Path) -> np.ndarray:
    """The parity-check matrix of an alist file.

    Args:
        path: of the file.

    Returns:
        uint8 [m, n], 0 or 1; every row and every column has a one. It is shared: do not
        write to it.

    Raises:
        InvalidInput: the file cannot be read, or its numbers do not agree.
    """
    return _cached(*_stamped(path))[0]


def alist_form(path: str | Path) -> SystematicForm:
    """The `SystematicForm` of the matrix of an alist file, see `read_alist`."""
    return _cached(*_stamped(path))[1]


def alist_size(path: str | Path) -> tuple[int, int]:
    """n and k of the code of an alist file, see `read_alist`."""
    k, n = alist_form(path).generator.shape
    return n, k


def _stamped(path):
    path = as_path("code.file", path)
    return path.absolute(), stamp("code.file", path)


# A scenario asks for its sizes many times; a file that changes has another stamp
@functools.lru_cache(maxsize=4)
def _cached(path, _):
    try:
        pcm = _parse(_lines(path))
        form = systematic_form(pcm)
        if not len(form.generator):
            raise InvalidInput("all bits are parity bits, expected a code with information")
    except InvalidInput as error:
        raise InvalidInput(f"code.file: {path}: {error}") from None
    pcm.flags.writeable = False
    return pcm, form


def _lines(path):
    """(number of the line, its integers) of all lines that are not empty."""
    try:
        text = path.read_text(encoding="ascii")
    except OSError as error:
        raise InvalidInput(f"cannot be read ({error.strerror})") from None
    except ValueError:
        raise InvalidInput("is not text, expected an alist file") from None
    lines = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words:
            continue
        if not all(word.isdigit() and len(word) < 10 for word in words):
            raise InvalidInput(f"line {number}: expected numbers alone, got {line[:60]!r}")
        lines.append((number, [int(word) for word in words]))
    return lines


def _parse(lines):
    """The matrix of the lines, checked in every way that the format allows."""
    _, (n, m) = _take(lines, 0, 2, "the numbers of columns and of rows")
    if not 0 < m <= MAX_LENGTH or not 1 < n <= MAX_LENGTH:
        raise InvalidInput(
            f"got {n} columns and {m} rows, expected from 1 to {MAX_LENGTH} of each"
        )
    _, most = _take(lines, 1, 2, "the largest degrees of columns and of rows")
    if len(lines) != 4 + n + m:
        raise InvalidInput(
            f"got {len(lines)} lines that are not empty, expected {4 + n + m} for {n} "
            f"columns and {m} rows"
        )
    by_column = _ones(lines, "column", n, m, 2, 4, most[0])
    by_row = _ones(lines, "row", m, n, 3, 4 + n, most[1])
    by_column = by_column.T
    if not np.array_equal(by_column, by_row):
        row, column = np.argwhere(by_column != by_row)[0] + 1
        raise InvalidInput(
            f"the lists disagree about row {row} of column {column}, which only one of the "
            "two has"
        )
    return by_row


def _ones(lines, what, count, other, degree_line, first, most):
    """uint8 [count, other] of the lists of columns or rows, checked against the degrees."""
    _, degrees = _take(lines, degree_line, count, f"the degree of each {what}")
    if max(degrees) != most:
        raise InvalidInput(
            f"the largest degree of a {what} is {max(degrees)}, but line {lines[1][0]} "
            f"says {most}"
        )
    matrix = np.zeros((count, other), np.uint8)
    for index, degree in enumerate(degrees):
        number, entries = lines[first + index]
        where = f"line {number}, {what} {index + 1}"
        if not degree:
            raise InvalidInput(f"{where}: is empty, expected at least one 1")
        ones = entries[:degree]
        if len(ones) != degree or any(entries[degree:]) or 0 in ones:
            raise InvalidInput(
                f"{where}: got {sum(e > 0 for e in entries)} ones, expected its degree {degree}"
            )
        if max(ones) > other or len(set(ones)) != degree:
            raise InvalidInput(f"{where}: expected different numbers from 1 to {other}")
        matrix[index, np.array(ones) - 1] = 1
    return matrix


def _take(lines, index, count, what):
    """(number, integers) of a line that has `count` of them."""
    if len(lines) <= index:
        raise InvalidInput(f"ends before {what}, expected an alist file")
    number, numbers = lines[index]
    if len(numbers) != count:
        raise InvalidInput(
            f"line {number}: got {len(numbers)} numbers, expected {count}: {what}"
        )
    return number, numbers
