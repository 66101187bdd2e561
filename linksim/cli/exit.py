"""Draw the EXIT chart of a scenario: what detectors and decoder tell each other.

Each detector has a curve: how much it tells the decoder that has told it so much, in bits of
information. The decoder has one, with its axes exchanged, and the loop of the two climbs
between them; where it stops, further passes bring nothing. Results appear in
OUTPUT/<scenario>/: results.json and exit.png.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from linksim.cli.common import (
    DEFAULT_SCENARIO,
    load_user_code,
    make_console,
    make_parser,
    print_entry,
    run_command,
    start_keras,
)
from linksim.errors import check_int, check_real
from linksim.files import check_folder
from linksim.link.scenario import load_scenario
from linksim.names import split_names


def parse_arguments(argv: Sequence[str] | None, prog: str) -> argparse.Namespace:
    """The options of a command line; exits for `--help` and wrong ones."""
    parser = make_parser(
        prog, __doc__, "--scenario rayleigh-4x4-qam16 --detectors mmse,ep,ml --snr 5"
    )
    add = parser.add_argument
    add(
        "--scenario",
        default=DEFAULT_SCENARIO,
        metavar="NAME|FILE",
        help="a name of coded_ber.py --list-scenarios, or a TOML file, with a code",
    )
    add(
        "--detectors",
        default="mmse,ep,pepnet",
        metavar="A,B,C",
        help="names of receivers without passes, whose detectors can use a prior",
    )
    add(
        "--snr",
        type=float,
        metavar="DB",
        help="the SNR in dB (default: the middle one of the scenario's points)",
    )
    add("--blocks", type=int, default=20, metavar="N", help="blocks that are drawn")
    add("--passes", type=int, default=4, metavar="N", help="most passes of the loop")
    add("--seed", type=int, default=0, metavar="N", help="seed of all random draws")
    add("--output", default="results/exit", metavar="DIR", help="folder of the results")
    add("--xla", choices=("auto", "on", "off"), default="auto", help="compile with XLA")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None, prog: str = "exit.py") -> int:
    """Run the command line and return the exit code."""
    return run_command(prog, lambda: _run(parse_arguments(argv, prog)))


def _run(args: argparse.Namespace) -> int:
    load_user_code(args)
    console = make_console()
    scenario = load_scenario(args.scenario)
    detectors = split_names(args.detectors)
    points = sorted(scenario.snr.points)
    snr_db = points[len(points) // 2] if args.snr is None else args.snr
    check_real("--snr", snr_db, low=-200, high=200, unit="dB")
    check_int("--blocks", args.blocks, 2)
    check_int("--passes", args.passes, 2, 100)
    check_int("--seed", args.seed, 0)
    folder = Path(args.output) / scenario.name
    check_folder(folder, "--output")

    # After everything that can be refused quickly
    start_keras("linksim.montecarlo.exit_chart", "linksim.figures")
    from linksim.montecarlo.exit_chart import exit_chart, loop_table, write_exit_chart

    print_entry(console, f"{scenario.name}:", scenario.description)
    with console.status("") as status:
        results = exit_chart(
            scenario,
            detectors,
            snr_db,
            num_blocks=args.blocks,
            num_passes=args.passes,
            seed=args.seed,
            xla=args.xla,
            on_progress=status.update,
        )
    write_exit_chart(results, folder)
    console.print(loop_table(results))
    console.print(f"results in {folder}/", soft_wrap=True, markup=False)
    return 0
