"""Lines that linksim says to a user, each of them once per process, and silence."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator

_SAID: set[str] = set()


@contextlib.contextmanager
def muted() -> Iterator[None]:
    """Keep what libraries write to stderr below Python off the terminal."""
    sys.stderr.flush()
    saved, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)


def announce(text: str) -> None:
    """Say one line on the console (stderr), unless this process has said it before.

    The line goes through the logger "linksim":
    `logging.getLogger("linksim").setLevel("ERROR")` silences it.
    """
    if text not in _SAID:
        _SAID.add(text)
        logging.getLogger("linksim").warning("linksim: %s", text)


def counted(number: int, noun: str) -> str:
    """A number with its noun: "1 stream", "2 streams"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
