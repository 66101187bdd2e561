"""One side of a comparison: a process that loads a function, and calls it in the faster mode."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .process import AskedProcess, answer_requests


class Side:
    """A process that answers `{"load": spec, "folder"}`, `{"mode": mode}` and `{"time": mode}`.

    The first request makes a function of what is in the folder, the second calls it for the
    first time and writes its result to FOLDER/<side>.npy, the third takes the time of a call.

    Args:
        command: of the process.
        environment: its variables, beside those of this process.
        spec: what it loads; "side" is its name.
        folder: has the inputs; the result goes there.
        limits: {mode: seconds that a first call may take}. Modes that fail are left out.

    Attributes:
        mode: the one that took the least time.
        result: what it returned.
        answers: {mode: what the process answered, perhaps with "error"}.
        loaded: the answer to the first request.

    Raises:
        RuntimeError: it cannot load, or no mode works.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        spec: Mapping[str, Any],
        folder: Path,
        limits: Mapping[str, float],
    ) -> None:
        self._command, self._environment = command, environment
        self._spec, self._folder, self._limits = spec, folder, limits
        self._start()
        try:
            self._choose()
        except BaseException:
            self.close()
            raise
        self.result = np.load(folder / f"{spec['side']}.npy", allow_pickle=False)

    def _start(self):
        self._process = AskedProcess(self._command, self._environment)
        request = {"load": self._spec, "folder": str(self._folder)}
        self.loaded = self._asked(request)

    def _choose(self):
        self.answers: dict[str, dict[str, Any]] = {}
        for mode, limit in self._limits.items():
            if self._process.has_ended:  # while it compiled
                self._start()
            self.answers[mode] = self._process.ask({"mode": mode}, limit)
        work = {m: a["seconds"] for m, a in self.answers.items() if "error" not in a}
        if not work:
            raise RuntimeError(first_line(next(iter(self.answers.values()))["error"]))
        self.mode = min(work, key=lambda mode: work[mode])
        if self._process.has_ended:
            self._start()
        elif len(self._limits) == 1:  # its result is there already
            return
        self.answers[self.mode] |= self._asked({"mode": self.mode})

    def _asked(self, request):
        answer = self._process.ask(request, max(self._limits.values()))
        if "error" in answer:
            self.close()
            raise RuntimeError(first_line(answer["error"]))
        return answer

    def seconds(self) -> float:
        """Seconds of one call."""
        return self._asked({"time": self.mode})["seconds"]

    def close(self) -> None:
        """End the process."""
        self._process.close()


def answer_side(
    load: Callable[[Any, Path], Any],
    others: Mapping[str, Callable[[dict[str, Any]], dict[str, Any]]] | None = None,
) -> None:
    """Answer the requests of a `Side` until the input ends.

    Args:
        load: function of a spec and a folder. What it returns has `prepare(mode)`,
            `seconds(mode)` and `about`, the answer to the first request.
        others: {key of a further request: function of the request}.
    """
    loaded: list[Any] = []

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        for key, function in (others or {}).items():
            if key in request:
                return function(request)
        if "load" in request:
            loaded[:] = [load(request["load"], Path(request["folder"]))]
            return loaded[0].about
        if "mode" in request:
            return loaded[0].prepare(request["mode"])
        return {"seconds": loaded[0].seconds(request["time"])}

    answer_requests(answer)


def by_turns(sides: Mapping[str, Any], repeats: int) -> dict[str, np.ndarray]:
    """{side: seconds of each call}, of functions that return the seconds of a call."""
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(repeats):
        for side, call in sides.items():
            seconds[side].append(call())
    return {side: np.array(values) for side, values in seconds.items()}


def first_line(text: str) -> str:
    """What of an error fits into a table."""
    return (text.strip().splitlines() or ["no message"])[0][:300]
