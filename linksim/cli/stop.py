"""How a run ends after Ctrl-C."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType


@contextlib.contextmanager
def exit_at_once(line: str) -> Iterator[None]:
    """Inside, Ctrl-C ends the process without further ado, with exit code 130.

    This is for imports and for TensorFlow: an exception that is raised in the middle of
    them can be swallowed, or become another one. Nothing is lost that is on disk.

    Args:
        line: what to print on stderr.
    """
    stderr = os.dup(2)  # libraries may be muted, see `start_keras`

    def end(number: int, frame: FrameType | None) -> None:
        # A progress bar has hidden the cursor
        cursor = "\x1b[?25h" if os.isatty(stderr) else ""
        os.write(stderr, f"{cursor}{line}\n".encode(errors="backslashreplace"))
        os._exit(130)

    before = signal.getsignal(signal.SIGINT)
    in_main = threading.current_thread() is threading.main_thread()
    if in_main:
        signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        if in_main:
            signal.signal(signal.SIGINT, before)
        os.close(stderr)


class GracefulStop:
    """Ctrl-C ends the run after what is in hand; a second one ends it at once.

    An exception raised wherever the signal happens to arrive could be swallowed
    inside TensorFlow; this one is raised where the run expects it.

    Args:
        unit: what is finished first, as "batch".
    """

    def __init__(self, unit: str) -> None:
        self._asked = False
        self._unit = unit

    def __enter__(self) -> GracefulStop:
        self._before = signal.signal(signal.SIGINT, self._ask)
        return self

    def __exit__(self, *exc: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._asked = True
        text = f"\nstopping after this {self._unit}; Ctrl-C again stops at once\n"
        os.write(2, text.encode())
        signal.signal(signal.SIGINT, self._before)

    def check(self) -> None:
        """Raise `KeyboardInterrupt` if Ctrl-C was pressed."""
        if self._asked:
            raise KeyboardInterrupt
