"""What the call of every detector takes: leading dimensions that broadcast, and no vectors.

Runs on any Keras backend.
"""

import functools

import keras
import numpy as np
import pytest

from linksim.detectors.representations import (
    ml_llrs,
    ml_representation,
    zf_sic_llrs,
    zf_sic_representation,
)
from linksim.errors import InvalidInput
from linksim.registry import create_detector, list_detectors
from tests.conftest import draw_system
from tests.short_networks import OPTIONS
from tests.systems import needs_tensorflow

NAMES = [n for n in list_detectors() if not n.startswith("sionna-")]
TRACED = [n for n in NAMES if n != "sdr-cvxpy"]
M, K = 4, 2


@functools.cache
def make(name, **options):
    keras.utils.set_random_seed(2)
    options = {**OPTIONS.get(name, {}), **options}
    return create_detector(name, num_streams=K, num_bits_per_symbol=4, **options)


@pytest.fixture
def system(rng):
    """y [2, 3, M], h [2, 3, M, K], and one coloured covariance [M, M]."""
    _, y, h, _ = draw_system(rng, 6, M, K, 4, 0.1)
    root = rng.normal(size=(M, M)) + 1j * rng.normal(size=(M, M))
    s = (0.05 * root @ root.conj().T + 0.05 * np.eye(M)).astype(np.complex64)
    return y.reshape(2, 3, M), h.reshape(2, 3, M, K), s


def full(x, shape):
    return np.ascontiguousarray(np.broadcast_to(x, shape))


@pytest.mark.parametrize("name", NAMES)
def test_noise_and_channels_broadcast(system, name):
    y, h, s = system
    detector = make(name)
    several = np.stack([s, 2 * s, s / 2])
    no = np.array([0.1, 0.2, 0.3], np.float32)
    white = (0.1 * np.eye(M)).astype(np.complex64)
    cases = [
        *[
            (h, x, full(x, (2, 3, M, M)))
            for x in (s, s[None], white, several, several[:, None][:2])
        ],
        *[(h, x, full(x, (2, 3))) for x in (no[:1], no, no[:2, None], no[:1, None])],
        *[(x, no, full(no, (2, 3))) for x in (h[0, 0], h[:1], h[0], h[:, :1])],
        (h[0, 0], s, full(s, (2, 3, M, M))),
    ]
    if name in ("sdr", "sdr-cvxpy", "sphere"):  # slow in eager calls
        cases = cases[-1:]
    for given_h, given_s, full_s in cases:
        shapes = given_h.shape, given_s.shape
        expected = np.asarray(detector(y, full(given_h, h.shape), full_s))
        got = np.asarray(detector(y, given_h, given_s))
        assert got.shape == expected.shape, shapes
        # A shared covariance is factored once, which rounds in another order
        close = np.isclose(got, expected, rtol=2e-3, atol=2e-3)
        assert close.mean() > 0.97, shapes


@needs_tensorflow
@pytest.mark.parametrize("name", ["mmse", "ml", "remimo"])
@pytest.mark.parametrize("xla", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_sizes_that_are_unknown_broadcast_too(system, name, xla):
    import tensorflow as tf

    y, h, s = system
    detector = make(name)

    @tf.function(
        autograph=False,
        jit_compile=xla,
        input_signature=[
            tf.TensorSpec([None, None, M], tf.complex64),
            tf.TensorSpec([None, None, M, K], tf.complex64),
            tf.TensorSpec([None, M, M], tf.complex64),
        ],
    )
    def graph(y, h, s):
        llrs = detector(y, h, s)
        assert llrs.shape.rank == 4
        return llrs

    for given_h, given_s in (
        (h, s[None]),
        (h[:, :1], np.stack([s, s, 2 * s])),
        (h[:1], s[None]),
    ):
        expected = detector(y, full(given_h, h.shape), full(given_s, (2, 3, M, M)))
        np.testing.assert_allclose(graph(y, given_h, given_s), expected, rtol=1e-2, atol=1e-2)
    with pytest.raises(tf.errors.InvalidArgumentError):
        graph(y, h, np.stack([s, s]))


@needs_tensorflow
def test_sizes_that_do_not_fit_are_refused_before_anything_runs(system):
    """Also for symbolic inputs of a Keras model."""
    import tensorflow as tf

    y, h, s = system
    detector = make("mmse")
    with pytest.raises(InvalidInput, match="h cannot be broadcast"):
        tf.function(lambda *a: detector(*a), autograph=False).get_concrete_function(
            tf.TensorSpec([None, 3, M], tf.complex64), tf.constant(h[:, :2]), tf.constant(s)
        )
    for h_shape, no_shape, message in (
        ((M, K + 1), (), "num_streams=2"),
        ((3, M, K), (), "h cannot be broadcast"),
        ((M, K), (2,), "s has shape"),
    ):
        inputs = (
            keras.Input((5, M), dtype="complex64"),
            keras.Input(batch_shape=h_shape, dtype="complex64"),
            keras.Input(batch_shape=no_shape, dtype="float32"),
        )
        with pytest.raises(InvalidInput, match=message):
            detector(*inputs)


def complex_zeros(*shape):
    return np.zeros(shape, np.complex64)


@pytest.mark.parametrize("name", NAMES)
def test_no_vectors_give_no_results(name):
    noise = np.eye(M, dtype=np.complex64)
    for lead, s in (
        ((0,), np.zeros(0, np.float32)),
        ((3, 0), complex_zeros(3, 0, M, M)),
        ((0, 2), noise),
        ((0,), 0.1),
    ):
        y, h = complex_zeros(*lead, M), complex_zeros(*lead, M, K)
        assert tuple(make(name)(y, h, s).shape) == (*lead, K, 4)
    y, h, no = complex_zeros(0, M), complex_zeros(0, M, K), np.zeros(0, np.float32)
    symbols = make(name, output="symbol", hard_out=True)(y, h, no)
    assert tuple(symbols.shape) == (0, K) and "int32" in str(symbols.dtype)
    llrs, symbols = make(name).llrs_and_symbols(y, h, no)
    assert tuple(llrs.shape) == (0, K, 4) and tuple(symbols.shape) == (0, K)
    # Wrong input is refused all the same
    with pytest.raises(InvalidInput, match="num_streams=2"):
        make(name)(y, complex_zeros(0, M, K + 1), no)


@needs_tensorflow
@pytest.mark.parametrize(
    "name, xla",
    [
        pytest.param(name, xla, marks=[] if quick else [pytest.mark.slow])
        for name in TRACED
        for xla in (False, True)
        for quick in [name in ("mmse", "ml", "detnet-fc")]
    ],
)
def test_no_vectors_in_a_graph(name, xla):
    """Of a batch size that is unknown when the graph is traced, and one that is known."""
    import tensorflow as tf

    def graph(batch):
        return tf.function(
            lambda *a: make(name)(*a),
            autograph=False,
            jit_compile=xla,
            input_signature=[
                tf.TensorSpec([batch, M], tf.complex64),
                tf.TensorSpec([batch, M, K], tf.complex64),
                tf.TensorSpec([batch, M, M], tf.complex64),
            ],
        )

    args = complex_zeros(0, M), complex_zeros(0, M, K), complex_zeros(0, M, M)
    for batch in (None, 0):
        assert graph(batch)(*args).shape == (0, K, 4)


@needs_tensorflow
def test_no_vectors_have_gradients_of_zero():
    """A replica of a distributed training may get none."""
    import tensorflow as tf

    detector = make("oampnet2")
    args = [tf.constant(complex_zeros(*s)) for s in ((0, M), (0, M, K))]
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(detector(*args, tf.zeros(0)))
    gradients = tape.gradient(loss, detector.trainable_variables)
    assert gradients and all(g is not None and not np.any(g) for g in gradients)


def test_no_vectors_have_no_representation():
    y, h, no = complex_zeros(2, 0, M), complex_zeros(2, 0, M, K), np.zeros((2, 0), np.float32)
    z = zf_sic_representation(y, h, no, 4)
    assert tuple(z.shape) == (2, 0, 3 * K)
    assert tuple(zf_sic_llrs(z, 4).shape) == (2, 0, K, 4)
    z = ml_representation(y, h, no)
    assert tuple(z.shape) == (2, 0, K * (K + 2))
    assert tuple(ml_llrs(z, K, 4).shape) == (2, 0, K, 4)
    assert tuple(make("sphere").visited_nodes(y, h, no).shape) == (2, 0)
    remimo = make("remimo")
    remimo(y, h, no)
    assert tuple(remimo.attention_maps(y, h, no)[0].shape) == (2, 0, 8, K, K)
