"""The Monte-Carlo engine: shared draws, adaptive stop, resume."""

import contextlib
import hashlib
import time

import numpy as np

from linksim.errors import InvalidInput, check_choice, check_int, check_real
from linksim.link.scenario import Scenario, load_scenario
from linksim.link.simulator import LinkSimulator
from linksim.montecarlo.remote import RemoteBatches
from linksim.montecarlo.schedule import Schedule, StopRule
from linksim.montecarlo.statistics import Counts, paired_gaps
from linksim.montecarlo.store import BatchResult, CountStore
from linksim.provenance import provenance
from linksim.registry import parse_receiver
from linksim.workers import InPlace, share_gpus


def run_batch(simulator, name, draws):
    """`BatchResult` of a detector on a `LinkBatch`."""
    link = simulator.link
    bits, symbols, seconds = simulator.errors(name, draws)
    counts = Counts(
        blocks=len(bits),
        block_errors=int(np.count_nonzero(bits)),
        bits=len(bits) * link.num_info_bits,
        bit_errors=int(bits.sum()),
        bit_errors_sq=int((bits**2).sum()),
        symbols=len(bits) * link.num_symbols,
        symbol_errors=int(symbols.sum()),
        symbol_errors_sq=int((symbols**2).sum()),
        seconds=round(seconds, 6),
    )
    return BatchResult(counts, bits > 0)


def run_job(simulator, seed, job):
    """Outcome of a `Job`: {detector: `BatchResult`, or the exception it ended with}."""
    try:
        draws = simulator.draw(seed, job.snr_db, job.batch)
    except Exception as error:
        return dict.fromkeys(job.detectors, error)
    outcome = {}
    for name in job.detectors:
        try:
            outcome[name] = run_batch(simulator, name, draws)
        except Exception as error:
            outcome[name] = error
    return outcome


def simulate(
    scenario,
    detectors=None,
    *,
    snr_db=None,
    target_block_errors=None,
    max_blocks=None,
    relative_width=0.0,
    seed=0,
    store_path=None,
    fresh=False,
    xla="auto",
    reference=None,
    workers=None,
    ray_address=None,
    on_progress=None,
    on_point=None,
):
    """Simulate a scenario: error rates of detectors on the same draws.

    Args:
        scenario: a `Scenario`, a name of `list_scenarios()`, or a TOML path.
        detectors: names, each `DETECTOR` or `DETECTOR+QUANTIZER[:bits]`; default
            those of the scenario.
        snr_db: SNR points in dB; default those of the scenario.
        target_block_errors, max_blocks, relative_width: the stop rule at each
            point; defaults of the scenario, and no width rule.
        seed: non-negative integer; equal seeds give equal draws.
        store_path: file of the raw counts, to be resumed and extended; None keeps
            them in memory.
        fresh: set an existing file aside instead of resuming it.
        xla: "auto", "on" or "off".
        reference: detector that gaps are measured against.
        workers: processes that compute batches, on Ray; counts do not depend on it.
            None computes in this process, or, with `ray_address`, on all CPUs (GPUs,
            if there are any) of the cluster.
        ray_address: of a Ray cluster, such as "10.0.0.1:6379" or "auto"; None starts
            the workers on this machine.
        on_progress: called as `f(snr_db, {detector: Counts}, active)` after every
            batch.
        on_point: called as `f(results)` after every finished point.

    Returns:
        The dictionary that `results.json` holds: `scenario`, `provenance`,
        `records` (one per detector and simulated point) and `gaps`.

    Raises:
        InvalidInput: unknown names, keys or values.
        ResultFileError: `store_path` is corrupted or belongs to other draws.
        WorkerError: a worker runs other software or has other weights than this
            process, or workers died again and again.

    A `KeyboardInterrupt` ends the simulation early with a valid result, whose
    `provenance["complete"]` is False.
    """
    if not isinstance(scenario, Scenario):
        scenario = load_scenario(scenario)
    run = scenario.run
    detectors = _names(detectors, run.detectors)
    points = tuple(run_points(scenario, snr_db))
    rule = StopRule(
        run.target_block_errors if target_block_errors is None else target_block_errors,
        run.max_blocks if max_blocks is None else max_blocks,
        relative_width,
    )
    check_int("seed", seed, minimum=0)
    if reference is None:
        reference = run.reference if run.reference in detectors else detectors[0]
    check_choice("reference", reference, detectors)
    if workers is not None:
        check_int("workers", workers)
    remote = workers is not None or ray_address is not None
    if remote:
        share_gpus()
    simulator = LinkSimulator(scenario, xla)
    for point in points:
        simulator.link.no(point)  # refuses a point out of range before any work
    for name in detectors:
        simulator.add_detector(name)

    identity = {
        "fingerprint": scenario.fingerprint(),
        "seed": seed,
        "batch_size": run.batch_size,
    }
    started = time.perf_counter()
    complete = True
    keys = {name: _store_key(name, simulator.weights[name]) for name in detectors}
    if remote:
        executor = RemoteBatches(simulator, seed, workers, ray_address)
    else:
        executor = InPlace(lambda job: run_job(simulator, seed, job))
    with (
        contextlib.closing(executor),
        CountStore(store_path, identity, fresh=fresh, keys=keys) as store,
    ):

        def results():
            return {
                "scenario": scenario.to_dict(),
                "provenance": provenance(simulator, seed, started, complete, executor.workers),
                "records": _records(store, detectors, simulator.link),
                "gaps": _gaps(store, detectors, reference, run.gap_bler),
            }

        schedule = Schedule(
            executor,
            store,
            rule,
            points,
            detectors,
            batch_size=run.batch_size,
            min_bler=run.min_bler,
            on_progress=on_progress,
            on_point=None if on_point is None else lambda: on_point(results()),
        )
        try:
            schedule.run()
        except KeyboardInterrupt:
            complete = False
        return results()


def _store_key(name, weights):
    """What results of a detector stand under: with other weights, another name."""
    digests = "".join(sorted(weights.values()))
    if not digests:
        return name
    return f"{name}@{hashlib.sha256(digests.encode()).hexdigest()[:12]}"


def _names(detectors, default):
    names = list(default if detectors is None else detectors)
    if not names:
        raise InvalidInput("detectors: empty, expected at least one name")
    for name in names:
        parse_receiver(name)
    return list(dict.fromkeys(names))


def run_points(scenario, snr_db):
    """Sorted, validated SNR points in dB."""
    if snr_db is None:
        return scenario.snr.points
    points = sorted({float(p) for p in np.atleast_1d(snr_db)})
    if not points:
        raise InvalidInput("snr_db: empty, expected at least one point")
    for point in points:
        check_real("snr_db", point, low=-200, high=200)
    return points


def _records(store, detectors, link):
    records = []
    for name in detectors:
        for point in store.points(name):
            c = store.total(name, point)
            ber, bler, ser = c.ber_interval(), c.bler_interval(), c.ser_interval()
            records.append(
                {
                    "detector": name,
                    "snr_db": point,
                    "no": link.no(point),
                    "bits": c.bits,
                    "bit_errors": c.bit_errors,
                    "ber": c.bit_errors / c.bits,
                    "ber_low": ber[0],
                    "ber_high": ber[1],
                    "blocks": c.blocks,
                    "block_errors": c.block_errors,
                    "bler": c.bler,
                    "bler_low": bler[0],
                    "bler_high": bler[1],
                    "symbols": c.symbols,
                    "symbol_errors": c.symbol_errors,
                    "ser": c.symbol_errors / c.symbols,
                    "ser_low": ser[0],
                    "ser_high": ser[1],
                    "seconds": round(c.seconds, 3),
                }
            )
    return records


def _gaps(store, detectors, reference, target):
    failed = {
        name: {point: store.failed(name, point) for point in store.points(name)}
        for name in detectors
    }
    return [
        {"detector": name, "reference": reference, "target_bler": target, **gap}
        for name, gap in paired_gaps(failed, reference, target).items()
    ]
