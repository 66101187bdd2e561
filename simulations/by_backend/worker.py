"""The process of one backend: it builds a detector, and is then timed by turns with others.

It reads one JSON object a line from its input and answers each with one line:
`{"prepare": case, "folder": FOLDER}` compiles a detector and writes its LLRs to
FOLDER/<runner>.npy, `{"time": SECONDS}` calls it for about so long. The first process writes
inputs and weights to FOLDER, which all others read.

    python worker.py RUNNER
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

#: {runner: (backend of Keras, how a detector is called)}. LLRs and times of the others are
#: compared with those of the first. "trace" is torch.compile up to its graphs, for which it
#: then generates no code: that takes seconds instead of minutes.
RUNNERS = {
    "tf-graph": ("tensorflow", "graph"),
    "tf-xla": ("tensorflow", "xla"),
    "jax-jit": ("jax", "jit"),
    "torch-eager": ("torch", "eager"),
    "torch-trace": ("torch", "trace"),
    "torch-compile": ("torch", "compile"),
}
REFERENCE = "tf-graph"


def main(runner: str) -> None:
    """Answer requests until the input ends."""
    # Libraries print to the standard output, too
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    timed = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if "prepare" in request:
                timed, answer = prepare(runner, request["prepare"], Path(request["folder"]))
            else:
                answer = {"seconds": time_calls(timed, request["time"])}
        except Exception as error:  # of any type; what a backend cannot do is a result
            answer = {"error": f"{type(error).__name__}: {error}"[:2000]}
        print(json.dumps(answer), file=answers, flush=True)


def prepare(runner: str, case: dict[str, Any], folder: Path) -> tuple[Callable, dict]:
    """A function without arguments that calls the detector, and what became of the first call.

    Returns:
        The function, and {first_seconds, versions} with {graphs, breaks, reasons} of
        torch.compile.
    """
    import keras
    from keras import ops

    from linksim.registry import create_detector

    backend, mode = RUNNERS[runner]
    if keras.backend.backend() != backend:
        raise RuntimeError(f"Keras runs on {keras.backend.backend()}, expected {backend}")
    system = {key: case[key] for key in ("num_streams", "num_bits_per_symbol")}
    detector = create_detector(case["detector"], **system, pretrained=case["weights"] or False)
    arrays = inputs_of(case)
    detector(*(x[:2] for x in arrays))  # creates the weights
    file = folder / "weights.npz"
    if runner == REFERENCE:
        values = [np.asarray(ops.convert_to_numpy(w)) for w in detector.weights]
        np.savez(file, **{f"w{i}": value for i, value in enumerate(values)})
    else:
        with np.load(file, allow_pickle=False) as values:
            for i, weight in enumerate(detector.weights):
                weight.assign(values[f"w{i}"])
    inputs = [ops.convert_to_tensor(x) for x in arrays]
    function, describe = compile_as(mode, detector)
    start = time.perf_counter()
    llrs = function(*inputs)
    seconds = time.perf_counter() - start
    np.save(folder / f"{runner}.npy", llrs)
    return lambda: function(*inputs), {
        "first_seconds": seconds,
        "versions": versions(backend),
        **describe(),
    }


def inputs_of(case: dict[str, Any]) -> tuple[np.ndarray, ...]:
    """y, h and N0 of i.i.d. Rayleigh channels."""
    from simulations.speed.vectors import random_vectors

    sizes = case["num_rx"], case["num_streams"], case["num_bits_per_symbol"]
    return random_vectors(*sizes, case["batch"], case["no"])


def compile_as(mode: str, detector: Any) -> tuple[Callable[..., np.ndarray], Callable]:
    """The detector as a function of tensors to an array, and what describes its compilation."""
    if mode in ("graph", "xla"):
        import tensorflow as tf

        graph = tf.function(
            lambda *args: detector(*args), autograph=False, jit_compile=mode == "xla"
        )
        return lambda *args: graph(*args).numpy(), dict
    if mode == "jit":
        from linksim.backend import compiled

        jitted = compiled(lambda *args: detector(*args), detector.variables)
        return lambda *args: np.asarray(jitted(*args)), dict
    import torch
    from torch._dynamo.utils import counters

    called = detector
    if mode != "eager":
        maker = "inductor" if mode == "compile" else "eager"
        called = torch.compile(lambda *args: detector(*args), backend=maker)

    def function(*args):
        with torch.no_grad():
            return called(*args).numpy(force=True)

    def describe():
        if mode == "eager":
            return {}
        breaks = counters["graph_break"]
        return {
            "graphs": int(counters["stats"]["unique_graphs"]),
            "breaks": int(sum(breaks.values())),
            "reasons": sorted({reason.splitlines()[0][:200] for reason in breaks}),
        }

    return function, describe


def time_calls(function: Callable[[], Any], seconds: float) -> float:
    """Processor time of a call, the mean of as many as take about `seconds`, one at least."""
    start, number = time.process_time(), 0
    while True:
        function()
        number += 1
        passed = time.process_time() - start
        if passed >= seconds:
            return passed / number


def versions(backend: str) -> dict[str, str]:
    """Versions of Python and of the packages that compute."""
    from linksim.provenance import package_version

    names = ("keras", "numpy", backend)
    found = {name: package_version(name) for name in names}
    return {"python": platform.python_version(), **{k: v for k, v in found.items() if v}}


if __name__ == "__main__":
    # Before a neighbour of this file, the checkout around it
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    main(sys.argv[1])
