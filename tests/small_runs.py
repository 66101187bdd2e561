"""Short simulations, and counts as a store holds them, for several tests."""

import numpy as np

from linksim.link.scenario import load_scenario
from linksim.montecarlo.engine import simulate
from linksim.montecarlo.statistics import Counts
from linksim.montecarlo.store import BatchResult

SMALL = load_scenario("gauss-markov-4x2-qpsk").replace(run={"batch_size": 20, "min_bler": 0.0})
COUNTS = (
    "detector",
    "snr_db",
    "bits",
    "bit_errors",
    "blocks",
    "block_errors",
    "symbol_errors",
)
IDENTITY = {"fingerprint": "abc", "seed": 0, "batch_size": 10}


def counts(results):
    return [tuple(r[k] for k in COUNTS) for r in results["records"]]


def run(**options):
    defaults = {"snr_db": [0, 4], "target_block_errors": 30, "max_blocks": 200}
    return simulate(SMALL, ["mmse", "zf"], **{**defaults, **options})


def result(errors):
    failed = np.arange(10) < errors
    return BatchResult(
        Counts(10, errors, 1000, 7 * errors, 49 * errors, 100, errors, errors, 0.5), failed
    )
