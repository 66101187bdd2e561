"""The contract of synthetic channels, and their names."""

from __future__ import annotations

from typing import Any

from linksim.errors import check_int
from linksim.factories import Entry, Registry, check_options

CHANNELS = Registry(
    "channel.type",
    [
        Entry(
            "awgn",
            "linksim.channels.fading:AWGNChannel",
            "The identity: one antenna for each stream, no interference",
        ),
        Entry(
            "rayleigh",
            "linksim.channels.fading:RayleighChannel",
            "Independent Gaussian coefficients",
        ),
        Entry(
            "kronecker",
            "linksim.channels.fading:KroneckerChannel",
            "Exponential correlation at either end",
        ),
        Entry(
            "grouped",
            "linksim.channels.grouped:GroupedChannel",
            "Users that interfere within groups only",
        ),
        Entry(
            "local-scattering",
            "linksim.channels.local_scattering:LocalScatteringChannel",
            "Users at angles, each with local scatterers around it",
        ),
        Entry(
            "gauss-markov",
            "linksim.channels.gauss_markov:GaussMarkovChannel",
            "Sequences of channels that change from hop to hop",
        ),
        Entry(
            "fixed",
            "linksim.channels.fixed:FixedChannel",
            "A few matrices of another channel, the same in every run",
        ),
        Entry(
            "cdl",
            "linksim.channels.cdl:CDLChannel",
            "3GPP TR 38.901 clustered delay lines, through Sionna",
        ),
    ],
)


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


def list_channels() -> list[str]:
    """Names that `create_channel` accepts."""
    return CHANNELS.names()


def create_channel(name: str, num_rx: int, num_streams: int, **options: Any) -> Channel:
    """Create a channel by name.

    Args:
        name: one of `list_channels()`.
        num_rx: M, receive antennas.
        num_streams: K, streams.
        options: keywords of the channel, the keys of a scenario's [channel] table.

    Raises:
        InvalidInput: for an unknown name or option, or an option out of range.
    """
    factory = CHANNELS.entry(name).load()
    check_options(
        f"channel ({name})",
        factory,
        options,
        noun="key",
        apart_from=("num_rx", "num_streams"),
    )
    return factory(num_rx, num_streams, **options)


def channel_of(scenario):
    """The channel of a scenario's [channel] and [system] tables."""
    options = {k: v for k, v in scenario.channel.items() if k != "type"}
    system = scenario.system
    return create_channel(
        scenario.channel["type"], system.num_rx, system.num_streams, **options
    )
