"""Processes of the backends, which are asked one thing at a time."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import Any

from .worker import RUNNERS

WORKER = Path(__file__).with_name("worker.py")
CHECKOUT = WORKER.parents[2]
_ONE = ("OMP", "MKL", "OPENBLAS")


class BackendProcess:
    """A process of `worker.py`, on the CPU and with one thread.

    Args:
        runner: one of `RUNNERS`.
        python: the interpreter.
        cache: a folder for what torch.compile keeps; an empty one makes it compile anew.
    """

    def __init__(self, runner: str, python: str, cache: Path) -> None:
        self.runner = runner
        self._said = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            [python, str(WORKER), runner],
            env=environment_of(runner, cache),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
            start_new_session=True,  # so that its compilers end with it
        )
        self._answers: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self._process.stdout:
            self._answers.put(line)
        self._answers.put(None)

    def ask(self, request: dict[str, Any], limit: float) -> dict[str, Any]:
        """What the process answers to a request; {"error": text} if it ends, or takes longer
        than `limit` seconds, after which it is ended."""
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._answers.get(timeout=limit)
        except queue.Empty:
            self.close()
            return {"error": f"no answer in {limit:g} seconds"}
        except (BrokenPipeError, ValueError):  # it has ended, or was ended
            line = None
        if line is None:
            self.close()
            self._said.seek(0)
            said = self._said.read().decode(errors="replace").strip().splitlines()
            return {"error": f"the process ended: {said[-1] if said else 'no message'}"}
        return json.loads(line)

    def close(self) -> None:
        """End the process and what it has started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()


def environment_of(runner: str, cache: Path) -> dict[str, str]:
    """The environment of a process with one thread on the CPU."""
    return {
        **os.environ,
        **{f"{library}_NUM_THREADS": "1" for library in _ONE},
        **{f"TF_NUM_{pool}OP_THREADS": "1" for pool in ("INTRA", "INTER")},
        "NPROC": "1",  # the pools of JAX
        "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
        "CUDA_VISIBLE_DEVICES": "",
        "JAX_PLATFORMS": "cpu",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "TORCHINDUCTOR_COMPILE_THREADS": "1",
        "TORCHINDUCTOR_CACHE_DIR": str(cache),
        "KERAS_BACKEND": RUNNERS[runner][0],
        "PYTHONPATH": str(CHECKOUT),
    }


def lacks(python: str, backend: str) -> str:
    """Why an interpreter cannot run a backend, or "" if it can."""
    try:
        done = subprocess.run(
            [python, "-c", f"import keras, {backend}"],
            env={**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"},
            capture_output=True,
            text=True,
        )
    except OSError as error:
        return str(error.strerror)
    if done.returncode == 0:
        return ""
    return (done.stderr.strip().splitlines() or ["it cannot import it"])[-1]
