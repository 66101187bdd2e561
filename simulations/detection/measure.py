"""Measure receivers on a track: error rates, soft output and costs."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from linksim.complexity import interleaved_seconds
from linksim.link.costs import detector_costs
from linksim.link.receiver import create_receiver
from linksim.link.simulator import LinkSimulator
from linksim.montecarlo.engine import simulate
from linksim.montecarlo.store import read_counts
from linksim.names import split_passes

from ..papers.soft_output import simulate_rates
from .ranking import pack
from .receivers import family_of, training_of
from .tracks import Track

# The detector that times are divided by
UNIT = "mmse"
# Calls of each detector whose time is taken
REPEATS = 5
# What a result keeps of the provenance of its run
_MADE = ("linksim", "git_commit", "versions", "machine", "finished_at")


def measure(track: Track, names: Sequence[str], folder: Path) -> dict[str, Any]:
    """Measure receivers on a track.

    Args:
        track: the `Track`.
        names: of receivers. `UNIT` is measured along with them, as times are divided by its.
        folder: where the raw counts are, so that a run that was killed goes on.

    Returns:
        {receiver: what is known of it}, see `results/README.md`.

    Raises:
        KeyboardInterrupt: the run was interrupted; its counts are kept.
    """
    scenario = track.make_scenario()
    wanted = list(dict.fromkeys([UNIT, *names]))
    few = [name for name in wanted if split_passes(name)[0] in track.few]
    provenance = _simulated(track, scenario, wanted, few, folder / "counts.jsonl")
    _, store = read_counts(folder / "counts.jsonl")
    receivers = {name: create_receiver(name, scenario) for name in wanted}
    one_pass = list(dict.fromkeys(receiver.one_pass for receiver in receivers.values()))
    simulator = LinkSimulator(scenario)
    soft = _soft(track, simulator, one_pass)
    times = _times(track, simulator, one_pass)
    costs = detector_costs(scenario, one_pass)
    found = {}
    for name in names:
        receiver, cost = receivers[name], costs[receivers[name].one_pass]
        row = {
            "key": receiver.key,
            "family": family_of(name),
            "passes": receiver.num_passes,
            **training_of(receiver, scenario),
            # Those of a receiver of two passes are of its detector in the first one
            "parameters": cost["parameters"],
            "flops": cost["flops"],
            "us": times[receiver.one_pass],
            "us_ratio": times[receiver.one_pass] / times[UNIT],
            **_block_time(store, receiver.key, receivers[UNIT].key, track.snr_db),
            "information": None,
            "factor": None,
        }
        if receiver.num_passes == 1:  # LLRs of a second pass are those of failed blocks alone
            row |= {"information": soft[name]["rate"], "factor": soft[name]["factor"]}
        row["made"] = {key: provenance[key] for key in _MADE}
        row["points"] = [
            {
                "snr_db": point,
                "blocks": (total := store.total(receiver.key, point)).blocks,
                "block_errors": total.block_errors,
                "failed": pack(store.failed(receiver.key, point)),
            }
            for point in store.points(receiver.key)
            if point in track.points
        ]
        found[name] = row
    return found


def _simulated(track, scenario, wanted, few, path):
    """The provenance of a simulation whose counts go to a file."""
    provenance = {}
    others = [name for name in wanted if name not in few]
    for names, blocks in ((few, track.few_blocks), (others, track.blocks)):
        if not names:
            continue
        results = simulate(
            scenario,
            names,
            snr_db=track.points,
            # Where most blocks fail, a quarter of them says as much
            target_block_errors=max(1, track.blocks // 4),
            max_blocks=blocks,
            seed=track.seed,
            store_path=path,
            reference=names[0],
        )
        if not results["provenance"]["complete"]:
            raise KeyboardInterrupt
        provenance = results["provenance"]
    return provenance


def _soft(track, simulator, names):
    """{receiver: what `simulate_rates` says of its LLRs}."""
    scenario = simulator.scenario
    per_block = simulator.link.num_symbols * scenario.system.num_bits_per_symbol
    rows = simulate_rates(
        scenario,
        names,
        [track.snr_db],
        num_batches=math.ceil(track.soft_bits / (scenario.run.batch_size * per_block)),
        seed=track.seed,
        simulator=simulator,
    )
    return {row["detector"]: row for row in rows}


def _times(track, simulator, names):
    """{receiver: microseconds of detection for a vector}, all called by turns."""
    batch = simulator.draw(track.seed, track.snr_db, 0)
    calls = {name: functools.partial(simulator.detect, name, batch) for name in names}
    vectors = math.prod(batch.y.shape[:-1])
    return {
        name: 1e6 * float(np.median(seconds)) / vectors
        for name, seconds in interleaved_seconds(calls, REPEATS).items()
    }


def _block_time(store, key, unit, point):
    """The time of a block with decoding, and the same as a multiple of that of `UNIT`: medians
    over batches, so that what else the machine did in some of them does not count."""
    ms, ratios, batch = [], [], 0
    while (mine := store.get(key, point, batch)) is not None:
        ms.append(1e3 * mine.counts.seconds / mine.counts.blocks)
        other = store.get(unit, point, batch)
        if other is not None and other.counts.seconds:
            ratios.append(mine.counts.seconds / other.counts.seconds)
        batch += 1
    return {
        "ms_per_block": float(np.median(ms)) if ms else None,
        "block_ratio": float(np.median(ratios)) if ratios else None,
    }
