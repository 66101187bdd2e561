"""Error rates with honest intervals, and dB gaps between curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import beta, norm

CONFIDENCE = 0.95


@dataclass
class Counts:
    """Raw counts of one detector at one SNR point.

    `bit_errors_sq` and `symbol_errors_sq` are sums over slots of a slot's squared number of
    errors. They tell how far the slots differ from each other. A slot is one block, or the
    transport blocks of several users.
    """

    blocks: int = 0
    block_errors: int = 0
    bits: int = 0
    bit_errors: int = 0
    bit_errors_sq: int = 0
    symbols: int = 0
    symbol_errors: int = 0
    symbol_errors_sq: int = 0
    seconds: float = 0.0

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(a + b for a, b in zip(self.astuple(), other.astuple())))

    def astuple(self) -> tuple[Any, ...]:
        """The counts in the order of the fields."""
        return tuple(vars(self).values())

    @property
    def bler(self) -> float:
        """Block error rate."""
        return self.block_errors / self.blocks

    def bler_interval(self, failed_of_slots: np.ndarray | None = None) -> tuple[float, float]:
        """Bounds of the 95 % interval of the block error rate.

        Args:
            failed_of_slots: how many blocks of each slot failed, integer [slots], where a
                slot has several blocks, which may fail together; None where it has one.
        """
        if failed_of_slots is None:
            return binomial_interval(self.block_errors, self.blocks)
        squares = int(np.sum(np.square(failed_of_slots, dtype=np.int64)))
        return clustered_interval(
            self.block_errors, squares, self.blocks, len(failed_of_slots)
        )

    def ber_interval(self, blocks_per_slot: int = 1) -> tuple[float, float]:
        """Bounds of the 95 % interval of the bit error rate, errors clustered in slots."""
        slots = self.blocks // blocks_per_slot
        return clustered_interval(self.bit_errors, self.bit_errors_sq, self.bits, slots)

    def ser_interval(self, blocks_per_slot: int = 1) -> tuple[float, float]:
        """Bounds of the 95 % interval of the symbol error rate, clustered in slots."""
        slots = self.blocks // blocks_per_slot
        return clustered_interval(
            self.symbol_errors, self.symbol_errors_sq, self.symbols, slots
        )


def binomial_interval(
    errors: float, trials: float, confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """Exact (Clopper-Pearson) interval of a rate, `(low, high)`.

    `errors` and `trials` may be fractional (effective sample sizes).
    """
    tail = (1 - confidence) / 2
    low = beta.ppf(tail, errors, trials - errors + 1) if errors > 0 else 0.0
    high = beta.ppf(1 - tail, errors + 1, trials - errors) if errors < trials else 1.0
    return float(low), float(high)


def clustered_interval(
    errors: int, errors_sq: int, trials: int, blocks: int, confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """Interval of a bit or symbol error rate whose errors come in blocks.

    The variance between blocks gives an effective number of independent trials
    [Korn98], and the interval is the exact binomial one for that number. Without any
    error the blocks count as the trials, since nothing is known about how many errors a
    bad block would hold.

    Args:
        errors: total errors.
        errors_sq: sum over blocks of the squared errors of a block.
        trials: bits or symbols, equally many in every block.
        blocks: number of independent blocks.
        confidence: probability that the interval holds the rate.
    """
    if errors == 0 or blocks < 2:
        return binomial_interval(min(errors, 1), blocks) if blocks else (0.0, 1.0)
    size = trials / blocks
    rate = errors / trials
    spread = (errors_sq / size**2 - blocks * rate**2) / (blocks - 1)
    return _effective_interval(rate, max(spread, 0.0) / blocks, blocks, trials, confidence)


def ratio_interval(
    errors: np.ndarray, trials: np.ndarray, confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """Interval of a rate of errors whose clusters have different numbers of trials.

    It is `clustered_interval` with the variance of a ratio of two sums, to first order
    [Korn98]. It is never narrower than that of as many independent trials.

    Args:
        errors: of each cluster, integers [clusters].
        trials: of each cluster, positive integers [clusters].
        confidence: probability that the interval holds the rate.
    """
    clusters, total = len(trials), int(np.sum(trials))
    rate = float(np.sum(errors) / total)
    if rate == 0 or clusters < 2:
        return binomial_interval(min(rate, 1), clusters)
    squares = float(np.sum(np.square(errors - rate * trials)))
    variance = clusters / (clusters - 1) * squares / total**2
    return _effective_interval(rate, variance, clusters, total, confidence)


def _effective_interval(rate, variance, clusters, trials, confidence):
    """The binomial interval for the number of independent trials with this variance."""
    if rate >= 1 or variance <= 0:
        effective = float(clusters)
    else:
        effective = min(rate * (1 - rate) / variance, float(trials))
    return binomial_interval(rate * effective, effective, confidence)


def bound_by_blocks(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Records of one detector, with a better upper bound where a BER or SER is zero.

    `clustered_interval` has to allow for blocks that are wrong in every bit, and its bound
    may stand above the rate that was measured at an SNR before. That rate tells how many
    bits, or symbols, a failed block holds, and at higher SNR it holds hardly more. The bound
    is therefore the upper end of the BLER's interval times the share of wrong bits in the
    failed blocks of the highest SNR below at which there are errors.

    Args:
        records: those of `linksim.simulate` for one detector, ascending in SNR.

    Returns:
        Records in the same order; those that change are copies.
    """
    bounded, share = [], {"ber": 1.0, "ser": 1.0}
    for record in records:
        for rate, known in share.items():
            if record[rate] and record["block_errors"]:
                share[rate] = min(record[rate] / record["bler"], 1.0)
            elif not record[rate]:
                high = min(record[f"{rate}_high"], record["bler_high"] * known)
                record = {**record, f"{rate}_high": high}
        bounded.append(record)
    return bounded


def crossing(
    snr_db: Sequence[float] | np.ndarray, rates: Sequence[float] | np.ndarray, target: float
) -> float | None:
    """SNR in dB at which a falling curve crosses `target`, or None.

    It is interpolated, linearly in dB and log10 of the rate, between the last two points
    where the curve falls through the target. Both rates have to be positive.
    """
    for i in reversed(range(len(rates) - 1)):
        high, low = rates[i], rates[i + 1]
        if high >= target >= low and high > low > 0:
            position = np.log(high / target) / np.log(high / low)
            return float(snr_db[i] + position * (snr_db[i + 1] - snr_db[i]))
    return None


def gap_of_curves(
    curve: Sequence[tuple[float, ...]],
    reference: Sequence[tuple[float, ...]],
    target: float,
    num_resamples: int = 1000,
    seed: int = 0,
) -> dict[str, float | None]:
    """How many dB more than another curve a curve needs for a target rate.

    This is for rates whose errors the store does not keep block by block, such as the SER.
    Rates are resampled log-normally with the spread of their own intervals, as if all
    points were independent. For curves of the same draws the interval is therefore too
    wide rather than too narrow.

    Args:
        curve, reference: lists of (snr_db, rate, low, high) with 95 % intervals,
            ascending in SNR.
        target: the rate.

    Returns:
        `{"gap_db", "gap_db_low", "gap_db_high"}`, as `paired_gaps` gives them.
    """
    rng = np.random.Generator(np.random.Philox(seed))
    found = [_crossings(rows, target, num_resamples, rng) for rows in (curve, reference)]
    return _gap(found[0] - found[1])


def crossing_of_curve(
    curve: Sequence[tuple[float, ...]],
    target: float,
    num_resamples: int = 1000,
    seed: int = 0,
) -> dict[str, float | None]:
    """The SNR in dB at which a curve has a target rate.

    Args:
        curve, target, num_resamples, seed: as for `gap_of_curves`.

    Returns:
        `{"snr_db", "snr_db_low", "snr_db_high"}` with a 95 % interval; `snr_db` is None
        where the curve does not cross, a bound is None where too many resamples do not.
    """
    rng = np.random.Generator(np.random.Philox(seed))
    found = _gap(_crossings(curve, target, num_resamples, rng))
    return {key.replace("gap_db", "snr_db"): value for key, value in found.items()}


def _crossings(curve, target, num_resamples, rng):
    """SNR at which the measured curve and resamples of it cross, NaN where they do not."""
    rows = [row for row in curve if row[1] > 0]
    if not rows:
        return np.full(num_resamples + 1, np.nan)
    snr, rate, low, high = np.array(rows).T
    # Where an interval reaches down to zero, its upper half gives the spread
    spread = np.where(low > 0, np.log(high / np.maximum(low, 1e-300)) / 2, np.log(high / rate))
    draws = rng.normal(size=(num_resamples + 1, len(rate)))
    draws[0] = 0  # the measured rates
    z = norm.ppf((1 + CONFIDENCE) / 2)
    return np.array([_cross(snr, row, target) for row in rate * np.exp(draws * spread / z)])


def paired_gaps(
    failed: Mapping[str, Mapping[float, np.ndarray]],
    reference: str,
    target: float,
    num_resamples: int = 1000,
    seed: int = 0,
    blocks_per_slot: int = 1,
) -> dict[str, dict[str, float | None]]:
    """How many dB more than a reference each detector needs for a target BLER.

    All curves come from the same draws. The interval resamples blocks (Poisson
    bootstrap), the same ones for all detectors, so that what they have in common cancels.
    A resampled rate of zero counts as half an error.

    Args:
        failed: {detector: {snr_db: bool array [blocks]}}, whether each block
            failed. Block i is the same draw for all detectors. A detector that
            dropped out early has fewer blocks.
        reference: name of one detector.
        target: BLER.
        num_resamples: resamples of the interval.
        seed: of the resamples.
        blocks_per_slot: how many blocks in a row are resampled together at least, because
            they share a draw.

    Returns:
        {detector: `{"gap_db", "gap_db_low", "gap_db_high"}`} for all but the
        reference; `gap_db` is None where a curve does not cross, a bound is None
        where too many resamples do not.
    """
    crossings = resampled_crossings(failed, target, num_resamples, seed, blocks_per_slot)
    return {
        name: _gap(values - crossings[reference])
        for name, values in crossings.items()
        if name != reference
    }


def resampled_crossings(
    failed: Mapping[str, Mapping[float, np.ndarray]],
    target: float,
    num_resamples: int = 1000,
    seed: int = 0,
    blocks_per_slot: int = 1,
    half_errors: bool = False,
) -> dict[str, np.ndarray]:
    """The SNRs at which detectors reach a target BLER, as measured and in resamples.

    Resample number i has the same blocks for all detectors, so that the difference of two
    rows is paired. The arguments are those of `paired_gaps`, and:

    Args:
        half_errors: whether a measured rate of zero counts as half an error, as resampled
            ones do. A curve that ends there then crosses.

    Returns:
        {detector: SNR in dB, float64 [1 + num_resamples]}, first as measured; NaN where a
        curve does not cross.
    """
    rng = np.random.Generator(np.random.Philox(seed))
    snrs = sorted({snr for curve in failed.values() for snr in curve})
    rates: dict[str, list[np.ndarray]] = {
        name: [] for name in failed
    }  # per point: [1 + num_resamples]
    for snr in snrs:
        longest = max(len(curve[snr]) for curve in failed.values() if snr in curve)
        # Blocks resampled together, which are whole slots
        size = blocks_per_slot * -(-longest // (_MAX_GROUPS * blocks_per_slot))
        weights = rng.poisson(1.0, (num_resamples + 1, -(-longest // size))).astype(float)
        weights[0] = 1  # the measured rates
        for name, curve in failed.items():
            if snr not in curve:
                rates[name].append(np.full(num_resamples + 1, np.nan))
                continue
            starts = np.arange(0, len(curve[snr]), size)
            errors = np.add.reduceat(curve[snr].astype(float), starts)
            blocks = np.diff(np.append(starts, len(curve[snr]))).astype(float)
            used = weights[:, : len(starts)]
            rate = used @ errors / np.maximum(used @ blocks, 1.0)
            resampled = rate if half_errors else rate[1:]
            np.maximum(resampled, 0.5 / len(curve[snr]), out=resampled)
            rates[name].append(rate)
    crossings = {}
    for name, columns in rates.items():
        curves = np.stack(columns, axis=1)
        crossings[name] = np.array([_cross(snrs, row, target) for row in curves])
    return crossings


def interval_of_samples(samples: np.ndarray) -> tuple[float, float | None, float | None]:
    """The measured value and the ends of its 95 % interval.

    Args:
        samples: float64 [1 + resamples], the measured value first; a difference of two rows
            of `resampled_crossings`, for instance. It has to be a number.

    Returns:
        The value, and both ends, which are None where too many resamples are NaN.
    """
    measured, resampled = samples[0], samples[1:]
    tail = (1 - CONFIDENCE) / 2
    if np.mean(np.isnan(resampled)) > tail:
        return float(measured), None, None
    low, high = np.nanquantile(resampled, [tail, 1 - tail]).tolist()
    return float(measured), low, high


_MAX_GROUPS = 2000


def _cross(snrs, rates, target):
    known = ~np.isnan(rates)
    found = crossing(np.asarray(snrs)[known], rates[known], target)
    return np.nan if found is None else found


def _gap(samples):
    if np.isnan(samples[0]):
        return {"gap_db": None, "gap_db_low": None, "gap_db_high": None}
    gap, low, high = interval_of_samples(samples)
    return {"gap_db": gap, "gap_db_low": low, "gap_db_high": high}
