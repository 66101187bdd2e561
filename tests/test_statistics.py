"""Intervals against SciPy and against simulation; gaps against known curves."""

import numpy as np
import pytest
from scipy.stats import binomtest

from linksim.montecarlo.statistics import (
    Counts,
    binomial_interval,
    bound_by_blocks,
    clustered_interval,
    crossing,
    crossing_of_curve,
    gap_of_curves,
    paired_gaps,
    ratio_interval,
)


@pytest.mark.parametrize("errors, trials", [(0, 50), (1, 50), (17, 200), (50, 50)])
def test_binomial_interval_is_exact(errors, trials):
    expected = binomtest(errors, trials).proportion_ci(0.95, method="exact")
    np.testing.assert_allclose(binomial_interval(errors, trials), expected, atol=1e-12)


def test_clustered_interval_covers_the_truth():
    """Bit errors in blocks: half of the bits of one block in twenty."""
    rng = np.random.default_rng(0)
    covered, naive, runs = 0, 0, 400
    for _ in range(runs):
        per_block = np.where(rng.random(300) < 0.05, rng.binomial(100, 0.5, 300), 0)
        errors = int(per_block.sum())
        low, high = clustered_interval(errors, int((per_block**2).sum()), 30000, 300)
        covered += low <= 0.025 <= high
        low, high = binomial_interval(errors, 30000)
        naive += low <= 0.025 <= high
    assert covered / runs > 0.93
    assert naive / runs < 0.5  # what independent bits would claim


def test_clustered_interval_of_independent_bits_is_binomial():
    rng = np.random.default_rng(1)
    per_block = rng.binomial(100, 0.1, 2000)
    got = clustered_interval(per_block.sum(), (per_block**2).sum(), 200000, 2000)
    expected = binomial_interval(per_block.sum(), 200000)
    np.testing.assert_allclose(got, expected, rtol=5e-3)


def test_clustered_interval_without_and_with_one_error():
    assert clustered_interval(0, 0, 1000, 10) == binomial_interval(0, 10)
    low, high = clustered_interval(7, 49, 100000, 1000)
    assert low < 7e-5 < high and high / low > 50  # one event, not seven


@pytest.mark.parametrize("blocks_together", [1, 4])
def test_interval_of_a_ratio_covers_the_truth(blocks_together):
    """Lost transmissions: a block is sent again while it is lost, at most four times in all."""
    rng = np.random.default_rng(0)
    rates = np.array([0.6, 0.3, 0.3, 0.3])
    lost = np.cumprod(rates)
    truth = lost.sum() / (1 + lost[:3].sum())
    found, rate = [], []
    for _ in range(400):
        fails = np.cumprod(rng.random((200, 4)) < rates, axis=1)
        # Blocks of a slot fare alike, if there are several
        errors = blocks_together * fails.sum(axis=1)
        sent = blocks_together * (1 + fails[:, :3].sum(axis=1))
        found.append(ratio_interval(errors, sent))
        rate.append(errors.sum() / sent.sum())
    low, high = np.transpose(found)
    assert np.mean((low <= truth) & (truth <= high)) > 0.93
    # As every block ends with at most one success, rates vary less than independent ones
    width = np.mean(high - low) / (3.92 * np.std(rate))
    assert width < (1.2 if blocks_together > 1 else 1.7)


def test_interval_of_a_ratio_with_equal_clusters_is_the_clustered_one():
    errors = np.random.default_rng(1).binomial(8, 0.1, 100)
    expected = clustered_interval(int(errors.sum()), int((errors**2).sum()), 800, 100)
    np.testing.assert_allclose(ratio_interval(errors, np.full(100, 8)), expected)
    # Nothing is known about how many errors a cluster would have, or has
    ones = np.ones(50, int)
    assert ratio_interval(0 * ones, ones) == binomial_interval(0, 50)
    assert ratio_interval(4 * ones, 4 * ones) == binomial_interval(50, 50)
    assert ratio_interval(ones, 2 * ones) == binomial_interval(25, 50)
    assert ratio_interval(np.array([2]), np.array([3])) == binomial_interval(2 / 3, 1)


def test_crossing_is_linear_in_db():
    snr = [0, 2, 4]
    assert crossing(snr, [1.0, 0.1, 0.01], 0.1) == pytest.approx(2)
    assert crossing(snr, [1.0, 0.1, 0.01], 10**-1.5) == pytest.approx(3)
    assert crossing(snr, [0.5, 0.2, 0.15], 0.1) is None
    assert crossing(snr, [0.5, 0.2, 0.0], 0.1) is None  # zero: not measured


def test_gap_of_independent_curves_has_its_coverage():
    """Two curves of a decade per 2 dB, half a decibel apart."""
    rng = np.random.default_rng(5)
    snr = np.array([0.0, 2.0, 4.0])
    covered, runs, gaps, widths = 0, 300, [], []
    for _ in range(runs):
        curves = []
        for shift in (0.5, 0.0):
            errors = rng.binomial(20000, 10 ** (-1 - (snr - shift) / 2))
            curves.append(
                [
                    (s, e / 20000, *binomial_interval(int(e), 20000))
                    for s, e in zip(snr, errors)
                ]
            )
        gap = gap_of_curves(*curves, target=5e-3)
        assert gap["gap_db_low"] < gap["gap_db"] < gap["gap_db_high"]
        covered += gap["gap_db_low"] <= 0.5 <= gap["gap_db_high"]
        gaps.append(gap["gap_db"])
        widths.append(gap["gap_db_high"] - gap["gap_db_low"])
    assert covered / runs > 0.93
    # Exact binomial intervals are a little wider than the normal ones
    assert 0.95 < np.mean(widths) / (2 * 1.96 * np.std(gaps)) < 1.2
    flat = [(s, 0.1, 0.09, 0.11) for s in snr]
    assert gap_of_curves(flat, curves[0], 5e-3)["gap_db"] is None
    assert gap_of_curves([], curves[0], 5e-3)["gap_db"] is None


def test_the_crossing_of_a_curve_has_its_coverage():
    """A decade per 2 dB, which crosses 0.3 between two points."""
    rng = np.random.default_rng(6)
    snr, target, runs = np.array([-0.5, 0.5, 1.5, 2.5]), 0.3, 200
    truth = 2 * (np.log10(0.4) - np.log10(target))
    covered = 0
    for _ in range(runs):
        errors = rng.binomial(200, 0.4 * 10 ** (-snr / 2))
        curve = [(s, e / 200, *binomial_interval(int(e), 200)) for s, e in zip(snr, errors)]
        found = crossing_of_curve(curve, target, num_resamples=300)
        covered += found["snr_db_low"] <= truth <= found["snr_db_high"]
    assert 0.92 < covered / runs < 0.995
    nothing = {"snr_db": None, "snr_db_low": None, "snr_db_high": None}
    assert crossing_of_curve(curve[2:], target) == nothing == crossing_of_curve([], target)


def test_paired_gap_is_found_and_tighter_than_unpaired():
    """Two detectors, one a shift of the other by 0.5 dB, on common fades."""
    rng = np.random.default_rng(2)
    snrs = [0.0, 1.0, 2.0, 3.0]
    fade = {s: rng.logistic(size=3000) for s in snrs}
    curves = {
        "a": {s: fade[s] > s + 1 for s in snrs},
        "b": {s: fade[s] > s + 0.5 for s in snrs},
        "c": {s: rng.logistic(size=3000) > s + 0.5 for s in snrs},
        "floor": {s: fade[s] > -5 for s in snrs},
    }
    gaps = paired_gaps(curves, "a", 0.1)
    assert gaps["b"]["gap_db"] == pytest.approx(0.5, abs=0.1)
    assert gaps["b"]["gap_db_low"] < 0.5 < gaps["b"]["gap_db_high"]
    width = {n: gaps[n]["gap_db_high"] - gaps[n]["gap_db_low"] for n in "bc"}
    assert width["b"] < 0.7 * width["c"]
    assert gaps["floor"] == {"gap_db": None, "gap_db_low": None, "gap_db_high": None}


def test_gap_with_early_drop_out_and_many_blocks():
    rng = np.random.default_rng(3)
    curves = {
        "a": {0.0: rng.random(50) < 0.5, 1.0: rng.random(9001) < 0.05},
        "b": {0.0: rng.random(300) < 0.4, 1.0: rng.random(9001) < 0.02},
    }
    gap = paired_gaps(curves, "a", 0.1)["b"]
    assert gap["gap_db_low"] < gap["gap_db"] < gap["gap_db_high"]


def record(snr_db, blocks, failed, bits, wrong):
    """A record of a curve, with symbols that are wrong where bits are."""
    counts = Counts(blocks, failed, bits * blocks, wrong, 0, bits * blocks, wrong, 0)
    rates = {
        "bler": failed / blocks,
        "ber": wrong / bits / blocks,
        "ser": wrong / bits / blocks,
    }
    row = {"snr_db": snr_db, "block_errors": failed, **rates}
    row["bler_high"] = counts.bler_interval()[1]
    for rate in ("ber", "ser"):
        row[f"{rate}_high"] = binomial_interval(min(wrong, 1), blocks)[1]
    return row


def test_a_rate_of_zero_is_bounded_by_what_failed_blocks_hold():
    """Few bits of a block are wrong where one fails, so the bound of BER is below BLER's."""
    curve = [
        record(0, 1000, 100, 500, 5000),
        record(1, 1000, 10, 500, 100),
        record(2, 1000, 0, 500, 0),
        record(3, 4000, 0, 500, 0),
    ]
    bounded = bound_by_blocks(curve)
    assert bounded[:2] == curve[:2]
    for before, after in zip(curve[2:], bounded[2:]):
        # Ten bits of 500 were wrong in a failed block
        assert after["ber_high"] == pytest.approx(before["bler_high"] / 50)
        assert after["ser_high"] == after["ber_high"] < curve[1]["ber"]
        assert {**after, "ber_high": 0, "ser_high": 0} == {
            **before,
            "ber_high": 0,
            "ser_high": 0,
        }
    assert bound_by_blocks(bounded) == bounded
    # Where nothing is known, a block may be wrong in every bit
    assert bound_by_blocks(curve[2:]) == curve[2:]
    assert bound_by_blocks([]) == []


@pytest.mark.parametrize("share", [0.001, 0.05, 0.5])
def test_the_bound_holds_the_rate_that_it_is_for(share, rng):
    """Curves whose next point is better: the true rate stands below in 97 % of all runs."""
    bler, bits, blocks, inside, zeros = 2e-3, 1000, 1000, 0, 0
    for _ in range(400):
        failed = int(rng.binomial(blocks, 10 * bler))
        wrong = int(np.maximum(rng.binomial(bits, share, failed), 1).sum())
        if not failed or rng.binomial(blocks, bler):
            continue
        zeros += 1
        curve = [record(0, blocks, failed, bits, wrong), record(1, blocks, 0, bits, 0)]
        inside += bound_by_blocks(curve)[1]["ber_high"] > bler * share
    assert zeros > 30 and inside / zeros > 0.95


def test_blocks_of_a_slot_that_fail_together_are_no_more_than_slots():
    """Two users that always fail together say as much as one of them."""
    failed = np.random.default_rng(0).random(300) < 0.3
    twice = np.repeat(failed, 2)
    alone = Counts(blocks=300, block_errors=int(failed.sum()))
    both = Counts(blocks=600, block_errors=int(twice.sum()))
    low, high = both.bler_interval(2 * failed)
    assert (low, high) == pytest.approx(alone.bler_interval(), rel=0.02)
    assert high - low > 1.3 * np.ptp(both.bler_interval())
    # Users that fail on their own say nearly twice as much
    apart = np.random.default_rng(1).random((300, 2)) < 0.3
    own = Counts(blocks=600, block_errors=int(apart.sum()))
    assert np.ptp(own.bler_interval(apart.sum(axis=1))) < 0.85 * (high - low)
    # The gap between two curves is resampled by slots, too
    curves = {
        name: {snr: np.repeat(np.random.default_rng(seed).random(400) < p, 2)}
        for name, seed in (("a", 2), ("b", 3))
        for snr, p in ((0.0, 0.3),)
    }
    for name, p in (("a", 0.02), ("b", 0.04)):
        curves[name][2.0] = np.repeat(np.random.default_rng(4).random(400) < p, 2)
    widths = []
    for blocks_per_slot in (1, 2):
        gap = paired_gaps(curves, "a", 0.1, blocks_per_slot=blocks_per_slot)["b"]
        widths.append(gap["gap_db_high"] - gap["gap_db_low"])
    assert widths[1] > 1.25 * widths[0]
