#!/usr/bin/env python3
"""Export a detector, a quantizer or a whole receiver, for use without linksim.

OUTPUT gets the model, its card (card.json, card.md), a test vector and check.py, which
compares the two. The export is checked in a process that has no linksim.
"""

import argparse
import logging
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
logging.getLogger("tensorflow").setLevel(logging.ERROR)
if __package__ in (None, ""):  # run as a script: prefer the checkout around it
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from linksim.errors import InvalidInput, ResultFileError
from linksim.link.scenario import load_scenario
from linksim.names import names_quantizer, parse_receiver


def parse_arguments(argv):
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0],
        epilog="Example: export.py oampnet2 --scenario rayleigh-4x4-qam16 "
        "--output oampnet2 --format onnx",
    )
    add = parser.add_argument
    add(
        "name",
        metavar="NAME",
        help="a detector, with a quantizer of its LLRs if wanted (mmse, oampnet2, "
        "ml+max-mi:3), or a quantizer alone (eqnet-mi:6)",
    )
    add("--scenario", required=True, metavar="NAME|FILE")
    add("--output", required=True, metavar="DIR")
    add("--format", choices=("savedmodel", "keras", "onnx"), default="savedmodel")
    add(
        "--receiver",
        action="store_true",
        help="with deinterleaver and channel decoder: decided bits of whole blocks",
    )
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_arguments(argv)
    try:
        scenario = load_scenario(args.scenario)
        if not names_quantizer(args.name):
            parse_receiver(args.name, "NAME")
        # Loads Sionna: after everything that can be refused quickly
        from linksim.export import export, target_of

        card = export(target_of(args.name, scenario, args.receiver), args.format, args.output)
    except (InvalidInput, ResultFileError, RuntimeError) as error:
        print(f"export.py: {error}", file=sys.stderr)
        return 2
    print(f"{Path(args.output) / card['file']}; checked, largest differences:")
    print("\n".join(f"  {line}" for line in card["checked"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
