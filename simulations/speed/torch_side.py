"""The process of one side of a comparison on PyTorch: Sionna 2.x, or linksim's own layers.

It answers requests, JSON objects of one line each:
`{"load": spec, "folder": FOLDER}` makes a function of the arrays in FOLDER/inputs.npz, and
answers with versions; `{"mode": "eager"}`, or "compiled", calls it for the first time, writes
what it returns to FOLDER/<side>.npy, and is what `{"time": mode}` then takes the time of.

    python torch_side.py
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


def main() -> None:
    """Answer requests until the input ends."""
    from simulations.speed.side import answer_side

    answer_side(Side)


class Side:
    """A function and its inputs.

    Args:
        spec: {"side", "make": name in `MAKERS`, "name", "num_streams",
            "num_bits_per_symbol", "options"}; for ours also "white": it gets N0, not
            covariances.
        folder: of inputs.npz, and for what is returned.
    """

    def __init__(self, spec: dict[str, Any], folder: Path) -> None:
        import torch

        with np.load(folder / "inputs.npz", allow_pickle=False) as file:
            arrays = dict(file)
        self._function, inputs = MAKERS[spec["make"]](spec, arrays)
        self._inputs = [torch.from_numpy(x) for x in inputs]
        self._file = folder / f"{spec['side']}.npy"
        self._modes: dict[str, Callable[..., Any]] = {}
        self.about = {"versions": versions()}

    def prepare(self, mode: str) -> dict[str, Any]:
        """Call the function for the first time in a mode, "eager" or "compiled"."""
        import torch

        if mode not in self._modes:  # compiled once, though asked for again when chosen
            function = self._function
            if mode == "compiled":
                function = torch.compile(lambda *args: self._function(*args))
            self._modes[mode] = function
        np.save(self._file, self._call(mode))
        return {"seconds": self.seconds(mode)}

    def seconds(self, mode: str) -> float:
        """Wall-clock time of one call."""
        start = time.perf_counter()
        self._call(mode)
        return time.perf_counter() - start

    def _call(self, mode):
        import torch

        with torch.no_grad():
            return self._modes[mode](*self._inputs).numpy(force=True)


def sionna_detector(spec: dict[str, Any], arrays: dict[str, np.ndarray]) -> tuple:
    """A detector of Sionna 2.x, which takes covariances of the noise."""
    from sionna.phy.mimo import (
        EPDetector,
        KBestDetector,
        LinearDetector,
        MaximumLikelihoodDetector,
    )

    k, m, options = (spec[key] for key in ("num_streams", "num_bits_per_symbol", "options"))
    qam = {"constellation_type": "qam", "num_bits_per_symbol": m}
    makers: dict[str, Callable[[], Any]] = {
        "ml": lambda: MaximumLikelihoodDetector("bit", "app", k, **qam),
        "lmmse": lambda: LinearDetector("lmmse", "bit", "app", **qam),
        "ep": lambda: EPDetector("bit", m, l=10, beta=0.9),
        # Its tree of real dimensions does not find what ML finds, not even with a list of all
        # vectors (Sionna 2.2.0): the complex one is compared
        "kbest": lambda: KBestDetector("bit", k, use_real_rep=False, **options, **qam),
    }
    return makers[spec["name"]](), [arrays["y"], arrays["h"], covariances(arrays)]


def sionna_decoder(spec: dict[str, Any], arrays: dict[str, np.ndarray]) -> tuple:
    """Belief propagation of Sionna 2.x on the LLRs of codewords."""
    from sionna.phy.fec.ldpc import LDPCBPDecoder

    decoder = LDPCBPDecoder(arrays["pcm"], hard_out=True, **spec["options"])
    return decoder, [arrays["llrs"]]


def own_detector(spec: dict[str, Any], arrays: dict[str, np.ndarray]) -> tuple:
    """A detector of linksim on PyTorch, with the inputs of Sionna's."""
    from linksim.registry import create_detector

    system = {key: spec[key] for key in ("num_streams", "num_bits_per_symbol")}
    detector = create_detector(spec["name"], **system, **spec["options"])
    noise = arrays["no"] if spec["white"] else covariances(arrays)
    return detector, [arrays["y"], arrays["h"], noise]


MAKERS = {"sionna": sionna_detector, "decoder": sionna_decoder, "own": own_detector}


def covariances(arrays: dict[str, np.ndarray]) -> np.ndarray:
    """N0 times the identity for each vector, complex64 [B, M, M]."""
    eye = np.eye(arrays["y"].shape[-1], dtype=np.complex64)
    return arrays["no"][:, None, None].astype(np.complex64) * eye


def versions() -> dict[str, str]:
    """Those of the packages that compute."""
    import sionna
    import torch

    return {"sionna": sionna.__version__, "torch": torch.__version__}


if __name__ == "__main__":
    # Before a neighbour of this file, the checkout around it
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    main()
