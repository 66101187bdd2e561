"""What a process says that lacks TensorFlow, or Keras' setting for another backend."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from linksim.errors import InvalidInput, without_framework

ROOT = Path(__file__).resolve().parents[1]
# A process without TensorFlow, even where it is installed
HIDE = """
import importlib.abc, sys
class Hide(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("tensorflow", "sionna"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None
sys.meta_path.insert(0, Hide())
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *a: None if name == "tensorflow" else found(name, *a)
"""


def run(code, tmp_path, backend="", configured=None):
    environment = {**os.environ, "KERAS_HOME": str(tmp_path), "JAX_PLATFORMS": "cpu"}
    environment.pop("KERAS_BACKEND", None)
    if backend:
        environment["KERAS_BACKEND"] = backend
    if configured is not None:
        (tmp_path / "keras.json").write_text(configured)
    command = [sys.executable, "-c", HIDE + code]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("backend, configured", [("", None), ("tensorflow", ""), ("", "{}")])
def test_importing_says_what_to_set(backend, configured, tmp_path):
    done = run("import linksim", tmp_path, backend, configured)
    last = done.stderr.splitlines()[-1]
    assert done.returncode and last.startswith("ImportError: linksim: TensorFlow is not inst")
    assert "KERAS_BACKEND=" in last


@pytest.mark.parametrize(
    "backend, configured", [("jax", None), ("", '{"backend": "torch"}'), ("torch", "")]
)
def test_another_backend_needs_no_tensorflow(backend, configured, tmp_path):
    done = run(
        "import linksim; print(linksim.list_detectors()[0])", tmp_path, backend, configured
    )
    assert done.stdout.strip() == "mf", done.stderr


def test_the_simulator_says_that_it_needs_tensorflow(tmp_path):
    """In one sentence, from Python and from the command line."""
    for module in ("jax", "torch"):
        try:
            __import__(module)
        except ImportError:
            continue
        code = "import linksim\ntry: linksim.simulate\n"
        code += "except linksim.InvalidInput as error: print(error)\n"
        code += "from linksim.cli.main import main\n"
        code += "print(main('coded-ber --detectors mmse --snr 3'.split()))"
        done = run(code, tmp_path, module)
        from_python, status = done.stdout.splitlines()
        line = done.stderr.splitlines()[-1]
        assert status == "2" and "Traceback" not in done.stderr, done.stderr
        for text in (from_python, line):
            assert "the simulator needs TensorFlow and Sionna 1.2" in text
        return
    pytest.skip("neither JAX nor PyTorch is installed")


def test_other_missing_packages_keep_their_error():
    error = ModuleNotFoundError("No module named 'ray'", name="ray")
    assert without_framework("simulate", error) is error
    error = ModuleNotFoundError("No module named 'sionna.phy'", name="sionna.phy")
    assert isinstance(without_framework("simulate", error), InvalidInput)
