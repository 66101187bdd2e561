"""Export a detector, a quantizer or a whole receiver for use without linksim.

OUTPUT gets the model, its card (card.json, card.md), a test vector and check.py, which
compares the two. The export is checked in a process that has no linksim.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from linksim.cli.common import load_user_code, make_parser, run_command, start_keras
from linksim.errors import InvalidInput
from linksim.files import check_folder
from linksim.link.scenario import load_scenario
from linksim.names import names_quantizer, parse_receiver


def parse_arguments(argv: Sequence[str] | None, prog: str) -> argparse.Namespace:
    """The options of a command line; exits for `--help` and wrong ones."""
    parser = make_parser(
        prog,
        __doc__,
        "oampnet2 --scenario rayleigh-4x4-qam16 --output oampnet2 --format onnx",
    )
    add = parser.add_argument
    add(
        "name",
        metavar="NAME",
        help="a detector, with a quantizer of its LLRs if wanted (mmse, oampnet2, "
        "ml+max-mi:3), a quantizer alone (eqnet-mi:6), or with --receiver a receiver of "
        "several passes (ep/2)",
    )
    add(
        "--scenario",
        required=True,
        metavar="NAME|FILE",
        help="the system that it is for; coded-ber --list-scenarios shows what there is",
    )
    add("--output", required=True, metavar="DIR", help="the folder that is written")
    add(
        "--format",
        choices=("savedmodel", "keras", "onnx", "tflite"),
        default="savedmodel",
        help="the file format",
    )
    add(
        "--receiver",
        action="store_true",
        help="include deinterleaver and channel decoder: decided bits of whole blocks",
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None, prog: str = "export.py") -> int:
    """Run the command line and return the exit code."""
    # The comparison of the export with the detector fails with a RuntimeError
    return run_command(
        prog,
        lambda: _run(parse_arguments(argv, prog)),
        mendable=(InvalidInput, RuntimeError, OSError),
    )


def _run(args: argparse.Namespace) -> int:
    load_user_code(args)
    scenario = load_scenario(args.scenario)
    if not names_quantizer(args.name):
        spec = parse_receiver(args.name, "NAME")
        if spec.num_passes > 1 and not args.receiver:
            raise InvalidInput(
                f"--receiver: missing, but {args.name} has several passes of detector and "
                "decoder, which only a whole receiver can make"
            )
    check_folder(args.output, "--output")
    start_keras("linksim.export")
    from linksim.export import export, target_of

    card = export(target_of(args.name, scenario, args.receiver), args.format, args.output)
    print(f"{Path(args.output) / card['file']}; checked, largest differences:")
    print("\n".join(f"  {line}" for line in card["checked"]))
    return 0
