"""The layers on JAX: the same tests in a process with another Keras backend."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("jax")
# One of every kind: operations compile one by one there, which takes most of the time
CORE = "(ml_is_brute and 2-2-4) or all_paths or formulas or recursion or its_algorithm"
CORE += " or coloured"


def run_on_jax(*arguments):
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", *arguments],
        cwd=Path(__file__).parent,
        env=environment,
        capture_output=True,
        text=True,
    )
    # pytest's status is 5 when no test was collected
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]


def test_detectors_and_channels_on_jax():
    run_on_jax("test_detectors.py", "test_channels.py", "-k", f"{CORE} or covariance")


def test_networks_and_quantizers_on_jax():
    files = ("test_eqnet.py", "test_learned_detectors.py", "test_quantization.py")
    files += ("test_detnet.py", "test_remimo.py", "test_training.py", "test_hypermimo.py")
    files += ("test_weight_scaling.py",)
    chosen = "estimation_encoder or streams_are_quantized or kmeans or resumed"
    chosen += " or (oampnet_is_its and 8-4) or (detnet_is and 4-False) or nearest_channel"
    chosen += " or permutes_with_the_users or (hypermimo_is and streams)"
    chosen += " or (makes_all_weights and True) or (slim_detnet and units-4)"
    chosen += " or (scaled_product and True) or (learnable_profile and 0.3) or penalty_is"
    run_on_jax(*files, "-k", chosen)


@pytest.mark.slow
@pytest.mark.parametrize(
    "files",
    [
        ("test_detectors.py", "test_channels.py"),
        ("test_eqnet.py", "test_learned_detectors.py", "test_training.py"),
        ("test_detnet.py", "test_remimo.py", "test_source.py", "test_hypermimo.py"),
        ("test_weight_scaling.py",),
        ("test_detector_training.py",),
        ("test_quantization.py", "test_theorems.py"),
    ],
)
def test_all_layer_tests_on_jax(files):
    run_on_jax(*files)
