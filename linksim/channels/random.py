"""Counter-based random streams.

Every draw is a pure function of integers such as seed, SNR point and batch number.
`stream_keys` hashes them into keys on the host, one key per purpose. `StreamKey` hands a
key to `keras.random`, whose generators are counter-based as well (Philox, ThreeFry).
"""

import keras
import numpy as np
from keras import ops


def stream_keys(num_keys, *counters):
    """Hash non-negative integers into independent keys.

    Args:
        num_keys: number of keys. The first keys do not depend on it.
        counters: non-negative integers.

    Returns:
        int32 [num_keys, 2], NumPy. The same integers give the same keys on every
        machine, because `numpy.random.SeedSequence` does.
    """
    state = np.random.SeedSequence([int(c) for c in counters]).generate_state(
        2 * num_keys, np.uint32
    )
    return state.view(np.int32).reshape(num_keys, 2)


class StreamKey(keras.random.SeedGenerator):
    """A key as the `seed` argument of `keras.random`, in eager mode and in graphs.

    Args:
        key: integer tensor or array [2].
    """

    def __init__(self, key):
        # The parent's constructor is skipped: it creates a variable that counts draws
        self._key = key

    def next(self, ordered=True):
        """The key in the integer type of the backend; every call returns the same."""
        # JAX takes its keys unsigned, TensorFlow its seeds signed
        dtype = "uint32" if keras.backend.backend() == "jax" else "int32"
        return ops.cast(ops.convert_to_tensor(self._key), dtype)


def complex_normal(key, shape, variance=1.0):
    """Draw circularly symmetric complex Gaussian samples, CN(0, variance).

    Args:
        key: integer tensor [2], the random stream.
        shape: tuple of ints or scalar tensors.
        variance: mean energy of a complex sample, scalar or broadcastable to `shape`.

    Returns:
        complex64 of the given shape.
    """
    parts = keras.random.normal(tuple(shape) + (2,), seed=StreamKey(key))
    scale = ops.sqrt(ops.convert_to_tensor(variance, dtype="float32") / 2.0)
    return ops.view_as_complex(parts * scale[..., None])


def random_bits(key, shape):
    """Draw fair bits.

    Args:
        key: integer tensor [2], the random stream.
        shape: tuple of ints or scalar tensors.

    Returns:
        float32 of the given shape, 0 or 1.
    """
    return ops.cast(keras.random.uniform(tuple(shape), seed=StreamKey(key)) < 0.5, "float32")
