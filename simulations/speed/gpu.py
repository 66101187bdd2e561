"""The benchmark on a GPU: results beside those of the same machine's CPU, times, memory.

Every side is a process. The one on the GPU and the one on the CPU get the same inputs and
weights, and are called by turns. `GpuBenchmark` is what `benchmark.py --gpu` measures.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from linksim.errors import InvalidInput
from linksim.workers import SHARED_GPU

from ..by_backend.agreement import LIMIT, agreement
from ..by_backend.cases import case_of, compared_detectors
from .process import AskedProcess
from .rows import absent_row, row_of
from .side import Side, by_turns, first_line
from .vectors import random_vectors

ROOT = Path(__file__).resolve().parents[2]
#: Variables of a process that sees no GPU
NO_GPU = {"CUDA_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"}
#: Batches are so many times those on a CPU, where a GPU would be idle
SCALE = 20
#: LLRs are as those of the CPU if no larger share differs by more than rounding: as much as
#: between compilers on one CPU, where AMP and K-Best amplify rounding in a few vectors
MOST_BEYOND = 0.01
#: Received vectors may differ by so much of their root mean square
DRAW_LIMIT = 1e-4
#: Blocks that may be decoded on one side and not on the other: they are at the edge
MOST_FLIPPED = 0.01
#: Seconds that a first call may take, and that a row of the benchmark of speed may take
FIRST, ROW = 300.0, 1800.0
#: {backend: modes on the GPU}. The CPU has the one that the simulator takes there
MODES = {"tensorflow": ("graph", "xla"), "jax": ("jit",), "torch": ("eager", "compile")}
ON_CPU = {"tensorflow": "auto", "jax": "jit", "torch": "eager"}
#: What is measured with products in TensorFloat-32, too
ROUNDED = ("mmse", "ep", "pepnet", "oampnet2", "detnet", "remimo")
LLRS = {f"llrs-{name}": name for name in compared_detectors()}
TF32 = {f"tf32-{name}": name for name in ROUNDED}
#: {row: what both sides do, and in which mode on the GPU}
LINK: dict[str, tuple[str, dict[str, Any]]] = {
    **{
        f"draw-{name}": ("graph", {"make": "draws", "scenario": name, "snr_db": snr_db})
        for name, snr_db in (
            ("rayleigh-2x2-qam64", 13.0),
            ("cdl-c-8x4-qam16", 7.0),
            ("pusch-cdl-c-4x2-mcs14", 6.0),
        )
    },
    **{
        f"decoder-{code}": ("xla", {"make": "decoder", "scenario": name, "ebno_db": ebno_db})
        for code, name, ebno_db in (
            ("802.11n", "rayleigh-2x2-qam64", 1.5),
            ("5g", "cdl-c-8x4-qam16", 1.5),
        )
    },
    **{
        f"counts-{name}": (
            "auto",
            {"make": "counts", "scenario": name, "snr_db": snr_db, "receivers": receivers},
        )
        for name, snr_db, receivers in (
            ("rayleigh-2x2-qam64", 13.0, ["mmse", "ep", "kbest", "ml", "ml+max-mi"]),
            ("cdl-c-8x4-qam16", 7.0, ["mmse", "ep", "pepnet", "lord", "ep/2"]),
            ("pusch-cdl-c-4x2-mcs14", 6.0, ["mmse", "ep", "pepnet"]),
        )
    },
}
#: Blocks of a batch on the GPU and on the CPU. Other numbers of them draw other blocks
BLOCKS = {"draws": (200, 200), "decoder": (10000, 500), "counts": (200, 200)}
WORKERS = "workers-2"
RUN = {"scenario": "rayleigh-2x2-qam64", "receivers": ["mmse", "ml"], "snr_db": 13.0}
ROWS = (*LLRS, *TF32, *LINK, WORKERS)
#: A row of a kind, for a trial
QUICK = (
    "llrs-mmse",
    "draw-rayleigh-2x2-qam64",
    "decoder-802.11n",
    "counts-rayleigh-2x2-qam64",
)
#: What brings code for GPUs
INSTALL = {
    "tensorflow": 'pip install -e ".[gpu]"',
    "torch": "a build of PyTorch with CUDA or ROCm",
    "jax": 'pip install "jax[cuda12]"',
}


class GpuBenchmark:
    """What `benchmark.py --gpu` measures.

    Args:
        backend: of Keras.
        device: "gpu", or "cpu" for a trial of the code: the CPU beside itself.
        speed_rows: names of rows of the benchmark of speed, which compare with Sionna.

    Attributes:
        rows: names of all rows.
        facts: what it computes on.
        left_out: in words, what needs another backend, or "".

    Raises:
        InvalidInput: the backend sees no GPU.
    """

    def __init__(self, backend: str, device: str, speed_rows: Sequence[str]) -> None:
        self._backend, self._device = backend, device
        found = self._ask(device, {"describe": True}, FIRST)
        if "error" in found:
            raise InvalidInput(f"--gpu: {backend} does not start ({found['error']})")
        if device == "gpu" and not found["name"]:
            raise InvalidInput(
                f"--gpu: Keras runs on {backend} ({found['software']}), which sees no GPU"
                + (f": {found['lacks']}" if "lacks" in found else "")
                + f"; it needs a driver and {INSTALL[backend]}; --device cpu is a trial without"
            )
        if device == "cpu":
            found = {"name": "trial on the CPU", "trial": True} | {
                key: found[key] for key in ("backend", "software")
            }
        self.facts = {"device": found.pop("name"), **found}
        self.rows: tuple[str, ...] = (*LLRS, *TF32)
        self.left_out = "draws, decoders, runs and Sionna's detectors, which need TensorFlow"
        if backend == "tensorflow":
            self.rows, self.left_out = (*ROWS, *speed_rows), ""

    @property
    def file_name(self) -> str:
        """Of the results, without its ending."""
        words = f"{self.facts['device']} {self._backend}".lower()
        return re.sub("[^a-z0-9]+", "-", words).strip("-")

    def measure(self, name: str, args: Any) -> dict[str, Any]:
        """A row; one without times where it cannot be measured.

        Args:
            name: of the row.
            args: of the command line: `quick` and `repeats`.
        """
        with tempfile.TemporaryDirectory() as folder:
            try:
                if name in LLRS or name in TF32:
                    return self._llrs(name, args, Path(folder))
                if name in LINK:
                    return self._link(name, args, Path(folder))
                if name == WORKERS:
                    return self._workers(args, Path(folder))
            except (RuntimeError, OSError) as error:
                return absent_row(name, "", f"cannot run: {error}")
        # With Sionna's on the same device
        request = {"row": name, "quick": args.quick, "repeats": args.repeats, "sionna2": ""}
        scale = 1 if args.quick else SCALE
        answer = self._ask(self._device, request | {"scale": scale}, ROW)
        if "error" in answer:
            return absent_row(name, "", f"cannot run: {first_line(answer['error'])}")
        return answer["row"]

    def _ask(self, device, request, limit):
        process = AskedProcess(COMMAND, self._environment(device))
        try:
            return process.ask(request, limit)
        finally:
            process.close()

    def _environment(self, device):
        own = {"KERAS_BACKEND": self._backend, "PYTHONPATH": str(ROOT)}
        return own | (SHARED_GPU if device == "gpu" else NO_GPU)

    def _side(self, device, spec, folder, modes):
        side = Side(
            COMMAND, self._environment(device), spec, folder, dict.fromkeys(modes, FIRST)
        )
        on = side.answers[side.mode]["on"]
        if on and on != device:
            side.close()
            raise RuntimeError(f"it was computed on the {on}, not on the {device}")
        return side

    def _both(self, ours, rival, folder, repeats):
        """Both sides, closed, and the seconds of their calls; each is (device, spec, modes).

        The second one starts first and writes what the first one reads.
        """
        sides: dict[str, Side] = {}
        try:
            for key, (device, spec, modes) in (("rival", rival), ("ours", ours)):
                spec = {"side": key, "watched": True} | spec
                sides[key] = self._side(device, spec, folder, modes)
            calls = {key: sides[key].seconds for key in ("ours", "rival")}
            return sides, by_turns(calls, repeats)
        finally:
            for side in sides.values():
                side.close()

    def _llrs(self, name, args, folder):
        """A detector on the GPU beside the CPU, or beside products in full float32."""
        rounded = name in TF32
        case = case_of((LLRS | TF32)[name])
        if args.quick:
            case["batch"] = max(4, case["batch"] // 10)
        few, many = case["batch"], case["batch"] * (1 if args.quick else SCALE)
        sizes = (case[key] for key in ("num_rx", "num_streams", "num_bits_per_symbol"))
        arrays = random_vectors(*sizes, many, case["no"])
        np.savez(folder / "inputs.npz", **dict(zip(("y", "h", "no"), arrays)))
        spec = {"make": "detector", "case": case, "vectors": many, "writes": False}
        modes = MODES[self._backend]
        if rounded:
            modes = modes[-1:]
            other = (self._device, spec | {"writes": True, "tf32": False}, modes)
            numbers = {"ours": many, "rival": many}
            told = "TensorFloat-32", "float32"
        else:
            known = {"vectors": few, "writes": True, "tf32": False}
            other = ("cpu", spec | known, (ON_CPU[self._backend],))
            numbers = {"ours": many, "rival": few}
            told = self._device.upper(), "CPU"
        ours = (self._device, spec | {"tf32": rounded}, modes)
        sides, seconds = self._both(ours, other, folder, args.repeats)
        expected = sides["rival"].result
        parts, agrees = [], True
        for mode, answer in sides["ours"].answers.items():
            if "error" in answer:
                parts.append(f"{mode} fails: {first_line(answer['error'])[:80]}")
                continue
            llrs = np.load(folder / f"ours-{mode}.npy", allow_pickle=False)
            found = agreement(llrs[: len(expected)], expected)
            agrees = agrees and found["share_beyond"] <= MOST_BEYOND
            parts.append(
                f"{mode} {1e6 * answer['seconds'] / many:.3g} us, largest difference "
                f"{found['largest']:.1e}, {100 * found['share_beyond']:.2f} % beyond {LIMIT:g}"
            )
        labels = (
            f"{case['detector']} ({told[0]}, {sides['ours'].mode}, {many} vectors)",
            f"{case['detector']} ({told[1]}, {sides['rival'].mode}, {numbers['rival']})",
        )
        row = row_of(name, *labels, seconds, numbers, "")
        return row | _told("; ".join(parts), agrees, sides["ours"])

    def _link(self, name, args, folder):
        """Draw, decoder, or a run without its loop over batches, beside the CPU."""
        mode, spec = LINK[name]
        kind = spec["make"]
        many, few = (max(4, n // 20) if args.quick else n for n in BLOCKS[kind])
        sides, seconds = self._both(
            (self._device, spec | {"blocks": many, "tf32": False}, (mode,)),
            ("cpu", spec | {"blocks": few, "tf32": False}, (mode,)),
            folder,
            args.repeats,
        )
        text, agrees = AGREEMENTS[kind](sides["ours"].result, sides["rival"].result)
        what = ", ".join(spec.get("receivers", [kind]))
        labels = f"{what} ({self._device.upper()}, {many} blocks)", f"the same (CPU, {few})"
        row = row_of(name, *labels, seconds, {"ours": many, "rival": few}, "")
        return row | _told(text, agrees, sides["ours"])

    def _workers(self, args, folder):
        """A run by two workers, which share a GPU, beside one by this process alone."""
        spec = {"make": "workers", **RUN, "tf32": False, "watched": False, "batches": 8}
        spec["blocks"] = 10 if args.quick else 500
        sides, seconds = self._both(
            (self._device, spec | {"workers": 2}, ("auto",)),
            (self._device, spec | {"workers": None}, ("auto",)),
            folder,
            1,
        )
        ours, rival = sides["ours"].result, sides["rival"].result
        agrees = np.array_equal(ours, rival)
        text = "equal counts" if agrees else f"counts {ours.tolist()} and {rival.tolist()}"
        labels = f"2 workers, {spec['batches']} batches, with their start", "one process"
        row = row_of(WORKERS, *labels, seconds, {"ours": 1, "rival": 1}, "")
        return row | _told(text, agrees, sides["ours"])


COMMAND = [sys.executable, "-m", "simulations.speed.gpu_side"]


def draws_agree(ours: np.ndarray, rival: np.ndarray) -> tuple[str, bool]:
    """Whether both drew the same received vectors, but for rounding."""
    difference = np.abs(ours - rival).max() / np.sqrt(np.mean(np.abs(rival) ** 2))
    text = f"largest difference of y over its root mean square {difference:.1e}"
    return text, bool(difference <= DRAW_LIMIT)


def words_agree(ours: np.ndarray, rival: np.ndarray) -> tuple[str, bool]:
    """Whether the codewords that both decoded came out the same."""
    ours = ours[: len(rival)]
    same = (ours == rival).all(1)
    text = f"{100 * same.mean():.2f} % of {len(rival)} codewords equal"
    return f"{text}, at BLER {rival.any(1).mean():.3f}", bool(np.mean(~same) <= MOST_FLIPPED)


def counts_agree(ours: np.ndarray, rival: np.ndarray) -> tuple[str, bool]:
    """Whether the same blocks [receivers, blocks] failed."""
    flipped = (ours > 0) != (rival > 0)
    failed = ", ".join(f"{a}/{b}" for a, b in zip((ours > 0).sum(1), (rival > 0).sum(1)))
    text = f"blocks with errors {failed} of {ours.shape[1]}, {flipped.sum()} blocks unlike"
    return text, bool(flipped.mean() <= MOST_FLIPPED)


AGREEMENTS = {"draws": draws_agree, "decoder": words_agree, "counts": counts_agree}


def _told(text: str, agrees: bool, side: Side) -> Mapping[str, Any]:
    """The agreement of a row, and the memory of its side on the GPU."""
    answer = side.answers[side.mode]
    found = {key: answer[key] for key in ("peak", "kept")}
    if answer["peak"] is not None:
        text += (
            f"; at most {answer['peak'] / 2**20:.0f} MB, {answer['kept']:.0f} B more a call"
        )
    return {"agreement": text if agrees else f"DIFFERS: {text}", "agrees": agrees, **found}
