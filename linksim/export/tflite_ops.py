"""Operations that TFLite does not have, written with those that it has.

TFLite has no inverse, QR decomposition or diagonal of matrices. Its runtime can borrow
them from TensorFlow ("TensorFlow Select"), but not on a microcontroller, nor in most apps.
"""

from __future__ import annotations

from contextlib import AbstractContextManager

import numpy as np
import tensorflow as tf

from linksim.errors import InvalidInput
from linksim.replaced import replaced_operations


def portable_operations() -> AbstractContextManager[None]:
    """Inside, layers that are traced use the operations of this module."""
    return replaced_operations(_PORTABLE)


def inverse(x: tf.Tensor) -> tf.Tensor:
    """Inverse of symmetric, positive definite matrices [..., N, N].

    This is Gauss-Jordan elimination without pivoting, after scaling to a unit diagonal,
    with a step for each column. It is stable because the matrices are symmetric and
    positive definite: only `regularized_inverse` inverts matrices. With e the unit vector
    k, the step on column k is A - (A e - e)(e'A + e')/A_kk.
    """
    size = _sizes(x, "an inverse")[0]
    eye = np.eye(size, dtype=np.float32)
    scale = 1 / tf.sqrt(tf.reduce_sum(x * eye, axis=-1, keepdims=True))  # [..., N, 1]
    scale = scale * _transposed(scale)
    a = x * scale
    for k in range(size):
        unit = eye[:, k : k + 1]
        row = tf.gather(a, [k], axis=-2)
        pivot = tf.gather(row, [k], axis=-1)
        column = tf.gather(a, [k], axis=-1) - unit
        a = a - column * ((row + unit.T) / pivot)
    return a * scale


def qr(x: tf.Tensor, mode: str = "reduced") -> tuple[tf.Tensor, tf.Tensor]:
    """QR decomposition of tall matrices [..., I, J], by Householder reflections of [A, I].

    Raises:
        InvalidInput: the matrices are wide, or `mode` is not "reduced".
    """
    rows, columns = _sizes(x, "a QR decomposition")
    if rows < columns or mode != "reduced":
        raise InvalidInput(
            "tflite: QR decompositions are only supported in reduced form, of tall matrices"
        )
    eye = np.eye(rows, dtype=np.float32)
    a = tf.concat([x, 0 * x[..., :1] + eye], axis=-1)
    for k in range(columns):
        below = (np.arange(rows) >= k).astype(np.float32)[:, None]
        v = tf.gather(a, [k], axis=-1) * below  # [..., I, 1]
        first = tf.gather(v, [k], axis=-2)
        norm = tf.sqrt(tf.reduce_sum(v * v, axis=-2, keepdims=True))
        # The sign opposite to that of `first`, so that nothing cancels
        v = v - tf.where(first < 0, norm, -norm) * eye[:, k : k + 1]
        power = tf.maximum(tf.reduce_sum(v * v, axis=-2, keepdims=True), 1e-37)
        shares = tf.reduce_sum(v * a, axis=-2, keepdims=True) / power
        a = a - v * (2 * shares)
    q = _transposed(a[..., :columns, columns:])
    return q, a[..., :columns, :columns] * np.triu(np.ones((columns, columns), np.float32))


def diagonal(x: tf.Tensor, offset: int = 0, axis1: int = 0, axis2: int = 1) -> tf.Tensor:
    """Main diagonal [..., N] of square matrices [..., N, N].

    Raises:
        InvalidInput: another diagonal, or other axes than the last two.
    """
    rows, columns = _sizes(x, "a diagonal")
    rank = len(x.shape)
    if offset or rows != columns or (axis1 % rank, axis2 % rank) != (rank - 2, rank - 1):
        raise InvalidInput("tflite: only the main diagonal of square matrices is supported")
    return tf.reduce_sum(tf.where(np.eye(rows, dtype=bool), x, 0.0), axis=-1)


def _argmax(x, axis=None, keepdims=False):
    return _place(tf.argmax, x, axis, keepdims)


def _argmin(x, axis=None, keepdims=False):
    return _place(tf.argmin, x, axis, keepdims)


def _place(function, x, axis, keepdims):
    """Keras' own looks for negative zeros, bit by bit. Here they pass for zeros, which only
    changes the choice between equal values."""
    if axis is None:
        x, axis = tf.reshape(x, [-1]), 0
    found = function(x, axis=axis, output_type=tf.int32)
    return tf.expand_dims(found, axis) if keepdims else found


def _sizes(x, what):
    sizes = tuple(x.shape[-2:])
    if x.dtype != tf.float32 or len(sizes) < 2 or None in sizes:
        raise InvalidInput(f"tflite: {what} is only supported for float32 of known size")
    return sizes


def _transposed(x):
    return tf.linalg.matrix_transpose(x)


_PORTABLE = {
    "inv": inverse,
    "qr": qr,
    "diagonal": diagonal,
    "argmax": _argmax,
    "argmin": _argmin,
}
