"""Compare the ONNX file beside this file with its test vector.

    python check.py

It needs only onnxruntime and NumPy. It prints the largest difference of each output.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime


def main(folder):
    """Run the model on its test vector; returns 1 if an output differs too much, else 0."""
    card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    vector = np.load(folder / "test_vector.npz", allow_pickle=False)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    path = str(folder / "model.onnx")
    session = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])
    atol, rtol = card["tolerance"]["atol"], card["tolerance"]["rtol"]
    failed = False
    for name, signature in card["signatures"].items():
        names = [t["name"] for t in signature["outputs"]]
        inputs = {t["name"]: vector[t["name"]] for t in signature["inputs"]}
        for output, got in zip(names, session.run(names, inputs)):
            expected = vector[output]
            same = got.shape == expected.shape and got.dtype == expected.dtype
            same = same and np.allclose(got, expected, rtol=rtol, atol=atol)
            gap = np.max(np.abs(got - expected)) if got.shape == expected.shape else np.nan
            print(f"{name} {output} {gap:.3g} {'equal' if same else 'DIFFERENT'}")
            failed |= not same
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(Path(__file__).resolve().parent))
