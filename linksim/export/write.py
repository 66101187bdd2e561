"""Write an export, and check it in a process that cannot import linksim."""

from __future__ import annotations

import importlib
import io
import logging
import os
import pkgutil
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import linksim
from linksim.backend import require_tensorflow
from linksim.errors import InvalidInput, check_choice
from linksim.export.card import make_export_card, write_export_card
from linksim.export.targets import Target
from linksim.export.tflite_ops import portable_operations
from linksim.files import as_path, check_folder, make_folder, set_aside, write_atomically
from linksim.notices import muted

FORMATS = {
    "savedmodel": "savedmodel",
    "keras": "model.keras",
    "onnx": "model.onnx",
    "tflite": "model.tflite",
}
OPSET = 18

# How closely LLRs have to agree when other kernels compute them in another order. EP needs
# all of it, because it subtracts reciprocals of nearly equal variances. Bits have to be equal.
_TOLERANCE = {"savedmodel": 1e-3, "keras": 1e-2, "onnx": 1e-2, "tflite": 1e-2}

# Size of the rounding errors that `_steady_arrays` adds to the inputs, and how often
_ROUNDING, _TRIALS = 2.0**-23, 8

# Packages that the process which checks a format must not import
_FORBIDDEN = {
    "savedmodel": ("linksim", "sionna"),
    "keras": (),
    "onnx": ("linksim", "sionna", "keras", "tensorflow", "tf2onnx", "onnx"),
    "tflite": ("linksim", "sionna"),
}
_GUARD = """
import runpy, sys
forbidden = set(sys.argv[2].split(","))
class Guard:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in forbidden:
            raise ImportError(f"{name}: must not be needed here")
sys.meta_path.insert(0, Guard())
runpy.run_path(sys.argv[1], run_name="__main__")
"""


def export(target: Target, format: str, folder: str | Path) -> dict[str, Any]:
    """Write a target with its card, a test vector and `check.py`, and check it.

    The check loads the model in another process and compares its outputs with those of
    the layers in this process. That process cannot import linksim, unless the format
    needs it ("keras"). The folder appears only when the check has passed; an earlier
    export in it is set aside.

    Args:
        target: see `target_of`.
        format: "savedmodel", "keras", "onnx" or "tflite".
        folder: where to write it; it is created.

    Returns:
        The card.

    Raises:
        InvalidInput: the target cannot be written in this format, the folder holds
            something else, or a package is missing.
        ResultFileError: the folder cannot be written.
        RuntimeError: the outputs of the exported model differ.
    """
    require_tensorflow("an export")
    check_choice("format", format, FORMATS)
    if format in target.refusals:
        raise InvalidInput(
            f"format: {target.name} has no {format} form: {target.refusals[format]}"
        )
    folder = as_path("output", folder)
    check_folder(folder, "output")
    if folder.exists() and any(folder.iterdir()) and not (folder / "check.py").exists():
        raise InvalidInput(f"output: {folder} holds something other than an export")
    make_folder(folder.parent)
    work = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        card = _write_all(target, format, work)
        work.chmod(0o755)
        if folder.exists():
            set_aside(folder) if any(folder.iterdir()) else folder.rmdir()
        work.rename(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return card


def _write_all(target, format, folder):
    signatures = target.signatures
    if format == "keras":
        signatures = {"serving_default": signatures["serving_default"]}
    if format in ("onnx", "tflite"):
        signatures = target.plain
    bits = target.what == "receiver"
    inputs = target.arrays if bits else _steady_arrays(target)
    vector = _test_vector(target, signatures, inputs)
    error = 0.0 if bits else _TOLERANCE[format]
    file = FORMATS[format]
    card = make_export_card(target, format, file, signatures, {"atol": error, "rtol": error})
    card["test_vector"] += _remark(target, inputs, vector)
    writers = {
        "savedmodel": _write_savedmodel,
        "keras": _write_keras,
        "onnx": _write_onnx,
        "tflite": _write_tflite,
    }
    writers[format](target, signatures, folder / file)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **vector)
    write_atomically(folder / "test_vector.npz", buffer.getvalue())
    program = Path(__file__).with_name(f"check_{format}.py").read_text(encoding="utf-8")
    write_atomically(folder / "check.py", program)
    card["checked"] = []
    write_export_card(card, folder)
    card["checked"] = _check(target.name, format, folder)
    write_export_card(card, folder)
    return card


def _remark(target, inputs, vector):
    """What to say about a test vector beyond where it comes from."""
    if target.what == "receiver":
        wrong = int(np.sum(vector["bits"] != vector["sent_bits"]))
        return f"; {wrong} of {vector['bits'].size} decided bits are wrong"
    drawn, kept = (len(next(iter(a.values()))) for a in (target.arrays, inputs))
    if kept == drawn:
        return ""
    return (
        f"; without {drawn - kept} of them, where rounding the inputs changes the outputs "
        "by more than 1e-2 (ties, decisions)"
    )


def _steady_arrays(target):
    """The inputs of those vectors whose outputs do not depend on rounding.

    Where a decision or the end of a list is a tie, or a channel is nearly singular, other
    kernels rightly give other LLRs.
    """
    signature = target.signatures["serving_default"]
    inputs = [target.arrays[t.name] for t in signature.inputs]
    function = tf.function(signature.function, autograph=False)
    exact = function(*map(tf.constant, inputs))
    rng = np.random.default_rng(0)
    steady = np.ones(len(inputs[0]), bool)
    for _ in range(_TRIALS):
        moved = [a * (1 + _ROUNDING * rng.normal(size=a.shape)) for a in inputs]
        moved = [tf.constant(m.astype(a.dtype)) for m, a in zip(moved, inputs)]
        for name, value in function(*moved).items():
            near = np.isclose(value, exact[name], rtol=1e-2, atol=1e-2)
            steady &= near.reshape(len(steady), -1).all(axis=1)
    if np.sum(steady) < len(steady) / 4:
        raise RuntimeError(
            f"{target.name}: rounding the inputs changes the outputs of {np.sum(~steady)} of "
            f"{len(steady)} vectors, so too few are left to check the export with"
        )
    return {name: a[steady] for name, a in target.arrays.items()}


def _test_vector(target, signatures, given):
    """All inputs and outputs by name; the layers themselves compute the outputs."""
    arrays = {}
    for signature in signatures.values():
        arrays.update({t.name: given[t.name] for t in signature.inputs})
    # "real" has the outputs of "serving_default", which is the layer's own call
    for name in [n for n in target.signatures if n != "real"]:
        signature = target.signatures[name]
        inputs = [tf.constant(given[t.name]) for t in signature.inputs]
        results = tf.function(signature.function, autograph=False)(*inputs)
        for key, value in results.items():
            arrays.setdefault(key, value.numpy())
            if not np.all(np.isfinite(arrays[key])):
                raise RuntimeError(f"{target.name}: {key} contains NaN; please report this")
    if "sent_bits" in given:
        arrays["sent_bits"] = given["sent_bits"]
    return arrays


def _check(name, format, folder):
    """Run `check.py` in a process of its own; return the lines it prints."""
    forbidden = _FORBIDDEN[format]
    # The process ignores its environment, unless it has to find linksim
    options, checkout = ["-I"] if forbidden else [], Path(linksim.__file__).parent.parent
    done = subprocess.run(
        [sys.executable, *options, "-c", _GUARD, "check.py", ",".join(forbidden)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(checkout)},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        tail = (done.stdout + done.stderr[-1500:]).strip()
        raise RuntimeError(f"{name}: the {format} export failed its check:\n{tail}")
    return [x for x in done.stdout.splitlines() if x.endswith("equal")]


# --- formats --------------------------------------------------------------------


def _write_savedmodel(target, signatures, path):
    module = tf.Module()
    # TensorFlow saves only variables that are attributes of the module
    module.weights = [w.value for layer in target.layers for w in layer.weights]
    functions = {
        name: tf.function(
            signature.function,
            input_signature=[t.spec for t in signature.inputs],
            autograph=False,
        )
        for name, signature in signatures.items()
    }
    module.functions = functions
    tf.saved_model.save(module, str(path), signatures=functions)


def _write_keras(target, signatures, path):
    target.keras_model().save(path)


def load_keras_model(path: str | Path) -> keras.Model:
    """Load a Keras file of linksim's layers, in safe mode.

    Returns:
        A model that is called with a list of the inputs on its card.
    """
    # Importing a module registers its layers
    import linksim.detectors
    import linksim.link.decoder_layer
    import linksim.quantization

    for package in (linksim.detectors, linksim.quantization):
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{package.__name__}.{module.name}")
    return keras.models.load_model(path, compile=False, safe_mode=True)


def _write_onnx(target, signatures, path):
    try:
        import onnx
        import onnxruntime  # noqa: F401
        import tf2onnx

        from linksim.export.onnx_ops import HANDLERS
    except ImportError as error:
        raise InvalidInput(
            f'format: onnx needs pip install "linksim[onnx]" ({error})'
        ) from None
    (signature,) = signatures.values()
    function = tf.function(signature.function, autograph=False)
    # tf2onnx only logs operations that it cannot translate; they are refused below
    logging.getLogger("tf2onnx").setLevel(logging.CRITICAL)
    model, _ = tf2onnx.convert.from_function(
        function,
        input_signature=[t.spec for t in signature.inputs],
        opset=OPSET,
        custom_op_handlers=HANDLERS,
    )
    foreign = sorted(_unknown_operations(model.graph, onnx))
    foreign += sorted({i.name for i in model.graph.input} - {t.name for t in signature.inputs})
    if foreign:
        raise InvalidInput(
            f"format: {target.name} has no ONNX form: ONNX cannot express {', '.join(foreign)}"
        )
    _match_loop_inputs(model.graph, onnx)
    _name_axes(model.graph, signature, onnx)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def _write_tflite(target, signatures, path):
    with tempfile.TemporaryDirectory() as folder, muted():
        with portable_operations():
            _write_savedmodel(target, signatures, folder)
        converter = tf.lite.TFLiteConverter.from_saved_model(
            folder, signature_keys=list(signatures)
        )
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        try:
            model = converter.convert()
        except Exception as error:  # of a class that TensorFlow does not export
            missing = re.findall(r"(?:TF Select|Custom) ops: (.*)", str(error))
            if not missing:
                raise
            raise InvalidInput(
                f"format: {target.name} has no TFLite form: without TensorFlow Select, TFLite "
                f"has no {', '.join(missing)}"
            ) from None
    write_atomically(path, model)


def _match_loop_inputs(graph, onnx):
    """Cast the inputs of loops: tf2onnx makes a loop's limit int64 even if the body takes
    int32."""
    constants = {c.name: c.data_type for c in graph.initializer}
    casts = []
    for node in graph.node:
        if node.op_type != "Loop":
            continue
        # The first two inputs are the limit and the condition; the body takes the others too
        for i, inner in enumerate(node.attribute[0].g.input[2:], start=2):
            wanted = inner.type.tensor_type.elem_type
            if constants.get(node.input[i], wanted) != wanted:
                name = f"{node.name}_input_{i}"
                casts.append(onnx.helper.make_node("Cast", [node.input[i]], [name], to=wanted))
                node.input[i] = name
    for cast in casts:
        graph.node.insert(0, cast)


def _name_axes(graph, signature, onnx):
    """Give the axes of unknown size the names on the card, equal in all inputs and outputs.

    tf2onnx calls them unk__7, unk__8 and so on, as if they could differ.
    """
    tensors = {t.name: t for t in (*signature.inputs, *signature.outputs)}
    for value in (*graph.input, *graph.output):
        kind, shape = value.type.tensor_type.elem_type, tensors[value.name].named_shape
        value.CopyFrom(onnx.helper.make_tensor_value_info(value.name, kind, shape))


def _unknown_operations(graph, onnx):
    found = set()
    for node in graph.node:
        if node.domain or not onnx.defs.has(node.op_type):
            found.add(node.op_type)
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                found |= _unknown_operations(attribute.g, onnx)
    return found
