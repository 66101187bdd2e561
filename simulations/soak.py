#!/usr/bin/env python3
"""Soak-test the Monte-Carlo engine with kills, full disks and slow disks at random.

A run is disturbed again and again until it is complete: it is killed between any two
instructions or in the middle of a write, stopped by a full disk, or slowed down by a slow
one, and a second run tries to write to the same file. After every disturbance nothing that
was written may be missing, and `results.json` must be whole. A complete run must have the
counts of an undisturbed one. Then the next run starts, until the time is up.
"""

import argparse
import json
import multiprocessing
import os
import random
import resource
import signal
import sys
import time
import traceback
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
if __package__ in (None, ""):  # run as a script: prefer the checkout around it
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from linksim.errors import ResultFileError
from linksim.files import load_json, save_json, set_aside
from linksim.montecarlo.store import CountStore

FAULTS = ("kill", "torn write", "full disk", "slow disk")
SCENARIO = "gauss-markov-4x2-qpsk"
DETECTORS = ("mmse", "zf")
POINTS = (0.0, 2.0, 4.0)
# About how many bytes one batch takes in the file
_LINE = 200
_DISK_FULL = 3  # exit code of a run that could not write
_MINUTES_OF_A_RUN = 10  # an undisturbed run takes seconds
# Keys by which records are compared; the others follow from these, or are times
_COUNTS = (
    *("detector", "snr_db", "bits", "bit_errors", "blocks", "block_errors"),
    *("symbols", "symbol_errors", "ber_low", "ber_high", "ser_low", "ser_high"),
)


class SoakError(RuntimeError):
    """The engine lost, changed or repeated a count."""


# --- a run, in a process of its own ---------------------------------------------------


def run_disturbed(folder, seed, max_blocks, fault):
    """Simulate to the end or to the disturbance, and end the process."""
    try:
        _simulate(Path(folder), seed, max_blocks, fault)
    except ResultFileError as error:
        if fault["kind"] == "full disk" and "cannot write" in str(error):
            os._exit(_DISK_FULL)
        traceback.print_exc()
        os._exit(1)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def run_undisturbed(folder, seed, max_blocks):
    """Simulate in memory and write the results as JSON."""
    results = _simulate(None, seed, max_blocks, {"kind": "none"})
    save_json(Path(folder) / "undisturbed.json", results)


def _simulate(folder, seed, max_blocks, fault):
    from linksim.link.scenario import load_scenario
    from linksim.montecarlo.engine import simulate
    from linksim.montecarlo.output import write_results

    batches = 0

    def on_progress(*state):
        nonlocal batches
        # After the first batch: compilation writes files of its own
        if batches == 1:
            disturb(fault, folder)
        batches += 1

    scenario = load_scenario(SCENARIO).replace(run={"batch_size": 20, "min_bler": 0.0})
    results = simulate(
        scenario,
        DETECTORS,
        snr_db=POINTS,
        # Some detectors stop at the number of errors, some at the number of blocks
        target_block_errors=max_blocks // 3,
        max_blocks=max_blocks,
        seed=seed,
        store_path=None if folder is None else folder / "counts.jsonl",
        on_progress=on_progress,
        on_point=None if folder is None else lambda r: write_results(r, folder),
    )
    if folder is not None:
        write_results(results, folder)
    return results


def disturb(fault, folder):
    """Make this process suffer a fault: a dictionary of "kind" and its parameters."""
    kind, write, sync = fault["kind"], os.write, os.fsync
    if kind == "full disk":
        # The kernel writes part of a line and then reports an error, as on a full disk
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        size = (folder / "counts.jsonl").stat().st_size + fault["bytes"]
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    elif kind == "torn write":
        left = fault["batches"]

        def torn(descriptor, data):
            nonlocal left
            left -= 1
            if left > 0:
                return write(descriptor, data)
            write(descriptor, data[: int(fault["share"] * len(data))])
            os.kill(os.getpid(), signal.SIGKILL)

        os.write = torn
    elif kind == "slow disk":

        def slow(function):
            def call(*args):
                time.sleep(random.uniform(0, fault["seconds"]))
                done = function(*args)
                time.sleep(random.uniform(0, fault["seconds"]))
                return done

            return call

        os.write, os.fsync = slow(write), slow(sync)


def random_fault(rng):
    """Draw a fault: its kind, its parameters, and when the process is killed."""
    kind = rng.choice(FAULTS)
    fault = {"kind": kind}
    if kind in ("kill", "slow disk"):
        fault["kill_after_bytes"] = rng.randint(0, 40 if kind == "kill" else 8) * _LINE
        fault["kill_after_seconds"] = rng.uniform(0, 0.05)
    if kind == "slow disk":
        fault["seconds"] = rng.uniform(0.01, 0.2)
    if kind == "full disk":
        fault["bytes"] = rng.randint(0, 40 * _LINE)
    if kind == "torn write":
        fault["batches"], fault["share"] = rng.randint(1, 40), rng.uniform(0, 1)
    return fault


# --- what has to hold -----------------------------------------------------------------


def complete_lines(data):
    """The part of a store's file that ends with its last complete line."""
    return data[: data.rfind(b"\n") + 1]


def check_store(before, after, fault):
    """Check that nothing is missing or changed, and that no batch appears twice.

    Raises:
        SoakError: something is.
    """
    if not after.startswith(complete_lines(before)):
        raise SoakError(f"{fault}: lines that were written are missing or changed")
    if fault["kind"] == "full disk" and after != complete_lines(after):
        raise SoakError(f"{fault}: a full disk left part of a line")
    batches = [tuple(json.loads(line)[:2]) for line in complete_lines(after).splitlines()[1:]]
    if len(set(batches)) != len(batches):
        raise SoakError(f"{fault}: a batch stands twice")


def check_results(folder):
    """Read `results.json`, which must be whole whenever the run ended; None if absent."""
    file = folder / "results.json"
    return load_json(file) if file.exists() else None


def compare(results, expected):
    """Check that two runs have the same counts.

    Raises:
        SoakError: they differ.
    """
    found, wanted = (
        [tuple(r[k] for k in _COUNTS) for r in x["records"]] for x in (results, expected)
    )
    if found != wanted:
        differ = [pair for pair in zip(found, wanted) if pair[0] != pair[1]]
        raise SoakError(f"counts differ from those of an undisturbed run: {differ[:1]}")
    if results["gaps"] != expected["gaps"]:
        raise SoakError("gaps differ from those of an undisturbed run")


# --- the soak -------------------------------------------------------------------------


class Soak:
    """Disturbs runs until the time is up.

    Args:
        folder: folder of the runs.
        seed: seed of the disturbances, which are repeatable except for the timing of kills.
        max_blocks: blocks per SNR point; sets how long a run is.
        report: called with a line of text after every run.
    """

    def __init__(self, folder, seed, max_blocks, report=print):
        self.folder, self.max_blocks, self._report = folder, max_blocks, report
        self._rng = random.Random(seed)
        self._context = multiprocessing.get_context("forkserver")
        # With these modules loaded, a process starts in a tenth of a second
        self._context.set_forkserver_preload(
            ["linksim.montecarlo.engine", "linksim.montecarlo.output"]
        )
        self.summary = {
            **{"runs": 0, "batches": 0, "complete": 0, "torn_lines": 0, "disk_full": 0},
            "faults": dict.fromkeys(FAULTS, 0),
            "intruders_refused": 0,
            "temporary_files_left": 0,
        }

    def run(self, seconds, max_runs=None):
        """Disturb runs for some time.

        Args:
            seconds: no run starts after them; the last one is finished.
            max_runs: the most runs, or None for no limit.

        Returns:
            The summary, a dictionary.

        Raises:
            SoakError: a count was lost, changed or repeated.
            ResultFileError: a file can no longer be read.
        """
        deadline = time.monotonic() + seconds
        while not self.summary["runs"] or time.monotonic() < deadline:
            if max_runs is not None and self.summary["runs"] == max_runs:
                break
            self._one_run(self.summary["runs"], deadline)
        return self.summary

    def _one_run(self, seed, deadline):
        folder = self.folder / f"run-{seed}"
        folder.mkdir(parents=True)
        started, episodes = time.monotonic(), 0
        while True:
            late = time.monotonic() > min(deadline, started + 60 * _MINUTES_OF_A_RUN)
            fault = {"kind": "none"} if late else random_fault(self._rng)
            code = self._episode(folder, seed, fault)
            episodes += 1
            if code == 0:
                break
        process = self._context.Process(
            target=run_undisturbed, args=(str(folder), seed, self.max_blocks)
        )
        process.start()
        process.join()
        results = check_results(folder)
        compare(results, load_json(folder / "undisturbed.json"))
        batches = (folder / "counts.jsonl").read_bytes().count(b"\n") - 1
        self.summary["runs"] += 1
        self.summary["batches"] += batches
        self.summary["complete"] += results["provenance"]["complete"]
        self.summary["temporary_files_left"] += len(list(folder.glob(".*")))
        self._report(
            f"run {seed}: {batches} batches in {episodes} starts, counts equal, "
            f"{time.monotonic() - started:.0f} s"
        )

    def _episode(self, folder, seed, fault):
        """Start or resume a run, disturb it once, and return its exit code."""
        file = folder / "counts.jsonl"
        before = file.read_bytes() if file.exists() else b""
        process = self._context.Process(
            target=run_disturbed, args=(str(folder), seed, self.max_blocks, fault)
        )
        process.start()
        wanted = len(before) + fault.get("kill_after_bytes", 10**12)
        intruded = False
        while process.is_alive():
            size = file.stat().st_size if file.exists() else 0
            if size > len(before) and not intruded:
                self._intrude(file)
                intruded = True
            if size >= wanted:
                time.sleep(fault["kill_after_seconds"])
                process.kill()
                break
            time.sleep(0.001)
        process.join()
        code = process.exitcode
        if code not in (0, _DISK_FULL, -signal.SIGKILL):
            raise SoakError(f"{fault}: the run ended with code {code}")
        if fault["kind"] in self.summary["faults"] and code:
            self.summary["faults"][fault["kind"]] += 1
        after = file.read_bytes() if file.exists() else b""
        check_store(before, after, fault)
        check_results(folder)
        self.summary["torn_lines"] += after != complete_lines(after)
        self.summary["disk_full"] += code == _DISK_FULL
        return code

    def _intrude(self, file):
        """Check that another run is refused while the store is in use."""
        try:
            CountStore(file, {"fingerprint": "of an intruder"}).close()
        except ResultFileError:
            self.summary["intruders_refused"] += 1
        else:
            raise SoakError(f"{file}: a second run was let in")


def parse_arguments(argv):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    add = parser.add_argument
    add(
        "--minutes",
        type=float,
        default=60.0,
        metavar="X",
        help="how long; the last run is finished",
    )
    add("--seed", type=int, default=0, metavar="N", help="seed of the disturbances")
    add("--max-blocks", type=int, default=12000, metavar="N", help="blocks per SNR point")
    add("--runs", type=int, metavar="N", help="stop after this many runs")
    add("--output", type=Path, default=Path("results/runs/soak"), metavar="DIR")
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_arguments(argv)
    if args.output.exists():
        set_aside(args.output)
    started = time.monotonic()
    soak = Soak(args.output, args.seed, args.max_blocks, lambda text: print(text, flush=True))
    try:
        summary = soak.run(60 * args.minutes, args.runs)
    except (SoakError, ResultFileError) as error:
        print(f"soak.py: {error}; kept in {args.output}", file=sys.stderr)
        return 1
    summary["seconds"] = round(time.monotonic() - started)
    save_json(args.output / "soak.json", summary)
    faults = ", ".join(f"{n} x {kind}" for kind, n in summary["faults"].items())
    print(
        f"{summary['runs']} runs of {summary['batches']} batches, {faults}; "
        f"{summary['torn_lines']} torn lines; every count is as without disturbance"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
