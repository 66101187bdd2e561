#!/usr/bin/env python3
"""The EXIT chart of a scenario: what detectors and decoder tell each other. See `--help`."""

import sys
from pathlib import Path

if __package__ in (None, ""):  # run as a script: prefer the checkout around it
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

try:
    from linksim.cli.exit import main
except KeyboardInterrupt:
    sys.exit(130)

if __name__ == "__main__":
    sys.exit(main())
