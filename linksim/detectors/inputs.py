"""Checks of what a detector is called with: `y`, `h` and `s`.

Dtypes and static shapes are checked in every call, values only in eager ones.
"""

import keras
import numpy as np
from keras import ops

from linksim.backend import concrete, is_array
from linksim.errors import InvalidInput


def check_system(who, detector, y, h, s):
    """Check the dtypes and static shapes of a call.

    Args:
        who: name of the detector in messages.
        detector: has the sizes and the `linksim.detectors.capabilities.Capabilities`.
        y, h, s: the tensors of `linksim.detectors.Detector`.

    Returns:
        Whether `s` is a covariance.

    Raises:
        InvalidInput: they do not fit together, or not to the detector.
    """
    for name, x in (("y", y), ("h", h)):
        dtype = keras.backend.standardize_dtype(x.dtype)
        if dtype != "complex64":
            raise InvalidInput(
                f"{who}: {name} has dtype {dtype}, expected complex64{cast_hint(dtype)}"
            )
    if len(y.shape) < 1 or len(h.shape) < 2:
        raise InvalidInput(
            f"{who}: y has shape {tuple(y.shape)} and h {tuple(h.shape)}, "
            "expected [..., M] and [..., M, K]"
        )
    streams = h.shape[-1]
    fits = streams == detector.num_streams
    if detector.any_num_streams:
        fits = streams is None or 1 <= streams <= detector.num_streams
    if y.shape[-1] is None or h.shape[-2] != y.shape[-1] or not fits:
        most = " or fewer" if detector.any_num_streams else ""
        raise InvalidInput(
            f"{who}: h has shape {tuple(h.shape)}, expected [..., "
            f"{y.shape[-1]}, {detector.num_streams}{most}] beside y {tuple(y.shape)} "
            f"(num_streams={detector.num_streams})"
        )
    dtype = keras.backend.standardize_dtype(s.dtype)
    covariance = dtype == "complex64"
    if not covariance and dtype != "float32":
        raise InvalidInput(
            f"{who}: s has dtype {dtype}, expected complex64 (noise covariance) "
            f"or float32 (noise variance N0){cast_hint(dtype)}"
        )
    lead, own = tuple(y.shape[:-1]), 2 if covariance else 0
    square = (y.shape[-1],) * own
    if not (broadcastable(leading(s, own), lead) and compatible(trailing(s, own), square)):
        raise InvalidInput(
            f"{who}: s has shape {tuple(s.shape)} and dtype {dtype}, expected "
            f"{lead + square} for {'a covariance' if covariance else 'N0'} beside "
            f"y {tuple(y.shape)}, or what broadcasts to that"
        )
    if not broadcastable(leading(h, 2), lead):
        raise InvalidInput(
            f"{who}: y has shape {tuple(y.shape)} and h {tuple(h.shape)}: the leading "
            f"dimensions of h cannot be broadcast to {lead}"
        )
    check_column_rank(detector, y.shape[-1], who)
    if detector.built_for_num_rx not in (None, y.shape[-1]):
        raise InvalidInput(
            f"y: {y.shape[-1]} receive antennas; these weights are for "
            f"{detector.built_for_num_rx}"
        )
    return covariance


def check_column_rank(detector, num_rx, who):
    """Raise `InvalidInput` if a detector needs more receive antennas than `num_rx`."""
    rows = 2 * num_rx if detector.num_bits_per_symbol == 1 else num_rx
    if detector.needs_full_column_rank and rows < detector.num_streams:
        raise InvalidInput(
            f"{who}: {num_rx} receive antennas for {detector.num_streams} streams; "
            "this detector needs at least as many antennas as streams"
        )


def number_as_tensor(s):
    """A Python number, N0 of all vectors, as a float32 tensor; anything else as it is."""
    if isinstance(s, (int, float)) and not isinstance(s, bool):
        return ops.convert_to_tensor(s, dtype="float32")
    return s


def check_tensors(who, **given):
    """Refuse arguments that are no tensors or arrays, which Keras calls by no name."""
    for name, value in given.items():
        if not is_array(value):
            got = "None" if value is None else f"a {type(value).__name__}"
            raise InvalidInput(f"{who}: {name}: got {got}, expected a tensor or an array")


def check_finite(who, **given):
    """Refuse, in an eager call, tensors with NaN or inf."""
    for name, x in given.items():
        value = concrete(x)
        if value is not None and not np.all(np.isfinite(value)):
            raise InvalidInput(f"{who}: {name} contains NaN or inf")


def check_noise_variance(who, no):
    """Refuse, in an eager call, noise variances that are not positive."""
    value = concrete(no)
    if value is not None and np.any(value <= 0):
        raise InvalidInput(f"{who}: noise variance N0 is {value.min()}, expected > 0")


def check_hermitian(who, s):
    """Refuse, in an eager call, covariances of which only one triangle would count."""
    value = concrete(s)
    if value is None or not value.size:
        return
    transpose = np.conj(np.swapaxes(value, -1, -2))
    if np.array_equal(value, transpose):  # as most are; looking closer takes longer
        return
    size = np.max(np.abs(value), axis=(-2, -1), keepdims=True)
    difference = np.abs(value - transpose)
    if np.any(difference > 1e-3 * size):
        raise InvalidInput(
            f"{who}: s is not Hermitian, expected noise covariances, which are equal to "
            "their conjugate transpose"
        )


def not_positive_definite(who):
    """What to raise where a covariance cannot be whitened."""
    return InvalidInput(
        f"{who}: s is not positive definite, expected noise covariances that are"
    )


def check_covariance(who, s):
    """Refuse, in an eager call, what is no covariance. For detectors that do not whiten,
    which would not notice."""
    check_finite(who, s=s)
    check_hermitian(who, s)
    value = concrete(s)
    if value is None or not value.size:
        return
    try:
        np.linalg.cholesky(value)
    except np.linalg.LinAlgError:
        raise not_positive_definite(who) from None


def cast_hint(dtype):
    """What to do about an input in double precision."""
    if dtype not in ("complex128", "float64"):
        return ""
    return (
        "; cast it, or if Sionna has made it, leave sionna.phy.config.precision and its "
        "blocks' precision= at 'single'"
    )


def leading(x, own):
    """Static leading dimensions of a tensor [..., *own], given how many `own` ones it has."""
    return tuple(x.shape[: len(x.shape) - own])


def trailing(x, own):
    """Its last `own` dimensions."""
    return tuple(x.shape[len(x.shape) - own :])


def broadcastable(shape, lead):
    """Whether `shape` can be broadcast to `lead`, as far as sizes are known."""
    pairs = zip(reversed(shape), reversed(lead))
    return len(shape) <= len(lead) and all(
        a is None or b is None or a in (1, b) for a, b in pairs
    )


def compatible(shape, expected):
    """Whether two shapes are equal, as far as sizes are known."""
    if len(shape) != len(expected):
        return False
    return all(a is None or b is None or a == b for a, b in zip(shape, expected))
