"""Counter-based random streams.

Every draw of the simulator is a pure function of integers: seed, purpose, point,
batch. `stream_key` hashes them on the host; `StreamKey` hands the result to
`keras.random`, whose generators are themselves counter-based (Philox, ThreeFry).
"""

import keras
import numpy as np
from keras import ops


def stream_keys(num_keys, *counters):
    """Independent keys for a tuple of non-negative integers.

    Returns:
        int32 [num_keys, 2], NumPy. The same integers give the same keys on every
        machine (`numpy.random.SeedSequence`).
    """
    state = np.random.SeedSequence([int(c) for c in counters]).generate_state(
        2 * num_keys, np.uint32
    )
    return state.view(np.int32).reshape(num_keys, 2)


class StreamKey(keras.random.SeedGenerator):
    """A `keras.random` seed that is a given key, also inside a graph.

    Args:
        key: integer tensor or array [2].
    """

    def __init__(self, key):
        # The parent would create a counter variable; this seed has no state
        self._key = key

    def next(self, ordered=True):
        # JAX takes its keys unsigned, TensorFlow its seeds signed
        dtype = "uint32" if keras.backend.backend() == "jax" else "int32"
        return ops.cast(ops.convert_to_tensor(self._key), dtype)


def complex_normal(key, shape, variance=1.0):
    """Circular complex Gaussian samples.

    Args:
        key: integer tensor [2].
        shape: tuple of ints or scalar tensors.
        variance: of the complex samples, scalar or broadcastable to `shape`.

    Returns:
        complex64 of the given shape.
    """
    parts = keras.random.normal(tuple(shape) + (2,), seed=StreamKey(key))
    scale = ops.sqrt(ops.convert_to_tensor(variance, dtype="float32") / 2.0)
    return ops.view_as_complex(parts * scale[..., None])


def random_bits(key, shape):
    """Fair bits, float32 of the given shape."""
    return ops.cast(keras.random.uniform(tuple(shape), seed=StreamKey(key)) < 0.5, "float32")
