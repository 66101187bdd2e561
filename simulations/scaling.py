#!/usr/bin/env python3
"""Measure how much faster a simulation gets with workers, and what limits it.

"workers" times the same batches in this process with all cores, and in 1, 2, ... workers
that share the cores; the time before the first result is given separately. "driver" times
what the process that hands out the batches does for each of them, with workers that compute
nothing, with and without a result file on disk. "virtual" runs the schedule on a simulated
clock, with batches that take one second and blocks that fail as often as in a finished run:
it gives the time that 1 to 1000 workers take, how much they compute in vain, and what the
schedule itself costs.
"""

import argparse
import functools
import heapq
import os
import random
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
if __package__ in (None, ""):  # run as a script: prefer the checkout around it
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from benchmark import timed_on

from linksim.cli.common import make_console, run_command
from linksim.files import load_json, make_folder, save_json, write_atomically
from linksim.montecarlo.schedule import Job, Schedule, StopRule
from linksim.montecarlo.statistics import Counts
from linksim.montecarlo.store import BatchResult, CountStore
from linksim.workers import InPlace, Pool, num_cores
from simulations.markdown import table

PARTS = ("workers", "driver", "virtual")
SCENARIO, SNR_DB, DETECTORS = "rayleigh-2x2-qam64", 13.0, ("mmse", "ep", "ml", "kbest")
# So many block errors that they never end a timed run
ENDLESS = 10**9
# For "virtual": the run that the error rates are taken from, and the numbers of workers
RATES = Path("results/cdl-c-8x4-qam16/results.json")
VIRTUAL_WORKERS = (1, 10, 100, 1000)
# What earlier files call some of their rows
LABELS = {"embedded": "one process", "1 workers": "1 worker"}
VIRTUAL_RULE = StopRule(target_block_errors=1000, max_blocks=10**6)


def parse_arguments(argv):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    add = parser.add_argument
    add("--only", choices=PARTS, action="append", help="a part; may be repeated")
    add("--workers", default="1,2", metavar="N,N", help="numbers of workers to time")
    add("--ray", metavar="ADDRESS", help="address of a Ray cluster; default: this machine")
    add("--batch-size", type=int, default=500, metavar="N", help="blocks of a batch")
    add("--batches", type=int, default=40, metavar="N", help="batches of a timed run")
    add("--repeats", type=int, default=3, metavar="N", help="timed runs of each kind")
    add("--output", type=Path, default=Path("results/scaling"), metavar="DIR")
    return parser.parse_args(argv)


# --- workers --------------------------------------------------------------------------


def time_workers(args, console):
    """Time the same batches in this process and in workers; returns a row for each."""
    from linksim.link.scenario import load_scenario
    from linksim.link.simulator import LinkSimulator
    from linksim.montecarlo.jobs import run_job
    from linksim.montecarlo.remote import RemoteBatches

    scenario = load_scenario(SCENARIO).replace(run={"batch_size": args.batch_size})
    simulator = LinkSimulator(scenario)
    for name in DETECTORS:
        simulator.add_detector(name)
    rows = []
    for number in [0, *(int(n) for n in args.workers.split(","))]:
        label = f"{number} worker{'s' * (number > 1)}" if number else "one process"
        if number:
            executor = RemoteBatches(simulator, 0, number, args.ray)
        else:
            executor = InPlace(lambda job: run_job(simulator, 0, job))
        try:
            with console.status(label):
                start, compilation = warm_up(executor, number)
                seconds = [timed_run(executor, args) for _ in range(args.repeats)]
        finally:
            executor.close()
        rows.append(
            {
                "what": label,
                "threads": executor.workers["threads"] if number else num_cores(),
                "start_seconds": start,
                "first_batches_seconds": compilation,
                "seconds": seconds,
                "batch_seconds": float(np.median(seconds)) / args.batches,
                "efficiency": float(np.median(rows[0]["seconds"]) / np.median(seconds))
                if rows
                else 1.0,
            }
        )
    return rows


def warm_up(executor, number):
    """Seconds until all workers are ready, and seconds from then until each has compiled."""
    begin = time.perf_counter()
    executor.submit(Job(SNR_DB, 0, DETECTORS[:1]))
    executor.next()
    while number and sum(executor.workers["machines"].values()) < number:
        executor.submit(Job(SNR_DB, 0, DETECTORS[:1]))
        executor.next()
    ready = time.perf_counter()
    for batch in range(executor.capacity):
        executor.submit(Job(SNR_DB, batch, DETECTORS))
    for _ in range(executor.capacity):
        _, outcome = executor.next()
        for result in outcome.values():
            if isinstance(result, Exception):
                raise result
    return ready - begin, time.perf_counter() - ready


def timed_run(executor, args):
    """Seconds of a run of `args.batches` batches, with a result file on disk."""
    rule = StopRule(ENDLESS, args.batches * args.batch_size)
    with tempfile.TemporaryDirectory() as folder:
        with CountStore(Path(folder) / "counts.jsonl", {}) as store:
            start = time.perf_counter()
            Schedule(
                executor, store, rule, (SNR_DB,), DETECTORS, batch_size=args.batch_size
            ).run()
            return time.perf_counter() - start


# --- driver ---------------------------------------------------------------------------


def make_idle(result):
    """Make a worker's function that returns the same result at once."""
    return lambda job: dict.fromkeys(job.detectors, result)


def time_driver(args, console):
    """Time each batch with workers that compute nothing; returns a row for each case."""
    number, batches = max(int(n) for n in args.workers.split(",")), 2000
    rule = StopRule(ENDLESS, batches * args.batch_size)
    result = BatchResult(
        Counts(args.batch_size, 7, 10**5, 123, 4567, 10**5, 89, 1011, 0.123456),
        np.arange(args.batch_size) < 7,
    )
    rows = []
    for what, on_disk, idle in (
        ("schedule and store in memory", False, False),
        ("the same with a file on disk", True, False),
        (f"the same with {number} workers on Ray that do nothing", True, True),
    ):
        if idle:
            executor = Pool(functools.partial(make_idle, result), number, args.ray)
        else:
            executor = InPlace(make_idle(result))
        with tempfile.TemporaryDirectory(dir=args.output) as folder, console.status(what):
            path = Path(folder) / "counts.jsonl" if on_disk else None
            try:
                for _ in range(executor.capacity):
                    executor.submit(Job(SNR_DB, 0, DETECTORS))
                    executor.next()
                with CountStore(path, {}) as store:
                    start, cpu = time.perf_counter(), time.process_time()
                    Schedule(
                        executor,
                        store,
                        rule,
                        (SNR_DB,),
                        DETECTORS,
                        batch_size=args.batch_size,
                    ).run()
                    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
                    size = path.stat().st_size / batches if on_disk else None
            finally:
                executor.close()
        rows.append(
            {
                "what": what,
                "batch_ms": 1e3 * seconds / batches,
                "batch_cpu_ms": 1e3 * cpu / batches,
                "batches_per_second": batches / seconds,
                "bytes_per_batch": size,
            }
        )
    return rows


# --- virtual --------------------------------------------------------------------------


class VirtualWorkers:
    """An executor on a simulated clock.

    A batch takes 0.9 to 1.1 seconds, whatever its detectors, and blocks fail at given
    rates. Each worker holds two jobs at once, as in `linksim.workers.Pool`.

    Args:
        number: number of workers.
        rates: {(detector, snr_db): BLER}.
        batch_size: blocks per batch.
    """

    def __init__(self, number, rates, batch_size):
        self.capacity = 2 * number
        self.now = self.own_seconds = 0.0
        self.num_jobs = self.num_results = 0  # a job has a result for each detector
        self._free = [0.0] * number  # a heap of the times at which workers become idle
        self._out = []  # a heap of (end, number, job)
        self._rates, self._size = rates, batch_size
        self._rng = np.random.default_rng(0)
        self._duration = random.Random(0)

    def submit(self, job):
        began = time.perf_counter()
        end = max(self.now, self._free[0]) + self._duration.uniform(0.9, 1.1)
        heapq.heapreplace(self._free, end)
        self.num_jobs += 1
        self.num_results += len(job.detectors)
        heapq.heappush(self._out, (end, self.num_jobs, job))
        self.own_seconds += time.perf_counter() - began

    def next(self):
        began = time.perf_counter()
        self.now, _, job = heapq.heappop(self._out)
        outcome = {}
        for name in job.detectors:
            failed = self._rng.random(self._size) < self._rates[name, job.snr_db]
            errors = int(failed.sum())
            counts = Counts(self._size, errors, self._size, errors, errors)
            outcome[name] = BatchResult(counts, failed)
        self.own_seconds += time.perf_counter() - began
        return job, outcome


def run_virtually(number, results, rule):
    """Run with `number` virtual workers at the error rates in `results`; returns a row."""
    rates = {(r["detector"], r["snr_db"]): r["bler"] for r in results["records"]}
    detectors = list(dict.fromkeys(d for d, _ in rates))
    points = sorted({p for _, p in rates})
    for detector in detectors:
        for low, point in zip(points, points[1:]):
            # The run left these points out, as they are far below the waterfall
            rates.setdefault((detector, point), rates[detector, low] / 10)
    run = results["scenario"]["run"]
    executor = VirtualWorkers(number, rates, run["batch_size"])
    store = CountStore(None, {})
    start = time.perf_counter()
    Schedule(
        executor, store, rule, points, detectors,
        batch_size=run["batch_size"], min_bler=run["min_bler"],
    ).run()  # fmt: skip
    seconds = time.perf_counter() - start - executor.own_seconds
    needed = sum(
        store.total(d, p).blocks // run["batch_size"]
        for d in detectors
        for p in store.points(d)
    )
    return {
        "workers": number,
        "virtual_seconds": executor.now,
        "in_vain": 1 - needed / executor.num_results,
        "schedule_ms": 1e3 * seconds / executor.num_jobs,
    }


def virtual(args, console):
    """Run with all numbers of virtual workers; returns their rows, with speed-ups."""
    results, rows = load_json(RATES), []
    for number in VIRTUAL_WORKERS:
        with console.status(f"{number} virtual workers"):
            rows.append(run_virtually(number, results, VIRTUAL_RULE))
        rows[-1]["speed_up"] = rows[0]["virtual_seconds"] / rows[-1]["virtual_seconds"]
    return rows


# --- output ---------------------------------------------------------------------------


def markdown(data):
    """The page of all rows, as Markdown."""
    facts = ", ".join(f"{k}: {v}" for k, v in data["machine"].items() if v)
    lines = ["# Scaling", "", "Made by `python simulations/scaling.py`.", "", facts]
    if "workers" in data:
        s = data["settings"]
        lines += [
            "",
            "## Workers",
            "",
            f"{s['batches']} batches of {s['batch_size']} blocks of `{SCENARIO}` by "
            f"{', '.join(DETECTORS)}; medians. Efficiency is the time of one process with all "
            "cores over the time of the workers that share them.",
            "",
            *table(
                (
                    "",
                    "threads each",
                    "start (s)",
                    "first batches (s)",
                    "run (s)",
                    "batch (s)",
                )
                + ("efficiency",),
                [
                    (
                        LABELS.get(r["what"], r["what"]),
                        r["threads"],
                        f"{r['start_seconds']:.1f}",
                        f"{r['first_batches_seconds']:.1f}",
                        f"{np.median(r['seconds']):.2f} "
                        f"[{min(r['seconds']):.2f}, {max(r['seconds']):.2f}]",
                        f"{r['batch_seconds']:.3f}",
                        f"{r['efficiency']:.2f}",
                    )
                    for r in data["workers"]
                ],
            ),
        ]
    if "driver" in data:
        lines += [
            "",
            "## The process that hands out",
            "",
            "Times for each batch, with workers that compute nothing.",
            "",
            *table(
                ("", "ms", "CPU ms", "batches a second", "bytes in the file"),
                [
                    (
                        r["what"],
                        f"{r['batch_ms']:.2f}",
                        f"{r['batch_cpu_ms']:.2f}",
                        f"{r['batches_per_second']:.0f}",
                        "" if r["bytes_per_batch"] is None else f"{r['bytes_per_batch']:.0f}",
                    )
                    for r in data["driver"]
                ],
            ),
        ]
    if "virtual" in data:
        rule = VIRTUAL_RULE
        lines += [
            "",
            "## Virtual workers",
            "",
            f"Error rates as in `{RATES}`, {rule.target_block_errors} block errors a point, one "
            "second per batch, and a process that hands out batches in no time.",
            "",
            *table(
                (
                    "workers",
                    "seconds",
                    "speed-up",
                    "results in vain",
                    "schedule, ms a batch",
                ),
                [
                    (
                        r["workers"],
                        f"{r['virtual_seconds']:.0f}",
                        f"{r['speed_up']:.1f}",
                        f"{100 * r['in_vain']:.1f} %",
                        f"{r['schedule_ms']:.2f}",
                    )
                    for r in data["virtual"]
                ],
            ),
        ]
    return "\n".join(lines) + "\n"


def main(argv=None):
    args = parse_arguments(argv)
    return run_command("scaling.py", lambda: _run(args, make_console()))


def _run(args, console):
    make_folder(args.output)
    file = args.output / "scaling.json"
    # Parts that are not measured this time stay as they are
    data = load_json(file) if file.exists() and args.only else {}
    data["machine"] = timed_on()
    for part, measure in zip(PARTS, (time_workers, time_driver, virtual)):
        if part in (args.only or PARTS):
            data[part] = measure(args, console)
            if part == "workers":
                data["settings"] = {
                    "batches": args.batches,
                    "batch_size": args.batch_size,
                    "ray": args.ray,
                }
    save_json(file, data)
    page = markdown(data)
    write_atomically(args.output / "README.md", page)
    console.print(page, markup=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
