"""What has to be in place before Keras starts."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path

# Backends of Keras that linksim's layers run on, apart from TensorFlow
OTHERS = ("torch", "jax")


def backend_of_keras() -> str:
    """The backend that Keras starts with: KERAS_BACKEND, that of keras.json, or TensorFlow."""
    return os.environ.get("KERAS_BACKEND") or _configured() or "tensorflow"


def check_backend() -> None:
    """Raise `ImportError` if Keras would start with TensorFlow, and there is none."""
    if "keras" in sys.modules:
        return
    chosen = backend_of_keras()
    if chosen != "tensorflow" or importlib.util.find_spec("tensorflow"):
        return
    installed = [name for name in OTHERS if importlib.util.find_spec(name)]
    settings = " or ".join(f"KERAS_BACKEND={name}" for name in installed or OTHERS)
    raise ImportError(
        f"linksim: TensorFlow is not installed, and Keras would start with it; set {settings} "
        "before Python starts, with which all but the simulator runs"
    )


def _configured():
    """The backend that keras.json names, or None."""
    home = os.environ.get("KERAS_HOME", Path.home() / ".keras")
    try:
        return json.loads(Path(home, "keras.json").read_text(encoding="utf-8"))["backend"]
    except (OSError, ValueError, LookupError, TypeError, RuntimeError):
        return None
