"""Every backend gives the outputs of `tests/vectors.npz`, which are TensorFlow's."""

import keras
import numpy as np
import pytest

from linksim.quantization.registry import list_quantizers
from simulations.by_backend.agreement import LIMIT, differences
from tests.conftest import slow_but
from tests.vectors import (
    CALLS,
    FILE,
    detector_output,
    pretrained_output,
    quantizer_output,
)

VECTORS = np.load(FILE, allow_pickle=False)
# What has come since they were written is not among them
DETECTORS = sorted({key.split()[0] for key in VECTORS if "/" not in key} - {"quantizer"})
MODELS = [key for key in VECTORS if "/" in key]
if keras.backend.backend() == "tensorflow":
    # Its eager mode takes a minute for all, which have many other tests there
    DETECTORS = slow_but(("mmse", "kbest", "pepnet", "eqnet-l"), DETECTORS)
    MODELS = slow_but(("pepnet/any-size", "eqnet-l/rayleigh-2x2-qam64"), MODELS)


def check(name, output):
    """Fail where an output is another than TensorFlow's by more than rounding."""
    expected = VECTORS[name]
    assert output.shape == expected.shape
    assert np.isfinite(output).all()
    assert differences(output, expected).max() <= LIMIT


@pytest.mark.parametrize("name", DETECTORS)
def test_detectors(name):
    calls = [call for call in CALLS if f"{name} {call}" in VECTORS]
    for call in calls:
        check(f"{name} {call}", detector_output(name, call))


@pytest.mark.parametrize("path", MODELS)
def test_trained_models(path):
    check(path, pretrained_output(path))


@pytest.mark.parametrize("name", [n for n in list_quantizers() if f"quantizer {n}" in VECTORS])
def test_quantizers(name):
    check(f"quantizer {name}", quantizer_output(name))
