"""The layers on JAX, by the same tests in a process with that Keras backend.

JAX compiles operations one by one there, which takes most of the time.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("jax")
# One of every kind
CORE = " or ".join(
    f"({one})"
    for one in (
        "ml_is_brute and 2-2-4-app",
        "formulas and 4",
        "coloured and mmse",
        "penalty_is",
        "estimation_encoder",
        "oampnet_is_its and OAMPNet2Detector-8-4",
        "detnet_is and 4-False-soft",
        "nearest_channel and 4",
        "permutes_with_the_users and 6-lmmse-pic",
        "hypermimo_is and streams-1",
    )
)


def run_on_jax(*arguments):
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    # Code that runs once should compile fast
    environment["XLA_FLAGS"] = "--xla_backend_optimization_level=0"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", *arguments],
        cwd=Path(__file__).parent,
        env=environment,
        capture_output=True,
        text=True,
    )
    # pytest's status is 5 when no test was collected
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]


def test_core_on_jax():
    files = ("test_detectors.py", "test_channels.py", "test_eqnet.py", "test_detnet.py")
    files += ("test_learned_detectors.py", "test_remimo.py", "test_hypermimo.py")
    run_on_jax(*files, "test_weight_scaling.py", "-k", CORE)


@pytest.mark.slow
@pytest.mark.parametrize(
    "files",
    [
        ("test_detectors.py", "test_channels.py"),
        ("test_eqnet.py", "test_learned_detectors.py", "test_training.py"),
        ("test_detnet.py", "test_remimo.py", "test_source.py", "test_hypermimo.py"),
        ("test_weight_scaling.py", "test_pep.py"),
        ("test_detector_training.py",),
        ("test_quantization.py", "test_representations.py"),
    ],
)
def test_all_layer_tests_on_jax(files):
    run_on_jax(*files)


SIMULATE = """
import sys, linksim
from linksim.cli.main import main
run = "coded-ber --scenario gauss-markov-4x2-qpsk --detectors mmse --snr 3 --output".split()
assert main([*run, sys.argv[1]]) == 2
try:
    linksim.simulate("gauss-markov-4x2-qpsk", ["mmse"], snr_db=3, max_blocks=10)
except linksim.InvalidInput as error:
    print(error)
"""


@pytest.mark.parametrize("backend", ["jax", "nosuch"])
def test_the_simulator_says_which_backend_it_needs(backend, tmp_path):
    script = SIMULATE if backend == "jax" else SIMULATE.split("try:")[0]
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path],
        env={**os.environ, "KERAS_BACKEND": backend, "JAX_PLATFORMS": "cpu"},
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("linksim coded-ber")]
    if backend == "jax":
        lines.append(done.stdout.splitlines()[-1])
    for line in lines:
        assert f"'{backend}'" in line and "KERAS_BACKEND=tensorflow" in line
    assert len(lines) == 1 + (backend == "jax") and "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())
