"""The scenario of Sionna's tutorial of iterative detection and decoding.

`test_published_loops.py` has our detectors in a loop of Sionna's blocks, as the tutorial has
it. Here all is ours, and the published rates are the same.
"""

import numpy as np
import pytest
import tensorflow as tf
from sionna.phy.utils import ebnodb2no

from linksim.link.link import Link
from linksim.link.scenario import load_scenario
from linksim.montecarlo.engine import simulate
from linksim.montecarlo.statistics import binomial_interval
from linksim.names import parse_receiver
from simulations.published import MOST, deviations, published_files

SCENARIO = load_scenario("rayleigh-16x4-qam16-idd").replace(run={"min_bler": 0.0})
MMSE = "mmse(demapping_method=maxlog)"
# {receiver of the tutorial: ours}
OURS = {
    "lmmse": MMSE,
    "mmse-pic/2": f"{MMSE}/2",
    "ep": "ep(damping=0.9,demapping_method=maxlog,num_iterations=10)",
    "kbest": "kbest(k=64)",
}


def rates(names, ebno_db, blocks, **options):
    """The records of receivers at one point, on the same draws."""
    options = {"max_blocks": blocks, "target_block_errors": 10**6, **options}
    return simulate(SCENARIO, names, snr_db=[ebno_db], **options)["records"]


def widened(record):
    """By how much the variance of a rate is larger than with independent codewords, as its
    interval has it: those of a slot share a channel."""
    rate, width = record["bler"], record["bler_high"] - record["bler_low"]
    independent = rate * (1 - rate) / record["blocks"]
    return max(1.0, (width / 2 / 1.96) ** 2 / independent) if independent else 1.0


def test_the_scenario_is_the_link_of_the_tutorial():
    link = Link(SCENARIO)
    assert (link.blocks_per_slot, link.num_uses) == (4, 12 * 48)
    assert link.code.num_coded_bits == 4 * 2304 and link.num_info_bits == 4 * 1152
    assert link.no(-7.0) == pytest.approx(float(ebnodb2no(-7.0, 4, 0.5)))
    batch = link.draw(link.keys(0, -7.0, 0), tf.constant(0.1), 0, 2)
    h = batch.h.numpy()
    # One channel for all uses of a slot, with the same energy from each user
    np.testing.assert_array_equal(h, np.broadcast_to(h[:, :1], h.shape))
    np.testing.assert_allclose((np.abs(h) ** 2).sum(2), 16.0, rtol=1e-5)


def test_codewords_that_fail_together_count_less():
    low, high = binomial_interval(50, 250)  # of the 1000 blocks every fourth counts
    record = {"bler": 0.2, "blocks": 1000, "bler_low": low, "bler_high": high}
    assert widened(record) == pytest.approx(4.0, rel=0.1)
    assert widened({**record, "blocks": 10}) == 1.0 == widened({**record, "bler": 0.0})


@pytest.mark.slow
@pytest.mark.parametrize("ebno_db, blocks", [(-7.0, 768), (-6.0, 1536)])
def test_published_rates_of_the_tutorial(ebno_db, blocks):
    published = published_files()["sionna-idd-16x4"]["receivers"]
    names = {parse_receiver(name).text: receiver for receiver, name in OURS.items()}
    assert set(published) == set(OURS)
    for record in rates(list(names), ebno_db, blocks):
        receiver = names[record["detector"]]
        (theirs,) = (p for p in published[receiver] if p["ebno_db"] == ebno_db)
        errors, words, wide = record["block_errors"], record["blocks"], widened(record)
        rate = theirs["block_errors"] / theirs["blocks"]
        print(f"{receiver} {ebno_db:g} dB: {errors}/{words}, published {rate:.4g}")
        if rate * words < 10:  # too few for a normal distribution
            assert binomial_interval(errors, words, 0.9998)[0] <= rate
            continue
        numbers = errors, words, theirs["block_errors"], theirs["blocks"]
        apart = deviations(*(number / wide for number in numbers))
        assert abs(apart) < MOST, (receiver, theirs, errors, words)
