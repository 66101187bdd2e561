#!/usr/bin/env python3
"""One HTML page of one or several runs of coded_ber.py, that works without a network.

Error-rate curves with their intervals, tables of dB gaps and costs, and how each run was
made. Detectors, runs and SNR definitions are switched in the page.
"""

import argparse
import logging
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
# It takes the compilation of ten detectors for the retracing of one
logging.getLogger("tensorflow").setLevel(logging.ERROR)
if __package__ in (None, ""):  # run as a script: prefer the checkout around it
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from linksim.errors import InvalidInput, ResultFileError


def parse_arguments(argv):
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0],
        epilog="Example: report.py results/cdl-c-8x4-qam16 --output report.html",
    )
    add = parser.add_argument
    add("results", nargs="+", metavar="RESULTS", help="results.json, or the folder it is in")
    add("--output", default="report.html", metavar="FILE")
    add("--rate", choices=("bler", "ber", "ser"), default="bler", help="shown first")
    add(
        "--latency",
        type=int,
        default=0,
        metavar="N",
        help="take the time of each detector here, the median of N calls",
    )
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_arguments(argv)
    # Loads TensorFlow: after every refusal of the command line
    from linksim.report import write_report

    try:
        write_report(args.results, args.output, rate=args.rate, repeats=args.latency)
    except (InvalidInput, ResultFileError) as error:
        print(f"report.py: {error}", file=sys.stderr)
        return 2
    print(args.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
