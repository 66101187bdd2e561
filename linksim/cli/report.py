"""Write one HTML page of one or several runs of coded-ber; it works without a network.

The page has error-rate curves with their intervals, tables of dB gaps and costs, and how
each run was made. Detectors, runs and SNR definitions are switched in the page.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from linksim.cli.common import load_user_code, make_parser, run_command, start_keras
from linksim.files import check_folder


def parse_arguments(argv: Sequence[str] | None, prog: str) -> argparse.Namespace:
    """The options of a command line; exits for `--help` and wrong ones."""
    parser = make_parser(prog, __doc__, "results/cdl-c-8x4-qam16 --output report.html")
    add = parser.add_argument
    add("results", nargs="+", metavar="RESULTS", help="results.json, or the folder it is in")
    add("--output", default="report.html", metavar="FILE", help="the page")
    add(
        "--rate",
        choices=("bler", "ber", "ser"),
        default="bler",
        help="the error rate that is shown first",
    )
    add(
        "--latency",
        type=int,
        default=0,
        metavar="N",
        help="measure the time of each detector on this machine, as the median of N calls",
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None, prog: str = "report.py") -> int:
    """Run the command line and return the exit code."""
    return run_command(prog, lambda: _run(parse_arguments(argv, prog)))


def _run(args: argparse.Namespace) -> int:
    load_user_code(args)
    check_folder(Path(args.output).parent, "--output")
    start_keras("linksim.report")
    from linksim.report import write_report

    write_report(args.results, args.output, rate=args.rate, repeats=args.latency)
    print(args.output)
    return 0
