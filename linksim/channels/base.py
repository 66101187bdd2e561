"""The contract of channel generators, and their names."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from linksim.errors import InvalidInput, check_int, check_real
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
            "file",
            "linksim.channels.file:FileChannel",
            "Measured or ray-traced channels, from a file",
        ),
        Entry(
            "cdl",
            "linksim.channels.cdl:CDLChannel",
            "3GPP TR 38.901 clustered delay lines, through Sionna",
        ),
        Entry(
            "tdl",
            "linksim.channels.tdl:TDLChannel",
            "3GPP TR 38.901 and TS 38.104 tapped delay lines, through Sionna",
        ),
        Entry(
            "umi",
            "linksim.channels.urban:UMiChannel",
            "3GPP TR 38.901 urban micro cell with dropped users, through Sionna",
        ),
        Entry(
            "uma",
            "linksim.channels.urban:UMaChannel",
            "3GPP TR 38.901 urban macro cell with dropped users, through Sionna",
        ),
    ],
)
# Names of those that implement `Channel.sample_grid`
GRID_CHANNELS = ("cdl", "tdl", "umi", "uma", "file")


class Channel:
    """The contract of channel generators: `sample` draws matrices for blocks of uses.

    Blocks have independent channels. Within a block, channel uses may share a matrix or
    have correlated ones. A subclass implements `sample` and sets `power`.

    Args:
        num_rx: receive antennas M.
        num_streams: streams K.

    Attributes:
        num_rx, num_streams: the arguments.
        power: mean energy of a coefficient, E|h_ij|^2, over all that the channel could
            draw. SNR definitions and `csi.error_snr_db` refer to it.
        is_real: whether the imaginary part of every coefficient is zero.
        is_correlated: whether antennas are correlated by a coefficient that
            `with_correlation` can replace.
        covariances: complex [num_drops, K, M, M] of the users in each of several fixed
            drops, or None.
        by_block_number: whether a block's channels depend on its number alone. Training has
            no numbers of blocks, and draws some.

    Raises:
        InvalidInput: a size that is not a positive integer.
    """

    power = 1.0
    is_real = False
    is_correlated = False
    covariances = None
    by_block_number = False

    def __init__(self, num_rx: int, num_streams: int) -> None:
        check_int("num_rx", num_rx)
        check_int("num_streams", num_streams)
        self.num_rx = num_rx
        self.num_streams = num_streams

    @property
    def drawn_power(self) -> float:
        """E|h_ij|^2 of the draws of this channel.

        It differs from `power` where something random is drawn once and then stays: by its
        luck in that draw, every SNR that refers to `power` is off by the same factor.
        """
        return self.power

    def describe(self) -> list[str]:
        """Lines of text about the channel's statistics, for people to read."""
        lines = [f"E|h|^2: {self.power:.4g}"]
        if self.drawn_power != self.power:
            off = 10 * math.log10(self.drawn_power / self.power)
            lines.append(
                f"E|h|^2 of what was drawn once: {self.drawn_power:.4g}, so a measured SNR "
                f"is {off:+.2f} dB off a definition with E|h|^2"
            )
        return lines

    @property
    def mean_energy(self) -> float:
        """E||H||_F^2 of a channel matrix."""
        return self.num_rx * self.num_streams * self.power

    def sample(self, key: Any, num_blocks: int, num_uses: int, first_block: Any = 0) -> Any:
        """Draw the channels of `num_blocks` blocks of `num_uses` channel uses.

        Args:
            key: integer tensor [2], the random stream.
            num_blocks: int, B.
            num_uses: int, U.
            first_block: integer, position of the first block in the run. Only channels
                that cycle through fixed statistics depend on it.

        Returns:
            complex64 [B, U, M, K].
        """
        raise NotImplementedError

    def sample_grid(
        self,
        key: Any,
        num_blocks: int,
        num_symbols: int,
        num_subcarriers: int,
        cyclic_prefix_ratio: float = 0.0,
        first_block: Any = 0,
    ) -> Any:
        """Draw the channels of OFDM slots, one slot per block.

        Only channels of `GRID_CHANNELS` have grids. These have two attributes more:
        `subcarrier_spacing` in Hz, and `num_users`, the transmitters that share the streams.

        Args:
            key: integer tensor [2], the random stream.
            num_blocks: int, number of slots.
            num_symbols: int, OFDM symbols of a slot, T.
            num_subcarriers: int, F.
            cyclic_prefix_ratio: duration of the cyclic prefix relative to the rest of a
                symbol; it sets how far the channel moves from symbol to symbol.
            first_block: as in `sample`.

        Returns:
            complex64 [num_blocks, T, F, M, K].
        """
        raise NotImplementedError(f"{type(self).__name__} has no OFDM grid")

    def check_block(self, num_uses: int) -> None:
        """Raise `InvalidInput` unless `sample` can draw blocks of so many channel uses."""

    def check_slot(self, num_symbols: int, num_subcarriers: int) -> None:
        """Raise `InvalidInput` unless `sample_grid` can draw slots of this size."""

    def correlations(
        self, num_symbols: int, num_subcarriers: int, cyclic_prefix_ratio: float
    ) -> tuple[Any, Any]:
        """How a coefficient goes together with itself over the symbols and subcarriers of a
        slot, as the model of the channel has it in closed form.

        Returns:
            E[h(i + d) h*(i)] / E|h|^2 for the differences d of symbols, complex128
            [num_symbols], and of subcarriers, complex128 [num_subcarriers].

        Raises:
            InvalidInput: the channel has no such model.
        """
        raise InvalidInput(
            'csi.covariance: got "model", but this channel has no covariance in closed form; '
            'take "measured"'
        )

    def fixed(self, key: Any, num_channels: int) -> Any:
        """Draw matrices once, to train networks for them: complex64 [num_channels, M, K]."""
        return self.sample(key, num_channels, 1)[:, 0]

    def estimation_error(self, key: Any, shape: tuple[int, ...], variance: float) -> Any:
        """Draw the Gaussian error of an estimate of channel matrices.

        The receiver knows which coefficients are real. Their error is real as well, with
        the full variance.

        Args:
            key: integer tensor [2], the random stream.
            shape: of the matrices, (..., M, K).
            variance: float, mean energy of the error of a coefficient.

        Returns:
            complex64 of the given shape.
        """
        # Keras is loaded here: who lists the names of channels does not wait for it
        from keras import ops

        from linksim.channels.random import complex_normal

        error = complex_normal(key, shape, variance)
        if self.is_real:
            error = ops.cast(ops.real(error), "complex64") * 2**0.5
        return error

    def with_correlation(self, rho: Any) -> Channel:
        """The same channel with another correlation coefficient; see `is_correlated`.

        Args:
            rho: float32 [], in [0, 1); may be a tensor.
        """
        raise NotImplementedError(f"{type(self).__name__} has no correlation coefficient")


def check_power(power: Any) -> None:
    """Raise `InvalidInput` unless `power` can be the mean energy of a coefficient."""
    check_real("channel.power", power, low=1e-9, high=1e9)


def check_grid(num_streams: int, subcarrier_spacing_khz: Any, num_users: Any) -> None:
    """Raise `InvalidInput` unless a channel on OFDM grids can have these keys."""
    check_real("channel.subcarrier_spacing_khz", subcarrier_spacing_khz, 1, 5000, unit="kHz")
    check_int("channel.num_users", num_users)
    if num_streams % num_users:
        raise InvalidInput(
            f"channel.num_users: got {num_users}, expected a divisor of "
            f"num_streams = {num_streams}"
        )


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
    return channel_with(name, num_rx, num_streams, options)


def channel_with(
    name: str, num_rx: int, num_streams: int, options: Mapping[str, Any]
) -> Channel:
    """`create_channel` with the options of a user, which may have any keys."""
    factory = CHANNELS.entry(name).load()
    check_options(
        f"channel ({name})",
        factory,
        options,
        noun="key",
        apart_from=("num_rx", "num_streams"),
    )
    return factory(num_rx, num_streams, **options)


def channel_of(scenario: Any) -> Channel:
    """The channel of a scenario, with a column for each transmit antenna."""
    options = {k: v for k, v in scenario.channel.items() if k != "type"}
    return channel_with(
        scenario.channel["type"], scenario.system.num_rx, scenario.num_tx, options
    )
