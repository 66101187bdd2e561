"""Published block error rates of LDPC codes on the AWGN channel, held by the whole link.

Each file in `published/` has a source, its setting, the scenario that has it, and counts.
"""

import json
import math
from pathlib import Path

import pytest

from linksim.link.link import Link
from linksim.link.scenario import load_scenario
from linksim.montecarlo.engine import simulate

FOLDER = Path(__file__).parent / "published"
# Those of codes name a scenario; `test_published_loops.py` has the others
FILES = sorted(f for f in FOLDER.glob("*.json") if "scenario" in json.loads(f.read_text()))
# Deviations that two counts of one rate may be apart; one pair of some 4600 is further
MOST = 3.7


def read(file):
    """The scenario of a file, and its points."""
    data = json.loads(file.read_text(encoding="utf-8"))
    assert data["source"] and data["setting"]
    points = tuple(point["ebno_db"] for point in data["points"])
    scenario = load_scenario("awgn-siso-qam4").replace(
        **data["scenario"],
        snr={"definition": "ebno", "points": points},
        run={"batch_size": 500},
    )
    return scenario, data["points"]


def deviations(errors, blocks, other_errors, other_blocks):
    """How far two rates are apart, in standard deviations of their difference."""
    rate = (errors + other_errors) / (blocks + other_blocks)
    deviation = math.sqrt(rate * (1 - rate) * (1 / blocks + 1 / other_blocks))
    return (errors / blocks - other_errors / other_blocks) / deviation


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_scenario_of_a_published_curve_exists(file):
    scenario, points = read(file)
    code, n, k = Link(scenario).code, *map(int, file.stem.split("-")[-2:])
    assert (code.num_coded_bits, code.num_info_bits) == (n, k)
    assert all(0 < p["block_errors"] < p["blocks"] for p in points)


def test_deviations():
    assert deviations(50, 100, 500, 1000) == 0
    assert abs(deviations(60, 100, 500, 1000)) < MOST < deviations(70, 100, 500, 1000)


@pytest.mark.slow
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_published_rates(file):
    scenario, points = read(file)
    for point in points:
        record = simulate(
            scenario,
            ["ml"],
            snr_db=point["ebno_db"],
            target_block_errors=150,
            max_blocks=30000,
        )["records"][0]
        apart = deviations(
            record["block_errors"], record["blocks"], point["block_errors"], point["blocks"]
        )
        assert abs(apart) < MOST, (point, record["bler"], record["blocks"])
