"""The contract of synthetic channels, and their names."""

import importlib
import inspect

from linksim.errors import InvalidInput, check_int

_CHANNELS = {
    "awgn": "linksim.channels.fading:AWGNChannel",
    "rayleigh": "linksim.channels.fading:RayleighChannel",
    "kronecker": "linksim.channels.fading:KroneckerChannel",
    "grouped": "linksim.channels.grouped:GroupedChannel",
    "local-scattering": "linksim.channels.local_scattering:LocalScatteringChannel",
    "gauss-markov": "linksim.channels.gauss_markov:GaussMarkovChannel",
    "fixed": "linksim.channels.fixed:FixedChannel",
    "cdl": "linksim.channels.cdl:CDLChannel",
}


class Channel:
    """Draws channel matrices for blocks of channel uses.

    Attributes:
        num_rx: receive antennas M.
        num_streams: streams K.
        power: E|h_ij|^2.
        is_real: the imaginary part of every coefficient is zero.

    A subclass implements `sample`. Blocks are independent of each other; within a
    block, channel uses may share or correlate their channels.
    """

    power = 1.0
    is_real = False

    def __init__(self, num_rx, num_streams):
        check_int("num_rx", num_rx)
        check_int("num_streams", num_streams)
        self.num_rx = num_rx
        self.num_streams = num_streams

    def sample(self, key, num_blocks, num_uses, first_block=0):
        """Channels of `num_blocks` blocks of `num_uses` channel uses.

        Args:
            key: integer tensor [2], the random stream.
            num_blocks: int.
            num_uses: int.
            first_block: integer, position of the first block in the run; only
                channels that cycle through fixed statistics depend on it.

        Returns:
            complex64 [num_blocks, num_uses, M, K].
        """
        raise NotImplementedError

    def fixed(self, key, num_channels):
        """Matrices to train networks for, drawn once: complex64 [num_channels, M, K]."""
        return self.sample(key, num_channels, 1)[:, 0]


def list_channels():
    """Names that `create_channel` accepts."""
    return list(_CHANNELS)


def create_channel(name, num_rx, num_streams, **options):
    """A channel by name.

    Raises:
        InvalidInput: for an unknown name or option, or an option out of range.
    """
    if name not in _CHANNELS:
        raise InvalidInput(
            f"channel.type: got {name!r}, expected one of: {', '.join(_CHANNELS)}"
        )
    module, attribute = _CHANNELS[name].split(":")
    factory = getattr(importlib.import_module(module), attribute)
    allowed = list(inspect.signature(factory).parameters)[2:]
    unknown = sorted(set(options) - set(allowed))
    if unknown:
        raise InvalidInput(
            f"channel ({name}): unknown key {', '.join(unknown)}; expected some of: "
            f"{', '.join(allowed) or 'none'}"
        )
    return factory(num_rx, num_streams, **options)


def channel_of(scenario):
    """The channel of a scenario's [channel] and [system] tables."""
    options = {k: v for k, v in scenario.channel.items() if k != "type"}
    system = scenario.system
    return create_channel(
        scenario.channel["type"], system.num_rx, system.num_streams, **options
    )
