"""Small systems, references and calls that the tests of detectors share."""

import functools
import itertools

import keras
import numpy as np
import pytest
from keras import ops
from scipy.special import logsumexp

from linksim.constellation import bit_labels, qam_points

needs_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="uses tf.function or GradientTape"
)


# Tests that share a detector and the shapes of their inputs share its graph
@functools.lru_cache(maxsize=40)
def graph_of(detector):
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        graph = tf.function(lambda *a: detector(*a), autograph=False)
        return lambda *args: graph(*map(tf.constant, args))
    if keras.backend.backend() == "torch":
        return lambda *args: ops.convert_to_numpy(detector(*args))
    import jax

    return jax.jit(lambda *a: detector(*a))


def run(detector, *args):
    """Call a detector compiled, as a user does: a graph on TensorFlow, jit on JAX."""
    return np.asarray(graph_of(detector)(*args))


def brute_force(y, h, no, m, method, prior=None):
    """Symbol logits [B, K, 2^m] over all |C|^K vectors, given those of a prior."""
    streams = h.shape[-1]
    vectors = np.array(list(itertools.product(range(2**m), repeat=streams)))
    x = qam_points(m)[vectors]
    distance = np.abs(y[:, None] - np.einsum("bmk,vk->bvm", h, x)) ** 2
    metric = -distance.sum(-1) / no[:, None]
    if prior is not None:
        metric = metric + sum(prior[:, k, vectors[:, k]] for k in range(streams))
    reduce = logsumexp if method == "app" else np.max
    return np.stack(
        [
            np.stack([reduce(metric[:, vectors[:, k] == s], axis=-1) for s in range(2**m)], -1)
            for k in range(streams)
        ],
        1,
    )


def to_llrs(logits, m, method):
    """LLRs [..., m] of symbol logits [..., 2^m]."""
    reduce = logsumexp if method == "app" else np.max
    labels = bit_labels(m).astype(bool)
    return np.stack(
        [
            reduce(logits[..., labels[:, i]], axis=-1)
            - reduce(logits[..., ~labels[:, i]], axis=-1)
            for i in range(m)
        ],
        -1,
    )


def randomize(layer, seed=5):
    """Add small positive numbers to the weights, so that variances stay positive."""
    rng = np.random.default_rng(seed)
    for weight in layer.weights:
        if "seed" not in weight.path:
            value = np.asarray(ops.convert_to_numpy(weight))
            weight.assign(value + 0.1 * rng.random(value.shape).astype(np.float32))
    return layer


def functional(detector, num_rx):
    """A Keras model from y, h and N0 of unknown batch size to LLRs."""
    inputs = (
        keras.Input((num_rx,), dtype="complex64", name="y"),
        keras.Input((num_rx, detector.num_streams), dtype="complex64", name="h"),
        keras.Input((), dtype="float32", name="no"),
    )
    return keras.Model(inputs, detector(*inputs))


def real_tensors(y, h):
    """The real system that `detect` sees."""
    real = np.concatenate([y.real, y.imag], -1)
    top = np.concatenate([h.real, -h.imag], -1)
    low = np.concatenate([h.imag, h.real], -1)
    return real, np.concatenate([top, low], -2)


def real_system(y, h, m):
    """The real system that `detect` takes, in double precision."""
    y, h = real_tensors(y.astype(complex), h.astype(complex))
    return y, h[..., : h.shape[-1] // 2] if m == 1 else h
