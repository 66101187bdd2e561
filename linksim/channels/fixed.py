"""A few channel matrices, the same in every run."""

import numpy as np
from keras import ops

from linksim.channels.base import Channel, create_channel
from linksim.channels.random import stream_keys
from linksim.errors import InvalidInput, check_int


class FixedChannel(Channel):
    """So many matrices of another channel, in turn: what networks per channel are for.

    Channel uses of a run take them in order, so that each comes equally often; use u
    of block b has matrix (b num_uses + u) mod `num_channels`.

    Args:
        of: name of the other channel.
        num_channels: matrices.
        realization_seed: seed of their draw.
        options: of the other channel.
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
        check_int("channel.num_channels", num_channels)
        check_int("channel.realization_seed", realization_seed, minimum=0)
        if of == "fixed":
            raise InvalidInput('channel.of: got "fixed", expected another channel')
        drawn = create_channel(of, num_rx, num_streams, **(options or {}))
        self.power, self.is_real = drawn.power, drawn.is_real
        key = stream_keys(1, realization_seed)[0]
        #: the matrices, complex64 [num_channels, M, K]
        self.channels = ops.convert_to_numpy(drawn.fixed(key, num_channels))

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
