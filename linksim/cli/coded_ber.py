"""Simulate coded BER and BLER of MIMO detectors: the main job of linksim.

Every detector sees the same bits, channels and noise. Results appear in
OUTPUT/<scenario>/: results.json, results.csv, figures of the rates, report.html, and
the raw counts that a later run resumes and extends.
"""

from __future__ import annotations

import argparse
import contextlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from linksim.cli.common import (
    DEFAULT_SCENARIO,
    interrupted_line,
    load_user_code,
    make_console,
    make_parser,
    print_entry,
    run_command,
    start_keras,
)
from linksim.cli.stop import GracefulStop, exit_at_once
from linksim.errors import InvalidInput, check_real
from linksim.files import check_folder
from linksim.link.scenario import CODES, Loop, Scenario, list_scenarios, load_scenario
from linksim.names import QuantizerSpec, ReceiverSpec, parse_receiver, split_names
from linksim.quantization.registry import describe_quantizer, list_quantizers
from linksim.registry import describe_detector, list_detectors

if TYPE_CHECKING:
    from rich.console import Console

COUNTS = "counts.jsonl"


def parse_arguments(argv: Sequence[str] | None, prog: str) -> argparse.Namespace:
    """The options of a command line; exits for `--help` and wrong ones."""
    parser = make_parser(
        prog, __doc__, "--scenario rayleigh-2x2-qam64 --detectors mmse,ml --snr 9:14:1"
    )
    add = parser.add_argument
    add(
        "--scenario",
        default=DEFAULT_SCENARIO,
        metavar="NAME|FILE",
        help="a name of --list-scenarios, or a TOML file",
    )
    add(
        "--detectors",
        metavar="A,B,C",
        help="names of --list-detectors (default: those of the scenario)",
    )
    add(
        "--quantizer",
        metavar="NAME[:BITS]",
        help="quantize the LLRs of every detector; BITS per LLR for a scalar "
        "quantizer, per latent for a learned one. For one detector: A+NAME:BITS",
    )
    add(
        "--snr",
        metavar="START:STOP:STEP|LIST",
        help="points in dB, 4:12:2 or 4,6,8 (default: those of the scenario)",
    )
    add(
        "--target-block-errors",
        type=int,
        metavar="N",
        help="a point is done after N block errors (default: the scenario's)",
    )
    add(
        "--max-blocks",
        type=int,
        metavar="N",
        help="a point is done after N blocks in any case (default: the scenario's)",
    )
    add(
        "--relative-width",
        type=float,
        default=0.0,
        metavar="X",
        help="a point is also done when the BLER's interval is narrower than X times the BLER",
    )
    add(
        "--memory",
        type=float,
        metavar="GIB",
        help="use the largest batches whose tensors fit into this; the program needs about "
        "1.5 GiB beside it (default: the scenario's batch size)",
    )
    add("--csi-error", type=float, metavar="DB", help="give detectors noisy CSI of this SNR")
    add(
        "--code",
        choices=[c for c in CODES if c != "alist"],
        help="replace the scenario's code (none: uncoded)",
    )
    add(
        "--reference",
        metavar="NAME",
        help="the detector that gaps are measured against (default: the scenario's, or the first one)",
    )
    add(
        "--only-these",
        action="store_true",
        help="results show the detectors of this command alone (default: all that the "
        "folder has counts of)",
    )
    add("--seed", type=int, default=0, metavar="N", help="seed of all random draws")
    add("--output", default="results/runs", metavar="DIR", help="folder of the results")
    add("--xla", choices=("auto", "on", "off"), default="auto", help="compile with XLA")
    add(
        "--workers",
        type=int,
        metavar="N",
        help="share the work between N processes on Ray (default: this process alone)",
    )
    add(
        "--ray",
        metavar="ADDRESS",
        help="use the Ray cluster at this address, such as 10.0.0.1:6379; without --workers, "
        "all of it",
    )
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--resume", action="store_true", help="continue a run (the default)")
    mode.add_argument("--fresh", action="store_true", help="set earlier counts aside")
    add(
        "--replay",
        metavar="DETECTOR:SNR:BLOCK",
        help="re-create one block of a run as a .npz file, with the batches of that run; its "
        "errors have to be those that were counted",
    )
    add(
        "--describe",
        action="store_true",
        help="describe the scenario's code, SNR and channel, and exit",
    )
    for what in ("scenarios", "detectors", "quantizers", "models"):
        add(f"--list-{what}", action="store_true", help=f"list the {what} and exit")
    return parser.parse_args(argv)


def parse_snr(text: str | None) -> list[float] | None:
    """SNR points of `START:STOP:STEP` (STOP included) or a comma-separated list."""
    if text is None:
        return None
    try:
        if ":" in text:
            start, stop, step = (float(part) for part in text.split(":"))
            if not (step > 0 and stop >= start and math.isfinite(start + stop + step)):
                raise ValueError
            if (stop - start) / step > 10000:
                raise ValueError
            count = math.floor((stop - start) / step + 1e-9) + 1
            return [round(start + i * step, 6) for i in range(count)]
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise InvalidInput(
            f"--snr: got {text!r}, expected START:STOP:STEP with STEP > 0, or a list "
            "such as 4,6,8"
        ) from None


def chosen_scenario(args: argparse.Namespace) -> Scenario:
    """The scenario with the changes asked for, under a name of its own."""
    scenario = load_scenario(args.scenario)
    name = scenario.name
    if args.csi_error is not None:
        name += f"+csi{args.csi_error:g}db"
        # Without the keys of what it replaces
        csi = {"covariance": "measured", "spatial": False, "error": "variance"}
        csi |= {"type": "noisy", "error_snr_db": args.csi_error}
        grids: dict[str, Any] = {name: {"interpolation": "lin"} for name in _grids(scenario)}
        scenario = scenario.replace(None, csi=csi, **grids)
    if args.code is not None and args.code != scenario.code.type:
        name += "+uncoded" if args.code == "none" else f"+{args.code}"
        info = 324 if args.code == "5g" else 0
        coded = 648 if args.code == "5g" and not _grids(scenario) else 0
        # Likewise, and without what only some codes can have
        code = {
            "type": args.code,
            "num_info_bits": info,
            "num_coded_bits": coded,
            "rate": 0.0,
            "file": "",
        }
        if args.code in ("none", "transport-block"):
            code |= {"per_stream": False, "interleaver": ""}
        if args.code == "transport-block":
            code["interleaver_seed"] = -1
        loop: dict[str, Any] = {"loop": vars(Loop())} if args.code == "none" else {}
        scenario = scenario.replace(None, code=code, **loop)
    return scenario.replace(name=name)


def _grids(scenario: Scenario) -> list[str]:
    """The tables of a scenario that have an OFDM grid."""
    return [name for name in ("ofdm", "pusch") if getattr(scenario, name) is not None]


def chosen_detectors(args: argparse.Namespace, scenario: Scenario) -> list[str]:
    """Names of the detectors, with the quantizer asked for behind each.

    Raises:
        InvalidInput: for an unknown name.
    """
    names = list(scenario.run.detectors)
    if args.detectors is not None:
        names = split_names(args.detectors)
    specs = [parse_receiver(name) for name in names]
    if args.quantizer is not None:
        # A detector that names its own quantizer keeps it
        behind = [spec.quantizer or _quantizer_of(args, spec) for spec in specs]
        specs = [spec._replace(quantizer=q) for spec, q in zip(specs, behind)]
    return [spec.text for spec in specs]


def _quantizer_of(args: argparse.Namespace, spec: ReceiverSpec) -> QuantizerSpec | None:
    """The quantizer that `--quantizer` puts behind a detector."""
    return parse_receiver(f"{spec.detection}+{args.quantizer}").quantizer


def main(argv: Sequence[str] | None = None, prog: str = "coded_ber.py") -> int:
    """Run the command line and return the exit code."""
    return run_command(
        prog,
        lambda: _run(parse_arguments(argv, prog)),
        "interrupted; the same command continues",
    )


def _run(args: argparse.Namespace) -> int:
    load_user_code(args)
    console = make_console()
    if _show_lists(args, console):
        return 0
    scenario = chosen_scenario(args)
    detectors = chosen_detectors(args, scenario)
    folder = Path(args.output) / scenario.name
    if args.seed:
        folder = folder.with_name(f"{folder.name}-seed{args.seed}")
    points = parse_snr(args.snr)
    counts = folder / COUNTS
    replayed = None if args.replay is None else parse_replay(args.replay)
    if args.memory is not None:
        check_real("--memory", args.memory, low=0.0001, high=4096, unit="GiB")
    check_folder(folder, "--output")
    if replayed is not None and not counts.exists():
        raise InvalidInput(f"--replay: there is no {counts}, expected the run of the block")

    # After everything that can be refused quickly
    modules = ["linksim.montecarlo.engine", "linksim.report", "linksim.figures"]
    if args.describe:
        modules = ["linksim.link.describe"]
    elif replayed is not None:
        modules = ["linksim.montecarlo.replay"]
    start_keras(*modules)
    if args.describe:
        from linksim.link.describe import describe_link

        console.print("\n".join(describe_link(scenario)), soft_wrap=True, markup=False)
        return 0
    if replayed is not None:
        return _replay(args, scenario, counts, replayed, console)
    if args.memory is not None:
        scenario = _with_batches_for(args, scenario, detectors, console)
    return _simulate(args, scenario, detectors, points, folder, console)


def _show_lists(args: argparse.Namespace, console: Console) -> bool:
    """Print the list that was asked for, if one was."""
    if args.list_scenarios:
        for name in list_scenarios():
            print_entry(console, name, load_scenario(name).description, 34)
    elif args.list_detectors:
        for name in list_detectors():
            print_entry(console, name, describe_detector(name), 16)
    elif args.list_quantizers:
        for name in list_quantizers():
            print_entry(console, name, describe_quantizer(name), 16)
    elif args.list_models:
        from linksim.cli.models import print_catalogue

        print_catalogue(console)
    else:
        return False
    return True


def _with_batches_for(
    args: argparse.Namespace, scenario: Scenario, detectors: list[str], console: Console
) -> Scenario:
    """The scenario with the batch size that `--memory` allows."""
    from linksim.montecarlo.batching import batch_size_for

    limit = args.max_blocks or scenario.run.max_blocks
    size = batch_size_for(
        scenario, detectors, args.memory * 2**30, max_blocks=limit, xla=args.xla
    )
    console.print(f"batches of {size} blocks fit into {args.memory:g} GiB")
    return scenario.replace(run={"batch_size": size})


def parse_replay(text: str) -> tuple[str, float, int]:
    """`DETECTOR:SNR:BLOCK` as the receiver's name, the SNR in dB and the block's number."""
    try:
        name, snr, block = text.rsplit(":", 2)
        place = float(snr), int(block)
    except ValueError:
        raise InvalidInput(
            f"--replay: got {text!r}, expected DETECTOR:SNR:BLOCK, such as mmse:8:113"
        ) from None
    return parse_receiver(name).text, *place


def _replay(
    args: argparse.Namespace,
    scenario: Scenario,
    counts: Path,
    replayed: tuple[str, float, int],
    console: Console,
) -> int:
    """Write one block of a run, whose raw counts are given, to a file beside them."""
    from linksim.montecarlo.replay import replay_block, save_replay

    name, snr_db, block = replayed
    arrays = replay_block(
        scenario, name, snr_db, block, seed=args.seed, xla=args.xla, store_path=counts
    )
    # File names cannot have a colon on Windows, nor a slash anywhere
    label = name.replace(":", "-").replace("/", "-pass")
    path = counts.parent / f"replay-{label}-{snr_db:g}dB-{block}.npz"
    save_replay(arrays, path)
    console.print(
        f"{arrays['bit_errors']} of {len(arrays['bits'])} bits wrong; {path}",
        soft_wrap=True,
        markup=False,
    )
    return 0


def _simulate(
    args: argparse.Namespace,
    scenario: Scenario,
    detectors: list[str],
    points: list[float] | None,
    folder: Path,
    console: Console,
) -> int:
    """Simulate, and write and print the results; after Ctrl-C those that are there."""
    from linksim.cli.live import LiveView
    from linksim.montecarlo.engine import run_points, simulate
    from linksim.montecarlo.output import (
        gap_table,
        rate_tables,
        shown_rates,
        throughput_key,
        write_results,
    )
    from linksim.report import write_report

    print_entry(console, f"{scenario.name}:", scenario.description)
    rates = shown_rates(scenario)
    view = LiveView(console, run_points(scenario, points), rates[0])

    def on_point(results: dict[str, Any]) -> None:
        view.point(results)
        write_results(results, folder, rates)

    def on_progress(*state: Any) -> None:
        view.batch(*state)
        stop.check()

    # Workers are to be stopped in order
    local = args.workers is None and args.ray is None
    second = exit_at_once(interrupted_line()) if local else contextlib.nullcontext()
    with second, view, GracefulStop("batch") as stop:
        results = simulate(
            scenario,
            detectors,
            snr_db=points,
            target_block_errors=args.target_block_errors,
            max_blocks=args.max_blocks,
            relative_width=args.relative_width,
            seed=args.seed,
            store_path=folder / COUNTS,
            fresh=args.fresh,
            xla=args.xla,
            reference=args.reference,
            everything=not args.only_these,
            workers=args.workers,
            ray_address=args.ray,
            on_progress=on_progress,
            on_point=on_point,
        )
    write_results(results, folder, rates)
    # Without a code both rates are printed, as neither of them is that of a block
    printed = rates if scenario.code.type == "none" else rates[:1]
    delivered = [throughput_key(results)] if throughput_key(results) else []
    if scenario.harq.max_transmissions > 1:
        delivered.append("transmissions")
    for rate in (*printed, *delivered):
        for table in rate_tables(results, rate, width=console.width):
            console.print(table)
    gaps = gap_table(results)
    if gaps is not None:
        console.print(gaps)
    write_report([folder], folder / "report.html")
    wall = results["provenance"]["wall_seconds"]
    console.print(f"{wall:.0f} s; results in {folder}/", soft_wrap=True, markup=False)
    if not results["provenance"]["complete"]:
        console.print("Interrupted; run the same command again to continue.")
        return 130
    return 0
