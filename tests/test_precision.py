"""Global settings of Keras are honoured, or refused by name.

Layers compute in float32 under every dtype policy, and refuse another default float type.
"""

import importlib
import pkgutil

import keras
import numpy as np
import pytest

import linksim
from linksim.backend import Float32Layer
from linksim.detectors import Detector
from linksim.errors import InvalidInput
from linksim.quantization.registry import create_quantizer, list_quantizers
from linksim.registry import build_detector, create_detector, is_learned, list_detectors
from tests.conftest import draw_system, slow_but
from tests.short_networks import OPTIONS
from tests.systems import needs_tensorflow

LEARNED = [n for n in list_detectors() if is_learned(n)]
# One of each family
QUICK = {"mmse", "ml", "oampnet2", "detnet", "wesnet-hf", "nndet-l", "remimo", "eqnet-l"}
QUICK |= {"mmnet", "hypermimo"}


def make(name):
    keras.utils.set_random_seed(7)
    options = OPTIONS.get(name, {})
    detector = create_detector(name, num_streams=2, num_bits_per_symbol=4, **options)
    build_detector(detector, 4)
    return detector


def make_quantizer(name):
    keras.utils.set_random_seed(7)
    quantizer = create_quantizer(name, num_streams=2, num_bits_per_symbol=4)
    quantizer.build((None, 2, 4))
    return quantizer


@pytest.fixture
def policy():
    """Sets Keras' global dtype policy for one test."""
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy("float32")


@pytest.fixture
def floatx():
    yield keras.config.set_floatx
    keras.config.set_floatx("float32")


def check_float32(layer):
    for part in layer._flatten_layers():
        assert part.compute_dtype == part.variable_dtype == "float32", part.path
    for weight in layer.weights:
        if "seed" not in weight.path:
            assert weight.dtype == "float32", weight.path


@pytest.mark.parametrize("name", slow_but(QUICK, sorted({*LEARNED, *QUICK})))
def test_detectors_are_the_same_under_every_policy(rng, policy, name):
    _, y, h, no = draw_system(rng, 5, 4, 2, 4, 1e-7)  # no less than float16 holds
    expected = np.asarray(make(name)(y, h, no))
    policy("mixed_float16")
    detector = make(name)
    check_float32(detector)
    np.testing.assert_array_equal(np.asarray(detector(y, h, no)), expected)
    again = type(detector).from_config(detector.get_config())
    assert again.dtype_policy.name == "float32"


@pytest.mark.parametrize("other", ["mixed_bfloat16", "float64", "float16"])
def test_other_policies(policy, other):
    policy(other)
    check_float32(make("oampnet2"))


@pytest.mark.parametrize("name", list_quantizers())
def test_quantizers_are_the_same_under_every_policy(rng, policy, name):
    llrs = rng.normal(size=(600, 2, 4)).astype(np.float32)
    expected = np.asarray(make_quantizer(name).fit(llrs)(llrs))
    policy("mixed_float16")
    quantizer = make_quantizer(name)
    check_float32(quantizer)
    np.testing.assert_array_equal(np.asarray(quantizer.fit(llrs)(llrs)), expected)


@needs_tensorflow
def test_a_mixed_model_may_hold_a_detector(rng, policy):
    """An outer layer's autocast does not reach the weights of a detector inside it."""
    _, y, h, no = draw_system(rng, 5, 4, 2, 4, 0.1)
    detector = make("oampnet2")
    expected = np.asarray(detector(y, h, no))
    policy("mixed_float16")

    class Outer(keras.layers.Layer):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner
            self.scale = self.add_weight(shape=(), initializer="ones")

        def call(self, y, h):
            assert "float16" in str((self.scale * 1.0).dtype)
            return self.inner(y, h, no)

    np.testing.assert_array_equal(np.asarray(Outer(detector)(y, h)), expected)


@needs_tensorflow
def test_pretrained_weights_under_a_mixed_policy(rng, policy):
    options = {"num_streams": 4, "num_bits_per_symbol": 4, "pretrained": "rayleigh-4x4-qam16"}
    _, y, h, no = draw_system(rng, 5, 4, 4, 4, 0.1)
    expected = np.asarray(create_detector("oampnet2", **options)(y, h, no))
    policy("mixed_float16")
    np.testing.assert_array_equal(create_detector("oampnet2", **options)(y, h, no), expected)


def test_every_layer_of_ours_computes_in_float32():
    for module in pkgutil.walk_packages(linksim.__path__, "linksim."):
        backend = keras.backend.backend()
        if backend == "tensorflow" or module.name.startswith("linksim.detectors"):
            importlib.import_module(module.name)

    def subclasses(cls):
        return {s for c in cls.__subclasses__() for s in ({c} | subclasses(c))}

    ours = {c for c in subclasses(keras.layers.Layer) if c.__module__.startswith("linksim.")}
    assert len(ours) > 30
    models = {c for c in ours if issubclass(c, keras.Model)}
    for cls in ours - models:
        assert issubclass(cls, Float32Layer), cls


@pytest.mark.parametrize("other", ["float64", "float16"])
def test_another_default_float_type_is_refused_by_name(rng, floatx, other):
    _, y, h, no = draw_system(rng, 2, 4, 2, 4, 0.1)
    llrs = np.zeros((600, 2, 4), np.float32)
    detector, quantizer = make("mmse"), make_quantizer("max-mi")
    quantizer.fit(rng.normal(size=(600, 2, 4)).astype(np.float32))
    floatx(other)
    message = rf"floatx\(\) is '{other}'.*set_floatx\('float32'\)"
    for refused in (
        lambda: make("mmse"),
        lambda: make_quantizer("max-mi"),
        lambda: detector(y, h, no),
        lambda: detector.llrs_and_symbols(y, h, no),
        lambda: quantizer(llrs),
    ):
        with pytest.raises(InvalidInput, match=message):
            refused()


def test_another_precision_is_refused_with_what_to_do_instead(rng):
    class Mine(Detector):
        pass

    for make_one in (
        lambda **o: create_detector("mmse", num_streams=2, num_bits_per_symbol=4, **o),
        lambda **o: create_quantizer("max-mi", num_streams=2, num_bits_per_symbol=4, **o),
        lambda **o: Mine(2, 4, **o),
    ):
        with pytest.raises(InvalidInput, match="precision.*leave it out.*cast"):
            make_one(precision="double")
    with pytest.raises(InvalidInput, match="dtype: got 'mixed_float16', expected 'float32'"):
        Mine(2, 4, dtype="mixed_float16")
    if keras.backend.backend() == "tensorflow":  # JAX makes complex64 of them itself
        _, y, h, no = draw_system(rng, 2, 4, 2, 4, 0.1)
        detector = make("mmse")
        s = np.eye(4, dtype=complex)
        for args in ((y.astype(complex), h, no), (y, h.astype(complex), no), (y, h, s)):
            with pytest.raises(InvalidInput, match="complex128.*cast it.*config.precision"):
                detector(*args)
        with pytest.raises(InvalidInput, match="s has dtype float64.*cast it"):
            detector.llrs_and_symbols(y, h, no.astype(float))
        # Keras casts real arguments of a call itself
        np.testing.assert_array_equal(detector(y, h, no.astype(float)), detector(y, h, no))


# --- subclasses that return something else ------------------------------------------


def wrong(value):
    class Wrong(Detector):
        def detect(self, y, h, no):
            return value(y)

    return Wrong(2, 4)


@pytest.mark.parametrize(
    "value, returned",
    [
        (lambda y: None, "a NoneType"),
        (lambda y: y, r"float32 \(3, 8\)"),
        (lambda y: [y], "a list"),
        (lambda y: np.zeros((3, 2, 4), np.float32), r"float32 \(3, 2, 4\)"),
        (lambda y: np.zeros((3, 4, 16), np.float32), r"float32 \(3, 4, 16\)"),
        (lambda y: np.zeros((2, 4, 4), np.float32), r"float32 \(2, 4, 4\)"),
        (lambda y: np.zeros((3, 4, 4), np.int32), r"int32 \(3, 4, 4\)"),
    ],
)
def test_what_a_detector_of_ones_own_returns_is_checked(rng, value, returned):
    _, y, h, no = draw_system(rng, 3, 4, 2, 4, 0.1)
    detector = wrong(value)
    message = rf"Wrong: `detect` returned {returned}, expected float32 \(B, 4, 4\) with B = 3"
    for refused in (detector, detector.llrs_and_symbols):
        with pytest.raises(InvalidInput, match=message):
            refused(y, h, no)
    for output in ({"output": "symbol"}, {"output": "symbol", "hard_out": True}):
        with pytest.raises(InvalidInput, match=message):
            type(detector)(2, 4, **output)(y, h, no)


def test_other_methods_of_ones_own_are_checked_and_a_missing_one_is_named(rng):
    _, y, h, no = draw_system(rng, 3, 4, 2, 4, 0.1)

    class Missing(Detector):
        pass

    class Llrs(Missing):
        def detect_llrs(self, y, h, no):
            return y

        def symbol_indices(self, y, h, no):
            return np.zeros((3, 2), np.float32)

        def symbol_logits(self, y, h, no):
            return np.zeros((3, 2, 4), np.float32)

    with pytest.raises(
        InvalidInput, match=r"Missing has no `detect`.*detect\(self, y, h, no\)"
    ):
        Missing(2, 4)(y, h, no)
    for options, message in (
        ({}, r"Llrs: `detect_llrs` returned float32 \(3, 8\), expected float32 \(B, 2, 4\)"),
        ({"output": "symbol"}, r"`symbol_logits` returned float32 \(3, 2, 4\)"),
        ({"output": "symbol", "hard_out": True}, "`symbol_indices` returned float32"),
    ):
        with pytest.raises(InvalidInput, match=message):
            Llrs(2, 4, **options)(y, h, no)


def test_logits_of_another_float_type_are_cast(rng):
    """As the layers of a detector of one's own make them under a policy of its own."""
    _, y, h, no = draw_system(rng, 3, 4, 2, 4, 0.1)
    llrs = wrong(lambda y: np.ones((3, 4, 4), np.float16))(y, h, no)
    assert "float32" in str(llrs.dtype) and tuple(llrs.shape) == (3, 2, 4)
