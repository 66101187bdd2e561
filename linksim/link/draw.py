"""The one draw of simulation and training: from keys to what was sent and received.

`draw` puts a batch together from parts. A *sender* draws bits and symbols: those of an
interleaved codeword (`linksim.link.link.CodedSender`) or uniform ones (`UniformSender`). A
*front* sends the symbols through the channel, adds noise, and knows the channel as well as
the scenario's CSI says: `FlatFront` here, `InterferedFront` around it in
`linksim.link.interference`, `OFDMFront` in `linksim.link.ofdm`, and around any of them
`NoisyCSI`. A new kind of sender, front or CSI is another part of the same signature.

Everything here is `keras.ops` and runs on every backend. `linksim.link.fronts` chooses the
front of a scenario. Shapes have B blocks, U channel uses per block, K streams, M receive
antennas and m bits per symbol.
"""

from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from linksim.channels.random import StreamKey, complex_normal
from linksim.constellation import bit_labels, qam_points


class LinkBatch(NamedTuple):
    """One batch of blocks."""

    bits: Any  # what was sent: float32 [B, k], or [B, U, K, m] of uniform symbols
    symbols: Any  # indices of the sent symbols, int32 [B, U, K]
    h: Any  # true channels, complex64 [B, U, M, K]
    y: Any  # received vectors, complex64 [B, U, M]
    h_hat: Any  # channels as the receiver knows them, complex64 [B, U, M, K]
    # Noise as detectors are told, `Received.s`: N0, float32 [B, U], or a covariance
    no: Any


class Received(NamedTuple):
    """What a front hands to the receiver; B blocks of U channel uses."""

    y: Any  # received vectors, complex64 [B, U, M]
    h: Any  # true channels, complex64 [B, U, M, K]
    h_hat: Any  # channels as the receiver knows them, complex64 [B, U, M, K]
    # The noise that a detector should assume, its argument `s`: the variance N0, float32
    # [B, U], or from a front with coloured noise the covariance, complex64 [B, U, M, M]
    s: Any


def draw(keys, sender, front, no, num_blocks, first_block=0):
    """Draw a batch of blocks; traceable, a pure function of its arguments.

    Args:
        keys: {purpose: integer tensor [2]}, a random stream for "channel", "noise" and
            "csi", and for each purpose of the sender.
        sender: draws what is sent: `send(keys, num_blocks)` returns bits and symbol
            indices int32 [B, U, K], and `points` are the constellation, complex64 [2^m].
        front: the `Front` that transmits it.
        no: noise variance N0 per complex receive dimension, float32 [] or [B, U]; its mean
            over channels where the SNR definition is per realization.
        num_blocks: int, B.
        first_block: integer, position of the first block in the run.

    Returns:
        `LinkBatch`. The transmitted vectors are `sender.points[symbols]`.
    """
    bits, symbols = sender.send(keys, num_blocks)
    x = ops.take(ops.convert_to_tensor(sender.points), symbols, axis=0)
    received = front.transmit(x, keys, no, first_block)
    return LinkBatch(bits, symbols, received.h, received.y, received.h_hat, received.s)


def symbols_of_bits(bits):
    """Symbol indices int32 [...] of label bits [..., m], most significant bit first."""
    # Exact in float32. TensorFlow has int32 products and sums on the host alone, where a GPU
    # would have to send the bits
    weights = (2 ** np.arange(bits.shape[-1] - 1, -1, -1)).astype(np.float32)
    return ops.cast(ops.sum(ops.cast(bits, "float32") * weights, axis=-1), "int32")


def add_noise(key, y, no):
    """`y` with circular Gaussian noise of variance `no`, which broadcasts to it."""
    return y + complex_normal(key, tuple(ops.shape(y)), no)


class UniformSender:
    """Sends independent, uniform symbols, one channel use per block.

    Its bits are the labels of the symbols, float32 [B, 1, K, m], and its key is "symbols".

    Args:
        num_streams: K.
        num_bits_per_symbol: m.
    """

    def __init__(self, num_streams, num_bits_per_symbol):
        self.points = qam_points(num_bits_per_symbol)
        self._num_streams = num_streams
        self._labels = bit_labels(num_bits_per_symbol)

    def send(self, keys, num_blocks):
        """Bits float32 [B, 1, K, m] and symbols int32 [B, 1, K]."""
        symbols = keras.random.randint(
            (num_blocks, 1, self._num_streams),
            0,
            len(self.points),
            seed=StreamKey(keys["symbols"]),
        )
        bits = ops.take(ops.convert_to_tensor(self._labels), symbols, axis=0)
        return ops.cast(bits, "float32"), symbols


class Front:
    """Takes symbols to the receiver: channel, noise, and knowledge of the channel.

    Attributes:
        channel: the `linksim.channels.Channel`.
        num_uses: channel uses of a block, or None where the sender decides.
        resource_efficiency, streams_per_transmitter: see `linksim.snr.LinkBudget`.
    """

    num_uses = None
    resource_efficiency = 1.0
    streams_per_transmitter = 1

    def __init__(self, channel):
        self.channel = channel

    def check(self, num_uses):
        """Refuse what the channel, or that of interference, cannot draw.

        Args:
            num_uses: channel uses of a block.

        Raises:
            InvalidInput: the channel has no blocks or slots of this size.
        """
        self.channel.check_block(num_uses)

    def transmit(self, x, keys, no, first_block=0):
        """Send a batch.

        Args:
            x: transmitted vectors, complex64 [B, U, K], with known B and U.
            keys: {purpose: integer tensor [2]}, as in `draw`.
            no: noise variance N0, float32 [] or, on a flat front, [B, U].
            first_block: integer, position of the first block in the run.

        Returns:
            `Received`.
        """
        raise NotImplementedError


class FlatFront(Front):
    """y = Hx + n for every channel use, with H known to the receiver.

    Args:
        channel: the `linksim.channels.Channel`.
        per_realization: scale N0 by ||H||_F^2 / E||H||_F^2 of each channel use.
    """

    def __init__(self, channel, per_realization=False):
        super().__init__(channel)
        self._per_realization = per_realization

    def transmit(self, x, keys, no, first_block=0):
        num_blocks, num_uses = x.shape[:2]
        h = self.channel.sample(keys["channel"], num_blocks, num_uses, first_block)
        no = ops.convert_to_tensor(no, "float32")
        if not len(no.shape):
            no = ops.broadcast_to(no, (num_blocks, num_uses))
        if self._per_realization:
            energy = ops.sum(ops.square(ops.abs(h)), axis=(-2, -1))
            no = no * energy / self.channel.mean_energy
        y = ops.matmul(h, x[..., None])[..., 0]
        return Received(add_noise(keys["noise"], y, no[..., None]), h, h, no)


class NoisyCSI(Front):
    """Another front, with Gaussian errors on the channels that the receiver knows.

    The error W has E||H||^2 / E||W||^2 = `error_snr_db`, [Pratik21], eq. 27 and 28. Its
    key is "csi".

    Args:
        front: the front that transmits.
        error_snr_db: ratio of the channel's energy to that of the error, in dB.
    """

    def __init__(self, front, error_snr_db):
        super().__init__(front.channel)
        self.num_uses = front.num_uses
        self.resource_efficiency = front.resource_efficiency
        self.streams_per_transmitter = front.streams_per_transmitter
        self.front = front
        self._variance = front.channel.power * 10 ** (-error_snr_db / 10)

    def check(self, num_uses):
        self.front.check(num_uses)

    def transmit(self, x, keys, no, first_block=0):
        received = self.front.transmit(x, keys, no, first_block)
        h = received.h
        error = self.channel.estimation_error(keys["csi"], tuple(h.shape), self._variance)
        return received._replace(h_hat=h + error)
