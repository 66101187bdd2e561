#!/usr/bin/env python3
"""Coded BER and BLER of MIMO detectors: the main job of linksim. See `--help`."""

import sys
from pathlib import Path

if __package__ in (None, ""):  # run as a script: prefer the checkout around it
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

try:
    from linksim.cli.coded_ber import main
except KeyboardInterrupt:
    sys.exit(130)

if __name__ == "__main__":
    sys.exit(main())
