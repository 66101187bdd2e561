"""The process of one side of the comparison on a GPU, which is on the GPU or on the CPU.

    python -m simulations.speed.gpu_side

It answers `{"describe": true}` with what it computes on, `{"row": name, ...}` with a row of
`simulations/benchmark.py`, and the requests of `simulations.speed.side.Side`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .side import answer_side

#: Calls after which a function should hold no more memory than before
CALLS = 20


def main() -> None:
    """Answer requests until the input ends."""

    def describe(_: dict[str, Any]) -> dict[str, Any]:
        from .device import describe_device

        return describe_device()

    def measure(request: dict[str, Any]) -> dict[str, Any]:
        return {"row": row_of_benchmark(**request)}

    answer_side(Loaded, {"describe": describe, "row": measure})


class Loaded:
    """A function in its modes.

    Args:
        spec: {"side", "make": name in `MAKERS`, "tf32": whether a GPU may round to
            TensorFloat-32, "watched": whether its memory is looked at over many calls} and
            what the maker takes.
        folder: of inputs, and for results.
    """

    def __init__(self, spec: dict[str, Any], folder: Path) -> None:
        from .device import allow_tf32

        allow_tf32(spec["tf32"])
        self._make = MAKERS[spec["make"]](spec, folder)
        self._watched = spec["watched"]
        self._files = str(folder / spec["side"])
        self._functions: dict[str, Callable[[], Any]] = {}
        self.about: dict[str, Any] = {}

    def prepare(self, mode: str) -> dict[str, Any]:
        """Call the function for the first time in a mode, and look at its memory.

        Returns:
            {"seconds" of a call, "on": "gpu", "cpu" or "", "peak", "kept"}: the most bytes of
            tensors during a call, and how many more there are after each; None without a GPU,
            or where it is not watched.
        """
        from keras import ops

        from .device import kind_of, memory

        if mode not in self._functions:  # compiled once, though asked for again when chosen
            self._functions[mode] = self._make(mode)
        first = _first(self._functions[mode]())
        result, on = np.asarray(ops.convert_to_numpy(first)), kind_of(first)
        del first
        for name in (self._files, f"{self._files}-{mode}"):
            np.save(f"{name}.npy", result)
        before = memory(new_peak=True)
        seconds = self.seconds(mode)
        after = memory()
        if before is None or after is None or not self._watched:
            return {"seconds": seconds, "on": on, "peak": None, "kept": None}
        seconds = float(np.median([self.seconds(mode) for _ in range(CALLS)]))
        kept = (memory()[0] - after[0]) / CALLS
        return {"seconds": seconds, "on": on, "peak": after[1], "kept": kept}

    def seconds(self, mode: str) -> float:
        """Wall-clock time of one call, until its result is computed."""
        from linksim.backend import wait_for

        start = time.perf_counter()
        wait_for(self._functions[mode]())
        return time.perf_counter() - start


def _first(result):
    return result[0] if isinstance(result, (tuple, list)) else result


def detector(spec: dict[str, Any], folder: Path) -> Callable[[str], Callable[[], Any]]:
    """A detector on the vectors of FOLDER/inputs.npz.

    Args:
        spec: "case" of `simulations.by_backend.cases`, "vectors": how many of them, "writes":
            whether this side writes the weights that the other reads.
        folder: of inputs.npz and weights.npz.

    Returns:
        A function from a mode ("auto" is what suits a CPU) to a function without arguments.
    """
    from keras import ops

    from ..by_backend.worker import build, compile_as

    with np.load(folder / "inputs.npz", allow_pickle=False) as file:
        arrays = tuple(file[name][: spec["vectors"]] for name in ("y", "h", "no"))
    layer = build(spec["case"], arrays, folder / "weights.npz", spec["writes"])
    inputs = [ops.convert_to_tensor(x) for x in arrays]

    def make(mode):
        if mode == "auto":
            mode = "xla" if layer.xla_on_cpu else "graph"
        called, _ = compile_as(mode, layer)
        return lambda: called(*inputs)

    return make


def draws(spec: dict[str, Any], folder: Path) -> Callable[[str], Callable[[], Any]]:
    """Batch 0 of a scenario; its received vectors are what is saved."""
    simulator = _simulator(spec)

    def drawn():
        found = simulator.draw(0, spec["snr_db"], 0)
        return found.y, found.h_hat

    return lambda mode: drawn


def decoder(spec: dict[str, Any], folder: Path) -> Callable[[str], Callable[[], Any]]:
    """The decoder of a scenario's code on codewords of zeros behind Gaussian noise."""
    import tensorflow as tf

    code = _simulator(spec).link.code
    rng = np.random.default_rng(0)
    # QPSK on AWGN; an LLR is log p(b=1)/p(b=0)
    variance = 1 / (2 * code.coderate * 10 ** (spec["ebno_db"] / 10))
    noise = np.sqrt(variance) * rng.normal(size=(spec["blocks"], code.num_coded_bits))
    llrs = tf.constant((2 * (noise - 1) / variance).astype(np.float32))

    def make(mode):
        decode = tf.function(code.decode, autograph=False, jit_compile=mode == "xla")
        return lambda: decode(llrs)

    return make


def counts(spec: dict[str, Any], folder: Path) -> Callable[[str], Callable[[], Any]]:
    """Bit errors of every receiver in every block of a batch, with its draw."""
    simulator = _simulator(spec)
    for name in spec["receivers"]:
        simulator.add_detector(name)

    def counted():
        found, shared = simulator.draw(0, spec["snr_db"], 0), {}
        return np.stack(
            [simulator.errors(name, found, shared)[0] for name in spec["receivers"]]
        )

    return lambda mode: counted


def workers(spec: dict[str, Any], folder: Path) -> Callable[[str], Callable[[], Any]]:
    """Errors of blocks, of bits and of symbols in a run by this process, or by several."""
    import linksim

    scenario = linksim.load_scenario(spec["scenario"]).replace(
        run={"batch_size": spec["blocks"], "min_bler": 0.0}
    )

    def run():
        results = linksim.simulate(
            scenario,
            spec["receivers"],
            snr_db=spec["snr_db"],
            max_blocks=spec["batches"] * spec["blocks"],
            target_block_errors=10**9,
            workers=spec["workers"],
        )
        kinds = ("block_errors", "bit_errors", "symbol_errors", "blocks")
        return np.array([[r[kind] for kind in kinds] for r in results["records"]])

    return lambda mode: run


MAKERS = {
    "detector": detector,
    "draws": draws,
    "decoder": decoder,
    "counts": counts,
    "workers": workers,
}


def _simulator(spec):
    from linksim.link.scenario import load_scenario
    from linksim.link.simulator import LinkSimulator

    scenario = load_scenario(spec["scenario"]).replace(run={"batch_size": spec["blocks"]})
    return LinkSimulator(scenario)


def row_of_benchmark(row: str, **options: Any) -> dict[str, Any]:
    """A row of the benchmark of speed, on what this process computes on.

    Args:
        row: its name.
        options: what the command line says.
    """
    from simulations import benchmark

    from .device import allow_tf32

    allow_tf32(False)
    args = argparse.Namespace(**options)
    return benchmark.row_maker(row)(row, args)


if __name__ == "__main__":
    main()
