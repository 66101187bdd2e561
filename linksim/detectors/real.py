"""The real-valued system behind every detector, and its linear algebra."""

import numpy as np
from keras import ops


def complex_to_real_channel(y, h):
    """Stack a complex system into a real one.

    Args:
        y: complex64 [B, M].
        h: complex64 [B, M, K].

    Returns:
        float32 `[Re; Im]` [B, 2M] and `[[Re, -Im], [Im, Re]]` [B, 2M, 2K].
    """
    y = ops.concatenate([ops.real(y), ops.imag(y)], axis=-1)
    return y, complex_to_real_matrix(h)


def complex_to_real_matrix(h):
    """`[[Re, -Im], [Im, Re]]` of complex matrices, [..., 2M, 2K]."""
    return stacked_matrix(ops.real(h), ops.imag(h))


def stacked_matrix(real, imag):
    """`[[Re, -Im], [Im, Re]]` of real and imaginary parts [..., M, K]."""
    top = ops.concatenate([real, -imag], axis=-1)
    return ops.concatenate([top, ops.concatenate([imag, real], axis=-1)], axis=-2)


def whiten(y, h, s):
    """Whiten coloured noise of covariance `s`; white noise is left untouched.

    The whitened noise is scaled to N0 = trace(s)/M per complex dimension, so that
    N0 keeps its meaning. Only noise that is not white is factorised.

    Args:
        y: float32 [B, 2M].
        h: float32 [B, 2M, N].
        s: complex64 [B, M, M].

    Returns:
        y, h and the noise variances N0, float32 [B].
    """
    s = complex_to_real_matrix(s)
    dims = s.shape[-1]
    diagonal = ops.diagonal(s, axis1=-2, axis2=-1)
    no = ops.mean(diagonal, axis=-1)
    eye = ops.eye(dims)
    coloured = ops.abs(s - no[:, None, None] * eye)
    white = ops.all(coloured <= 1e-6 * ops.abs(no)[:, None, None])

    def untouched():
        return y, h

    def whitened():
        factor = ops.cholesky(s / no[:, None, None])
        both = ops.concatenate([y[..., None], h], axis=-1)
        both = ops.solve_triangular(factor, both, lower=True)
        return both[..., 0], both[..., 1:]

    y, h = ops.cond(white, untouched, whitened)
    return y, h, no


# Vectors within these bounds are left as they are: no detector's squares, sums over
# antennas and ratios of them leave the range of float32 there
_GAINS = 2.0**-16, 2.0**16
_NOISES = 2.0**-36, 2.0**36
_LARGEST_Y = 2.0**30
# Relative to the larger of |H| and sqrt(N0). Below, float32 has no digits left to see
# the noise beside H, or H beside the noise; beyond the last, y is no Hx + n
_LEAST_NOISE = 2.0**-66
_LEAST_GAIN = 2.0**-40
_MOST_Y = 2.0**20
# Lengths of which float32 cannot hold the square: a unit vector cannot be made of them
_ZERO = 1e-18


def into_range(y, h, no, num_streams):
    """Bring vectors of extreme scale to where float32 neither over- nor underflows.

    Such a vector is divided by the power of two below the larger of |H| and sqrt(N0),
    and N0 by its square, which leaves the posterior as it is. What is then still beyond
    float32 is brought to its edge: noise more than 200 dB below the channel is raised to
    that, a channel more than 240 dB below the noise becomes zero, and a y more than
    120 dB above both is shortened. All other vectors are left untouched.

    Args:
        y: float32 [B, 2M].
        h: float32 [B, 2M, N].
        no: float32 [B], positive.
        num_streams: K.

    Returns:
        y, h and no.
    """
    largest_y = ops.max(ops.abs(y), axis=-1)
    # The other half of the columns has the same numbers
    largest_h = ops.max(ops.abs(h[..., :num_streams]), axis=(-2, -1))
    outside = (largest_h < _GAINS[0]) | (largest_h > _GAINS[1]) | (largest_y > _LARGEST_Y)
    outside = outside | (no < _NOISES[0]) | (no > _NOISES[1])

    def scaled():
        size = ops.maximum(largest_h, ops.sqrt(no))
        # Before the division, which may overflow
        most = ops.minimum(_MOST_Y * size, 3e38)
        shorter = ops.where(largest_y > most, most / ops.maximum(largest_y, most), 1.0)
        unit = ops.where(outside, ops.power(2.0, ops.floor(ops.log2(size))), 1.0)
        shorter = ops.where(outside, shorter, 1.0)
        # Of a channel that is all denormal numbers, log2 is -inf
        unit = ops.maximum(unit, 2.0**-126)
        dead = outside & (largest_h < _LEAST_GAIN * size)
        new_no = ops.maximum(no / unit / unit, _LEAST_NOISE)
        return (
            y * shorter[:, None] / unit[:, None],
            ops.where(dead[:, None, None], 0.0, h / unit[:, None, None]),
            ops.where(outside, new_no, no),
        )

    return ops.cond(ops.any(outside), scaled, lambda: (y, h, no))


def matvec(a, x):
    """a [B, I, J] times x [B, J]."""
    return ops.matmul(a, x[..., None])[..., 0]


def matched_filter(y, h):
    """`H'y` [B, N] and `H'H` [B, N, N] of y [B, 2M], h [B, 2M, N]."""
    ht = ops.swapaxes(h, -1, -2)
    return matvec(ht, y), ops.matmul(ht, h)


def matched_inputs(y, h, no, normalize):
    """What an unfolded network sees of y and H.

    Args:
        y: float32 [B, 2M].
        h: float32 [B, 2M, N].
        no: float32 [B].
        normalize: divide by the gain g = tr(H'H)/N + N0/2, and add log(2g/N0) to the
            inputs. Nothing changes then when y, H and sqrt(N0) are scaled.

    Returns:
        H'y [B, N], H'H [B, N, N] and a list of further inputs [B, 1].
    """
    hty, gram = matched_filter(y, h)
    if not normalize:
        return hty, gram, []
    half_no = no[:, None] / 2.0
    gain = ops.mean(diagonal(gram), axis=-1, keepdims=True) + half_no
    return hty / gain, gram / gain[..., None], [ops.log(gain / half_no)]


def diagonal(a):
    """Diagonals [B, N] of a [B, N, N]."""
    return ops.diagonal(a, axis1=-2, axis2=-1)


def regularized_inverse(gram, load):
    """Inverse of `gram + diag(load)`, kept invertible for singular `gram`.

    A ridge of a float32 rounding error of the mean diagonal is added, so that a
    zero or rank-deficient channel gives a finite result; it is far below the
    rounding of `gram` itself.

    Args:
        gram: float32 [B, N, N], symmetric, positive semidefinite.
        load: float32, broadcast to [B, N].
    """
    eye = ops.eye(gram.shape[-1])
    ridge = 1.2e-7 * ops.mean(diagonal(gram), axis=-1, keepdims=True) + 1e-30
    load = ops.broadcast_to(load + ridge, ops.shape(gram)[:-1])
    return ops.inv(gram + load[..., None] * eye)


def interleaved_order(num_streams, is_real):
    """Indices that bring both real dimensions of a stream side by side."""
    if is_real:
        return np.arange(num_streams)
    return np.arange(2 * num_streams).reshape(2, -1).T.reshape(-1)


def interleaved_qr(y, h, num_streams, is_real):
    """QR decomposition with the two real dimensions of a stream side by side.

    In that order R of a stacked complex channel has the structure of the complex
    QR decomposition: the 2 x 2 blocks on its diagonal are diagonal themselves.
    With fewer rows than columns, R is completed with zero rows.

    Returns:
        `Q'y` [B, N] and R [B, N, N], both in interleaved order.
    """
    h = ops.take(h, interleaved_order(num_streams, is_real), axis=-1)
    rows, columns = h.shape[-2:]
    if rows < columns:
        h = ops.pad(h, ((0, 0), (0, columns - rows), (0, 0)))
        y = ops.pad(y, ((0, 0), (0, columns - rows)))
    q, r = ops.qr(h)
    return matvec(ops.swapaxes(q, -1, -2), y), r


def small_interleaved_qr(y, h, num_streams, is_real):
    """`interleaved_qr` by modified Gram-Schmidt, with a positive diagonal of R.

    For up to eight or so columns: every step is a vector operation over the batch, where
    LAPACK is called for each matrix. Q itself is not formed; as y is treated like one
    more column, the result is backward stable for the least-squares problem.
    """
    h = ops.take(h, interleaved_order(num_streams, is_real), axis=-1)
    count = h.shape[-1]
    columns = ops.concatenate([h, y[..., None]], axis=-1)
    columns = ops.transpose(columns, (2, 1, 0))  # [N + 1, 2M, B]
    rows = []
    for i in range(count):
        column, columns = columns[0], columns[1:]
        norm = ops.sqrt(ops.sum(ops.square(column), axis=0))
        q = column / ops.where(norm > _ZERO, norm, float("inf"))
        products = ops.sum(q * columns, axis=1)  # [N - i, B]
        columns = columns - q * products[:, None]
        row = ops.concatenate([norm[None], products], axis=0)
        rows.append(ops.pad(row, ((i, 0), (0, 0))))
    rows = ops.transpose(ops.stack(rows), (2, 0, 1))  # [B, N, N + 1]
    return rows[..., -1], rows[..., :-1]
