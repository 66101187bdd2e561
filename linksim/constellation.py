"""QAM and PAM points, Gray labels, and the conversion of symbol logits and LLRs.

Labels follow [TS38211], Section 5.1, like Sionna's `Constellation("qam", m)`. Bits 0, 2,
4, ... of a QAM symbol label its real part and bits 1, 3, 5, ... its imaginary part; the
first bit of each is the sign. `num_bits_per_symbol = 1` is real BPSK, like
`Constellation("pam", 1)`.

Square QAM separates into two PAMs. A *PAM logit* is the log-probability, up to a constant,
of one level of one real dimension. The real dimensions of K streams are the real parts of
streams 0..K-1, then their imaginary parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from keras import ops

from linksim.backend import constant, memo
from linksim.errors import check_bits_per_symbol, check_choice

DEMAPPING_METHODS = ("app", "maxlog")
# `pam_posterior` limits observations at this distance from the levels, of unit power
_FAR = 1e3


def pam_num_bits(num_bits_per_symbol):
    """The number of bits on each real dimension of a square QAM or BPSK symbol.

    Raises:
        InvalidInput: not 1, nor an even number from 2 to 10.
    """
    check_bits_per_symbol("num_bits_per_symbol", num_bits_per_symbol)
    return 1 if num_bits_per_symbol == 1 else num_bits_per_symbol // 2


@cache
def bit_labels(num_bits):
    """The bits of the indices 0..2^num_bits-1, most significant first.

    Returns:
        A read-only int32 array [2^num_bits, num_bits].
    """
    indices = np.arange(2**num_bits)[:, None]
    labels = (indices >> np.arange(num_bits - 1, -1, -1)) & 1
    labels = labels.astype(np.int32)
    labels.setflags(write=False)
    return labels


def _gray_pam(bits):
    # TS 38.211: (1-2b0) * [2^(n-1) - (1-2b1) * [2^(n-2) - ...]]
    sign = 1 - 2 * bits[:, 0]
    if bits.shape[1] == 1:
        return sign
    return sign * (2 ** (bits.shape[1] - 1) - _gray_pam(bits[:, 1:]))


@cache
def pam_points(num_bits_per_symbol):
    """The levels of one real dimension by label, for complex symbols of unit power.

    Returns:
        A read-only float32 array [2^(m/2)], or [2] for BPSK.
    """
    levels = _gray_pam(bit_labels(pam_num_bits(num_bits_per_symbol)))
    power = np.mean(levels.astype(np.float64) ** 2)
    dims = 1 if num_bits_per_symbol == 1 else 2
    points = (levels / np.sqrt(dims * power)).astype(np.float32)
    points.setflags(write=False)
    return points


def pam_levels(num_bits_per_symbol):
    """`pam_points` as a tuple of Python numbers.

    Layers compute with these: a tracer knows their values, and they can be compared.
    """
    return tuple(pam_points(num_bits_per_symbol).tolist())


@cache
def pam_indices_of_symbols(num_bits_per_symbol):
    """The PAM indices of the real and imaginary parts of every symbol.

    Returns:
        A read-only int32 array [2^m, 2]. BPSK has no imaginary part: its array is [2, 1].
    """
    labels = bit_labels(num_bits_per_symbol)
    if num_bits_per_symbol == 1:
        return labels
    weights = 2 ** np.arange(num_bits_per_symbol // 2 - 1, -1, -1)
    table = np.stack([labels[:, 0::2] @ weights, labels[:, 1::2] @ weights], -1)
    table = table.astype(np.int32)
    table.setflags(write=False)
    return table


@cache
def qam_points(num_bits_per_symbol):
    """The constellation points of unit power by label: read-only complex64 [2^m]."""
    levels = pam_points(num_bits_per_symbol)
    pam = pam_indices_of_symbols(num_bits_per_symbol)
    points = levels[pam[:, 0]].astype(np.complex64)
    if num_bits_per_symbol > 1:
        points = points + 1j * levels[pam[:, 1]]
    points = points.astype(np.complex64)
    points.setflags(write=False)
    return points


def logits_to_llrs(logits, method="app"):
    """LLRs `log p(b=1)/p(b=0)` of the label bits from the logits of all labels.

    Args:
        logits: float [..., 2^n].
        method: "app" sums the probabilities, "maxlog" takes the largest.

    Returns:
        float [..., n].
    """
    check_choice("method", method, DEMAPPING_METHODS)
    reduce = ops.logsumexp if method == "app" else ops.amax
    size = logits.shape[-1]
    llrs = []
    for bit in reversed(range(size.bit_length() - 1)):
        ones, zeros = (constant(part, "int32") for part in _labels_by_bit(size, bit))
        llrs.append(
            reduce(ops.take(logits, ones, axis=-1), axis=-1)
            - reduce(ops.take(logits, zeros, axis=-1), axis=-1)
        )
    return ops.stack(llrs, axis=-1)


def pam_logits_to_llrs(logits, num_bits_per_symbol, method="app"):
    """LLRs of K streams from the PAM logits of their real dimensions.

    Args:
        logits: float [..., 2K, 2^(m/2)], or [..., K, 2] for BPSK.
        num_bits_per_symbol: m.
        method: as in `logits_to_llrs`.

    Returns:
        float [..., K, m].
    """
    llrs = logits_to_llrs(logits, method)
    if num_bits_per_symbol == 1:
        return llrs
    real, imag = ops.split(llrs, 2, axis=-2)
    interleaved = ops.stack([real, imag], axis=-1)
    return ops.reshape(
        interleaved, tuple(ops.shape(interleaved)[:-2]) + (num_bits_per_symbol,)
    )


def pam_logits_to_symbol_logits(logits, num_bits_per_symbol):
    """Symbol logits [..., K, 2^m] from independent PAM logits [..., N, L]."""
    if num_bits_per_symbol == 1:
        return logits
    real, imag = ops.split(logits, 2, axis=-2)
    of_real, of_imag = _parts_of_symbols(num_bits_per_symbol)
    return ops.take(real, constant(of_real, "int32"), axis=-1) + ops.take(
        imag, constant(of_imag, "int32"), axis=-1
    )


def pam_logits_to_symbol_indices(logits, num_bits_per_symbol):
    """The most likely symbols, int32 [..., K], given PAM logits [..., N, L]."""
    best = ops.cast(ops.argmax(logits, axis=-1), "int32")
    if num_bits_per_symbol == 1:
        return best
    size = 2 ** (num_bits_per_symbol // 2)
    table = constant(_symbols_by_parts(num_bits_per_symbol), "int32")
    real, imag = ops.split(best, 2, axis=-1)
    return ops.take(table, real * size + imag, axis=0)


def llrs_to_symbol_logits(llrs):
    """Logits [..., 2^n] of labels, given the LLRs [..., n] of their independent bits.

    `logits_to_llrs` is the exact inverse.
    """
    ones, zeros = (_labels_with(llrs.shape[-1], value) for value in (1, 0))
    # log p(1) = -softplus(-llr) and log p(0) = -softplus(llr), summed over each label's bits
    positive = ops.matmul(-ops.softplus(-llrs), ops.cast(constant(ones), llrs.dtype))
    negative = ops.matmul(-ops.softplus(llrs), ops.cast(constant(zeros), llrs.dtype))
    return positive + negative


def llrs_to_pam_logits(llrs, num_bits_per_symbol):
    """PAM logits from the LLRs of the independent bits of K streams.

    Args:
        llrs: float [..., K, m].
        num_bits_per_symbol: m.

    Returns:
        float [..., 2K, 2^(m/2)], or [..., K, 2] for BPSK, the largest of a dimension 0.
        LLRs of 0 give exact zeros.
    """
    if num_bits_per_symbol > 1:
        llrs = ops.concatenate([llrs[..., 0::2], llrs[..., 1::2]], axis=-2)
    ones = _labels_with(llrs.shape[-1], 1)
    logits = sum(
        llrs[..., i, None] * constant(tuple(one - 0.5 for one in bits))
        for i, bits in enumerate(ones)
    )
    return logits - ops.amax(logits, axis=-1, keepdims=True)


def symbol_logits_to_pam_logits(logits, num_bits_per_symbol):
    """PAM logits, each marginal over the other part of the symbol, of symbol logits.

    Args:
        logits: float [..., K, 2^m].
        num_bits_per_symbol: m.

    Returns:
        As `llrs_to_pam_logits`. Equal logits give exact zeros.
    """
    if num_bits_per_symbol > 1:
        logits = marginal_pam_logits(logits, num_bits_per_symbol)
    return logits - ops.amax(logits, axis=-1, keepdims=True)


def marginal_pam_logits(logits, num_bits_per_symbol):
    """PAM logits [..., 2K, 2^(m/2)] of symbol logits [..., K, 2^m], not normalized."""
    parts = []
    for part in _symbols_by_level(num_bits_per_symbol):
        of_levels = (ops.take(logits, constant(of_level, "int32"), -1) for of_level in part)
        parts.append(ops.stack([ops.logsumexp(x, axis=-1) for x in of_levels], axis=-1))
    return ops.concatenate(parts, axis=-2)


# Tables of Python numbers, which are constants for a tracer


@memo
def _labels_by_bit(size, bit):
    """Of the labels 0..size-1, those that have a bit and those that do not."""
    return tuple(tuple(i for i in range(size) if (i >> bit) & 1 == value) for value in (1, 0))


@memo
def _symbols_by_level(num_bits_per_symbol):
    """The symbols that have each level as their real and as their imaginary part."""
    levels = range(2 ** (num_bits_per_symbol // 2))
    return tuple(
        tuple(tuple(symbol for symbol, j in enumerate(part) if j == i) for i in levels)
        for part in _parts_of_symbols(num_bits_per_symbol)
    )


@memo
def _symbols_by_parts(num_bits_per_symbol):
    """The symbol of each pair of levels, the real part first."""
    parts = zip(*_parts_of_symbols(num_bits_per_symbol))
    return tuple(symbol for _, symbol in sorted((pair, s) for s, pair in enumerate(parts)))


@memo
def _parts_of_symbols(num_bits_per_symbol):
    """The columns of `pam_indices_of_symbols` for QAM, as two tuples."""
    num_bits = num_bits_per_symbol // 2

    def part(symbol, first):
        # Bits first, first + 2, ... of the label
        bits = [(symbol >> (2 * i + first)) & 1 for i in range(num_bits)]
        return sum(bit << i for i, bit in enumerate(bits))

    symbols = range(2**num_bits_per_symbol)
    return tuple(tuple(part(symbol, first) for symbol in symbols) for first in (1, 0))


@memo
def _labels_with(num_bits, value):
    """For each bit, which of the 2^num_bits labels have this value there: 1.0 or 0.0."""
    return tuple(
        tuple(float((i >> bit) & 1 == value) for i in range(2**num_bits))
        for bit in reversed(range(num_bits))
    )


def mean_square(points: Sequence[float]) -> float:
    """The mean square of PAM levels, in double precision."""
    return sum([float(p) ** 2 for p in points]) / len(points)


def pam_moments(logits, points):
    """Means and variances of PAM levels with the given log-probabilities.

    Equal logits give exactly 0 and the mean square of the levels.

    Args:
        logits: float [..., L], up to a constant.
        points: the levels [L].

    Returns:
        float [...] and float [...]. The variance is at least 0.
    """
    points = tuple(float(p) for p in points)
    positive = tuple(i for i, p in enumerate(points) if p > 0)
    negative = tuple(points.index(-points[i]) for i in positive)
    pmf = ops.softmax(logits, axis=-1)
    up, down = (
        ops.take(pmf, constant(sign, "int32"), axis=-1) for sign in (positive, negative)
    )
    mean = ops.sum((up - down) * constant(tuple(points[i] for i in positive)), axis=-1)
    # Only deviations from the mean are exact where one level is nearly certain, and only
    # the mean square is where all are equally likely
    spread = ops.square(constant(points) - ops.expand_dims(mean, -1))
    equal = ops.all(logits == logits[..., :1], axis=-1)
    return mean, ops.where(equal, mean_square(points), ops.sum(pmf * spread, axis=-1))


def pam_posterior(z, variance, points, prior=None):
    """The posterior of a PAM level that is observed in Gaussian noise.

    Args:
        z: float [...], observations `level + noise`.
        variance: float [...], the variance of the real noise.
        points: the levels [L].
        prior: float [..., L], log-probabilities of the levels up to a constant, or None
            where all are equally likely.

    Returns:
        Logits [..., L], posterior means [...] and posterior variances [...].
    """
    levels = constant(points)
    # Only a z more than 30 standard deviations away from the levels is limited. They would
    # be lost in its rounding, and its square could leave the range of float32.
    limit = ops.clip(variance, _FAR, _FAR**6)
    z = ops.clip(z, -limit, limit)
    distance = ops.square(ops.expand_dims(z, -1) - levels)
    logits = -distance / (2.0 * ops.expand_dims(variance, -1))
    if prior is not None:
        logits = logits + prior
    pmf = ops.softmax(logits, axis=-1)
    mean = ops.sum(pmf * levels, axis=-1)
    spread = ops.square(levels - ops.expand_dims(mean, -1))
    return logits, mean, ops.sum(pmf * spread, axis=-1)


def level_distance(points):
    """The distance of neighbouring PAM levels, a float."""
    return 2.0 * float(max(points)) / (len(points) - 1)


def nearest_pam(z, points):
    """The PAM level nearest to each entry of `z`, as an array of the same shape."""
    top, step = float(max(points)), level_distance(points)
    index = ops.clip(ops.round((z + top) / step), 0.0, len(points) - 1.0)
    return step * index - top
