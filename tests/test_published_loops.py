"""Published block error rates of iterative detection and decoding, held by our detectors."""

import json

import numpy as np
import pytest
import tensorflow as tf

import linksim
from linksim.montecarlo.statistics import binomial_interval
from simulations.published import FOLDER, MOST, deviations
from tests.idd_link import BITS, USERS, IDDLink

FILE = FOLDER / "sionna-idd-16x4.json"
# {receiver of the file: (detector, passes)}
OURS = {
    "lmmse": ("mmse", 1),
    "mmse-pic/2": ("mmse", 2),
    "ep": ("ep", 1),
    "kbest": ("kbest", 1),
}
OPTIONS = {
    "mmse": {"demapping_method": "maxlog"},
    "ep": {"num_iterations": 10, "damping": 0.9, "demapping_method": "maxlog"},
    "kbest": {"k": 64},
}


def published():
    data = json.loads(FILE.read_text(encoding="utf-8"))
    assert data["source"] and data["setting"]
    return data["receivers"]


def link(*names):
    detectors = {}
    for name in names:
        layer = linksim.create_detector(
            name, num_streams=USERS, num_bits_per_symbol=BITS, **OPTIONS[name]
        )
        compiled = tf.function(layer, jit_compile=True) if layer.xla_on_cpu else layer
        detectors[name] = compiled
    passes = {name: (1, 2, 3) if name == "mmse" else (1,) for name in names}
    return IDDLink(detectors, passes)


def spread(wrong):
    """By how much the variance of a rate is larger than with independent codewords.

    Args:
        wrong: wrong codewords of each grid, of `USERS`.
    """
    rate = wrong.mean() / USERS
    independent = USERS * rate * (1 - rate)
    return max(1.0, wrong.var(ddof=1) / independent) if independent else 1.0


def test_the_file_has_the_receivers_that_are_held():
    assert set(published()) == set(OURS)
    for points in published().values():
        assert [p["ebno_db"] for p in points] == [-7.0, -6.0]
        assert all(0 < p["block_errors"] < p["blocks"] for p in points)


def test_codewords_that_fail_together_count_less():
    assert spread(np.array([0, 4, 0, 4] * 50)) == pytest.approx(4.0, rel=0.01)
    assert spread(np.array([1, 3, 2, 2] * 50)) == 1.0 == spread(np.zeros(8, int))


def test_further_passes_mend_codewords():
    found = link("mmse").count(-7.0, 1, 16)
    one, two, three = (found["mmse", passes].sum() for passes in (1, 2, 3))
    assert found["mmse", 1].shape == (16,) and 5 < one < 45
    assert three <= two < one / 2


@pytest.mark.slow
def test_published_rates_of_loops():
    ours = link("mmse", "ep", "kbest")
    rates = published()
    for point, num_batches in enumerate((6, 12)):
        found = ours.count(-7.0 + point, num_batches, 32)
        assert found["mmse", 3].sum() <= found["mmse", 2].sum() < found["mmse", 1].sum() / 2
        for receiver, key in OURS.items():
            theirs, wrong = rates[receiver][point], found[key]
            errors, words, wide = int(wrong.sum()), USERS * len(wrong), spread(wrong)
            rate = theirs["block_errors"] / theirs["blocks"]
            print(
                f"{receiver} {theirs['ebno_db']:g} dB: {errors}/{words}, published {rate:.4g}"
            )
            if rate * words < 10:  # too few for a normal distribution
                assert binomial_interval(errors, words, 0.9998)[0] <= rate
                continue
            numbers = errors, words, theirs["block_errors"], theirs["blocks"]
            apart = deviations(*(number / wide for number in numbers))
            assert abs(apart) < MOST, (receiver, theirs, errors, words)
