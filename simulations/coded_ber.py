#!/usr/bin/env python3
"""Coded BER and BLER of MIMO detectors: the main job of linksim.

Every detector sees the same bits, channels and noise. Results appear in
OUTPUT/<scenario>/: results.json, results.csv, bler.png, ber.png, report.html, and
the raw counts that a later run resumes and extends.
"""

import argparse
import contextlib
import logging
import os
import signal
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
# It takes the compilation of ten detectors for the retracing of one
logging.getLogger("tensorflow").setLevel(logging.ERROR)
if __package__ in (None, ""):  # run as a script: prefer the checkout around it
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table


@contextlib.contextmanager
def quiet_start():
    """Keep TensorFlow's start-up notes, written below Python, off the terminal."""
    sys.stderr.flush()
    saved, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)


with quiet_start():
    import tensorflow as tf

    tf.config.list_physical_devices()

from linksim.errors import InvalidInput, ResultFileError, WorkerError
from linksim.link.scenario import CODES, list_scenarios, load_scenario
from linksim.names import split_names
from linksim.quantization.registry import describe_quantizer, list_quantizers
from linksim.registry import describe_detector, list_detectors

DEFAULT_SCENARIO = "cdl-c-8x4-qam16"


def parse_arguments(argv):
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0],
        epilog="Example: coded_ber.py --scenario rayleigh-2x2-qam64 --detectors mmse,ml "
        "--snr 9:14:1",
    )
    add = parser.add_argument
    add("--scenario", default=DEFAULT_SCENARIO, metavar="NAME|FILE")
    add("--detectors", metavar="A,B,C", help="default: those of the scenario")
    add(
        "--quantizer",
        metavar="NAME[:BITS]",
        help="quantize the LLRs of every detector; BITS per LLR of a scalar "
        "quantizer, per latent of a learned one. For one detector: A+NAME:BITS",
    )
    add("--snr", metavar="START:STOP:STEP|LIST", help="points in dB, 4:12:2 or 4,6,8")
    add("--target-block-errors", type=int, metavar="N", help="enough errors at a point")
    add("--max-blocks", type=int, metavar="N", help="enough blocks at a point")
    add(
        "--relative-width",
        type=float,
        default=0.0,
        metavar="X",
        help="stop too when the BLER interval is narrower than X times the BLER",
    )
    add(
        "--memory",
        type=float,
        metavar="GIB",
        help="the largest batches whose tensors fit into so much; beside it the program "
        "needs about 1.5 GiB",
    )
    add("--csi-error", type=float, metavar="DB", help="noisy CSI of this SNR")
    add("--code", choices=CODES, help="replace the scenario's code (none: uncoded)")
    add("--reference", metavar="NAME", help="detector that gaps are measured against")
    add("--seed", type=int, default=0, metavar="N")
    add("--output", default="results/runs", metavar="DIR")
    add("--xla", choices=("auto", "on", "off"), default="auto")
    add("--workers", type=int, metavar="N", help="processes that share the work, on Ray")
    add(
        "--ray",
        metavar="ADDRESS",
        help="of a Ray cluster, such as 10.0.0.1:6379; without --workers, all of it",
    )
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--resume", action="store_true", help="continue a run (default)")
    mode.add_argument("--fresh", action="store_true", help="set earlier counts aside")
    add(
        "--replay",
        metavar="DETECTOR:SNR:BLOCK",
        help="re-create one block as a .npz file, instead of a run",
    )
    add("--list-scenarios", action="store_true")
    add("--list-detectors", action="store_true")
    add("--list-quantizers", action="store_true")
    return parser.parse_args(argv)


def parse_snr(text):
    """SNR points of `START:STOP:STEP` (STOP included) or a comma-separated list."""
    if text is None:
        return None
    try:
        if ":" in text:
            start, stop, step = (float(part) for part in text.split(":"))
            if not (step > 0 and stop >= start and np.isfinite([start, stop, step]).all()):
                raise ValueError
            if (stop - start) / step > 10000:
                raise ValueError
            count = int(np.floor((stop - start) / step + 1e-9)) + 1
            return [round(start + i * step, 6) for i in range(count)]
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise InvalidInput(
            f"--snr: got {text!r}, expected START:STOP:STEP with STEP > 0, or a list "
            "such as 4,6,8"
        ) from None


def chosen_scenario(args):
    """The scenario with the changes asked for, under a name of its own."""
    scenario = load_scenario(args.scenario)
    name = scenario.name
    if args.csi_error is not None:
        name += f"+csi{args.csi_error:g}db"
        scenario = scenario.replace(csi={"type": "noisy", "error_snr_db": args.csi_error})
    if args.code is not None and args.code != scenario.code.type:
        name += "+uncoded" if args.code == "none" else f"+{args.code}"
        info = 324 if args.code == "5g" else 0
        coded = 648 if args.code == "5g" and scenario.ofdm is None else 0
        scenario = scenario.replace(
            code={"type": args.code, "num_info_bits": info, "num_coded_bits": coded}
        )
    return scenario.replace(name=name)


def chosen_detectors(args, scenario):
    """Names of the detectors, with the quantizer asked for behind each."""
    names = split_names(args.detectors) if args.detectors else scenario.run.detectors
    if args.quantizer:
        # A detector that names its own quantizer keeps it
        names = [n if "+" in n else f"{n}+{args.quantizer}" for n in names]
    return list(names)


class GracefulStop:
    """Ctrl-C ends the run after the batch in hand; a second one ends it at once.

    An exception raised wherever the signal happens to arrive could be swallowed
    inside TensorFlow; this one is raised where the engine expects it.
    """

    def __init__(self):
        self._asked = False

    def __enter__(self):
        self._before = signal.signal(signal.SIGINT, self._ask)
        return self

    def __exit__(self, *exc):
        signal.signal(signal.SIGINT, self._before)

    def _ask(self, number, frame):
        self._asked = True
        signal.signal(signal.SIGINT, self._before)

    def check(self):
        if self._asked:
            raise KeyboardInterrupt


class LiveView:
    """Progress on a terminal: a bar, and a table of the current rates."""

    def __init__(self, console, points):
        self._console = console
        self._points = list(points)
        self._snr_db = None  # of the point at work
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total} points"),
            TimeElapsedColumn(),
            console=console,
        )
        self._task = self._progress.add_task("compiling", total=len(self._points))
        self._live = Live(
            self._progress, console=console, refresh_per_second=4, transient=True
        )

    def __enter__(self):
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *exc):
        if self._console.is_terminal:
            self._live.stop()

    def batch(self, snr_db, counts, active):
        """`on_progress` of `linksim.simulate`."""
        self._snr_db = snr_db
        if not self._console.is_terminal:
            return
        table = Table(box=None, padding=(0, 2))
        for column in ("detector", "BLER", "95 % interval", "errors", "blocks", ""):
            table.add_column(column, justify="left" if column == "detector" else "right")
        for name, c in counts.items():
            if not c.blocks:
                table.add_row(name)
                continue
            low, high = c.bler_interval()
            table.add_row(
                name,
                f"{c.bler:.2e}",
                f"{low:.1e}..{high:.1e}",
                str(c.block_errors),
                str(c.blocks),
                "" if name in active else "done",
            )
        self._progress.update(
            self._task,
            description=f"{snr_db:g} dB",
            completed=self._points.index(snr_db),
        )
        self._live.update(Group(self._progress, table))

    def point(self, results):
        """One line per finished point, also where there is no terminal."""
        # A resumed run holds later points already
        snr = self._snr_db
        rows = [r for r in results["records"] if r["snr_db"] == snr]
        rates = "  ".join(f"{r['detector']} {r['bler']:.1e}" for r in rows)
        self._console.print(f"{snr:g} dB  BLER  {rates}", soft_wrap=True)


def main(argv=None):
    args = parse_arguments(argv)
    console = Console()
    if args.list_scenarios:
        for name in list_scenarios():
            text = load_scenario(name).description
            console.print(f"[bold]{name:34}[/] {text}", soft_wrap=True)
        return 0
    if args.list_detectors:
        for name in list_detectors():
            console.print(f"[bold]{name:16}[/] {describe_detector(name)}", soft_wrap=True)
        return 0
    if args.list_quantizers:
        for name in list_quantizers():
            console.print(f"[bold]{name:16}[/] {describe_quantizer(name)}", soft_wrap=True)
        return 0
    try:
        return run(args, console)
    except (InvalidInput, ResultFileError, WorkerError) as error:
        print(f"coded_ber.py: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("coded_ber.py: interrupted before the first batch", file=sys.stderr)
        return 130


def run(args, console):
    scenario = chosen_scenario(args)
    points = parse_snr(args.snr)
    folder = Path(args.output) / scenario.name
    if args.seed:
        folder = folder.with_name(f"{folder.name}-seed{args.seed}")

    # Loads Sionna: after everything that can be refused quickly
    from linksim.montecarlo.batching import batch_size_for
    from linksim.montecarlo.engine import run_points, simulate
    from linksim.montecarlo.output import gap_table, rate_tables, write_results
    from linksim.montecarlo.replay import parse_replay, replay_block, save_replay
    from linksim.report import write_report

    detectors = chosen_detectors(args, scenario)
    if args.memory is not None:
        limit = args.max_blocks or scenario.run.max_blocks
        size = batch_size_for(
            scenario, detectors, args.memory * 2**30, max_blocks=limit, xla=args.xla
        )
        scenario = scenario.replace(run={"batch_size": size})
        console.print(f"batches of {size} blocks fit into {args.memory:g} GiB")

    if args.replay:
        name, snr_db, block = parse_replay(args.replay)
        arrays = replay_block(scenario, name, snr_db, block, seed=args.seed, xla=args.xla)
        path = folder / f"replay-{name}-{snr_db:g}dB-{block}.npz"
        save_replay(arrays, path)
        console.print(
            f"{arrays['bit_errors']} of {len(arrays['bits'])} bits wrong; {path}",
            soft_wrap=True,
        )
        return 0

    console.print(f"[bold]{scenario.name}[/]: {scenario.description}", soft_wrap=True)
    view = LiveView(console, run_points(scenario, points))

    def on_point(results):
        view.point(results)
        write_results(results, folder)

    def on_progress(*state):
        view.batch(*state)
        stop.check()

    with view, GracefulStop() as stop:
        results = simulate(
            scenario,
            detectors,
            snr_db=points,
            target_block_errors=args.target_block_errors,
            max_blocks=args.max_blocks,
            relative_width=args.relative_width,
            seed=args.seed,
            store_path=folder / "counts.jsonl",
            fresh=args.fresh,
            xla=args.xla,
            reference=args.reference,
            workers=args.workers,
            ray_address=args.ray,
            on_progress=on_progress,
            on_point=on_point,
        )
    write_results(results, folder)
    for table in rate_tables(results, width=console.width):
        console.print(table)
    gaps = gap_table(results)
    if gaps is not None:
        console.print(gaps)
    write_report([folder], folder / "report.html")
    wall = results["provenance"]["wall_seconds"]
    console.print(f"{wall:.0f} s; results in {folder}/", soft_wrap=True)
    if not results["provenance"]["complete"]:
        console.print("Interrupted; run the same command again to continue.")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
