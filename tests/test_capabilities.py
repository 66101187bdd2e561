"""What a detector can do is declared on its class, and nobody probes for it."""

import ast
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import linksim
import linksim.detectors
from linksim.detectors import Capabilities, Detector
from linksim.errors import InvalidInput
from linksim.registry import create_detector, list_detectors

ROOT = Path(linksim.__file__).parent
CLASSES = [
    cls
    for cls in (getattr(linksim.detectors, name) for name in linksim.detectors.__all__)
    if isinstance(cls, type) and issubclass(cls, Detector)
]


def probes(path):
    """The calls of hasattr and getattr in a file, as text, and the names they ask for."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id in ("hasattr", "getattr"):
                name = node.args[1]
                yield ast.unparse(node), name.value if isinstance(name, ast.Constant) else None


def test_nobody_probes_a_detector():
    """Neither for an attribute of any detector, nor at all in the code of detectors."""
    keras_has = set(dir(keras.layers.Layer))
    ours = {name for cls in CLASSES for name in dir(cls)} - keras_has
    for path in sorted(ROOT.rglob("*.py")):
        where = path.relative_to(ROOT).as_posix()
        for call, name in probes(path):
            assert name not in ours, f"{where}: {call}"
            assert not where.startswith("detectors/"), f"{where}: {call}"


def test_every_class_has_every_capability():
    declared = {name for name in vars(Capabilities) if not name.startswith("_")}
    text = Capabilities.__doc__
    methods = {name for name in declared if callable(getattr(Capabilities, name))}
    assert {"slim", "set_channels", "all_estimates"} <= methods
    for name in declared - methods:
        assert f"        {name}: " in text, f"{name} is not documented"
    for name in list_detectors():
        detector = create_detector(name, num_streams=2, num_bits_per_symbol=2)
        assert isinstance(detector, Capabilities), name


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_what_is_declared_is_there(cls):
    """A declared capability comes with its methods, and no method without it."""
    methods = {
        "weight_scaled": ("slim", "layer_norms"),
        "has_estimates": ("all_estimates",),
        "fixed_channels": ("set_channels", "all_logits_by_channel"),
        "makes_networks": ("made_weights", "weights_of_teachers"),
    }
    for flag, names in methods.items():
        for name in names:
            overridden = getattr(cls, name) is not getattr(Capabilities, name)
            assert overridden == getattr(cls, flag), f"{cls.__name__}.{name}"


def test_what_is_not_offered_is_refused_by_name():
    detector = create_detector("mmse", num_streams=2, num_bits_per_symbol=2)
    y = h = no = np.zeros(1)
    for call, what in (
        (lambda: detector.slim(0.5), "operating points"),
        (lambda: detector.layer_norms(), "weight-scaled layers"),
        (lambda: detector.all_estimates(y, h, no), "estimates of its layers"),
        (lambda: detector.set_channels(h), "networks per channel"),
        (lambda: detector.all_logits_by_channel(y, h, no), "networks per channel"),
        (lambda: detector.set_drops(h), "networks per user drop"),
        (lambda: detector.all_logits_by_drop(y, h, no), "networks per user drop"),
        (lambda: detector.made_weights(h, no), "hypernetwork"),
        (lambda: detector.weights_of_teachers(None), "hypernetwork"),
    ):
        with pytest.raises(InvalidInput, match=f"MMSEDetector has no {what}"):
            call()
    assert detector.depth == 1 and not detector.has_layers
    assert detector.trained_weights == detector.weights == []


def test_every_detector_is_importable_and_costs_nothing_until_used():
    """Those of the registry, from `linksim.detectors`, which does not import Keras."""
    for name in list_detectors():
        if not name.startswith("sionna-"):
            options = {"num_streams": 2, "num_bits_per_symbol": 2}
            cls = type(create_detector(name, **options))
            assert getattr(linksim.detectors, cls.__name__) is cls
    assert set(linksim.detectors.__all__) <= set(dir(linksim.detectors))
    with pytest.raises(AttributeError, match="no attribute 'NoDetector'"):
        linksim.detectors.NoDetector  # noqa: B018
    code = "import sys, linksim.detectors; assert 'keras' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
