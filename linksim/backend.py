"""What Keras does not say about its backends: which tensors have a value already."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

#: A tensor of the running backend (TensorFlow, JAX or PyTorch), or what it converts.
Tensor = Any


def concrete(x: Tensor) -> np.ndarray | None:
    """The value of `x` as a NumPy array, or None while a graph is traced."""
    try:
        return np.asarray(ops.convert_to_numpy(x))
    except Exception:  # each backend refuses a symbolic tensor in its own way
        return None
