"""Compare the Keras model beside this file with its test vector.

    python check.py

It needs linksim, because the file is made of its layers. It prints the largest difference
of each output.
"""

import json
import sys
from pathlib import Path

import numpy as np

from linksim.export import load_keras_model


def main(folder):
    """Run the model on its test vector; returns 1 if an output differs too much, else 0."""
    card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    vector = np.load(folder / "test_vector.npz", allow_pickle=False)
    model = load_keras_model(folder / "model.keras")
    atol, rtol = card["tolerance"]["atol"], card["tolerance"]["rtol"]
    failed = False
    for name, signature in card["signatures"].items():
        outputs = model([vector[t["name"]] for t in signature["inputs"]])
        for tensor in signature["outputs"]:
            got, expected = np.asarray(outputs[tensor["name"]]), vector[tensor["name"]]
            same = got.shape == expected.shape and got.dtype == expected.dtype
            same = same and np.allclose(got, expected, rtol=rtol, atol=atol)
            gap = np.max(np.abs(got - expected)) if got.shape == expected.shape else np.nan
            print(f"{name} {tensor['name']} {gap:.3g} {'equal' if same else 'DIFFERENT'}")
            failed |= not same
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(Path(__file__).resolve().parent))
