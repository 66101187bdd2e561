"""What Keras does not offer: values of tensors, compilation, and layers of one float type."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np
from keras import ops

from linksim.errors import InvalidInput, refuse_precision

#: A tensor of the running backend (TensorFlow, JAX or PyTorch), or what it converts.
Tensor = Any


def concrete(x: Tensor) -> np.ndarray | None:
    """The value of `x` as a NumPy array, or None while a graph is being traced."""
    if is_traced_by_torch():  # reading a value there would cut the graph in two
        return None
    try:
        return np.asarray(ops.convert_to_numpy(x))
    except Exception:  # the type that a symbolic tensor raises depends on the backend
        return None


def is_traced_by_torch() -> bool:
    """Whether `torch.compile` or `torch.export` is tracing a graph."""
    if keras.backend.backend() != "torch":
        return False
    import torch

    return torch.compiler.is_compiling()


def memo(function: Callable[..., Any]) -> Callable[..., Any]:
    """`functools.cache` for tables that layers use in a call.

    `torch.compile` would trace into that one all the same, with a warning.
    """
    made: dict[Any, Any] = {}

    @functools.wraps(function)
    def remembered(*key: Any) -> Any:
        if is_traced_by_torch():
            return function(*key)
        if key not in made:
            made[key] = function(*key)
        return made[key]

    return remembered


# Tensors of PyTorch by their numbers and dtype
_CONSTANTS: dict[Any, Any] = {}


def constant(values: Any, dtype: str = "float32") -> Tensor:
    """Fixed numbers as a tensor.

    PyTorch makes each of them once, and not in every call. The other backends take them into
    the graph, where a compiler sees their values.

    Args:
        values: a tuple of numbers, or of such tuples, or an array.
        dtype: of the tensor.
    """
    if keras.backend.backend() != "torch" or is_traced_by_torch():
        return ops.convert_to_tensor(values, dtype=dtype)
    import torch

    if isinstance(values, np.ndarray):
        key: Any = values.tobytes(), values.dtype.str, values.shape, dtype
    else:
        key = values, dtype
    if key not in _CONSTANTS:
        # A tensor that is made in inference mode could not be trained with later
        with torch.inference_mode(False):
            _CONSTANTS[key] = ops.convert_to_tensor(values, dtype=dtype)
    # On the device of this call
    return ops.convert_to_tensor(_CONSTANTS[key])


def either(
    predicate: Tensor, first: Callable[[], tuple], second: Callable[[], tuple]
) -> tuple[Tensor, ...]:
    """`ops.cond`, for functions that return tensors of equal shapes in both cases.

    While PyTorch traces a graph, which cannot branch on a value, both are computed.

    Args:
        predicate: bool, a scalar.
        first: computes the result where it is true.
        second: computes the result where it is false.
    """
    if not is_traced_by_torch():
        return ops.cond(predicate, first, second)
    return tuple(ops.where(predicate, a, b) for a, b in zip(first(), second()))


def pad(x: Tensor, widths: Iterable[tuple[int, int]]) -> Tensor:
    """`ops.pad` with zeros, without what makes `torch.compile` compile again in every call.

    On PyTorch `ops.pad` creates a layer with a new name each time it is called, and
    `torch.compile` takes the new name for a change of the code.

    Args:
        x: a tensor.
        widths: how many zeros come before and after the entries of each axis.
    """
    widths = tuple(widths)
    if keras.backend.backend() != "torch":
        return ops.pad(x, widths)
    import torch

    # From the last axis to the first
    return torch.nn.functional.pad(x, [n for pair in reversed(widths) for n in pair])


def take_along_axis(x: Tensor, indices: Tensor, axis: int) -> Tensor:
    """`ops.take_along_axis`, which `torch.export` takes with any batch size, too.

    Args:
        x: a tensor.
        indices: integers from 0 of the same rank; other axes than `axis` are broadcast.
        axis: the axis that they count.
    """
    if keras.backend.backend() != "torch":
        return ops.take_along_axis(x, indices, axis=axis)
    import torch

    x, indices = ops.convert_to_tensor(x), ops.convert_to_tensor(indices)
    axis %= len(x.shape)
    sizes = [b if a == 1 else a for a, b in zip(x.shape, indices.shape)]
    own, theirs = list(sizes), list(sizes)
    own[axis], theirs[axis] = x.shape[axis], indices.shape[axis]
    return torch.gather(x.expand(own), axis, indices.to(torch.int64).expand(theirs))


def num_weights(weights: Iterable[Any]) -> int:
    """How many numbers the weights of a layer hold."""
    return sum(math.prod(w.shape) for w in weights)


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


def host_call(
    function: Callable[[int], np.ndarray], argument: Any, shape: tuple[int, ...]
) -> Tensor:
    """Call a NumPy function of one integer, also while a graph is being traced.

    Args:
        function: from an int to a complex64 array of the given shape.
        argument: integer scalar, a number or a tensor.
        shape: tuple of ints.

    Returns:
        complex64 of that shape, a tensor.
    """
    value = concrete(argument)
    if value is not None:
        return ops.convert_to_tensor(function(int(value)))

    def call(number: Any) -> np.ndarray:
        return function(int(number))

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        result = tf.numpy_function(call, [argument], tf.complex64, stateful=False)
        return tf.ensure_shape(result, shape)
    import jax

    return jax.pure_callback(call, jax.ShapeDtypeStruct(shape, np.complex64), argument)


def is_array(value: Any) -> bool:
    """Whether a value is a tensor or an array of any library; symbolic tensors count, too."""
    return hasattr(value, "shape") and hasattr(value, "dtype")


def wait_for(result: Any) -> None:
    """Wait until a GPU has computed what a function returned before it was done.

    Args:
        result: a tensor, or a tuple or list of them. What is in the host's memory is there
            already.
    """
    for tensor in result if isinstance(result, (tuple, list)) else (result,):
        if hasattr(tensor, "block_until_ready"):  # JAX
            tensor.block_until_ready()
        elif getattr(tensor, "is_cuda", False):  # PyTorch
            import torch

            torch.cuda.synchronize(tensor.device)
        elif "GPU" in str(getattr(tensor, "device", "")):  # TensorFlow
            import tensorflow as tf

            tf.test.experimental.sync_devices()


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


class Float32Layer(keras.layers.Layer):
    """A layer whose inputs, weights and results are float32.

    Keras' global dtype policy, which may be "mixed_float16" for the other layers of a
    model, does not apply to it.

    Args:
        dtype: "float32", or None, which is the same.

    Raises:
        InvalidInput: (a `ValueError`) another dtype, or Keras' global float type is
            another.
    """

    def __init__(self, dtype: Any = None, **kwargs: Any) -> None:
        check_floatx(type(self).__name__)
        refuse_precision(type(self).__name__, kwargs)
        policy = keras.dtype_policies.get("float32" if dtype is None else dtype)
        if policy.name != "float32":
            raise InvalidInput(
                f"{type(self).__name__}: dtype: got {policy.name!r}, expected 'float32', in "
                "which linksim's layers compute whatever the global dtype policy is"
            )
        super().__init__(dtype="float32", **kwargs)


def check_floatx(who: str) -> None:
    """Raise `InvalidInput` unless Keras makes new tensors as float32.

    Args:
        who: how the error begins.
    """
    if keras.config.floatx() != "float32":
        raise InvalidInput(
            f"{who}: keras.config.floatx() is {keras.config.floatx()!r}, but linksim computes "
            "in float32; call keras.config.set_floatx('float32'), and set a dtype policy for "
            "layers of another type"
        )
