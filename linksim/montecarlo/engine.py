"""The Monte-Carlo engine: shared draws, adaptive stop, resume."""

import hashlib
import importlib.metadata
import platform
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

import linksim
from linksim.errors import InvalidInput, check_choice, check_int, check_real
from linksim.link.scenario import Scenario, load_scenario
from linksim.link.simulator import LinkSimulator
from linksim.montecarlo.statistics import Counts, paired_gaps
from linksim.montecarlo.store import BatchResult, CountStore
from linksim.registry import parse_receiver

_PACKAGES = ("tensorflow", "keras", "sionna", "numpy", "scipy")
_DESCRIBE = ("--always", "--dirty", "--abbrev=40", "--exclude=*")


@dataclass(frozen=True)
class StopRule:
    """When a detector is done at an SNR point.

    Attributes:
        target_block_errors: enough block errors.
        max_blocks: enough blocks.
        relative_width: the BLER interval is narrower than this fraction of the
            BLER; 0 never stops on it.
    """

    target_block_errors: int
    max_blocks: int
    relative_width: float = 0.0

    def __post_init__(self):
        check_int("target_block_errors", self.target_block_errors)
        check_int("max_blocks", self.max_blocks)
        check_real("relative_width", self.relative_width, low=0)

    def done(self, counts):
        if counts.blocks >= self.max_blocks:
            return True
        if counts.block_errors >= self.target_block_errors:
            return True
        if self.relative_width and counts.block_errors:
            low, high = counts.bler_interval()
            return high - low <= self.relative_width * counts.bler
        return False


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
        on_progress: called as `f(snr_db, {detector: Counts}, active)` after every
            batch.
        on_point: called as `f(results)` after every finished point.

    Returns:
        The dictionary that `results.json` holds: `scenario`, `provenance`,
        `records` (one per detector and simulated point) and `gaps`.

    Raises:
        InvalidInput: unknown names, keys or values.
        ResultFileError: `store_path` is corrupted or belongs to other draws.

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
    with CountStore(store_path, identity, fresh=fresh, keys=keys) as store:

        def results():
            return {
                "scenario": scenario.to_dict(),
                "provenance": _provenance(simulator, seed, started, complete),
                "records": _records(store, detectors, simulator.link),
                "gaps": _gaps(store, detectors, reference, run.gap_bler),
            }

        try:
            below = set()  # detectors already far below the waterfall
            for point in points:
                names = [d for d in detectors if d not in below]
                if not names:
                    break
                _run_point(simulator, store, rule, names, point, seed, on_progress)
                for name in names:
                    if store.total(name, point).bler < run.min_bler:
                        below.add(name)
                if on_point is not None:
                    on_point(results())
        except KeyboardInterrupt:
            complete = False
        return results()


def _store_key(name, weights):
    """What results of a detector stand under: with other weights, another name."""
    digests = "".join(sorted(weights.values()))
    if not digests:
        return name
    return f"{name}@{hashlib.sha256(digests.encode()).hexdigest()[:12]}"


def _run_point(simulator, store, rule, names, point, seed, on_progress):
    """Run batches 0, 1, ... until every detector is done.

    Whether a detector goes on after batch b depends on batches 0..b alone, so a
    resumed run takes the decisions of an uninterrupted one.
    """
    totals = {name: Counts() for name in names}
    batch = 0
    while True:
        active = [name for name in names if not rule.done(totals[name])]
        if on_progress is not None:
            shown = {name: store.total(name, point) for name in names}
            on_progress(point, shown, active)
        if not active:
            return
        todo = [name for name in active if store.get(name, point, batch) is None]
        if todo:
            draws = simulator.draw(seed, point, batch)
            results = {name: run_batch(simulator, name, draws) for name in todo}
            store.append(point, batch, results)
        for name in active:
            totals[name] = totals[name] + store.get(name, point, batch).counts
        batch += 1


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


def _provenance(simulator, seed, started, complete):
    scenario = simulator.scenario
    versions = {p: importlib.metadata.version(p) for p in _PACKAGES if _installed(p)}
    return {
        "linksim": linksim.__version__,
        "git_commit": _git_commit(),
        "versions": {"python": platform.python_version(), **versions},
        "machine": {
            "platform": platform.platform(),
            "processor": platform.processor() or platform.machine(),
            "gpus": simulator.gpus,
        },
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "fingerprint": scenario.fingerprint(),
        "seed": seed,
        "batch_size": scenario.run.batch_size,
        "xla": simulator.xla,
        "weights": {name: w for name, w in simulator.weights.items() if w},
        "wall_seconds": round(time.perf_counter() - started, 1),
        "finished_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "complete": complete,
    }


def _installed(package):
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _git_commit():
    """Commit of the checkout that linksim runs from, or None."""
    checkout = Path(linksim.__file__).resolve().parent.parent
    if not (checkout / ".git").exists():
        return None  # installed, perhaps inside a repository of something else
    try:
        done = subprocess.run(
            # Locks nothing: killed, it would leave a lock that refuses every commit
            ["git", "--no-optional-locks", "describe", *_DESCRIBE],
            cwd=checkout,
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
