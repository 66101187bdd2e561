"""Compare the TFLite file beside this file with its test vector.

    python check.py

It needs only NumPy and an interpreter, that of the package ai-edge-litert or that of
TensorFlow. It prints the largest difference of each output.
"""

import json
import sys
from pathlib import Path

import numpy as np

try:
    from ai_edge_litert.interpreter import Interpreter
except ImportError:
    import tensorflow as tf

    Interpreter = tf.lite.Interpreter


def main(folder):
    """Run the model on its test vector; returns 1 if an output differs too much, else 0."""
    card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    vector = np.load(folder / "test_vector.npz", allow_pickle=False)
    interpreter = Interpreter(str(folder / "model.tflite"))
    atol, rtol = card["tolerance"]["atol"], card["tolerance"]["rtol"]
    failed = False
    for name, signature in card["signatures"].items():
        run = interpreter.get_signature_runner(name)
        outputs = run(**{t["name"]: vector[t["name"]] for t in signature["inputs"]})
        for tensor in signature["outputs"]:
            output = tensor["name"]
            got, expected = outputs[output], vector[output]
            same = got.shape == expected.shape and got.dtype == expected.dtype
            same = same and np.allclose(got, expected, rtol=rtol, atol=atol)
            gap = np.max(np.abs(got - expected)) if got.shape == expected.shape else np.nan
            print(f"{name} {output} {gap:.3g} {'equal' if same else 'DIFFERENT'}")
            failed |= not same
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(Path(__file__).resolve().parent))
