"""The received vectors that detectors are timed on, and the faster way to call a detector."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from linksim.errors import InvalidInput

#: {how a function is compiled: `jit_compile`}
MODES = {"graph": False, "XLA": True}


def random_vectors(
    num_rx: int, num_streams: int, bits: int, batch: int, no: float
) -> tuple[np.ndarray, ...]:
    """y, H and N0 of i.i.d. Rayleigh channels as NumPy arrays."""
    from linksim.constellation import qam_points

    rng = np.random.default_rng(0)
    shape = (batch, num_rx, num_streams)
    h = (rng.normal(size=shape) + 1j * rng.normal(size=shape)) / np.sqrt(2)
    x = qam_points(bits)[rng.integers(0, 2**bits, (batch, num_streams))]
    noise = rng.normal(size=(batch, num_rx)) + 1j * rng.normal(size=(batch, num_rx))
    y = np.einsum("bmk,bk->bm", h, x) + noise * np.sqrt(no / 2)
    return y.astype(np.complex64), h.astype(np.complex64), np.full(batch, no, np.float32)


def draw_vectors(num_rx: int, num_streams: int, bits: int, batch: int, no: float) -> list:
    """The same as TensorFlow constants."""
    import tensorflow as tf

    return [tf.constant(a) for a in random_vectors(num_rx, num_streams, bits, batch, no)]


def faster(
    function: Callable[..., Any], inputs: list, choice: Mapping[str, bool] | None = None
) -> tuple[str, Callable[..., Any]]:
    """The function in the mode that takes less time.

    Args:
        function: of tensors of TensorFlow.
        inputs: its arguments.
        choice: some of `MODES`, or None for all of them.

    Returns:
        The mode, and the compiled function.

    Raises:
        InvalidInput: it compiles in none.
    """
    import tensorflow as tf

    modes = {}
    for mode in MODES if choice is None else choice:
        compiled = tf.function(
            lambda *args: function(*args), autograph=False, jit_compile=MODES[mode]
        )
        try:
            compiled(*inputs).numpy()
            start = time.perf_counter()
            compiled(*inputs).numpy()
        except tf.errors.OpError:
            continue  # does not compile
        modes[mode] = (time.perf_counter() - start, compiled)
    if not modes:
        raise InvalidInput(f"{type(function).__name__}: compiles in no mode")
    mode = min(modes, key=lambda m: modes[m][0])
    return mode, modes[mode][1]
