"""Exports: the files with card, test vector and check, and what cannot be exported."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import tensorflow as tf
from keras import ops

from linksim.errors import InvalidInput
from linksim.export import (
    detector_target,
    export,
    quantizer_target,
    receiver_target,
    target_of,
)
from linksim.export.onnx_ops import HANDLERS
from linksim.export.tflite_ops import portable_operations
from linksim.export.write import _write_tflite
from linksim.link.receiver import create_receiver
from linksim.link.scenario import load_scenario
from linksim.names import parse_quantizer
from linksim.quantization.registry import create_quantizer, list_quantizers
from linksim.registry import create_detector, list_detectors
from tests.conftest import draw_system, load_script
from tests.short_networks import OPTIONS

SCRIPT = Path(__file__).parent.parent / "simulations" / "export.py"
OURS = [n for n in list_detectors() if not n.startswith("sionna-") and n != "sdr-cvxpy"]
SIONNA = [n for n in list_detectors() if n.startswith("sionna-")]
SCENARIO = "rayleigh-4x4-qam16"


def target(name, make=detector_target, **options):
    """The target of a detector with short, untrained networks."""
    scenario = load_scenario(SCENARIO)
    options = {**OPTIONS.get(name, {}), **options}
    detector = create_detector(name, num_streams=4, num_bits_per_symbol=4, **options)
    return make(name, detector, scenario)


# Looked up when they are traced, as layers do it
def _inv(x):
    return ops.inv(x)


def _qr(x):
    return ops.qr(x)


def run_onnx(folder, inputs):
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    names = [i.name for i in session.get_inputs()]
    return session.run(None, {name: inputs[name] for name in names})[0]


def converted(function, *arrays):
    """The outputs of a function of float32 tensors after a conversion to ONNX."""
    import tf2onnx

    specs = [tf.TensorSpec([None, *a.shape[1:]], name=f"x{i}") for i, a in enumerate(arrays)]
    model, _ = tf2onnx.convert.from_function(
        tf.function(function, autograph=False), specs, opset=18, custom_op_handlers=HANDLERS
    )
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return session.run(None, {f"x{i}": a for i, a in enumerate(arrays)})


def portable(function, *arrays):
    """The outputs of a function of the operations that TFLite files have."""
    with portable_operations():
        results = tf.nest.flatten(tf.function(function, autograph=False)(*arrays))
    return [x.numpy() for x in results]


@pytest.mark.parametrize("run, inverse", [(converted, tf.linalg.inv), (portable, _inv)])
def test_inverses_are_accurate(rng, run, inverse):
    a = rng.normal(size=(20, 8, 6)).astype(np.float32)
    gram = np.swapaxes(a, 1, 2) @ a
    # Rows of very different scale, as when streams differ in power
    scale = np.geomspace(1e-3, 1e3, 6, dtype=np.float32)
    gram = gram * scale * scale[:, None]
    (got,) = run(inverse, gram)
    expected = np.linalg.inv(gram.astype(np.float64))
    size = np.abs(expected).max(axis=0)
    assert np.max(np.abs(got - expected) / size) < 1e-3


@pytest.mark.parametrize("run, decompose", [(converted, tf.linalg.qr), (portable, _qr)])
@pytest.mark.parametrize("rows, columns", [(6, 4), (4, 4)])
def test_qr_decompositions(rng, rows, columns, run, decompose):
    a = rng.normal(size=(10, rows, columns)).astype(np.float32)
    a[0, :, 1] = a[0, :, 0]  # rank-deficient
    a[1] = 0.0
    a[2, 1:, 0] = 0.0  # nothing to reflect
    a[3] *= 1e-6
    q, r = run(decompose, a)
    np.testing.assert_allclose(q @ r, a, atol=2e-6 * np.abs(a).max())
    eye = np.swapaxes(q, 1, 2) @ q
    np.testing.assert_allclose(eye, np.broadcast_to(np.eye(columns), eye.shape), atol=5e-6)
    assert not np.any(np.tril(r, -1))


def test_onnx_refuses_what_its_translations_do_not_cover(rng):
    from linksim.export.write import _write_onnx

    found = target("mf")
    real = found.plain["real"]
    for name, function in (
        ("FFT", lambda *x: {"llr": tf.math.real(tf.signal.fft(tf.complex(x[0], x[1])))}),
        ("Qr", lambda *x: {"llr": tf.linalg.qr(x[2], full_matrices=True)[0]}),
    ):
        with pytest.raises(InvalidInput, match=name):
            _write_onnx(found, {"real": real._replace(function=function)}, None)


def test_onnx_takes_any_batch_and_equals_the_layer(rng, tmp_path):
    found = target("zf-sic")
    card = export(found, "onnx", tmp_path / "out")
    assert card["signatures"]["real"]["inputs"][0]["shape"] == ["B", 4]
    session = onnxruntime.InferenceSession(tmp_path / "out" / "model.onnx")
    axes = {t.name: t.shape for t in (*session.get_inputs(), *session.get_outputs())}
    (card_of,) = card["signatures"].values()
    assert axes == {t["name"]: t["shape"] for ts in card_of.values() for t in ts}
    assert {shape[0] for shape in axes.values()} == {"B"}
    signature = found.signatures["serving_default"]
    for size in (1, 5, 64):
        part = {k: a[:size] for k, a in found.arrays.items()}
        got = run_onnx(tmp_path / "out", part)
        expected = signature.function(*(tf.constant(part[t.name]) for t in signature.inputs))
        np.testing.assert_allclose(got, expected["llr"], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "name",
    ["mmse", *(pytest.param(n, marks=pytest.mark.slow) for n in ("vblast-mmse", "kbest"))],
)
def test_tflite_needs_no_operations_of_tensorflow(name, tmp_path):
    """With inverses, QR decompositions, diagonals and decisions; for any batch."""
    before = {op: getattr(ops, op) for op in ("inv", "qr", "diagonal", "argmin", "argmax")}
    found = target(name)
    _write_tflite(found, found.plain, tmp_path / "model.tflite")
    assert all(getattr(ops, op) is function for op, function in before.items())
    interpreter = tf.lite.Interpreter(str(tmp_path / "model.tflite"))
    ((key, signature),) = found.plain.items()
    run = interpreter.get_signature_runner(key)
    used = {op["op_name"] for op in interpreter._get_ops_details()}
    assert not [op for op in used if op.startswith("Flex") or op == "CUSTOM"]
    for size in (1, 7):
        given = {t.name: found.arrays[t.name][:size] for t in signature.inputs}
        expected = signature.function(*map(tf.constant, given.values()))["llr"]
        np.testing.assert_allclose(run(**given)["llr"], expected, rtol=1e-2, atol=1e-2)


def test_tflite_says_in_one_line_what_is_missing(tmp_path):
    found = target("mf")
    (real,) = found.plain.values()
    found.plain = {
        "real": real._replace(
            function=lambda *x: {
                "llr": real.function(*x)["llr"] + tf.linalg.det(x[2])[:, None, None]
            }
        )
    }
    with pytest.raises(
        InvalidInput, match="mf has no TFLite form: .* has no MatrixDeterminant$"
    ):
        export(found, "tflite", tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_one_savedmodel_serves_any_number_of_users(rng, tmp_path):
    found = target("remimo-lmmse", num_blocks=1)
    card = export(found, "savedmodel", tmp_path / "out")
    for signature in card["signatures"].values():
        assert signature["inputs"][-2]["shape"] == ["B", 4, "K"]
        assert signature["outputs"][0]["shape"] == ["B", "K", 4]
    assert (
        "and K, the number of users, from 1 to 4" in (tmp_path / "out" / "card.md").read_text()
    )
    loaded = tf.saved_model.load(tmp_path / "out" / "savedmodel")
    detector = found.layers[0]
    for users in (1, 3):
        _, y, h, no = draw_system(rng, 6, 4, users, 4, 0.2)
        expected = np.asarray(detector(y, h, no))
        serve = loaded.signatures["serving_default"]
        got = serve(y=tf.constant(y), h=tf.constant(h), no=tf.constant(no))
        np.testing.assert_allclose(got["llr"], expected, rtol=1e-3, atol=1e-3)
        parts = {"y_real": y.real, "y_imag": y.imag, "h_real": h.real, "h_imag": h.imag}
        got = loaded.signatures["real"](no=tf.constant(no), **parts)
        np.testing.assert_allclose(got["llr"], expected, rtol=1e-3, atol=1e-3)
    # Other detectors have a fixed number of streams, and so does an ONNX file
    assert target("mmse").signatures["serving_default"].inputs[1].shape == (None, 4, 4)
    assert found.plain["real"].inputs[2].shape == (None, 4, 4)


def test_whole_receiver_as_savedmodel(tmp_path):
    scenario = load_scenario("rayleigh-2x2-qam64")
    folder = tmp_path / "out"
    card = export(target_of("mmse+max-mi:3", scenario, receiver=True), "savedmodel", folder)
    assert card["models"] and card["weights_sha256"] and card["num_weights"] > 0
    assert list(card["signatures"]) == ["serving_default", "real"]
    assert len(card["checked"]) == 2 and "0 of 1296 decided bits" in card["test_vector"]
    on_disk = json.loads((folder / "card.json").read_text())
    assert on_disk == json.loads(json.dumps(card))  # tuples are lists there
    text = (folder / "card.md").read_text()
    assert card["weights_sha256"] in text and "`bits`" in text
    # It decides the bits that were sent, and its signatures are those on the card
    vector = np.load(folder / "test_vector.npz", allow_pickle=False)
    np.testing.assert_array_equal(vector["bits"], vector["sent_bits"])
    model = tf.saved_model.load(str(folder / "savedmodel"))
    for name, signature in card["signatures"].items():
        one = {t["name"]: tf.constant(vector[t["name"]][:1]) for t in signature["inputs"]}
        bits = model.signatures[name](**one)["bits"].numpy()
        np.testing.assert_array_equal(bits, vector["bits"][:1])


def test_receiver_as_onnx(tmp_path):
    """With a 5G code, which has filler bits, and one loop for all codewords."""
    found = target_of("mmse", load_scenario("cdl-c-4x4-qam16-ls"), receiver=True)
    card = export(found, "onnx", tmp_path / "out")
    assert "all iterations" in card["notes"][0]
    assert card["tolerance"] == {"atol": 0.0, "rtol": 0.0}
    flipped = {k: a.copy() for k, a in found.arrays.items()}
    flipped["y_real"], flipped["y_imag"] = -flipped["y_real"], -flipped["y_imag"]
    assert np.any(run_onnx(tmp_path / "out", flipped) != found.arrays["sent_bits"])
    # The check notices that a model does not belong to the test vector
    path = tmp_path / "out" / "test_vector.npz"
    vector = dict(np.load(path, allow_pickle=False))
    vector["bits"][0, 0] = 1 - vector["bits"][0, 0]
    np.savez(path, **vector)
    check = [sys.executable, "-I", "check.py"]
    done = subprocess.run(check, cwd=tmp_path / "out", capture_output=True, text=True)
    assert done.returncode == 1 and "DIFFERENT" in done.stdout


def test_an_export_that_differs_is_no_export(tmp_path):
    found = target("mf")
    (real,) = found.plain.values()
    found.plain = {
        "real": real._replace(function=lambda *x: {"llr": 1.1 * real.function(*x)["llr"]})
    }
    with pytest.raises(RuntimeError, match="DIFFERENT"):
        export(found, "onnx", tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_test_vectors_are_not_a_matter_of_rounding():
    from linksim.export.write import _steady_arrays

    found = target("zf")
    # The streams of this channel cannot be told apart, so zero forcing amplifies rounding
    found.arrays["h"][3, :, 1] = found.arrays["h"][3, :, 0] * (1 + 1e-6)
    steady = _steady_arrays(found)
    assert 48 <= len(steady["y"]) < 64
    kept = {h.tobytes() for h in steady["h"]}
    assert found.arrays["h"][3].tobytes() not in kept and len(kept) == len(steady["y_real"])
    found.signatures["serving_default"] = found.signatures["serving_default"]._replace(
        function=lambda y, h, no: {"llr": tf.sin(1e9 * tf.math.real(y))}
    )
    with pytest.raises(RuntimeError, match="rounding"):
        _steady_arrays(found)


def test_folders(tmp_path, caplog):
    found = target("mf")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    with pytest.raises(InvalidInput, match="something other than an export"):
        export(found, "onnx", tmp_path / "mine")
    first = export(found, "onnx", tmp_path / "out")
    export(found, "onnx", tmp_path / "out")
    aside = json.loads((tmp_path / "out.1.old" / "card.json").read_text())
    assert aside == json.loads(json.dumps(first))
    out = tmp_path / "out"
    assert f"{out} already existed and was renamed to {out}.1.old" in caplog.text


def test_quantizer_as_onnx(tmp_path):
    found = target_of("eqnet-mi:6-6-6-5-5-5", load_scenario("rayleigh-2x2-qam64"))
    assert list(found.signatures) == ["serving_default", "quantize", "dequantize"]
    card = export(found, "onnx", tmp_path / "out")
    assert list(card["models"]) == ["eqnet-mi/rayleigh-2x2-qam64"]


def test_what_cannot_be_exported_says_so(tmp_path):
    scenario = load_scenario(SCENARIO)
    with pytest.raises(InvalidInput, match="cvxpy.*`sdr`"):
        target_of("sdr-cvxpy", scenario)
    lmmse = target_of("sionna-lmmse", scenario)
    with pytest.raises(InvalidInput, match="complex numbers.*`mmse`"):
        export(lmmse, "onnx", tmp_path / "out")
    with pytest.raises(InvalidInput, match="no Keras layers"):
        export(lmmse, "keras", tmp_path / "out")
    with pytest.raises(InvalidInput, match="receiver"):
        target_of("max-mi:3", scenario, receiver=True)
    with pytest.raises(InvalidInput, match="complex matrices.*`mmse`"):
        export(lmmse, "tflite", tmp_path / "out")
    with pytest.raises(InvalidInput, match="oamp has no tflite form: .*wrongly"):
        export(target("oamp"), "tflite", tmp_path / "out")
    with pytest.raises(InvalidInput, match="format: got 'coreml'"):
        export(lmmse, "coreml", tmp_path / "out")
    assert parse_quantizer("eqnet@some:6-5") == ("eqnet", "some", (6, 5))
    with pytest.raises(InvalidInput, match="quantizer"):
        parse_quantizer("latent:6")


def test_command_line(capsys, tmp_path):
    script = load_script(SCRIPT)
    args = ["--scenario", SCENARIO, "--output", str(tmp_path / "out"), "--format", "onnx"]
    assert script.main(["mf", *args]) == 0
    assert "equal" in capsys.readouterr().out and (tmp_path / "out" / "card.md").exists()
    for name in ("no-such", "uniform:x", "sdr-cvxpy", "mmse@x"):
        assert script.main([name, *args]) == 2
        assert "export.py: " in capsys.readouterr().err


# --- all of them -----------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("format", ["savedmodel", "keras", "onnx", "tflite"])
@pytest.mark.parametrize("name", OURS)
def test_every_detector_in_every_format(tmp_path, name, format):
    found = target(name)
    if format in found.refusals:
        pytest.skip(found.refusals[format])
    card = export(found, format, tmp_path / "out")
    assert len(card["checked"]) == len(card["signatures"])


@pytest.mark.slow
@pytest.mark.parametrize("name", SIONNA)
def test_sionnas_detectors_as_savedmodel(tmp_path, name):
    assert len(export(target(name), "savedmodel", tmp_path / "out")["checked"]) == 2


@pytest.mark.slow
@pytest.mark.parametrize("format", ["savedmodel", "keras", "onnx", "tflite"])
@pytest.mark.parametrize("name", list_quantizers())
@pytest.mark.parametrize("bits", [4, "none"])
def test_every_quantizer_in_every_format(rng, tmp_path, name, format, bits):
    if (
        bits == "none"
        and not create_quantizer(name, num_streams=4, num_bits_per_symbol=4).trained_weights
    ):
        pytest.skip("no networks: nothing is left without quantization")
    scenario = load_scenario("rayleigh-2x2-qam64" if name == "eqnet-mi" else SCENARIO)
    system = scenario.system
    args = {
        "num_streams": system.num_streams,
        "num_bits_per_symbol": system.num_bits_per_symbol,
    }
    layer = create_quantizer(name, **args, bits=4)
    layer.fit(rng.normal(0, 5, (4096, *args.values())).astype(np.float32))
    if bits == "none":
        from linksim.quantization.base import Unquantized

        layer = Unquantized(layer)
    card = export(quantizer_target(name, layer, scenario), format, tmp_path / "out")
    assert len(card["checked"]) == len(card["signatures"])


@pytest.mark.slow
@pytest.mark.parametrize("format", ["savedmodel", "keras", "onnx", "tflite"])
@pytest.mark.parametrize("name", ["ep+max-mi:3", "ml+eqnet-mi:none", "eqnet-p", "oampnet2"])
def test_receivers_of_a_scenario(tmp_path, name, format):
    """With trained weights, the 802.11n code and its interleaver."""
    scenario = load_scenario("rayleigh-2x2-qam64")
    found = create_receiver(name, scenario)
    options = {"quantizer": found.quantizer, "weights": found.weights}
    made = receiver_target(name, found.detector, scenario, **options)
    export(made, format, tmp_path / "out")


@pytest.mark.slow
@pytest.mark.parametrize(
    "format, packages",
    [("savedmodel", ("tensorflow",)), ("onnx", ("onnxruntime", "numpy"))],
)
def test_exports_load_where_nothing_else_is_installed(tmp_path, format, packages):
    """In a new virtual environment, for which packages are downloaded."""
    import importlib.metadata
    import venv

    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    pinned = [f"{name}=={importlib.metadata.version(name)}" for name in packages]
    subprocess.run([python, "-m", "pip", "install", "--quiet", *pinned], check=True)
    scenario = load_scenario("rayleigh-2x2-qam64")
    for name, receiver in (
        ("oampnet2", False),
        ("ml+max-mi:3", True),
        ("eqnet-mi:6", False),
    ):
        folder = tmp_path / name
        export(target_of(name, scenario, receiver=receiver), format, folder)
        check = [python, "-I", "check.py"]
        done = subprocess.run(check, cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr[-2000:]
        assert "equal" in done.stdout and "DIFFERENT" not in done.stdout
