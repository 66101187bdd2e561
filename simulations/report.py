#!/usr/bin/env python3
"""One HTML page of one or several runs of coded_ber.py. See `--help`."""

import sys
from pathlib import Path

if __package__ in (None, ""):  # run as a script: prefer the checkout around it
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

try:
    from linksim.cli.report import main
except KeyboardInterrupt:
    sys.exit(130)

if __name__ == "__main__":
    sys.exit(main())
