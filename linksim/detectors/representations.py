"""Exact low-dimensional representations of what ZF-SIC and ML detectors compute.

[Arvinte20], Theorems 1 and 2 with Appendices A and B: the LLRs of one channel use are a
function of 3 K (ZF-SIC) or K (K + 2) (ML) real numbers, whatever the modulation and the
number of antennas. The noise variance needs no number of its own, because everything is
divided by sqrt(N0).
"""

from __future__ import annotations

import numpy as np
from keras import ops

from linksim.backend import Tensor, constant
from linksim.constellation import pam_levels, pam_logits_to_llrs, pam_num_bits
from linksim.detectors.base import Detector, arranged_as
from linksim.detectors.ml import MaximumLikelihoodDetector
from linksim.detectors.real import interleaved_qr, with_zeros
from linksim.detectors.sic import ZFSICDetector, successive_residuals
from linksim.errors import InvalidInput, check_int


def zf_sic_dimension(num_streams: int) -> int:
    """How many reals determine the LLRs of ZF-SIC: 3 K ([Arvinte20], Theorem 1)."""
    check_int("num_streams", num_streams)
    return 3 * num_streams


def ml_dimension(num_streams: int) -> int:
    """How many reals determine the LLRs of ML: K (K + 2) ([Arvinte20], Theorem 2)."""
    check_int("num_streams", num_streams)
    return num_streams * (num_streams + 2)


def zf_sic_representation(
    y: Tensor, h: Tensor, no: Tensor, num_bits_per_symbol: int
) -> Tensor:
    """The reals that determine the LLRs of ZF-SIC ([Arvinte20], Appendix A).

    For each stream these are the real and the imaginary part (zero for BPSK) of the
    observation after interference cancellation, and the diagonal entry of R, all divided
    by sqrt(N0).

    Args:
        y: complex64 [..., M].
        h: complex64 [..., M, K], M >= K.
        no: float32 [...], N0, or a noise covariance; see `Detector`.
        num_bits_per_symbol: m; it matters because symbols are decided before they are
            cancelled.

    Returns:
        float32 [..., 3 K]; the three numbers of a stream stand next to each other.

    Raises:
        InvalidInput: for the inputs that `Detector` refuses.
    """
    detector = ZFSICDetector(_num_streams(h), num_bits_per_symbol)
    (y, h, no), lead = detector._to_real(y, h, no)
    y, r = _scaled_qr(y, h, no, detector.num_streams, detector.is_real)
    dims = detector.num_dims
    observations = successive_residuals(y, r, detector.levels)
    per_stream = dims // detector.num_streams
    columns = []
    for k in range(0, dims, per_stream):
        imaginary = ops.zeros_like(observations[k])
        if per_stream == 2:
            imaginary = observations[k + 1]
        columns += [observations[k], imaginary, r[:, k, k]]
    z = ops.stack(columns, axis=-1)
    return arranged_as(z, lead, len(columns))


def zf_sic_llrs(z: Tensor, num_bits_per_symbol: int) -> Tensor:
    """The LLRs of the "zf-sic" detector, g(z) of [Arvinte20], Theorem 1.

    Args:
        z: float32 [..., 3 K] of `zf_sic_representation`.
        num_bits_per_symbol: m.

    Returns:
        float32 [..., K, m].

    Raises:
        InvalidInput: the shape of `z` or `num_bits_per_symbol` is wrong.
    """
    pam_num_bits(num_bits_per_symbol)
    z = ops.convert_to_tensor(z)
    if len(z.shape) < 1 or not z.shape[-1] or z.shape[-1] % 3:
        raise InvalidInput(f"z: got shape {tuple(z.shape)}, expected [..., 3 K]")
    num_streams = z.shape[-1] // 3
    z = ops.reshape(z, tuple(ops.shape(z)[:-1]) + (num_streams, 3))
    observed = z[..., 0]
    gain = z[..., 2]
    if num_bits_per_symbol > 1:
        observed = ops.concatenate([observed, z[..., 1]], axis=-1)
        gain = ops.concatenate([gain, gain], axis=-1)
    levels = constant(pam_levels(num_bits_per_symbol))
    logits = -ops.square(observed[..., None] - gain[..., None] * levels)
    return pam_logits_to_llrs(logits, num_bits_per_symbol)


def ml_representation(y: Tensor, h: Tensor, no: Tensor) -> Tensor:
    """The reals that determine the exact LLRs ([Arvinte20], Appendix B).

    They are the entries of the complex QR decomposition, divided by sqrt(N0).

    Args:
        y: complex64 [..., M].
        h: complex64 [..., M, K], of full rank.
        no: float32 [...], N0, or a noise covariance; see `Detector`.

    Returns:
        float32 [..., K (K + 2)]: Re Q'y, Im Q'y and the diagonal of R (K each), then the
        real and the imaginary parts of the entries above the diagonal, row by row
        (K (K - 1)/2 each).

    Raises:
        InvalidInput: for the inputs that `Detector` refuses.
    """
    num_streams = _num_streams(h)
    # The real system is the same for every complex modulation
    (y, h, no), lead = Detector(num_streams, 2)._to_real(y, h, no)
    y, r = _scaled_qr(y, h, no, num_streams, is_real=False)
    # Interleaved order: a complex entry a + jb is the block [[a, -b], [b, a]]
    real, imag = r[:, 0::2, 0::2], r[:, 1::2, 0::2]
    above = np.flatnonzero(np.triu(np.ones((num_streams, num_streams)), 1))
    parts = [y[:, 0::2], y[:, 1::2], ops.diagonal(real, axis1=-2, axis2=-1)]
    for part in (real, imag):
        flat = ops.reshape(part, (-1, num_streams**2))
        parts.append(ops.take(flat, constant(above, "int32"), axis=-1))
    z = ops.concatenate(parts, axis=-1)
    return arranged_as(z, lead, ml_dimension(num_streams))


def ml_llrs(z: Tensor, num_streams: int, num_bits_per_symbol: int) -> Tensor:
    """The LLRs of the "ml" detector, g(z) of [Arvinte20], Theorem 2.

    Args:
        z: float32 [..., K (K + 2)] of `ml_representation`.
        num_streams: K.
        num_bits_per_symbol: m.

    Returns:
        float32 [..., K, m].

    Raises:
        InvalidInput: the shape of `z` or another argument is wrong.
    """
    detector = MaximumLikelihoodDetector(num_streams, num_bits_per_symbol)
    z = ops.convert_to_tensor(z)
    size = ml_dimension(num_streams)
    if len(z.shape) < 1 or z.shape[-1] != size:
        raise InvalidInput(
            f"z: got shape {tuple(z.shape)}, expected [..., {size}] for {num_streams} streams"
        )
    lead = tuple(ops.shape(z)[:-1])
    z = ops.reshape(z, (-1, size))
    if z.shape[0] == 0:
        z = with_zeros(z)  # `arranged_as` leaves it out
    y, rest = z[:, : 2 * num_streams], z[:, 2 * num_streams :]
    diagonal, above = rest[:, :num_streams], rest[:, num_streams:]
    half = above.shape[-1] // 2
    real = _upper_triangle(diagonal, above[:, :half])
    imag = _upper_triangle(ops.zeros_like(diagonal), above[:, half:])
    top = ops.concatenate([real, -imag], axis=-1)
    r = ops.concatenate([top, ops.concatenate([imag, real], axis=-1)], axis=-2)
    if detector.is_real:
        r = r[..., :num_streams]
    logits = detector.detect(y, r, ops.ones_like(z[:, 0]))
    llrs = pam_logits_to_llrs(logits, num_bits_per_symbol)
    return arranged_as(llrs, lead, num_streams, num_bits_per_symbol)


def _num_streams(h):
    h = ops.convert_to_tensor(h)
    if len(h.shape) < 2 or not h.shape[-1]:
        raise InvalidInput(f"h: got shape {tuple(h.shape)}, expected [..., M, K]")
    return h.shape[-1]


def _scaled_qr(y, h, no, num_streams, is_real):
    """`Q'y` and R divided by sqrt(N0), in interleaved order.

    The diagonal of R is made non-negative, which makes R unique. The two real dimensions
    of a stream then have the same diagonal entry, that of the complex decomposition.
    """
    y, r = interleaved_qr(y, h, num_streams, is_real)
    diagonal = ops.diagonal(r, axis1=-2, axis2=-1)
    scale = ops.where(diagonal < 0, -1.0, 1.0) / ops.sqrt(no)[:, None]
    return y * scale, r * scale[..., None]


def _upper_triangle(diagonal, above):
    """Matrices [B, K, K] with diagonals [B, K] and the entries above them [B, K(K-1)/2]."""
    size = diagonal.shape[-1]
    entries = ops.concatenate([diagonal, above, ops.zeros_like(diagonal[:, :1])], axis=-1)
    source = np.full((size, size), entries.shape[-1] - 1)
    source[np.diag_indices(size)] = np.arange(size)
    source[np.triu_indices(size, 1)] = size + np.arange(above.shape[-1])
    return ops.reshape(
        ops.take(entries, constant(source.reshape(-1), "int32"), axis=-1), (-1, size, size)
    )
