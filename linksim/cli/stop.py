"""How a run ends after Ctrl-C."""

from __future__ import annotations

import os
import signal
from types import FrameType


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
