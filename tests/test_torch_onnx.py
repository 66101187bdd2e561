"""Detectors as ONNX files that were made by PyTorch; `make test-torch` runs these."""

import keras
import numpy as np
import pytest

pytest.importorskip("torch")
if keras.backend.backend() != "torch":
    pytest.skip("Keras runs on another backend", allow_module_level=True)
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

import linksim
from linksim.torch_onnx import INPUTS, argsort, export_onnx, inverse
from simulations.by_backend.agreement import LIMIT, differences
from tests.conftest import draw_system

EXPORTED = ["mmse", "zf", "ep", "pepnet", "eqnet-l"]


@pytest.mark.parametrize("name", EXPORTED)
def test_llrs_of_the_file_are_the_detectors(name, rng, tmp_path):
    pretrained = name == "pepnet"
    system = {"num_streams": 2, "num_bits_per_symbol": 4}
    detector = linksim.create_detector(name, **system, pretrained=pretrained)
    export_onnx(detector, 4, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(
        str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"]
    )
    assert tuple(i.name for i in session.get_inputs()) == INPUTS
    assert [o.name for o in session.get_outputs()] == ["llr"]
    for batch in (1, 7):
        _, y, h, no = draw_system(rng, batch, 4, 2, 4, 0.1)
        parts = (y.real, y.imag, h.real, h.imag, no)
        (llrs,) = session.run(None, {n: np.array(x) for n, x in zip(INPUTS, parts)})
        expected = detector(y, h, no).numpy(force=True)
        assert np.ptp(expected) > 0
        assert differences(llrs, expected).max() <= LIMIT


def test_what_onnx_lacks_is_named(tmp_path):
    detector = linksim.create_detector("eqnet-l-sic", num_streams=2, num_bits_per_symbol=4)
    with pytest.raises(linksim.InvalidInput, match="linalg_qr"):
        export_onnx(detector, 4, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_the_inverse_is_one(rng):
    a = rng.normal(size=(5, 6, 6))
    a = (a @ a.swapaxes(-1, -2) + 0.1 * np.eye(6)).astype(np.float32)
    found = keras.ops.convert_to_numpy(inverse(keras.ops.convert_to_tensor(a)))
    np.testing.assert_allclose(found, np.linalg.inv(a), rtol=1e-3, atol=1e-3)


def test_sorting_keeps_the_order_of_equal_entries(rng):
    x = rng.integers(0, 4, (3, 9)).astype(np.float32)
    found = keras.ops.convert_to_numpy(argsort(keras.ops.convert_to_tensor(x)))
    np.testing.assert_array_equal(found, np.argsort(x, axis=-1, kind="stable"))
