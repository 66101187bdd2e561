"""Co-channel users that are not detected, and what the receiver knows of them.

Their channels are those of the scenario's kind, in other draws, and their symbols are
uniform. What the receiver knows of noise and interference together is the `s` of a detector.
"""

import contextlib
import inspect

import keras
from keras import ops

from linksim.channels.base import CHANNELS, channel_with
from linksim.channels.random import StreamKey, complex_normal
from linksim.constellation import qam_points
from linksim.errors import InvalidInput
from linksim.factories import keyword_names
from linksim.link.covariance import ESTIMATES, mean_variance, noise_and_interference
from linksim.link.draw import Front

# One random stream each: channels, symbols, and the samples of flat fronts
INTERFERENCE_PURPOSES = ("interferer", "interfering", "samples", "sample_noise")


class Interferers:
    """Draws the interference of a scenario.

    Args:
        table: the `linksim.link.interference_config.Interference`.
        channel: the `linksim.channels.Channel` of the interfering streams.
        stream_power: mean energy at an antenna of a desired stream.
        num_bits_per_symbol: m of the interfering symbols.

    Attributes:
        table: the argument.
        power: mean energy of all interference at an antenna.
    """

    def __init__(self, table, channel, stream_power, num_bits_per_symbol):
        self.table, self._channel = table, channel
        self._points = qam_points(num_bits_per_symbol)
        self.power = stream_power * 10 ** (-table.sir_db / 10)
        self._gain = (self.power / table.num_streams / channel.power) ** 0.5

    def check(self, check):
        """Check their channel, as `Channel.check_block` and `check_slot` do.

        Args:
            check: function of a channel that raises `InvalidInput`.
        """
        with _naming_interference():
            check(self._channel)

    def sample(self, key, num_blocks, num_uses, first_block=0):
        """Draw channels with the interference's power in them, complex64 [B, U, M, J]."""
        return self._channel.sample(key, num_blocks, num_uses, first_block) * self._gain

    def sample_grid(self, key, *shape):
        """The same of slots, complex64 [B, T, F, M, J]; see `Channel.sample_grid`."""
        return self._channel.sample_grid(key, *shape) * self._gain

    def symbols(self, key, shape):
        """Draw symbols, complex64 [*shape, J]."""
        size = (*shape, self.table.num_streams)
        drawn = keras.random.randint(size, 0, len(self._points), seed=StreamKey(key))
        return ops.take(ops.convert_to_tensor(self._points), drawn, axis=0)

    def told(self, g, no):
        """What the receiver is told of noise and interference, unless it estimates that.

        Args:
            g: channels of the interfering streams, complex64 [..., M, J].
            no: noise variance N0, float32 that broadcasts to [...].

        Returns:
            The covariance, complex64 [..., M, M], or where it is ignored the variance of
            white noise of the same power, float32 [...].
        """
        s = noise_and_interference(g, no)
        return mean_variance(s) if self.table.covariance == "ignored" else s

    def estimate(self, samples):
        """A covariance complex64 [..., M, M] from samples [..., n, M] of noise and
        interference."""
        return ESTIMATES[self.table.shrinkage](samples)


def create_interferers(scenario, channel):
    """The `Interferers` of a scenario.

    Args:
        scenario: a `linksim.link.scenario.Scenario` with an [interference] table.
        channel: the channel of its desired streams.

    Raises:
        InvalidInput: a channel that the interfering streams cannot have.
    """
    table, own = scenario.interference, scenario.channel
    options = {k: v for k, v in own.items() if k != "type"}
    factory = CHANNELS.entry(own["type"]).load()
    names = keyword_names(factory)
    # What is drawn once, such as the places of users, is drawn again for the others
    for name in sorted(names):
        if name.endswith("seed"):
            default = inspect.signature(factory).parameters[name].default
            options[name] = options.get(name, default) + 1
    options.update(table.channel or {})
    if "num_users" in names:
        options["num_users"] = table.num_users
    elif table.num_users > 1:
        raise InvalidInput(
            f'interference.num_users: got {table.num_users}, but channel.type = "{own["type"]}" '
            "has no users of several streams; leave it out"
        )
    with _naming_interference():
        theirs = channel_with(own["type"], channel.num_rx, table.num_streams, options)
    bits = scenario.system.num_bits_per_symbol
    return Interferers(table, theirs, channel.power, bits)


@contextlib.contextmanager
def _naming_interference():
    """Name the table in what their channel refuses, whose keys are called as its own."""
    try:
        yield
    except InvalidInput as error:
        raise InvalidInput(f"interference: {error}") from None


class InterferedFront(Front):
    """A flat front, with interference added to what it receives.

    An estimate of the covariance is from `num_samples` further receptions of every channel
    use, in which only noise and interference are there, or all else is known: the channels
    are those of the use, symbols and noise are new.

    Args:
        front: a `linksim.link.draw.FlatFront`.
        interferers: the `Interferers`.
    """

    def __init__(self, front, interferers):
        super().__init__(front.channel)
        self.front, self._interferers = front, interferers

    def check(self, num_uses):
        self.front.check(num_uses)
        self._interferers.check(lambda channel: channel.check_block(num_uses))

    def transmit(self, x, keys, no, first_block=0):
        received = self.front.transmit(x, keys, no, first_block)
        lead = tuple(x.shape[:2])
        g = self._interferers.sample(keys["interferer"], *lead, first_block)
        symbols = self._interferers.symbols(keys["interfering"], lead)
        y = received.y + ops.matmul(g, symbols[..., None])[..., 0]
        return received._replace(y=y, s=self._told(g, received.s, keys))

    def _told(self, g, no, keys):
        """What the receiver is told of noise and interference."""
        table = self._interferers.table
        if table.covariance != "estimated":
            return self._interferers.told(g, no)
        lead = (*g.shape[:2], table.num_samples)
        symbols = self._interferers.symbols(keys["samples"], lead)
        samples = ops.matmul(symbols, ops.swapaxes(g, -1, -2))  # [B, U, n, M]
        noise = complex_normal(keys["sample_noise"], (*lead, g.shape[-2]))
        deviation = ops.cast(ops.sqrt(no), "complex64")
        return self._interferers.estimate(samples + noise * deviation[..., None, None])
