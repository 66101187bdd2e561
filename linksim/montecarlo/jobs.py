"""One batch of a run: drawn, detected, decoded and counted."""

from __future__ import annotations

import functools

import numpy as np

from linksim.link.simulator import LinkSimulator
from linksim.montecarlo.schedule import Job
from linksim.montecarlo.statistics import Counts
from linksim.montecarlo.store import BatchResult


def run_batch(
    simulator: LinkSimulator, name: str, draws, detections=None, later=None
) -> BatchResult:
    """Count the errors of one receiver on one batch.

    Args:
        simulator: the `LinkSimulator` with the receiver.
        name: of the receiver.
        draws: the `LinkBatch`.
        detections: what the receivers of the batch share, see `LinkSimulator.errors`.
        later: with HARQ, function from the number of a transmission, from 1, to its
            `LinkBatch`; without it no block is sent again.
    """
    link = simulator.link
    earlier: tuple = ()
    if len(link.codes) > 1 and later is not None:
        found = simulator.harq(name, lambda t: later(t) if t else draws, detections)
        bits, symbols, seconds = found.bit_errors, found.symbol_errors, found.seconds
        earlier = tuple(found.failed[:-1])
    else:
        bits, symbols, seconds = simulator.errors(name, draws, detections)
    slots = len(bits) // link.blocks_per_slot
    # Users of a slot may fail together, so that slots are what varies independently
    slot_bits, slot_symbols = (x.reshape(slots, -1).sum(axis=1) for x in (bits, symbols))
    counts = Counts(
        blocks=len(bits),
        block_errors=int(np.count_nonzero(bits)),
        bits=slots * link.num_info_bits,
        bit_errors=int(bits.sum()),
        bit_errors_sq=int((slot_bits**2).sum()),
        symbols=slots * link.num_symbols,
        symbol_errors=int(symbols.sum()),
        symbol_errors_sq=int((slot_symbols**2).sum()),
        seconds=round(seconds, 6),
    )
    return BatchResult(counts, bits > 0, earlier)


def run_job(
    simulator: LinkSimulator, seed: int, job: Job
) -> dict[str, BatchResult | Exception]:
    """Compute a `Job`.

    Returns:
        {receiver: its `BatchResult`, or the exception that it ended with}.
    """
    try:
        draws = simulator.draw(seed, job.snr_db, job.batch)
    except Exception as error:
        return dict.fromkeys(job.detectors, error)
    # Receivers share what is sent again
    later = functools.cache(functools.partial(simulator.draw, seed, job.snr_db, job.batch))
    outcome: dict[str, BatchResult | Exception] = {}
    detections: dict = {}
    for name in job.detectors:
        try:
            outcome[name] = run_batch(simulator, name, draws, detections, later)
        except Exception as error:
            outcome[name] = error
    return outcome
