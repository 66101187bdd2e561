"""Batch sizes from a memory budget."""

import pytest

from linksim.errors import InvalidInput
from linksim.link.scenario import load_scenario
from linksim.link.simulator import LinkSimulator
from linksim.montecarlo.batching import batch_size_for

SCENARIO = load_scenario("gauss-markov-4x2-qpsk")
NAMES = ["mmse", "ml"]


def peak(size):
    simulator = LinkSimulator(SCENARIO.replace(run={"batch_size": size}))
    for name in NAMES:
        simulator.add_detector(name)
    return simulator.peak_memory()


def test_the_largest_batch_that_fits():
    enough, more = peak(50), peak(100)
    assert 1.5 * enough < more < 2.1 * enough
    assert batch_size_for(SCENARIO, NAMES, enough) == 50
    assert batch_size_for(SCENARIO, NAMES, more - 1) == 50


def test_blocks_of_a_point_limit_it():
    assert batch_size_for(SCENARIO, NAMES, 2**40, max_blocks=60) == 50


def test_memory_grows_with_the_detector():
    simulator = LinkSimulator(SCENARIO.replace(run={"batch_size": 100}))
    simulator.add_detector("mmse")
    alone = simulator.peak_memory()
    # Without its tensors for all hypotheses at once ML would need no more
    simulator.add_detector("ml")
    assert simulator.peak_memory() > alone


def test_what_does_not_fit_is_refused():
    with pytest.raises(InvalidInput, match="memory: got 1000 bytes, one block of gauss"):
        batch_size_for(SCENARIO, NAMES, 1000)
    for memory in (0, float("nan"), "4"):
        with pytest.raises(InvalidInput, match="memory"):
            batch_size_for(SCENARIO, NAMES, memory)
