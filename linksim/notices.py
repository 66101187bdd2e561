"""Lines that linksim says to a user, each of them once per process."""

from __future__ import annotations

import logging

_SAID: set[str] = set()


def announce(text: str) -> None:
    """Say one line on the console (stderr), unless this process has said it before.

    The line goes through the logger "linksim":
    `logging.getLogger("linksim").setLevel("ERROR")` silences it.
    """
    if text not in _SAID:
        _SAID.add(text)
        logging.getLogger("linksim").warning("linksim: %s", text)
