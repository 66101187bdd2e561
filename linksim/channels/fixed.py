"""A few channel matrices that are drawn once."""

import numpy as np
from keras import ops

from linksim.channels.base import Channel, channel_with
from linksim.channels.random import stream_keys
from linksim.errors import InvalidInput, check_int
from linksim.tables import check_table


class FixedChannel(Channel):
    """A few matrices of another channel, the same in every run.

    Networks that are trained for one channel matrix are simulated on it. Channel uses
    take the matrices in turn, so that each comes equally often: use u of block b of a
    run has matrix (b U + u) mod `num_channels`, with U uses per block.

    Args:
        num_rx: receive antennas M.
        num_streams: streams K.
        of: name of the other channel.
        num_channels: number of matrices.
        realization_seed: seed that the matrices are drawn with.
        options: options of the other channel, as a dictionary.

    Attributes:
        channels: the matrices, complex64 [num_channels, M, K], NumPy.
        power: E|h_ij|^2 of the other channel. The matrices have `drawn_power`.

    Raises:
        InvalidInput: a value out of range, or what the other channel refuses.
    """

    def __init__(
        self,
        num_rx,
        num_streams,
        of="rayleigh",
        num_channels=1,
        realization_seed=0,
        options=None,
    ):
        super().__init__(num_rx, num_streams)
        check_int("channel.num_channels", num_channels, maximum=10**5)
        check_int("channel.realization_seed", realization_seed, minimum=0)
        if of == "fixed":
            raise InvalidInput('channel.of: got "fixed", expected another channel')
        options = {} if options is None else options
        check_table("channel.options", options)
        drawn = channel_with(of, num_rx, num_streams, options)
        self.power, self.is_real = drawn.power, drawn.is_real
        key = stream_keys(1, realization_seed)[0]
        self.channels = ops.convert_to_numpy(drawn.fixed(key, num_channels))

    @property
    def drawn_power(self):
        """E|h_ij|^2 of the matrices, which come equally often."""
        return float(np.mean(np.abs(self.channels) ** 2))

    def fixed(self, key, num_channels):
        if num_channels != len(self.channels):
            raise InvalidInput(
                f"num_channels: got {num_channels}, expected {len(self.channels)}, the "
                "matrices of the scenario"
            )
        return ops.convert_to_tensor(self.channels)

    def sample(self, key, num_blocks, num_uses, first_block=0):
        first = ops.cast(first_block, "int32") * num_uses
        index = (first + np.arange(num_blocks * num_uses, dtype=np.int32)) % len(self.channels)
        h = ops.take(ops.convert_to_tensor(self.channels), index, axis=0)
        return ops.reshape(h, (num_blocks, num_uses, self.num_rx, self.num_streams))


class RepeatedChannel(Channel):
    """Given matrices, each for as many consecutive blocks as the others.

    Training of one network per matrix draws from it: the vectors of a network are
    neighbours in the batch.

    Args:
        channels: complex64 [num_channels, M, K].
        like: the `Channel` that they were drawn from.
    """

    def __init__(self, channels, like):
        super().__init__(like.num_rx, like.num_streams)
        self.power, self.is_real = like.power, like.is_real
        self.channels = channels

    def sample(self, key, num_blocks, num_uses, first_block=0):
        h = ops.convert_to_tensor(self.channels)
        h = ops.repeat(h, num_blocks // len(self.channels), axis=0)[:, None]
        return h if num_uses == 1 else ops.repeat(h, num_uses, axis=1)
