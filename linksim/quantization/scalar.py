"""Quantizers of single LLRs: uniform, and of maximum mutual information."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops
from scipy.special import expit, log_expit, logsumexp, rel_entr

from linksim.backend import Tensor
from linksim.errors import InvalidInput, check_real
from linksim.quantization.base import LLRQuantizer, register

NUM_BINS = 1024
# With more bits dynamic programming takes too long: its time grows with 2^bits
MAX_DP_BITS = 8
_NUM_CLIPS = 32
_CLIP_SAMPLES = 2**16


@register
class UniformQuantizer(LLRQuantizer):
    """Uniform midrise quantizer of each LLR on [-clip, clip].

    Args:
        num_streams: K, the number of streams.
        num_bits_per_symbol: m.
        bits: bits per LLR, one integer for all or K m integers.
        clip: a number, the same for all LLRs, which needs no `fit`; or None, and `fit`
            picks a clip for each LLR position. It takes the one with the least mean
            squared error on the samples, out of 32 between the median and twice the
            largest magnitude.
    """

    def __init__(
        self,
        num_streams: int,
        num_bits_per_symbol: int,
        bits: int | Sequence[int] = 3,
        clip: float | None = None,
        **kwargs: Any,
    ):
        super().__init__(num_streams, num_bits_per_symbol, bits, **kwargs)
        self.clip = clip
        if clip is not None:
            check_real("clip", clip, low=0, high=1e30, open_low=True)
            self.set_codebook(*zip(*(_uniform_codebook(clip, b) for b in self.bits)))

    def fit_component(self, samples, bits, index):
        clip = self.clip
        if clip is None:
            clip = _best_clip(samples, bits)
        return _uniform_codebook(clip, bits)

    def get_config(self):
        return {**super().get_config(), "clip": self.clip}


def _uniform_codebook(clip, bits):
    edges = np.linspace(-clip, clip, 2**bits + 1)
    return edges[1:-1], (edges[:-1] + edges[1:]) / 2


def _best_clip(samples, bits):
    # A stride thins samples that are sorted by SNR evenly
    samples = samples[:: max(1, len(samples) // _CLIP_SAMPLES)].astype(np.float64)
    magnitude = np.abs(samples)
    largest = max(magnitude.max(), 1e-6)
    # One bit needs a clip of twice the mean magnitude, many bits need the largest magnitude
    smallest = max(np.median(magnitude), 1e-3 * largest)
    clips = np.geomspace(smallest, 2 * largest, _NUM_CLIPS)

    def error(clip):
        step = 2 * clip / 2**bits
        cell = np.clip(np.floor((samples + clip) / step), 0, 2**bits - 1)
        return np.mean((samples + clip - (cell + 0.5) * step) ** 2)

    return min(clips, key=error)


@register
class MaxMutualInformationQuantizer(LLRQuantizer):
    """Quantizer of each LLR with the largest mutual information I(b; index).

    [Winkelbauer15], with which [Arvinte20], Section V-C, compares EQ-Net. LLRs say how
    likely the bits are, so `fit` needs no bits: in a cell, p(b=1) is the mean of
    sigmoid(LLR). The level is the LLR of the cell, log p(b=1|cell)/p(b=0|cell). This
    holds for exact LLRs; max-log or mismatched ones should be calibrated first.

    The samples of a component are collected in up to 1024 bins. Dynamic programming finds
    the optimal partition of the bins [Kurkoski14]. With more than 8 bits, each of 256
    optimal cells is divided into cells of equal width.

    Args:
        num_streams: K, the number of streams.
        num_bits_per_symbol: m.
        bits: bits per LLR, one integer for all or K m integers.
    """

    def fit_component(self, samples, bits, index):
        values, counts = np.unique(samples, return_counts=True)
        dp_bits = min(bits, MAX_DP_BITS)
        starts = _bin_starts(values, counts)
        cells = optimal_partition(*_bin_masses(values, counts, starts), 2**dp_bits)
        starts = starts[cells]
        thresholds = _midpoints(values[starts[1:] - 1], values[starts[1:]])
        thresholds = _fill(thresholds, 2**dp_bits - 1, values[-1])
        if bits > dp_bits:
            thresholds = _subdivide(thresholds, values, 2 ** (bits - dp_bits))
        return thresholds, _cell_llrs(values, counts, thresholds)


def optimal_partition(mass1: np.ndarray, mass0: np.ndarray, num_cells: int) -> np.ndarray:
    """Contiguous cells of bins that keep the most information on a bit [Kurkoski14].

    Args:
        mass1: float [N], the joint probability of b = 1 and each bin, up to a common
            factor; the bins are sorted by LLR.
        mass0: float [N], the same for b = 0.
        num_cells: number of cells; if there are fewer bins, each bin is a cell.

    Returns:
        The first bin of each cell in ascending order, int [min(num_cells, N)].
    """
    bins = len(mass1)
    num_cells = min(num_cells, bins)
    # cost[j, i] is p(cell) H(b|cell) of the cell of the bins i to j-1
    total1, total0 = (np.concatenate([[0.0], np.cumsum(x)]) for x in (mass1, mass0))
    p1 = np.maximum(total1[:, None] - total1, 0.0)
    p0 = np.maximum(total0[:, None] - total0, 0.0)
    cost = -rel_entr(p1, p1 + p0) - rel_entr(p0, p1 + p0)
    cost[np.triu_indices(bins + 1)] = np.inf
    best = cost[:, 0]
    previous = []
    candidates = np.empty_like(cost)
    for _ in range(num_cells - 1):
        np.add(cost, best, out=candidates)
        start = candidates.argmin(axis=1)
        best = np.take_along_axis(candidates, start[:, None], 1)[:, 0]
        previous.append(start)
    starts, end = [], bins
    for start in reversed(previous):
        end = start[end]
        starts.append(end)
    return np.array([0, *reversed(starts)], int)


def _bin_starts(values, counts):
    """The index of the first value of each bin; `values` are distinct and sorted.

    Half of the weight follows the number of samples, half their uncertainty, because at a
    high SNR nearly all samples are large and only the few small ones matter.
    """
    if len(values) <= NUM_BINS:
        return np.arange(len(values))
    uncertain = counts * np.exp(-np.abs(values.astype(np.float64)) / 2)
    weight = counts / counts.sum() + uncertain / max(uncertain.sum(), 1e-300)
    position = np.cumsum(weight) - weight / 2
    number = np.floor(position / position[-1] * (NUM_BINS - 1))
    return np.flatnonzero(np.diff(number, prepend=-1))


def _bin_masses(values, counts, starts):
    """The joint probabilities of b = 1 and each bin, and of b = 0 and each bin."""
    values = values.astype(np.float64)
    share = counts / counts.sum()
    mass1 = np.add.reduceat(share * expit(values), starts)
    mass0 = np.add.reduceat(share * expit(-values), starts)
    return mass1, mass0


def _midpoints(left, right):
    """Thresholds between float32 values, with `left` <= threshold < `right`."""
    middle = left / np.float32(2) + right / np.float32(2)
    return np.where((middle >= left) & (middle < right), middle, left)


def _fill(thresholds, size, largest):
    """Append thresholds of empty cells if there are fewer distinct values than cells."""
    last = thresholds[-1] if len(thresholds) else largest
    return np.concatenate([thresholds, np.full(size - len(thresholds), last)])


def _subdivide(thresholds, values, parts):
    edges = np.concatenate([values[:1], thresholds, values[-1:]]).astype(np.float64)
    inner = np.linspace(edges[:-1], edges[1:], parts, endpoint=False, axis=1)
    # Rounding to float32 must not change the order of the thresholds
    return np.maximum.accumulate(inner.reshape(-1)[1:].astype(np.float32))


def _cell_llrs(values, counts, thresholds):
    """The LLR of each cell, float64 [len(thresholds) + 1], finite.

    The sums are in the logarithmic domain, because p(b=0) of a large LLR underflows. The
    level of an empty cell is its middle.
    """
    edges = np.searchsorted(values, thresholds, side="right")
    edges = np.concatenate([[0], edges, [len(values)]])
    bounds = np.concatenate([values[:1], thresholds, values[-1:]]).astype(np.float64)
    levels = (bounds[:-1] + bounds[1:]) / 2
    values = values.astype(np.float64)
    log1, log0 = log_expit(values), log_expit(-values)
    for cell in np.flatnonzero(np.diff(edges)):
        part = slice(edges[cell], edges[cell + 1])
        weight = counts[part]
        levels[cell] = logsumexp(log1[part], b=weight) - logsumexp(log0[part], b=weight)
    return levels


def bit_mutual_information(llrs: Tensor, indices: Tensor | None = None) -> np.ndarray:
    """Mutual information of each coded bit with its LLR or its index, in bits.

    The bits are taken to be equally likely. Without `indices` it is the information in the
    LLRs, 1 - E[h2(sigmoid(L))]. With `indices` it is what the cell index of a quantizer of
    single LLRs keeps, I(b; index). The difference is the loss of the quantizer, and does
    not depend on its levels.

    Args:
        llrs: floating point [..., K, m], exact LLRs before quantization.
        indices: integers [..., K, m], or [..., K * m] as `quantize_llrs` returns them.

    Returns:
        float64 [K, m].

    Raises:
        InvalidInput: a shape, dtype or value is wrong.
    """
    llrs = np.asarray(ops.convert_to_numpy(llrs))
    if llrs.ndim < 2 or llrs.dtype.kind != "f" or not llrs.size:
        raise InvalidInput(
            f"llrs: got {llrs.dtype} {llrs.shape}, expected floating point [..., K, m]"
        )
    if not np.all(np.isfinite(llrs)):
        raise InvalidInput("llrs: got NaN or inf, expected finite numbers")
    shape = llrs.shape[-2:]
    llrs = llrs.reshape(-1, shape[0] * shape[1]).astype(np.float64)
    if indices is None:
        magnitude = np.abs(llrs)
        entropy = np.log1p(np.exp(-magnitude)) + magnitude * expit(-magnitude)
        return (1 - entropy.mean(axis=0) / np.log(2)).reshape(shape)
    indices = np.asarray(ops.convert_to_numpy(indices))
    if indices.size != llrs.size or indices.dtype.kind not in "iu":
        raise InvalidInput(
            f"indices: got {indices.dtype} {indices.shape}, expected one integer for each LLR"
        )
    indices = indices.reshape(llrs.shape)
    information = []
    for column, cell in zip(llrs.T, indices.T):
        p1 = np.bincount(cell, expit(column)) / len(column)
        p0 = np.bincount(cell, expit(-column)) / len(column)
        entropy = -np.sum(rel_entr(p1, p1 + p0) + rel_entr(p0, p1 + p0))
        information.append(1 - entropy / np.log(2))
    return np.array(information).reshape(shape)
