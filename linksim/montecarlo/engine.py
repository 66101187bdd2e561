"""The Monte-Carlo engine: shared draws, adaptive stop, resume."""

import importlib.metadata
import platform
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import tensorflow as tf

import linksim
from linksim.errors import InvalidInput, check_choice, check_int, check_real
from linksim.link.link import Link
from linksim.link.scenario import Scenario, load_scenario
from linksim.montecarlo.statistics import Counts, paired_gaps
from linksim.montecarlo.store import BatchResult, CountStore
from linksim.registry import create_detector

XLA_MODES = ("auto", "on", "off")
_PACKAGES = ("tensorflow", "keras", "sionna", "numpy", "scipy")


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


class LinkSimulator:
    """Compiled functions of one scenario: draw, detect, decode and count.

    Draws are always made in graph mode: XLA draws other Gaussians for the same
    key, and a run must not depend on how its detectors are compiled.

    Args:
        scenario: the `Scenario`.
        xla: "on", "off", or "auto": compile a detector with XLA where that is
            faster. On CPU that is not so for those that live on LAPACK.
    """

    def __init__(self, scenario, xla="auto"):
        check_choice("xla", xla, XLA_MODES)
        self.scenario = scenario
        self.link = Link(scenario)
        self._xla = xla
        self._has_gpu = bool(tf.config.list_physical_devices("GPU"))
        self._detect = {}
        self._cold = set()  # detectors whose first, compiling, call is to come
        self._draw = tf.function(self.link.draw, autograph=False)
        self._count = tf.function(
            self._count_batch, autograph=False, jit_compile=xla != "off"
        )

    def add_detector(self, name):
        """Build and compile a detector of the registry, once."""
        if name in self._detect:
            return
        detector = create_detector(
            name,
            num_streams=self.link.num_streams,
            num_bits_per_symbol=self.link.num_bits_per_symbol,
        )
        rows = self.link.num_rx * (2 if self.link.num_bits_per_symbol == 1 else 1)
        if detector.needs_full_column_rank and rows < self.link.num_streams:
            raise InvalidInput(
                f"{name}: {self.link.num_rx} receive antennas for "
                f"{self.link.num_streams} streams; this detector needs at least as "
                "many antennas as streams"
            )
        function = _soft_and_hard(detector)
        if not detector.eager_only:
            use_xla = self._xla == "on" or (
                self._xla == "auto" and (detector.xla_on_cpu or self._has_gpu)
            )
            function = tf.function(function, autograph=False, jit_compile=use_xla)
        self._detect[name] = function
        if not detector.eager_only:
            self._cold.add(name)

    def draw(self, seed, snr_db, batch):
        """The `LinkBatch` number `batch` of an SNR point."""
        size = self.scenario.run.batch_size
        result = self._draw(
            tf.constant(self.link.keys(seed, snr_db, batch)),
            tf.constant(self.link.no(snr_db), tf.float32),
            tf.constant(batch * size, tf.int32),
            size,
        )
        for name in ("y", "h_hat"):
            if not np.all(np.isfinite(getattr(result, name).numpy())):
                raise InvalidInput(
                    f"{self.scenario.name}: {name} contains NaN or inf at {snr_db} dB; "
                    "check the channel's parameters"
                )
        return result

    def detect(self, name, batch):
        """LLRs [B, U, K, m] and symbol decisions [B, U, K] of a `LinkBatch`."""
        return self._detect[name](batch.y, batch.h_hat, batch.no)

    def run_batch(self, name, batch):
        """`BatchResult` of a detector on a `LinkBatch`."""
        if name in self._cold:
            # Compilation is not part of what a detector costs
            self._count(batch.bits, batch.symbols, *self.detect(name, batch))
            self._cold.discard(name)
        start = time.perf_counter()
        llrs, symbols = self.detect(name, batch)
        bits, symbol_errors, finite = self._count(
            batch.bits, batch.symbols, llrs, symbols
        )
        bits, symbol_errors = bits.numpy().astype(int), symbol_errors.numpy().astype(int)
        seconds = time.perf_counter() - start
        if not finite.numpy():
            raise RuntimeError(f"{name}: the LLRs contain NaN; please report this")
        counts = Counts(
            blocks=len(bits),
            block_errors=int(np.count_nonzero(bits)),
            bits=len(bits) * self.link.num_info_bits,
            bit_errors=int(bits.sum()),
            bit_errors_sq=int((bits**2).sum()),
            symbols=len(bits) * self.link.num_symbols,
            symbol_errors=int(symbol_errors.sum()),
            symbol_errors_sq=int((symbol_errors**2).sum()),
            seconds=round(seconds, 6),
        )
        return BatchResult(counts, bits > 0)

    def _count_batch(self, bits, symbols, llrs, decided):
        finite = tf.logical_not(tf.reduce_any(tf.math.is_nan(llrs)))
        return *self.link.count_errors(bits, symbols, llrs, decided), finite


def _soft_and_hard(detector):
    """A function (y, h, no) -> LLRs and symbol indices."""
    if hasattr(detector, "llrs_and_symbols"):
        # A function of its own: TensorFlow would take bound methods of two
        # detectors for retracings of one
        return lambda y, h, no: detector.llrs_and_symbols(y, h, no)
    weights = 2 ** np.arange(detector.num_bits_per_symbol - 1, -1, -1)

    def from_llrs(y, h, no):
        llrs = detector(y, h, no)
        bits = tf.cast(llrs > 0, tf.int32)
        return llrs, tf.reduce_sum(bits * weights.astype(np.int32), axis=-1)

    return from_llrs


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
        detectors: names; default those of the scenario.
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
    with CountStore(store_path, identity, fresh=fresh) as store:

        def results():
            return {
                "scenario": scenario.to_dict(),
                "provenance": _provenance(scenario, seed, xla, started, complete),
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
        todo = [name for name in active if batch not in store.counts(name, point)]
        if todo:
            draws = simulator.draw(seed, point, batch)
            store.append(
                point, batch, {name: simulator.run_batch(name, draws) for name in todo}
            )
        for name in active:
            totals[name] = totals[name] + store.counts(name, point)[batch]
        batch += 1


def _names(detectors, default):
    names = list(default if detectors is None else detectors)
    if not names:
        raise InvalidInput("detectors: empty, expected at least one name")
    for name in names:
        check_choice("detector", name, linksim.list_detectors())
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


def _provenance(scenario, seed, xla, started, complete):
    versions = {p: importlib.metadata.version(p) for p in _PACKAGES if _installed(p)}
    return {
        "linksim": linksim.__version__,
        "git_commit": _git_commit(),
        "versions": {"python": platform.python_version(), **versions},
        "machine": {
            "platform": platform.platform(),
            "processor": platform.processor() or platform.machine(),
            "gpus": [d.name for d in tf.config.list_physical_devices("GPU")],
        },
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "fingerprint": scenario.fingerprint(),
        "seed": seed,
        "batch_size": scenario.run.batch_size,
        "xla": xla,
        "weights": {},
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
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=Path(linksim.__file__).parent,
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
