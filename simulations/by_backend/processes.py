"""Processes of the backends, which are asked one thing at a time."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from ..speed.process import AskedProcess
from .worker import RUNNERS

WORKER = Path(__file__).with_name("worker.py")
CHECKOUT = WORKER.parents[2]
_ONE = ("OMP", "MKL", "OPENBLAS")


class BackendProcess(AskedProcess):
    """A process of `worker.py`, on the CPU and with one thread.

    Args:
        runner: one of `RUNNERS`.
        python: the interpreter.
        cache: a folder for what torch.compile keeps; an empty one makes it compile anew.
    """

    def __init__(self, runner: str, python: str, cache: Path) -> None:
        self.runner = runner
        super().__init__([python, str(WORKER), runner], environment_of(runner, cache))


def environment_of(runner: str, cache: Path) -> dict[str, str]:
    """The variables of a process with one thread on the CPU."""
    return {
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
