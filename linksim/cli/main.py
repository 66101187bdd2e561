"""The console command `linksim`, which hands over to its subcommands."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

import linksim
from linksim.cli.common import Parser

# Each has a module of this package, which is imported when it is asked for
COMMANDS = {
    "coded-ber": "simulate coded BER and BLER of detectors",
    "train": "train detectors or quantizers by their recipes",
    "export": "write a detector, a quantizer or a receiver for use without linksim",
    "report": "write one HTML page of one or several runs",
    "exit": "draw the EXIT chart of detectors and decoder",
    "models": "list the trained models, or show the card of one",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code.

    Args:
        argv: arguments; default those of the process.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    if argv and argv[0] in COMMANDS:
        name = argv[0]
        try:
            module = importlib.import_module(f"linksim.cli.{name.replace('-', '_')}")
        except KeyboardInterrupt:
            return 130
        return module.main(argv[1:], prog=f"linksim {name}")
    listed = "\n".join(f"  {name:10} {text}" for name, text in COMMANDS.items())
    parser = Parser(
        prog="linksim",
        usage="linksim [-h] [--version] COMMAND ...",
        description="Link-level simulation of MIMO detectors on Sionna and Keras.",
        epilog=f"commands:\n{listed}\n\n`linksim COMMAND --help` describes a command.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--version", action="version", version=f"linksim {linksim.__version__}"
    )
    parser.add_argument(
        "command", choices=COMMANDS, metavar="COMMAND", help="one of the commands below"
    )
    # Whatever is not a command ends here, with help, the version or an error
    parser.parse_args(argv)
    return 2
