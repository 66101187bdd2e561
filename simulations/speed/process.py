"""A process of another Python, which answers one question at a time."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def answer_requests(answer: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Answer what another process asks, one JSON object a line, until the input ends.

    Args:
        answer: from a request to its answer. What it raises is an answer, too: "error".
    """
    # Libraries print to the standard output, too
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        try:
            found = answer(json.loads(line))
        except Exception as error:  # of any type; what a backend cannot do is a result
            found = {"error": f"{type(error).__name__}: {error}"[:2000]}
        print(json.dumps(found), file=answers, flush=True)


class AskedProcess:
    """A process that reads JSON objects, one a line, and answers each with one line.

    Args:
        command: the program and its arguments.
        environment: variables beside those of this process.

    Raises:
        OSError: there is no such program.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._said = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            list(command),
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
            start_new_session=True,  # so that compilers which it has started end with it
        )
        self._answers: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self._process.stdout:
            self._answers.put(line)
        self._answers.put(None)

    def ask(self, request: Mapping[str, Any], limit: float) -> dict[str, Any]:
        """The answer to a request; {"error": text} if there is none within `limit` seconds, or
        the process ends. It is closed then."""
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._answers.get(timeout=limit)
        except queue.Empty:
            self.close()
            return {"error": f"no answer in {limit:g} seconds"}
        except (BrokenPipeError, ValueError):  # it has ended, or was closed
            line = None
        if line is not None:
            return json.loads(line)
        self.close()
        self._said.seek(0)
        said = self._said.read().decode(errors="replace").strip().splitlines()
        return {"error": f"the process ended: {said[-1] if said else 'without a message'}"}

    @property
    def has_ended(self) -> bool:
        """Whether it ended, or was closed."""
        return self._process.poll() is not None

    def close(self) -> None:
        """End the process and what it has started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
