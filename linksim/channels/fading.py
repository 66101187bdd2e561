"""Channels without fading, with i.i.d. Rayleigh and with Kronecker-correlated fading."""

import keras
import numpy as np
from keras import ops

from linksim.channels.base import Channel, check_power
from linksim.channels.random import StreamKey, complex_normal
from linksim.errors import InvalidInput, check_int, check_real


class AWGNChannel(Channel):
    """H = I: every stream has its own receive antenna, without fading and interference.

    Each antenna receives one stream only, so `power` is 1/K.

    Raises:
        InvalidInput: `num_rx` differs from `num_streams`.
    """

    def __init__(self, num_rx, num_streams):
        super().__init__(num_rx, num_streams)
        if num_rx != num_streams:
            raise InvalidInput(
                f"channel (awgn): num_rx is {num_rx} and num_streams {num_streams}, "
                "expected equal numbers"
            )
        self.power = 1.0 / num_streams

    def sample(self, key, num_blocks, num_uses, first_block=0):
        eye = ops.convert_to_tensor(np.eye(self.num_rx, dtype=np.complex64))
        return ops.broadcast_to(eye, (num_blocks, num_uses) + eye.shape)


class RayleighChannel(Channel):
    """I.i.d. Rayleigh fading: independent Gaussian coefficients of zero mean.

    Args:
        num_rx: receive antennas M.
        num_streams: streams K.
        power: E|h_ij|^2. [Pratik21] and [He20] use 1/M, [Arvinte20] uses 1.
        is_real: draw real coefficients of variance `power`, as [Samuel19] and
            [Mohammad20] do for BPSK.
        uses_per_realization: consecutive channel uses of a block that share a matrix.
        normalize_streams: scale each column of each matrix to a mean energy of exactly `power`,
            as Sionna's `OFDMChannel(normalize_channel=True)` does for users of one antenna
            whose channel does not change in a slot.

    Raises:
        InvalidInput: a value out of range.
    """

    def __init__(
        self,
        num_rx,
        num_streams,
        power=1.0,
        is_real=False,
        uses_per_realization=1,
        normalize_streams=False,
    ):
        super().__init__(num_rx, num_streams)
        check_power(power)
        for key, value in (("is_real", is_real), ("normalize_streams", normalize_streams)):
            if not isinstance(value, bool):
                raise InvalidInput(f"channel.{key}: got {value!r}, expected true or false")
        check_int("channel.uses_per_realization", uses_per_realization, maximum=10**9)
        self.power = power
        self.is_real = is_real
        self.uses_per_realization = uses_per_realization
        self.normalize_streams = normalize_streams

    def sample(self, key, num_blocks, num_uses, first_block=0):
        draws = -(-num_uses // self.uses_per_realization)
        shape = (num_blocks, draws, self.num_rx, self.num_streams)
        if self.is_real:
            real = keras.random.normal(shape, seed=StreamKey(key)) * self.power**0.5
            h = ops.cast(real, "complex64")
        else:
            h = complex_normal(key, shape, self.power)
        if self.normalize_streams:
            energy = ops.mean(ops.square(ops.abs(h)), axis=-2, keepdims=True)
            h = h * ops.cast(ops.sqrt(self.power / energy), "complex64")
        if self.uses_per_realization > 1:
            repeats = min(self.uses_per_realization, num_uses)
            h = ops.repeat(h, repeats, axis=1)[:, :num_uses]
        return h


def exponential_correlation(size, rho):
    """The exponential correlation matrix of [Loyka01], float64 [size, size]: rho^|i-j|."""
    index = np.arange(size)
    return float(rho) ** np.abs(index[:, None] - index)


def symmetric_root(matrix):
    """The Hermitian square root of a positive semidefinite matrix, NumPy [n, n]."""
    values, vectors = np.linalg.eigh(matrix)
    root = np.sqrt(np.maximum(values, 0.0))
    return (vectors * root) @ vectors.conj().T


class KroneckerChannel(Channel):
    """Rayleigh fading, correlated on both sides: H = R_R^(1/2) H_w R_T^(1/2).

    The correlation matrices are exponential [Loyka01]. This is [Pratik21], eq. 26, whose
    "correlated" channel has the same coefficient on both sides and whose "partially
    correlated" channel has none at the transmitters.

    Args:
        num_rx: receive antennas M.
        num_streams: streams K.
        rho_rx: correlation of neighbouring receive antennas, in [0, 1).
        rho_tx: correlation of neighbouring transmitters, in [0, 1).
        power: E|h_ij|^2.

    Raises:
        InvalidInput: a value out of range.
    """

    def __init__(self, num_rx, num_streams, rho_rx=0.0, rho_tx=0.0, power=1.0):
        super().__init__(num_rx, num_streams)
        check_real("channel.rho_rx", rho_rx, low=0, high=0.9999)
        check_real("channel.rho_tx", rho_tx, low=0, high=0.9999)
        check_power(power)
        self.power = power
        self.rho_rx, self.rho_tx = rho_rx, rho_tx
        self._root_rx = symmetric_root(exponential_correlation(num_rx, rho_rx))
        self._root_tx = symmetric_root(exponential_correlation(num_streams, rho_tx))

    def sample(self, key, num_blocks, num_uses, first_block=0):
        shape = (num_blocks, num_uses, self.num_rx, self.num_streams)
        h = complex_normal(key, shape, self.power)
        left = ops.convert_to_tensor(self._root_rx.astype(np.complex64))
        right = ops.convert_to_tensor(self._root_tx.astype(np.complex64))
        return ops.matmul(ops.matmul(left, h), right)

    @property
    def is_correlated(self):
        """Whether at least one side is correlated."""
        return bool(self.rho_rx or self.rho_tx)

    def with_correlation(self, rho):
        """This channel with the coefficient `rho` on the sides that are correlated.

        Args:
            rho: float32 [], in [0, 1); may be a tensor.
        """
        return _KroneckerOfRho(self, rho)


class _KroneckerOfRho(Channel):
    """A `KroneckerChannel` whose correlation coefficient is a tensor."""

    def __init__(self, channel, rho):
        super().__init__(channel.num_rx, channel.num_streams)
        self.power = channel.power
        self._channel, self._rho = channel, rho

    def sample(self, key, num_blocks, num_uses, first_block=0):
        shape = (num_blocks, num_uses, self.num_rx, self.num_streams)
        h = complex_normal(key, shape, self.power)
        if self._channel.rho_rx:
            factor = cholesky_of_exponential(self.num_rx, self._rho)
            h = ops.matmul(ops.cast(factor, h.dtype), h)
        if self._channel.rho_tx:
            factor = ops.transpose(cholesky_of_exponential(self.num_streams, self._rho))
            h = ops.matmul(h, ops.cast(factor, h.dtype))
        return h


def cholesky_of_exponential(size, rho):
    """The lower Cholesky factor of `exponential_correlation`, float32 [size, size].

    It has the closed form of a first-order autoregression, so `rho` may be a tensor.
    Applied to Gaussian entries it gives the same distribution as the symmetric root.

    Args:
        size: int.
        rho: float32 [], in [0, 1).
    """
    lag = np.arange(size)[:, None] - np.arange(size)
    scale = ops.sqrt(1.0 - ops.square(rho)) * ops.ones((size,))
    scale = ops.where(np.arange(size) == 0, 1.0, scale)
    powers = ops.power(rho, ops.convert_to_tensor(np.maximum(lag, 0).astype(np.float32)))
    return powers * scale * (lag >= 0).astype(np.float32)
