"""Channels on which only some of the streams are transmitted."""

from keras import ops

from linksim.channels.base import Channel


class PresentStreams(Channel):
    """A channel whose absent streams have zero columns, for the receiver as well.

    Args:
        channel: the `Channel` of all K streams.
        present: float32 [K], 1 for the streams that are transmitted and 0 for others;
            may be a tensor.
    """

    def __init__(self, channel, present):
        super().__init__(channel.num_rx, channel.num_streams)
        self.power, self.is_real = channel.power, channel.is_real
        self._channel, self._present = channel, present

    @property
    def mean_energy(self):
        """E||H||_F^2 of the streams that are present."""
        return self.num_rx * self.power * ops.sum(self._present)

    def sample(self, key, num_blocks, num_uses, first_block=0):
        return self._masked(self._channel.sample(key, num_blocks, num_uses, first_block))

    def estimation_error(self, key, shape, variance):
        return self._masked(self._channel.estimation_error(key, shape, variance))

    def _masked(self, h):
        return h * ops.cast(self._present, h.dtype)
