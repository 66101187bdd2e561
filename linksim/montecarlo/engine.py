"""The Monte-Carlo engine: common draws, adaptive stop, resume."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from linksim.errors import InvalidInput, as_list, check_choice, check_int, check_real
from linksim.files import as_path
from linksim.link.receiver import is_outdated
from linksim.link.scenario import Scenario, load_scenario
from linksim.link.simulator import LinkSimulator
from linksim.montecarlo.harq import harq_record
from linksim.montecarlo.jobs import run_job
from linksim.montecarlo.remote import RemoteBatches
from linksim.montecarlo.schedule import Schedule, StopRule
from linksim.montecarlo.statistics import bound_by_blocks, paired_gaps
from linksim.montecarlo.store import CountStore
from linksim.names import parse_receiver
from linksim.provenance import provenance
from linksim.workers import InPlace, share_gpus


def simulate(
    scenario: Scenario | str | Path,
    detectors: Iterable[Any] | None = None,
    *,
    snr_db: float | Sequence[float] | None = None,
    target_block_errors: int | None = None,
    max_blocks: int | None = None,
    relative_width: float = 0.0,
    seed: int = 0,
    store_path: str | Path | None = None,
    fresh: bool = False,
    xla: str = "auto",
    reference: str | None = None,
    everything: bool = False,
    workers: int | None = None,
    ray_address: str | None = None,
    on_progress: Callable[..., None] | None = None,
    on_point: Callable[[dict[str, Any]], None] | None = None,
    next_point: Callable[[list[dict[str, Any]]], float | None] | None = None,
) -> dict[str, Any]:
    """Simulate a scenario: error rates of detectors on the same draws.

    Args:
        scenario: a `Scenario`, a name of `list_scenarios()`, or a TOML path.
        detectors: names, as in "ml", "kbest(k=16)" or "ep+eqnet-mi:6" (see
            `linksim.names`); or detector layers, alone or as `(name, layer)`. Default: those
            of the scenario.
        snr_db: SNR points in dB; default those of the scenario.
        target_block_errors, max_blocks, relative_width: the stop rule at each
            point; default that of the scenario, without a width rule.
        seed: non-negative integer; equal seeds give equal draws.
        store_path: file of the raw counts, to be resumed and extended; None keeps
            them in memory.
        fresh: set an existing file aside instead of resuming it.
        xla: "auto", "on" or "off".
        reference: name of the detector that gaps are measured against.
        everything: whether the result also has the other detectors that `store_path` holds.
        workers: number of processes that compute batches, on Ray; counts do not depend on
            it. None computes in this process, or, with `ray_address`, on all CPUs (all
            GPUs, if there are any) of the cluster.
        ray_address: of a Ray cluster, such as "10.0.0.1:6379" or "auto"; None starts
            the workers on this machine.
        on_progress: called as `f(snr_db, {detector: Counts}, active)` after every
            batch.
        on_point: called as `f(results)` after every finished point.
        next_point: chooses which SNR points are simulated, and in which order: called as
            `f(records)` with the records of the points that it has chosen so far, it returns
            another one of them, or None at the end. All detectors are simulated at each.
            Without it all points are simulated upwards, and a detector is left out where
            `run.min_bler` says so.

    Returns:
        The dictionary that `results.json` holds: `scenario`, `provenance`,
        `records` (one per detector and simulated point) and `gaps`.

    Raises:
        InvalidInput: unknown names, keys or values, or a layer for another system.
        ResultFileError: `store_path` is corrupted or belongs to other draws.
        WorkerError: a worker runs other software or has other weights than this
            process, or workers died again and again.

    A `KeyboardInterrupt` ends the simulation early with a valid result, whose
    `provenance["complete"]` is False.
    """
    started = time.perf_counter()
    chosen = scenario if isinstance(scenario, Scenario) else load_scenario(scenario)
    detectors = chosen.run.detectors if detectors is None else detectors
    detectors = as_list("detectors", detectors, "names or layers")
    if store_path is not None:
        store_path = as_path("store_path", store_path)
    for name, function in (
        ("on_progress", on_progress),
        ("on_point", on_point),
        ("next_point", next_point),
    ):
        if function is not None and not callable(function):
            raise InvalidInput(f"{name}: got {function!r}, expected a function")
    points = run_points(chosen, snr_db)
    rule = _stop_rule(chosen.run, target_block_errors, max_blocks, relative_width)
    check_int("seed", seed, minimum=0)
    seed = int(seed)  # NumPy's integers cannot be written to JSON
    if workers is not None:
        check_int("workers", workers)
    remote = workers is not None or ray_address is not None
    if remote:
        _check_remote(detectors)
        share_gpus()
    simulator = _simulator(chosen, detectors, points, xla)
    reference = _reference(reference, chosen, list(simulator.receivers))
    executor: RemoteBatches | InPlace
    if remote:
        executor = RemoteBatches(simulator, seed, workers, ray_address)
    else:
        executor = InPlace(lambda job: run_job(simulator, seed, job))
    with contextlib.closing(executor), _store(simulator, seed, store_path, fresh) as store:
        earlier = {}
        if everything:
            earlier = store.earlier(functools.partial(is_outdated, chosen))
        own = {name: name for name in simulator.receivers}
        keys = own | earlier
        # Their counts do not change in this run
        earlier_records = _records(store, earlier, simulator)

        def results(complete: bool = True) -> dict[str, Any]:
            made = provenance(simulator, seed, started, complete, executor.workers)
            return {
                "scenario": chosen.to_dict(),
                "provenance": {**made, "earlier": earlier},
                "records": _records(store, own, simulator) + earlier_records,
                "gaps": _gaps(store, keys, simulator, reference),
            }

        def run(points):
            Schedule(
                executor,
                store,
                rule,
                points,
                list(simulator.receivers),
                batch_size=chosen.run.batch_size * simulator.link.blocks_per_slot,
                min_bler=chosen.run.min_bler,
                on_progress=on_progress,
                on_point=None if on_point is None else lambda: on_point(results()),
            ).run()

        try:
            if next_point is None:
                run(points)
            else:
                for point in _chosen_points(
                    next_point, points, lambda: _records(store, own, simulator)
                ):
                    run([point])
        except KeyboardInterrupt:
            return results(complete=False)
        return results()


def run_points(
    scenario: Scenario, snr_db: float | Sequence[float] | None
) -> tuple[float, ...]:
    """Sorted, validated SNR points in dB; those of the scenario for None.

    Raises:
        InvalidInput: no point, or one that is no number from -200 to 200.
    """
    if snr_db is None:
        return scenario.snr.points
    try:
        points = np.atleast_1d(snr_db).ravel().tolist()
    except (TypeError, ValueError):
        raise InvalidInput(f"snr_db: got {snr_db!r}, expected numbers in dB") from None
    if not points:
        raise InvalidInput("snr_db: empty, expected at least one point")
    for point in points:
        check_real("snr_db", point, low=-200, high=200, unit="dB")
    return tuple(sorted({float(point) for point in points}))


def _chosen_points(next_point, points, records):
    """The points that a function chooses, one after the other.

    The function sees the records of points that this run has finished, and none that the store
    has from an earlier run. A run that was killed therefore takes the same way again.
    """
    done: set[float] = set()
    while True:
        point = next_point([r for r in records() if r["snr_db"] in done])
        if point is None:
            return
        if point not in points or point in done:
            raise InvalidInput(
                f"next_point: returned {point!r}, expected None or one of the points that are "
                f"left: {sorted(set(points) - done)}"
            )
        yield point
        done.add(point)


def _stop_rule(run, target_block_errors, max_blocks, relative_width):
    return StopRule(
        run.target_block_errors if target_block_errors is None else target_block_errors,
        run.max_blocks if max_blocks is None else max_blocks,
        relative_width,
    )


def _check_remote(detectors):
    layers = [what for what in detectors if not isinstance(what, str)]
    if layers:
        raise InvalidInput(
            "detectors: workers make detectors by their names, so layers cannot be simulated "
            "by them; give the class a name with linksim.register_detector"
        )


def _simulator(scenario, detectors, points, xla):
    """The `LinkSimulator` with all receivers, after everything that can be refused."""
    if not detectors:
        raise InvalidInput("detectors: empty, expected at least one name")
    # Names are read first: a mistake in the last one is found before weights are loaded
    detectors = [parse_receiver(d) if isinstance(d, str) else d for d in detectors]
    simulator = LinkSimulator(scenario, xla)
    for point in points:
        simulator.link.no(point)  # refuses a point that is out of range
    for detector in detectors:
        simulator.add_detector(detector)
    return simulator


def _reference(reference, scenario, names):
    """The name of the receiver that gaps are measured against."""
    if reference is None:
        given = scenario.run.reference
        given = parse_receiver(given).text if given else ""
        return given if given in names else names[0]
    if not isinstance(reference, str) or reference not in names:
        reference = parse_receiver(reference, "reference").text
    check_choice("reference", reference, names)
    return reference


def _store(simulator, seed, path, fresh):
    identity = {
        "fingerprint": simulator.scenario.fingerprint(),
        "seed": seed,
        "batch_size": simulator.scenario.run.batch_size,
    }
    keys = {name: receiver.key for name, receiver in simulator.receivers.items()}
    drawn = simulator.scenario.drawn()
    return CountStore(path, identity, fresh=fresh, keys=keys, drawn=drawn)


def _records(store, keys, simulator):
    records = []
    for name, key in keys.items():
        curve = []
        for point in store.points(key):
            c, in_slot = store.total(key, point), simulator.link.blocks_per_slot
            ber, ser = c.ber_interval(in_slot), c.ser_interval(in_slot)
            failed = None
            if in_slot > 1:
                failed = store.failed(key, point).reshape(-1, in_slot).sum(axis=1)
            bler = c.bler_interval(failed)
            if len(simulator.link.codes) > 1:
                delivered = harq_record(store.failed_after(key, point), simulator.link)
            else:
                delivered = simulator.link.throughput_of(c.bler, bler)
            curve.append(
                {
                    "detector": name,
                    "snr_db": point,
                    "no": simulator.link.no(point),
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
                    **delivered,
                    "seconds": round(c.seconds, 3),
                }
            )
        records += bound_by_blocks(curve)
    return records


def _gaps(store, keys, simulator, reference):
    target = simulator.scenario.run.gap_bler
    failed = {
        name: {point: store.failed(key, point) for point in store.points(key)}
        for name, key in keys.items()
    }
    if not any(failed.values()):  # it was interrupted before its first batch
        return []
    in_slot = simulator.link.blocks_per_slot
    gaps = paired_gaps(failed, reference, target, blocks_per_slot=in_slot)
    return [
        {"detector": name, "reference": reference, "target_bler": target, **gap}
        for name, gap in gaps.items()
    ]
