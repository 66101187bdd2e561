"""The real-valued system behind every detector, and its linear algebra."""

import keras
from keras import ops

from linksim.backend import constant, either, is_traced_by_torch, pad

# Smallest variance of a symbol in one dimension. Below, its inverse, a precision in
# expectation propagation or a weight in an MMSE filter, would swamp all others.
MIN_SYMBOL_VARIANCE = 1e-6
# Smallest error variance of an estimate, as in the published code of [Khani20]
MIN_ERROR_VARIANCE = 1e-9


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
    """Whiten noise of covariance `s`. If all of it is white, y and h stay untouched.

    The whitened noise is scaled to N0 = trace(s)/M per complex dimension, so that N0
    keeps its meaning.

    Args:
        y: float32 [B, 2M].
        h: float32 [B, 2M, N].
        s: complex64 [B, M, M], or [1, M, M] for all vectors.

    Returns:
        y, h and the noise variances N0, float32 [B].

    Raises:
        The backend's error, or NaN, for an `s` that is not positive definite.
    """
    shared = s.shape[0] == 1 and y.shape[0] != 1
    no = _white_noise(s)
    if no is not None:
        return y, h, ops.broadcast_to(no, ops.shape(y)[:1]) if shared else no
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
        if shared:  # the vectors are columns of one system of equations
            columns = ops.reshape(ops.transpose(both, (1, 0, 2)), (dims, -1))
            columns = ops.solve_triangular(factor[0], columns, lower=True)
            columns = ops.reshape(columns, (dims, -1, both.shape[-1]))
            both = ops.transpose(columns, (1, 0, 2))
        else:
            both = ops.solve_triangular(factor, both, lower=True)
        return both[..., 0], both[..., 1:]

    y, h = either(white, untouched, whitened)
    return y, h, ops.broadcast_to(no, ops.shape(y)[:1]) if shared else no


def _white_noise(s):
    """N0 [B] if all covariances [B, M, M] are white and this can be seen on PyTorch, else None.

    It saves their real form, which is four times as large. PyTorch writes that form and every
    step that follows to memory; the compilers of the other backends do not.
    """
    if keras.backend.backend() != "torch" or is_traced_by_torch():
        return None
    real, imag = ops.real(s), ops.imag(s)
    no = ops.mean(diagonal(real), axis=-1)
    least = 1e-6 * ops.abs(no)[:, None, None]
    rest = ops.abs(real - no[:, None, None] * ops.eye(s.shape[-1])) <= least
    return no if ops.all(rest) and ops.all(ops.abs(imag) <= least) else None


# Vectors within these bounds stay as they are: squares, sums over antennas and ratios
# of them are within the range of float32 in every detector
_GAINS = 2.0**-16, 2.0**16
_NOISES = 2.0**-36, 2.0**36
_LARGEST_Y = 2.0**30
# Bounds relative to the larger of |H| and sqrt(N0). Below the first two, float32 has no
# digits left for the noise beside H, or for H beside the noise. A y above the last cannot
# be Hx + n.
_LEAST_NOISE = 2.0**-66
_LEAST_GAIN = 2.0**-40
_MOST_Y = 2.0**20
# Float32 cannot hold the square of a shorter length, so it cannot be normalised
_ZERO = 1e-18
# A column of which no larger share remains depends on those before it
_DEPENDENT = 1e-6


def into_range(y, h, no, num_streams):
    """Scale vectors of extreme size to where float32 neither over- nor underflows.

    Such a y and H are divided by the power of two below the larger of |H| and sqrt(N0),
    and N0 by its square, which does not change the posterior. Three ratios are beyond
    float32 even then, and are limited: noise more than 200 dB below the channel is raised
    to that level, a channel more than 240 dB below the noise becomes zero, and a y more
    than 120 dB above both is shortened. All other vectors stay untouched.

    Args:
        y: float32 [B, 2M].
        h: float32 [B, 2M, N].
        no: float32 [B], positive.
        num_streams: K.

    Returns:
        y, h and no.
    """
    largest_y = ops.amax(ops.abs(y), axis=-1)
    # The other half of the columns holds the same numbers
    largest_h = ops.amax(ops.abs(h[..., :num_streams]), axis=(-2, -1))
    outside = (largest_h < _GAINS[0]) | (largest_h > _GAINS[1]) | (largest_y > _LARGEST_Y)
    outside = outside | (no < _NOISES[0]) | (no > _NOISES[1])

    def scaled():
        size = ops.maximum(largest_h, ops.sqrt(no))
        # y is shortened before it is divided, as the division may overflow
        most = ops.minimum(_MOST_Y * size, 3e38)
        shorter = ops.where(largest_y > most, most / ops.maximum(largest_y, most), 1.0)
        unit = ops.where(outside, ops.power(2.0, ops.floor(ops.log2(size))), 1.0)
        shorter = ops.where(outside, shorter, 1.0)
        # The log2 of a denormal number is -inf
        unit = ops.maximum(unit, 2.0**-126)
        dead = outside & (largest_h < _LEAST_GAIN * size)
        new_no = ops.maximum(no / unit / unit, _LEAST_NOISE)
        return (
            y * shorter[:, None] / unit[:, None],
            ops.where(dead[:, None, None], 0.0, h / unit[:, None, None]),
            ops.where(outside, new_no, no),
        )

    if is_traced_by_torch():  # a graph that cannot branch scales by one
        return scaled()
    return ops.cond(ops.any(outside), scaled, lambda: (y, h, no))


def with_zeros(x):
    """`x` [B, ...] with one entry of zeros after the last.

    XLA cannot compile a loop over the entries of a batch of unknown size that turns out to
    be empty, although the loop would do nothing.
    """
    return pad(x, ((0, 1), *[(0, 0)] * (len(x.shape) - 1)))


def matvec(a, x):
    """a [B, I, J] times x [B, J]."""
    return ops.matmul(a, x[..., None])[..., 0]


def matched_filter(y, h):
    """`H'y` [B, N] and `H'H` [B, N, N] for y [B, 2M] and h [B, 2M, N]."""
    ht = ops.swapaxes(h, -1, -2)
    return matvec(ht, y), ops.matmul(ht, h)


def matched_inputs(y, h, no, normalize):
    """The inputs that an unfolded network takes from y and H.

    Args:
        y: float32 [B, 2M].
        h: float32 [B, 2M, N].
        no: float32 [B].
        normalize: divide by the gain g = tr(H'H)/N + N0/2, and add log(2g/N0) to the
            inputs. The inputs then do not depend on the scale of y, H and sqrt(N0).

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
    """Diagonals [B, N] of matrices a [B, N, N]."""
    return ops.diagonal(a, axis1=-2, axis2=-1)


def regularized_inverse(gram, load, ridge=1.2e-7):
    """Inverse of `gram + diag(load)`, which is finite for a singular `gram` too.

    A ridge as small as the float32 rounding of the mean diagonal is added for zero and
    rank-deficient channels.

    Args:
        gram: float32 [B, N, N], symmetric, positive semidefinite.
        load: a number or float32 that broadcasts to [B, N].
        ridge: the ridge relative to the mean diagonal.

    Returns:
        float32 [B, N, N].
    """
    eye = ops.eye(gram.shape[-1])
    ridge = ridge * ops.mean(diagonal(gram), axis=-1, keepdims=True) + 1e-30
    load = ops.broadcast_to(load + ridge, ops.shape(gram)[:-1])
    return ops.inv(gram + load[..., None] * eye)


def interleaved_order(num_streams, is_real):
    """Indices that bring the two real dimensions of each stream side by side, a tuple."""
    if is_real:
        return tuple(range(num_streams))
    return tuple(i + part for i in range(num_streams) for part in (0, num_streams))


def interleaved_qr(y, h, num_streams, is_real):
    """QR decomposition by LAPACK, with the real dimensions of a stream side by side.

    In that order R has the structure of the complex QR decomposition: the 2 x 2 blocks
    on its diagonal are diagonal themselves. With fewer rows than columns, zero rows
    complete R.

    Args:
        y: float32 [B, 2M].
        h: float32 [B, 2M, N].
        num_streams: K.
        is_real: h has no columns for imaginary parts (BPSK).

    Returns:
        `Q'y` [B, N] and R [B, N, N], both in interleaved order.
    """
    h = ops.take(h, constant(interleaved_order(num_streams, is_real), "int32"), axis=-1)
    rows, columns = h.shape[-2:]
    if rows < columns:
        h = pad(h, ((0, 0), (0, columns - rows), (0, 0)))
        y = pad(y, ((0, 0), (0, columns - rows)))
    q, r = ops.qr(h)
    return matvec(ops.swapaxes(q, -1, -2), y), r


def small_interleaved_qr(y, h, num_streams, is_real):
    """`interleaved_qr` by modified Gram-Schmidt, where no diagonal entry of R is negative.

    It is faster than LAPACK for up to about eight columns, because every step is one
    operation on the whole batch. Q is not formed: y is treated as one more column, which
    makes the result backward stable for least squares [Bjorck67].

    Arguments and results are those of `interleaved_qr`.
    """
    h = ops.take(h, constant(interleaved_order(num_streams, is_real), "int32"), axis=-1)
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
        rows.append(pad(row, ((i, 0), (0, 0))))
    rows = ops.transpose(ops.stack(rows), (2, 0, 1))  # [B, N, N + 1]
    return rows[..., -1], rows[..., :-1]


def stacked_qr(y, h, num_streams):
    """The complex QR decomposition in stacked real form; no diagonal entry is negative.

    It is a modified Gram-Schmidt on [H, y] like `small_interleaved_qr`, and stable for
    the same reason [Bjorck67]. The two are apart because networks are trained on the
    numbers of this one: it works on complex columns, so that R has exactly the form
    [[Re, -Im], [Im, Re]], and a column that depends on those before it gives a zero row,
    where the other has rounding. R is unique, and it all compiles with XLA.

    Args:
        y: float32 [B, 2M].
        h: float32 [B, 2M, N], [[Re, -Im], [Im, Re]], or N = K for BPSK.
        num_streams: K.

    Returns:
        `Q'y` [B, N] and R [B, N, N], both in stacked order.
    """
    k, num_rx = num_streams, y.shape[-1] // 2
    complex_ = h.shape[-1] != k
    rest = ops.concatenate([h[..., :k], y[..., None]], axis=-1)  # [B, 2M, K + 1]
    floor = _DEPENDENT * ops.sqrt(ops.sum(ops.square(rest[..., :k]), axis=-2))
    rows_re, rows_im = [], []
    for i in range(k):
        column = rest[..., i]
        length = ops.sqrt(ops.sum(ops.square(column), axis=-1, keepdims=True))
        kept = length > floor[:, i, None]
        q = ops.where(kept, column / ops.where(kept, length, 1.0), 0.0)
        row = ops.matmul(q[:, None], rest)[:, 0]
        rows_re.append(row * constant(tuple(float(j >= i) for j in range(k + 1))))
        rest = rest - q[..., None] * row[:, None]
        if complex_:
            # i q in stacked form, whose products with the columns are the imaginary parts
            turned = ops.concatenate([-q[:, num_rx:], q[:, :num_rx]], axis=-1)
            row = ops.matmul(turned[:, None], rest)[:, 0]
            rows_im.append(row * constant(tuple(float(j > i) for j in range(k + 1))))
            rest = rest - turned[..., None] * row[:, None]
    real = ops.stack(rows_re, axis=1)  # [B, K, K + 1]
    if not complex_:
        return real[..., k], real[..., :k]
    imag = ops.stack(rows_im, axis=1)
    reduced = ops.concatenate([real[..., k], imag[..., k]], axis=-1)
    return reduced, stacked_matrix(real[..., :k], imag[..., :k])
