"""The process of one backend: it builds a detector, and is then timed by turns with others.

It reads one JSON object a line from its input and answers each with one line:
`{"prepare": case, "folder": FOLDER}` compiles a detector and writes its LLRs to
FOLDER/<runner>.npy, `{"time": SECONDS}` calls it for about so long. The first process writes
inputs and weights to FOLDER, which all others read.

    python worker.py RUNNER
"""

from __future__ import annotations

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
    from simulations.speed.process import answer_requests

    timed: list[Callable] = []

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        if "prepare" in request:
            function, found = prepare(runner, request["prepare"], Path(request["folder"]))
            timed[:] = [function]
            return found
        return {"seconds": time_calls(timed[0], request["time"])}

    answer_requests(answer)


def prepare(runner: str, case: dict[str, Any], folder: Path) -> tuple[Callable, dict]:
    """A function without arguments that calls the detector, and what became of the first call.

    Returns:
        The function, and {first_seconds, versions} with {graphs, breaks, reasons} of
        torch.compile.
    """
    import keras
    from keras import ops

    backend, mode = RUNNERS[runner]
    if keras.backend.backend() != backend:
        raise RuntimeError(f"Keras runs on {keras.backend.backend()}, expected {backend}")
    arrays = inputs_of(case)
    detector = build(case, arrays, folder / "weights.npz", writes=runner == REFERENCE)
    inputs = [ops.convert_to_tensor(x) for x in arrays]
    called, describe = compile_as(mode, detector)

    def function(*args):
        return np.asarray(ops.convert_to_numpy(called(*args)))

    start = time.perf_counter()
    llrs = function(*inputs)
    seconds = time.perf_counter() - start
    np.save(folder / f"{runner}.npy", llrs)
    return lambda: function(*inputs), {
        "first_seconds": seconds,
        "versions": versions(backend),
        **describe(),
    }


def build(case: dict[str, Any], arrays: tuple[np.ndarray, ...], file: Path, writes: bool):
    """The detector of a case, with the weights that all sides have.

    Args:
        case: of `simulations.by_backend.cases`.
        arrays: its inputs, as many vectors as there are.
        file: of the weights.
        writes: whether this side writes the file, and does not read it.
    """
    from keras import ops

    from linksim.registry import create_detector

    system = {key: case[key] for key in ("num_streams", "num_bits_per_symbol")}
    detector = create_detector(case["detector"], **system, pretrained=case["weights"] or False)
    detector(*(x[:2] for x in arrays))  # creates the weights
    if writes:
        values = [np.asarray(ops.convert_to_numpy(w)) for w in detector.weights]
        np.savez(file, **{f"w{i}": value for i, value in enumerate(values)})
    else:
        with np.load(file, allow_pickle=False) as stored:
            for i, weight in enumerate(detector.weights):
                weight.assign(stored[f"w{i}"])
    return detector


def inputs_of(case: dict[str, Any]) -> tuple[np.ndarray, ...]:
    """y, h and N0 of i.i.d. Rayleigh channels."""
    from simulations.speed.vectors import random_vectors

    sizes = case["num_rx"], case["num_streams"], case["num_bits_per_symbol"]
    return random_vectors(*sizes, case["batch"], case["no"])


def compile_as(mode: str, detector: Any) -> tuple[Callable[..., Any], Callable]:
    """The detector as a function of tensors, and what describes its compilation."""
    if mode in ("graph", "xla"):
        import tensorflow as tf

        graph = tf.function(
            lambda *args: detector(*args), autograph=False, jit_compile=mode == "xla"
        )
        return graph, dict
    if mode == "jit":
        from linksim.backend import compiled

        return compiled(lambda *args: detector(*args), detector.variables), dict
    import torch
    from torch._dynamo.utils import counters

    called = detector
    if mode != "eager":
        maker = "inductor" if mode == "compile" else "eager"
        called = torch.compile(lambda *args: detector(*args), backend=maker)

    def function(*args):
        with torch.no_grad():
            return called(*args)

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
