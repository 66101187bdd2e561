"""The card of an export: what it is, for programs and for people."""

import importlib.metadata
import json
import platform
from datetime import datetime, timezone

import numpy as np

import linksim
from linksim.files import arrays_hash, write_atomically

_PACKAGES = {
    "savedmodel": ("tensorflow", "keras", "sionna"),
    "keras": ("tensorflow", "keras", "sionna"),
    "onnx": ("tensorflow", "keras", "tf2onnx", "onnx", "onnxruntime"),
}
_LLR_CONVENTION = "log p(b=1)/p(b=0), natural logarithm, as Sionna has it"


def make_card(target, format, file, signatures, tolerance):
    """What there is to know about an export, as a dictionary.

    Args:
        target: the `Target`.
        format: of `FORMATS`.
        file: name of the file or folder with the model.
        signatures: {name: `Signature`}, those that the file has.
        tolerance: {"atol": ..., "rtol": ...}.
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
        "bit_labels": "of QAM symbols: Gray, TS 38.211; bit 0 of a symbol comes first",
        "noise": "white: coloured noise is to be whitened before",
        "notes": _notes(target, format),
        "models": target.weights,
        "num_weights": int(sum(a.size for a in arrays.values())),
        "weights_sha256": arrays_hash(arrays) if arrays else None,
        "test_vector": target.origin,
        "tolerance": tolerance,
        "made_with": {
            "linksim": linksim.__version__,
            "python": platform.python_version(),
            **{p: importlib.metadata.version(p) for p in _PACKAGES[format]},
            "at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        },
    }


def _notes(target, format):
    """What an export does otherwise than a simulation."""
    if target.what == "receiver" and format == "onnx":
        return ["LDPC: all iterations for every codeword, also where its parity checks hold."]
    return []


def _described(tensor):
    # The batch comes first; what is unknown behind it is the number of users
    unknown = ["B", *(len(tensor.shape) - 1) * ["K"]]
    shape = [name if size is None else size for name, size in zip(unknown, tensor.shape)]
    return {**tensor._asdict(), "shape": shape}


def write_card(card, folder):
    """Write `card.json` and `card.md`."""
    write_atomically(folder / "card.json", json.dumps(card, indent=1) + "\n")
    write_atomically(folder / "card.md", card_text(card))


_FORMATS = {
    "savedmodel": "a TensorFlow SavedModel; TensorFlow alone loads it",
    "keras": "a Keras file of linksim's layers; `linksim.export.load_keras_model` loads it",
    "onnx": "an ONNX file of one graph with real inputs; onnxruntime runs it",
}


def card_text(card):
    """The card as Markdown."""
    system = card["scenario"]["system"]
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
    rows = "\n".join(rows)
    models = ", ".join(f"`{m}` ({sha[:12]})" for m, sha in card["models"].items())
    weights = "No weights."
    if card["weights_sha256"]:
        weights = f"{card['num_weights']} numbers, SHA-256 `{card['weights_sha256']}`."
    if models:
        weights += f" Of the models {models}."
    tolerance = card["tolerance"]
    exact = tolerance["atol"] == tolerance["rtol"] == 0
    near = "exactly" if exact else "to {atol:g} + {rtol:g} of the value".format(**tolerance)
    notes = "".join(f"\n**Note.** {note}\n" for note in card["notes"])
    checked = "\n".join(f"    {line}" for line in card["checked"])
    served = any("K" in t["shape"] for s in card["signatures"].values() for t in s["inputs"])
    users = f", and K, the users, from 1 to {system['num_streams']}" if served else ""
    return f"""# {card["export"]}: {card["what"]} for {card["scenario"]["name"]}

`{card["file"]}` is {_FORMATS[card["format"]]}.
{system["num_streams"]} streams of {system["num_bits_per_symbol"]} bits,
{system["num_rx"]} receive antennas; B, the batch, may be any number{users}.

| signature | | name | shape | type | meaning |
|---|---|---|---|---|---|
{rows}

**LLRs** are {card["llr_convention"]}. Bit labels {card["bit_labels"]}.
**Noise** is {card["noise"]}.
{notes}
**Weights.** {weights}

**Test vector.** `test_vector.npz` holds every input and output by name: {card["test_vector"]}.
`python check.py` compares the model with it, {near}. When it was made:

{checked}
"""
