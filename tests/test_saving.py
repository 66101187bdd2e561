"""Saving: `.keras` and weights round trips, SavedModels in a process with TensorFlow alone."""

import subprocess
import sys

import keras
import numpy as np
import pytest

from linksim.registry import create_detector, list_detectors
from tests.conftest import draw_system, slow_but
from tests.short_networks import OPTIONS

TRACED = [n for n in list_detectors() if not n.startswith("sionna-") and n != "sdr-cvxpy"]
QUICK = ["mmse", "ml", "vblast-mmse", "eqnet-l-qr", "oampnet2", "mmnet", "remimo", "hypermimo"]

# Loads the SavedModels whose paths it reads, and compares each with the arrays beside it
LOAD = """
import sys
import numpy as np
import tensorflow as tf
for line in sys.stdin:
    path = line.strip()
    try:
        data = np.load(path + ".npz", allow_pickle=False)
        model = tf.saved_model.load(path)
        got = model.serve((data["y"], data["h"], data["no"])).numpy()
        assert "linksim" not in sys.modules and "sionna" not in sys.modules
        assert got.shape == data["llr"].shape, got.shape
        close = np.isclose(got, data["llr"], rtol=1e-2, atol=1e-2)
        assert close.mean() > 0.99, close.mean()
        print("equal", flush=True)
    except Exception as error:
        print(repr(error), flush=True)
"""


@pytest.fixture(scope="module")
def compare_in_another_process(tmp_path_factory):
    """Function of a SavedModel's path that says "equal", or how its outputs differ."""
    with subprocess.Popen(
        [sys.executable, "-c", LOAD],
        cwd=tmp_path_factory.mktemp("elsewhere"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:

        def compare(path):
            print(path, file=process.stdin, flush=True)
            return process.stdout.readline().strip()

        yield compare
        process.stdin.close()


def functional(name):
    """y, h, N0 with unknown batch size -> LLRs, as a user would wrap a detector."""
    inputs = (
        keras.Input((6,), dtype="complex64", name="y"),
        keras.Input((6, 4), dtype="complex64", name="h"),
        keras.Input((), dtype="float32", name="no"),
    )
    detector = create_detector(
        name, num_streams=4, num_bits_per_symbol=4, **OPTIONS.get(name, {})
    )
    return keras.Model(inputs, detector(*inputs))


@pytest.mark.parametrize("name", slow_but(QUICK, TRACED))
def test_export_and_keras_round_trip(rng, tmp_path, compare_in_another_process, name):
    _, y, h, no = draw_system(rng, 7, 6, 4, 4, 0.1)
    model = functional(name)
    llr = np.asarray(model((y, h, no)))
    assert llr.shape == (7, 4, 4)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(np.asarray(again((y, h, no))), llr, rtol=1e-4, atol=1e-4)
    model.save_weights(tmp_path / "model.weights.h5")
    model.load_weights(tmp_path / "model.weights.h5")

    path = tmp_path / "saved"
    model.export(path, verbose=False)
    np.savez(f"{path}.npz", y=y, h=h, no=no, llr=llr)
    assert compare_in_another_process(path) == "equal"


@pytest.mark.parametrize("name", ["mmse", "zf-sic", "amp", "ml", "kbest", "sphere"])
def test_eager_graph_and_xla_agree(rng, name):
    import tensorflow as tf

    _, y, h, no = draw_system(rng, 12, 6, 4, 2, 0.1)
    detector = create_detector(
        name, num_streams=4, num_bits_per_symbol=2, **OPTIONS.get(name, {})
    )
    args = [tf.constant(x) for x in (y, h, no)]
    unknown = [tf.TensorSpec([None, *x.shape[1:]], x.dtype) for x in args]
    eager = detector(*args).numpy()
    for options in ({"input_signature": unknown}, {"jit_compile": True}):
        got = tf.function(lambda *a: detector(*a), autograph=False, **options)(*args)
        assert got.shape == (12, 4, 2)
        np.testing.assert_allclose(got.numpy(), eager, rtol=1e-3, atol=1e-3)
