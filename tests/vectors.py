"""Outputs of all layers on fixed inputs, by which the backends are compared.

`python -m tests.vectors` writes those of TensorFlow to vectors.npz, and the losses of ten
steps of training to steps/. The tests hold each backend against them, TensorFlow too, so that
the files are renewed when outputs change.
"""

import io
import sys
from pathlib import Path

import numpy as np
from keras import ops

from linksim.files import write_atomically
from linksim.models import list_models
from linksim.quantization.registry import create_quantizer, list_quantizers
from linksim.registry import create_detector, list_detectors
from tests.conftest import draw_system
from tests.short_networks import OPTIONS

FILE = Path(__file__).with_name("vectors.npz")
STEPS = Path(__file__).with_name("steps")
# Two detectors and the networks of a quantizer
TRAINED = ("detnet", "oampnet2", "eqnet")
SIZE = {"num_rx": 4, "num_streams": 2}
BATCH = 4
NO = 0.1
# {case: (bits per symbol, how it is called)}
CALLS = {
    "bpsk": (1, "white"),
    "qpsk-symbols": (2, "white"),
    "qam16": (4, "white"),
    "qam16-coloured": (4, "coloured"),
    "qam16-prior": (4, "prior"),
    "qam64": (6, "white"),
}


def own_detectors():
    """The names of linksim's detectors."""
    return [name for name in list_detectors() if not name.startswith("sionna-")]


def fill(layer, seed=3):
    """Give a layer random weights that are the same on every backend.

    Initial values are kept where they do not depend on the backend's random numbers. Those
    that stand for variances and scales stay positive.
    """
    rng = np.random.default_rng(seed)
    for weight in layer.weights:
        value = np.asarray(ops.convert_to_numpy(weight))
        if "kernel" in weight.name or weight.name.startswith(("linear", "stacked")):
            fan_in = value.shape[-2] if value.ndim > 1 else 1
            drawn = rng.normal(size=value.shape) / np.sqrt(fan_in)
            weight.assign(drawn.astype(np.float32))
        elif weight.name == "theta":
            weight.assign((1.0 + 0.1 * rng.random(value.shape)).astype(np.float32))
    return layer


def inputs_of(num_rx, num_streams, bits, no=NO, batch=BATCH):
    """y, h, N0, a noise covariance and a prior, as NumPy arrays."""
    rng = np.random.default_rng(bits)
    _, y, h, no = draw_system(rng, batch, num_rx, num_streams, bits, no)
    a = rng.normal(size=(num_rx, num_rx)) + 1j * rng.normal(size=(num_rx, num_rx))
    s = no[0] * (np.eye(num_rx) + a @ a.conj().T / num_rx)
    prior = 2.0 * rng.normal(size=(batch, num_streams, bits))
    return y, h, no, s.astype(np.complex64), prior.astype(np.float32)


def detector_output(name, call):
    """What a detector with the weights of `fill` gives in one of `CALLS`, or None."""
    bits, kind = CALLS[call]
    if bits == 1 and name.startswith("eqnet"):
        return None  # needs QAM
    output = "symbol" if call.endswith("symbols") else "bit"
    system = {"num_streams": SIZE["num_streams"], "num_bits_per_symbol": bits}
    detector = create_detector(name, **system, output=output, **OPTIONS.get(name, {}))
    if kind == "prior" and not detector.accepts_prior:
        return None
    y, h, no, s, prior = inputs_of(**SIZE, bits=bits)
    detector(y, h, no)  # creates the weights
    fill(detector)
    arguments = (y, h, s if kind == "coloured" else no, *([prior] if kind == "prior" else []))
    return np.asarray(ops.convert_to_numpy(detector(*arguments)))


def pretrained():
    """One trained model of each detector, the smallest."""
    cards = list_models()
    found = {}
    for path in sorted(cards, key=lambda p: (cards[p]["num_rx"] or 0, p)):
        name = path.split("/")[0]
        if name in list_detectors():
            found.setdefault(name, path)
    return sorted(found.values())


def pretrained_output(path):
    """The LLRs of a trained model on its own system."""
    card, (name, configuration) = list_models()[path], path.split("/")
    system = {
        "num_streams": card["num_streams"],
        "num_bits_per_symbol": card["num_bits_per_symbol"],
    }
    detector = create_detector(name, **system, pretrained=configuration)
    sizes = card["num_rx"], system["num_streams"], system["num_bits_per_symbol"]
    y, h, no, _, _ = inputs_of(*sizes, batch=2)
    return np.asarray(ops.convert_to_numpy(detector(y, h, no)))


def quantizer_output(name):
    """LLRs through a quantizer with trained weights."""
    system = {"num_streams": 2, "num_bits_per_symbol": 6}
    quantizer = create_quantizer(name, **system, pretrained="rayleigh-2x2-qam64")
    llrs = np.random.default_rng(1).normal(size=(8, 2, 6)) * 6.0
    return np.asarray(ops.convert_to_numpy(quantizer(llrs.astype(np.float32))))


def all_outputs():
    """{name: output} of everything here."""
    found = {}
    for name in own_detectors():
        for call in CALLS:
            found[f"{name} {call}"] = detector_output(name, call)
    found |= {path: pretrained_output(path) for path in pretrained()}
    found |= {f"quantizer {name}": quantizer_output(name) for name in list_quantizers()}
    return {name: output for name, output in found.items() if output is not None}


if __name__ == "__main__":
    from tests.test_detector_training import batch_and_weights, file_of, ten_steps

    STEPS.mkdir(exist_ok=True)
    for name in TRAINED:
        target = file_of(STEPS, name)
        np.savez_compressed(target, **batch_and_weights(name))
        losses = ten_steps(STEPS, name)
        np.savez_compressed(target, **np.load(target, allow_pickle=False), losses=losses)
    if "--steps" not in sys.argv:
        written = io.BytesIO()
        np.savez_compressed(written, **all_outputs())
        write_atomically(FILE, written.getvalue())
