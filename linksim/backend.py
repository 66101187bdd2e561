"""What Keras does not offer for its backends: values of tensors, and compilation."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np
from keras import ops

from linksim.errors import InvalidInput

#: A tensor of the running backend (TensorFlow, JAX or PyTorch), or what it converts.
Tensor = Any


def concrete(x: Tensor) -> np.ndarray | None:
    """The value of `x` as a NumPy array, or None while a graph is being traced."""
    try:
        return np.asarray(ops.convert_to_numpy(x))
    except Exception:  # the type that a symbolic tensor raises depends on the backend
        return None


def compiled(
    function: Callable[..., Any],
    variables: Iterable[keras.Variable] = (),
    xla: bool = False,
) -> Callable[..., Any]:
    """Compile a function of tensors.

    Args:
        function: the function.
        variables: the variables that it reads and that change between calls.
        xla: use XLA on TensorFlow. On CPU, LAPACK is faster without it.

    Returns:
        The compiled function, or on PyTorch the function itself.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        return tf.function(function, autograph=False, jit_compile=xla or None)
    if backend == "jax":
        import jax

        variables = list(variables)

        # JAX would trace the variables as constants
        @jax.jit
        def pure(values, *args):
            with keras.StatelessScope(state_mapping=list(zip(variables, values))):
                return function(*args)

        return lambda *args: pure([v.value for v in variables], *args)
    return function


def require_tensorflow(what: str) -> None:
    """Raise `InvalidInput` if Keras runs on another backend than TensorFlow.

    Args:
        what: needs TensorFlow, as in "the simulator".
    """
    backend = keras.backend.backend()
    if backend != "tensorflow":
        raise InvalidInput(
            f"KERAS_BACKEND: Keras runs on {backend!r} in this process, but {what} needs "
            "TensorFlow; set KERAS_BACKEND=tensorflow before Python starts"
        )


def is_eager_tensorflow() -> bool:
    """Whether the backend is TensorFlow and no graph is being traced."""
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return tf.executing_eagerly()
