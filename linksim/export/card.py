"""The card of an export, which describes it for programs and for people."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

import linksim
from linksim.export.targets import Signature, Target
from linksim.files import arrays_hash, write_atomically
from linksim.notices import counted
from linksim.provenance import package_version

_PACKAGES = {
    "savedmodel": ("tensorflow", "keras", "sionna"),
    "keras": ("tensorflow", "keras", "sionna"),
    "onnx": ("tensorflow", "keras", "tf2onnx", "onnx", "onnxruntime"),
    "tflite": ("tensorflow", "keras"),
}
_LLR_CONVENTION = "log p(b=1)/p(b=0), natural logarithm, the sign that Sionna uses"


def make_export_card(
    target: Target,
    format: str,
    file: str,
    signatures: Mapping[str, Signature],
    tolerance: Mapping[str, float],
) -> dict[str, Any]:
    """All that a user needs to know about an export, as a dictionary for JSON.

    Args:
        target: what is exported.
        format: one of `linksim.export.FORMATS`.
        file: name of the file or folder that holds the model.
        signatures: {name: `Signature`}, those that the file has.
        tolerance: {"atol", "rtol"} that the check allows.
    """
    arrays = {
        f"w{i}": np.asarray(weight)
        for i, weight in enumerate(w for layer in target.layers for w in layer.weights)
    }
    scenario = target.scenario.to_dict()
    return {
        "export": target.name,
        "what": target.what,
        "format": format,
        "file": file,
        "scenario": scenario,
        "fingerprint": target.scenario.fingerprint(),
        "signatures": {
            name: {
                "inputs": [_described(t) for t in signature.inputs],
                "outputs": [_described(t) for t in signature.outputs],
            }
            for name, signature in signatures.items()
        },
        "llr_convention": _LLR_CONVENTION,
        "bit_labels": "Gray labels of TS 38.211; bit 0 of a symbol comes first",
        "noise": "white; whiten coloured noise before the call",
        "notes": _notes(target, format),
        "models": target.weights,
        "num_weights": int(sum(a.size for a in arrays.values())),
        "weights_sha256": arrays_hash(arrays) if arrays else None,
        "test_vector": target.origin,
        "tolerance": tolerance,
        "made_with": {
            "linksim": linksim.__version__,
            "python": platform.python_version(),
            **{p: package_version(p) for p in _PACKAGES[format]},
            "at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        },
    }


def _notes(target, format):
    """Where an export behaves differently from a simulation."""
    if target.what == "receiver" and format in ("onnx", "tflite"):
        return [
            "The LDPC decoder runs all iterations for every codeword, even after its parity "
            "checks hold."
        ]
    return []


def _described(tensor):
    return {**tensor._asdict(), "shape": tensor.named_shape}


def write_export_card(card: dict[str, Any], folder: Path) -> None:
    """Write `card.json` and `card.md`."""
    write_atomically(folder / "card.json", json.dumps(card, indent=1) + "\n")
    write_atomically(folder / "card.md", export_card_text(card))


_FORMATS = {
    "savedmodel": "a TensorFlow SavedModel, which needs only TensorFlow to load",
    "keras": "a Keras file of linksim's layers; `linksim.export.load_keras_model` loads it",
    "onnx": "an ONNX file of one graph with real inputs, which onnxruntime runs",
    "tflite": "a TFLite file of one graph with real inputs and built-in operations only",
}


def export_card_text(card: dict[str, Any]) -> str:
    """The card as Markdown."""
    system = card["scenario"]["system"]
    bits = counted(system["num_bits_per_symbol"], "bit")
    notes = "".join(f"\n**Note.** {note}\n" for note in card["notes"])
    checked = "\n".join(f"    {line}" for line in card["checked"])
    served = any("K" in t["shape"] for s in card["signatures"].values() for t in s["inputs"])
    users = (
        f", and K, the number of users, from 1 to {system['num_streams']}" if served else ""
    )
    return f"""# {card["export"]}: {card["what"]} for {card["scenario"]["name"]}

`{card["file"]}` is {_FORMATS[card["format"]]}.
It is for {counted(system["num_streams"], "stream")} of {bits} per symbol and
{counted(system["num_rx"], "receive antenna")}. B, the batch size, may be any number{users}.

| signature | | name | shape | type | meaning |
|---|---|---|---|---|---|
{_signature_rows(card)}

**LLRs** are {card["llr_convention"]}. **Bit labels** are the {card["bit_labels"]}.
**Noise** is {card["noise"]}.
{notes}
**Weights.** {_weights_text(card)}

**Test vector.** `test_vector.npz` holds every input and output by name: {card["test_vector"]}.
`python check.py` checks that the model {_tolerance_text(card)}. It printed when the export was
made:

{checked}
"""


def _signature_rows(card):
    rows = []
    for name, signature in card["signatures"].items():
        for kind in ("inputs", "outputs"):
            for t in signature[kind]:
                shape = ", ".join(map(str, t["shape"]))
                meaning = t["meaning"].replace("|", "\\|")
                rows.append(
                    f"| `{name}` | {kind[:-1]} | `{t['name']}` | [{shape}] | {t['dtype']} "
                    f"| {meaning} |"
                )
    return "\n".join(rows)


def _weights_text(card):
    models = ", ".join(f"`{m}` ({sha[:12]})" for m, sha in card["models"].items())
    weights = "No weights."
    if card["weights_sha256"]:
        weights = f"{card['num_weights']} numbers, SHA-256 `{card['weights_sha256']}`."
    if models:
        weights += f" They come from {models}."
    return weights


def _tolerance_text(card):
    tolerance = card["tolerance"]
    if tolerance["atol"] == tolerance["rtol"] == 0:
        return "gives exactly these outputs"
    return "gives these outputs to within {atol:g} + {rtol:g} |value|".format(**tolerance)
