"""Rows against Sionna 2.x, which is written in PyTorch and has an environment of its own.

Each side is a process, and they are called by turns with the same inputs. Of Sionna's eager
call and of what torch.compile makes of it, the faster one counts.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from .rows import absent_row, agreement_of, row_of
from .side import Side, by_turns
from .vectors import draw_vectors, faster, random_vectors

#: Options of our EP that make it Sionna's
SIONNA_EP = {"num_iterations": 10, "damping": 0.9, "demapping_method": "maxlog"}
SIDE = Path(__file__).with_name("torch_side.py")
ROOT = SIDE.parents[2]
#: {row: (ours, options, Sionna's, options, num_rx, num_streams, bits, batch, N0)}
DETECTORS = {
    "sionna2-ml-2x2-qam64": ("ml", {}, "ml", {}, 2, 2, 6, 1000, 0.05),
    # With 1000 vectors Sionna's needs 13 GB
    "sionna2-ml-4x4-qam16": ("ml", {}, "ml", {}, 4, 4, 4, 100, 0.2),
    "sionna2-kbest-4x4-qam16": ("kbest", {"k": 64}, "kbest", {"k": 64}, 4, 4, 4, 1000, 0.2),
    "sionna2-lmmse-64x16-qam16": ("mmse", {}, "lmmse", {}, 64, 16, 4, 1000, 5.0),
    "sionna2-ep-64x16-qam16": ("ep", SIONNA_EP, "ep", {}, 64, 16, 4, 1000, 5.0),
}
#: The same with both sides on PyTorch: (ours, options, Sionna's, whether ours gets N0)
TORCH = {
    "torch-mmse-64x16-qam16": ("mmse", {}, "lmmse", False),
    "torch-mmse-64x16-qam16-n0": ("mmse", {}, "lmmse", True),
    "torch-ep-64x16-qam16": ("ep", SIONNA_EP, "ep", False),
}
TORCH_SYSTEM = (64, 16, 4, 1000, 5.0)
DECODER = "sionna2-ldpc-648-324"
#: Eb/N0 in dB of QPSK on AWGN, and codewords
DECODED_AT, CODEWORDS = 2.5, 1000
ROWS = (*DETECTORS, DECODER, *TORCH)

# Seconds that a first call may take
LIMITS = {"eager": 120.0, "compiled": 90.0}


class TorchSide(Side):
    """A side on PyTorch, in the faster of its modes.

    Args:
        python: the interpreter of the environment with Sionna 2.x.
        spec: what `torch_side.py` loads.
        folder: has inputs.npz; the results go there.

    Raises:
        RuntimeError: the environment cannot do it.
    """

    def __init__(self, python: str, spec: dict[str, Any], folder: Path) -> None:
        environment = {"KERAS_BACKEND": "torch", "PYTHONPATH": str(ROOT)}
        super().__init__([python, str(SIDE)], environment, spec, folder, LIMITS)
        self.versions = self.loaded["versions"]


def sionna2_row(name: str, args: Any) -> dict[str, Any]:
    """Compare with Sionna 2.x in its own environment.

    Args:
        name: one of `ROWS`.
        args: of the command line: `sionna2` is the interpreter, or "".
    """
    if not args.sionna2:
        return absent_row(
            name, "Sionna 2.x", "not installed: --sionna2 names no Python with it"
        )
    with tempfile.TemporaryDirectory() as folder:
        compare = _decoding if name == DECODER else _on_torch if name in TORCH else _detectors
        try:
            return compare(name, args, Path(folder))
        except (RuntimeError, OSError) as error:
            return absent_row(name, "Sionna 2.x", f"cannot run: {error}")


def _detectors(name, args, folder):
    """Ours on TensorFlow beside Sionna's."""
    from linksim.registry import create_detector

    ours, options, rival, rival_options, num_rx, k, m, batch, no = DETECTORS[name]
    batch = max(4, batch // 10) if args.quick else batch
    _save_inputs(folder, random_vectors(num_rx, k, m, batch, no))
    inputs = draw_vectors(num_rx, k, m, batch, no)
    system = {"num_streams": k, "num_bits_per_symbol": m}
    mode, function = faster(create_detector(ours, **system, **options), inputs)
    spec = {"side": "rival", "make": "sionna", "name": rival, "options": rival_options}
    other = TorchSide(args.sionna2, {**spec, **system}, folder)
    try:
        llrs = np.asarray(function(*inputs))
        sides = {"ours": _timed(lambda: function(*inputs)), "rival": other.seconds}
        seconds = by_turns(sides, args.repeats)
    finally:
        other.close()
    labels = f"{ours} (TensorFlow, {mode})", _label(rival, other)
    agreement = agreement_of(llrs, other.result, same=rival != "ep")
    return row_of(name, *labels, seconds, dict.fromkeys(seconds, batch), agreement)


def _on_torch(name, args, folder):
    """Ours on PyTorch beside Sionna's, a process each."""
    ours, options, rival, white = TORCH[name]
    num_rx, k, m, batch, no = TORCH_SYSTEM
    batch = max(4, batch // 10) if args.quick else batch
    _save_inputs(folder, random_vectors(num_rx, k, m, batch, no))
    system = {"num_streams": k, "num_bits_per_symbol": m}
    own = {"side": "ours", "make": "own", "name": ours, "options": options, "white": white}
    other = {"side": "rival", "make": "sionna", "name": rival, "options": {}}
    sides: dict[str, TorchSide] = {}
    try:
        for spec in (own, other):
            sides[spec["side"]] = TorchSide(args.sionna2, {**spec, **system}, folder)
        seconds = by_turns({key: side.seconds for key, side in sides.items()}, args.repeats)
    finally:
        for side in sides.values():
            side.close()
    noise = "N0" if white else "covariances"
    labels = f"{ours} (PyTorch, {sides['ours'].mode}, {noise})", _label(rival, sides["rival"])
    llrs = (side.result for side in (sides["ours"], sides["rival"]))
    agreement = agreement_of(*llrs, same=rival != "ep")
    return row_of(name, *labels, seconds, dict.fromkeys(seconds, batch), agreement)


def _decoding(name, args, folder):
    """Our decoder, which stops at parity, beside all iterations of Sionna's."""
    import tensorflow as tf

    from linksim.link.coding.ldpc import WiFiLDPC
    from linksim.link.coding.wifi import SIZES, wifi_matrix

    code, words = WiFiLDPC(20, "boxplus-phi"), CODEWORDS // 10 if args.quick else CODEWORDS
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2, (words, code.num_info_bits)).astype(np.float32)
    coded = code.encode(tf.constant(bits)).numpy()
    variance = 1 / (2 * code.coderate * 10 ** (DECODED_AT / 10))  # of one real dimension
    received = 2 * coded - 1 + rng.normal(size=coded.shape) * np.sqrt(variance)
    llrs = (2 * received / variance).astype(np.float32)
    size = code.num_coded_bits, code.num_info_bits
    np.savez(folder / "inputs.npz", llrs=llrs, pcm=wifi_matrix(size[0], SIZES[size]))
    spec = {"side": "rival", "make": "decoder", "options": {"num_iter": 20}}
    spec["options"]["cn_update"] = "boxplus-phi"
    mode, decode = faster(code.decode, [tf.constant(llrs)], {"XLA": True})
    other = TorchSide(args.sionna2, spec, folder)
    try:
        given = tf.constant(llrs)
        sides = {"ours": _timed(lambda: decode(given)), "rival": other.seconds}
        seconds = by_turns(sides, args.repeats)
    finally:
        other.close()
    theirs, mine = other.result[:, : code.num_info_bits], decode(given).numpy()
    same, bler = np.mean((mine == theirs).all(1)), np.mean((theirs != bits).any(1))
    agreement = f"{100 * same:.1f} % of codewords equal, at BLER {bler:.3f}"
    labels = f"stops at parity (TensorFlow, {mode})", _label("20 iterations", other)
    return row_of(name, *labels, seconds, dict.fromkeys(seconds, words), agreement)


def _timed(function):
    def call():
        start = time.perf_counter()
        np.asarray(function())
        return time.perf_counter() - start

    return call


def _label(name, side):
    found = side.versions
    return f"{name} (Sionna {found['sionna']}, PyTorch {found['torch']}, {side.mode})"


def _save_inputs(folder, arrays):
    np.savez(folder / "inputs.npz", **dict(zip(("y", "h", "no"), arrays)))
