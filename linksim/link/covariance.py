"""Covariances of noise and interference over receive antennas; keras.ops alone."""

import keras
from keras import ops

from linksim.detectors.inputs import check_finite, check_tensors
from linksim.errors import InvalidInput


def noise_and_interference(g, no):
    """Covariance N0 I + G G' of white noise and of interference of independent symbols.

    Args:
        g: channels of interfering streams of power 1, complex64 [..., M, J].
        no: noise variance N0, float32 that broadcasts to [...].

    Returns:
        complex64 [..., M, M].

    Raises:
        InvalidInput: `g` is of another rank or dtype, or, in an eager call, has NaN or inf.
    """
    _check("g", g, "[..., M, J]")
    s = ops.matmul(g, ops.conj(ops.swapaxes(g, -1, -2)))
    white = ops.convert_to_tensor(no)[..., None, None] * ops.eye(g.shape[-2])
    return s + ops.cast(white, "complex64")


def mean_variance(s):
    """The variance trace(S)/M of white noise as strong as that of a covariance.

    Args:
        s: complex64 [..., M, M].

    Returns:
        float32 [...].
    """
    return ops.mean(ops.diagonal(ops.real(s), axis1=-2, axis2=-1), axis=-1)


def sample_covariance(x):
    """Mean of x x' over samples of mean zero: complex64 [..., M, M] of [..., n, M].

    Raises:
        InvalidInput: as `ledoit_wolf`.
    """
    _check("x", x, "[..., n, M]")
    s = ops.matmul(ops.swapaxes(x, -1, -2), ops.conj(x))
    return s / x.shape[-2]


def ledoit_wolf(x):
    """The estimate of a covariance that [Ledoit04] shrink towards a multiple of I.

    S of n samples becomes (1 - r) S + r (trace(S)/M) I, with the r that minimises the mean
    square error, itself estimated (eq. 14 and Lemmas 3.2 to 3.5). The derivation holds for
    complex samples with the Frobenius norm as it is. scikit-learn has the estimate for real
    samples outside of graphs; complex ones stacked as real would lose that the covariance of
    the real part is that of the imaginary part.

    Args:
        x: samples of mean zero, complex64 [..., n, M].

    Returns:
        complex64 [..., M, M], positive definite unless all samples are zero or alike.

    Raises:
        InvalidInput: `x` is of another rank or dtype, has no samples or, in an eager call,
            NaN or inf.
    """
    s = sample_covariance(x)
    num_samples, size = x.shape[-2:]
    scale = mean_variance(s)
    square = ops.sum(ops.square(ops.real(s)) + ops.square(ops.imag(s)), axis=(-2, -1))
    energies = ops.sum(ops.square(ops.real(x)) + ops.square(ops.imag(x)), axis=-1)
    # Of a sample's x x' from S, and of S from the multiple of I
    spread = (ops.mean(ops.square(energies), axis=-1) - square) / num_samples
    distance = square - size * ops.square(scale)
    shrinkage = ops.clip(spread / ops.maximum(distance, 1e-30), 0.0, 1.0)
    shrinkage = ops.where(distance <= 1e-6 * square, 1.0, shrinkage)
    target = ops.cast((shrinkage * scale)[..., None, None] * ops.eye(size), "complex64")
    return ops.cast(1.0 - shrinkage, "complex64")[..., None, None] * s + target


def _check(name, x, expected):
    check_tensors("covariance", **{name: x})
    dtype = keras.backend.standardize_dtype(x.dtype)
    shape = tuple(x.shape)
    if dtype != "complex64" or len(shape) < 2 or 0 in shape[-2:]:
        raise InvalidInput(
            f"covariance: {name} has shape {shape} and dtype {dtype}, expected complex64 "
            f"{expected}"
        )
    check_finite("covariance", **{name: x})


ESTIMATES = {"ledoit-wolf": ledoit_wolf, "none": sample_covariance}
