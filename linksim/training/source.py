"""Training data: channel uses of a scenario, drawn on the fly.

Batch `i` of a source is a pure function of its seed and `i`, so a resumed training
sees what an uninterrupted one would have seen.
"""

import itertools

import keras
import numpy as np
from keras import ops

from linksim.channels import channel_of
from linksim.channels.fixed import RepeatedChannel
from linksim.channels.present import PresentStreams
from linksim.channels.random import StreamKey, stream_keys
from linksim.errors import InvalidInput, check_int, check_real
from linksim.information import gaussian_llrs, llr_deviation
from linksim.link.draw import UniformSender, draw, symbols_of_bits
from linksim.link.fronts import create_front
from linksim.link.scenario import Scenario, naming_scenario
from linksim.registry import create_detector
from linksim.snr import LinkBudget, snr_db_to_no

# One random stream each. New ones are appended: the keys of the others stay as they are
_PURPOSES = (
    *("symbols", "channel", "noise", "snr", "csi", "symmetry", "layer"),
    *("streams", "correlation", "prior"),
)
FIXED, TRAINING, VALIDATION = 0, 1, 2


class VectorSource:
    """Received vectors with what was sent, and the LLRs of a teacher.

    Symbols are uniform, as those of an interleaved codeword are. Channel, CSI error and
    SNR definition are the scenario's: `linksim.link.draw.draw` draws them, as it does for
    simulations.

    Args:
        scenario: the `Scenario`. Without an OFDM grid channel uses are independent.
        snr_db: (low, high) in dB. Every channel use has its own SNR, uniform in dB.
        batch_size: channel uses of a batch.
        teacher: name of a detector whose LLRs are part of a batch, or None. It is told the
            prior, if there is one.
        seed: non-negative integer.
        copies: how often a batch holds each drawn channel use: once as it is, and
            otherwise transformed by a symmetry of the problem (the order of the streams,
            rotations of a stream by 90 degrees) under which the LLRs are known from those
            of the original. The teacher then works for `batch_size/copies` vectors.
        num_channels: number of channel matrices that all batches share, each in equally
            many neighbouring channel uses; they are the attribute `channels`. 0 draws a
            new matrix for every channel use.
        streams: (low, high) to draw the number of users of each batch, with probabilities
            proportional to it, as in the published code of [Pratik21]. (The triangular
            distribution of its Section V-E would never draw the lowest number.) The
            columns of H beyond it are zero, and high is the scenario's number. None for
            all users in every batch.
        streams_step: draw from low, low + step, ..., high users only.
        snr_db_per_stream: dB added to `snr_db` for each user of a batch.
        rho: (low, high) of a Kronecker channel to draw the correlation of each batch, from
            a triangular distribution with its mode at `high` ([Pratik21], Section V-B).
            It replaces those that the scenario has, at either side. None for the
            scenario's.
        prior_information: (low, high), for a prior as a decoder gives it: consistent
            Gaussian LLRs of the sent bits, whose mutual information is uniform in that
            range for each channel use. None for no prior.
        prior_share: the share of the channel uses whose prior is not zero.

    Attributes:
        channels: complex64 [num_channels, M, K], NumPy, or None.

    Raises:
        InvalidInput: a value out of range, or a scenario whose SNR definition needs
            a code rate.
    """

    def __init__(
        self,
        scenario,
        snr_db,
        batch_size,
        *,
        teacher=None,
        seed=0,
        copies=1,
        num_channels=0,
        streams=None,
        streams_step=1,
        snr_db_per_stream=0.0,
        rho=None,
        prior_information=None,
        prior_share=1.0,
    ):
        _check_data(scenario, batch_size, seed, copies, num_channels, streams, rho)
        check_real("snr_db_per_stream", snr_db_per_stream, low=-10, high=10)
        self.scenario = scenario
        self.snr_db = _range("snr_db", snr_db, low=-200, high=200)
        self.batch_size = batch_size
        self.seed = seed
        self.copies = copies
        system = scenario.system
        self.num_streams = system.num_streams
        self.num_rx = system.num_rx
        self.num_bits_per_symbol = system.num_bits_per_symbol
        with naming_scenario(scenario):
            self.channel = channel_of(scenario)
        self.sender = UniformSender(system.num_streams, system.num_bits_per_symbol)
        self._streams = self._check_streams(streams, streams_step)
        self._snr_db_per_stream = float(snr_db_per_stream)
        self._rho = self._check_rho(rho)
        self._prior_information = None
        if prior_information is not None:
            found = _range("prior_information", prior_information, low=0, high=0.999)
            self._prior_information = found
        check_real("prior_share", prior_share, low=0, high=1)
        self._prior_share = float(prior_share)
        # N0 at 0 dB for each number of users
        self._no_at_0db = np.array([self._no_of(k) for k in self._streams], np.float32)
        self.channels = None
        if num_channels:
            key = self.keys(FIXED, 0)[_PURPOSES.index("channel")]
            self.channels = ops.convert_to_numpy(self.channel.fixed(key, num_channels))
        self._teacher = None
        if teacher is not None:
            self._teacher = create_detector(
                teacher,
                num_streams=self.num_streams,
                num_bits_per_symbol=self.num_bits_per_symbol,
            )

    @property
    def parts(self):
        """The sources that batches come from in turn: this one alone."""
        return [self]

    def _check_streams(self, streams, step):
        """The possible numbers of users, ascending."""
        check_int("streams_step", step)
        if streams is None:
            if step != 1:
                raise InvalidInput(f"streams_step: got {step} without streams")
            return np.array([self.num_streams])
        if not isinstance(streams, (list, tuple)) or len(streams) != 2:
            raise InvalidInput(f"streams: got {streams!r}, expected [low, high]")
        low, high = streams
        check_int("streams", low)
        check_int("streams", high)
        if not low <= high == self.num_streams:
            raise InvalidInput(
                f"streams: got {streams!r}, expected [low, {self.num_streams}] with the "
                "num_streams of the scenario"
            )
        if (high - low) % step:
            raise InvalidInput(
                f"streams_step: got {step}, expected a divisor of {high} - {low}"
            )
        return np.arange(low, high + 1, step)

    def _check_rho(self, rho):
        if rho is None:
            return None
        if not self.channel.is_correlated:
            raise InvalidInput(
                f"rho: {self.scenario.name} has no correlated Kronecker channel, got {rho!r}"
            )
        return _range("rho", rho, low=0, high=0.9999)

    def _no_of(self, num_streams):
        """N0 at 0 dB with so many users."""
        budget = LinkBudget(
            num_rx=self.num_rx,
            num_streams=num_streams,
            num_bits_per_symbol=self.num_bits_per_symbol,
            channel_power=self.channel.power,
        )
        return snr_db_to_no(self.scenario.snr.definition, 0.0, budget)

    def keys(self, purpose, index):
        """Random-stream keys of a batch, int32 [10, 2], NumPy.

        Args:
            purpose: `TRAINING` or `VALIDATION`.
            index: number of the batch.
        """
        return stream_keys(len(_PURPOSES), self.seed, purpose, index)

    def draw(self, keys):
        """Draw a batch; traceable, a pure function of `keys`.

        Args:
            keys: int32 [10, 2] from `keys`.

        Returns:
            Dictionary: `y` complex64 [B, M], `h` complex64 [B, M, K] as known to the
            receiver, `no` float32 [B], `symbols` int32 [B, K], `bits` float32
            [B, K, m], `present` float32 [B, K] (1 for users that take part), `key` int32
            [2] for randomness inside layers; with a teacher `llr`, and with a prior
            `prior`, LLRs float32 [B, K, m].
        """
        keys = {name: keys[i] for i, name in enumerate(_PURPOSES)}
        uses = self.batch_size // self.copies
        index = self._draw_streams(keys["streams"])
        count = ops.take(ops.convert_to_tensor(self._streams.astype(np.int32)), index)
        present = ops.cast(ops.arange(self.num_streams) < count, "float32")
        channel = PresentStreams(self._channel_of_batch(keys["correlation"]), present)
        drawn = draw(
            keys,
            self.sender,
            create_front(self.scenario, channel),
            self._draw_no(keys["snr"], uses, index, count),
            uses,
            self._first_block(keys["channel"]),
        )
        # One channel use per block
        batch = {"y": drawn.y, "h": drawn.h_hat, "no": drawn.no, "bits": drawn.bits}
        batch = {name: value[:, 0] for name, value in batch.items()}
        if self._prior_information is not None:
            batch["prior"] = self._draw_prior(keys["prior"], batch["bits"])
        if self._teacher is not None:
            given = [batch[name] for name in ("y", "h", "no", "prior") if name in batch]
            batch["llr"] = self._teacher(*given)
        if self.copies > 1:
            batch = self._with_copies(batch, keys["symmetry"])
        batch["symbols"] = symbols_of_bits(batch["bits"])
        batch["present"] = present * ops.ones((self.batch_size, 1))
        batch["key"] = keys["layer"]
        return batch

    def _draw_prior(self, key, bits):
        """Draw the LLRs of a decoder for bits [B, K, m]."""
        low, high = self._prior_information
        seed = StreamKey(key)
        uniform = keras.random.uniform((2, self.batch_size // self.copies), seed=seed)
        deviation = llr_deviation(low + (high - low) * uniform[0])
        deviation = ops.where(uniform[1] < self._prior_share, deviation, 0.0)
        normal = keras.random.normal(ops.shape(bits), seed=seed)
        return gaussian_llrs(bits, deviation[:, None, None], normal)

    def _first_block(self, key):
        """The number of the first block of a batch, int32 []: a random one where channels
        depend on it alone, so that batches differ."""
        if not self.channel.by_block_number:
            return 0
        return keras.random.randint((), 0, 2**30, seed=StreamKey(key))

    def _channel_of_batch(self, key):
        """The channel of all users: the scenario's, fixed matrices, or another rho."""
        if self.channels is not None:
            return RepeatedChannel(self.channels, like=self.channel)
        if self._rho is None:
            return self.channel
        low, high = self._rho
        u = keras.random.uniform((), seed=StreamKey(key))
        return self.channel.with_correlation(low + (high - low) * ops.sqrt(u))

    def _draw_streams(self, key):
        """Draw which of the possible numbers of users the batch has, int32 []."""
        counts = self._streams
        if len(counts) == 1:
            return ops.convert_to_tensor(0)
        steps = np.cumsum(counts)[:-1] / counts.sum()
        u = keras.random.uniform((), seed=StreamKey(key))
        return ops.sum(ops.cast(u >= steps.astype(np.float32), "int32"))

    def _draw_no(self, key, uses, index, count):
        """Draw N0 of every channel use, float32 [uses, 1], for `count` users."""
        low, high = self.snr_db
        snr_db = keras.random.uniform((uses, 1), low, high, seed=StreamKey(key))
        snr_db = snr_db + self._snr_db_per_stream * ops.cast(count, "float32")
        no = ops.take(ops.convert_to_tensor(self._no_at_0db), index)
        return no * ops.exp(-np.log(10.0) / 10.0 * snr_db)

    def _with_copies(self, batch, key):
        """The batch followed by copies of it, each transformed by another symmetry."""
        orders = np.array(list(itertools.permutations(range(self.num_streams))), np.int32)
        numbers = keras.random.randint(
            (self.copies, 1 + self.num_streams), 0, 2**30, seed=StreamKey(key)
        )
        parts = {name: [value] for name, value in batch.items()}
        for copy in range(1, self.copies):
            order = ops.take(orders, numbers[copy, 0] % len(orders), axis=0)
            turns = numbers[copy, 1:] % 4
            parts["y"].append(batch["y"])
            parts["no"].append(batch["no"])
            h = ops.take(batch["h"], order, axis=-1)
            parts["h"].append(h * _quarter_turns(turns))
            for name in ("bits", "llr", "prior"):
                if name in batch:
                    value = ops.take(batch[name], order, axis=1)
                    flip = (lambda b: 1.0 - b) if name == "bits" else (lambda b: -b)
                    parts[name].append(_turn_labels(value, turns, flip))
        return {name: ops.concatenate(values, axis=0) for name, values in parts.items()}


class MixtureSource:
    """Several kinds of systems, from which batches come in turn.

    Args:
        parts: a `VectorSource` for each kind.

    Attributes:
        parts: the argument.
    """

    channels = None

    def __init__(self, parts):
        self.parts = list(parts)


def _quarter_turns(turns):
    """(-i)^turns, complex64: the factors of H that leave Hx as it is for i^turns x."""
    table = np.array([1, -1j, -1, 1j], np.complex64)
    return ops.take(ops.convert_to_tensor(table), turns, axis=0)


def _turn_labels(values, turns, flip):
    """Bits or LLRs [B, K, m] of symbols turned by i^turns, turns [K].

    One turn takes (Re, Im) to (-Im, Re). The first bit of a PAM level is its sign.
    """
    real, imag = values[..., 0::2], values[..., 1::2]

    def negated(pam):
        return ops.concatenate([flip(pam[..., :1]), pam[..., 1:]], axis=-1)

    turned = [
        (real, imag),
        (negated(imag), real),
        (negated(real), negated(imag)),
        (imag, negated(real)),
    ]
    chosen = ops.stack([ops.stack(parts, axis=-1) for parts in turned])
    mask = ops.one_hot(turns, 4)  # [K, 4]
    mask = ops.transpose(mask)[:, None, :, None, None]
    return ops.reshape(ops.sum(chosen * mask, axis=0), ops.shape(values))


def _range(name, value, low, high):
    """(low, high) as floats; both are checked to be within the given bounds."""
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        raise InvalidInput(f"{name}: got {value!r}, expected [low, high]")
    for end in value:
        check_real(name, end, low=low, high=high)
    if value[0] > value[1]:
        raise InvalidInput(f"{name}: got {value!r}, expected low <= high")
    return tuple(float(end) for end in value)


def _check_data(scenario, batch_size, seed, copies, num_channels, streams, rho):
    """Refuse arguments of a `VectorSource` that are wrong or exclude each other."""
    if not isinstance(scenario, Scenario):
        raise InvalidInput(f"scenario: got {scenario!r}, expected a Scenario")
    on_grid = scenario.ofdm is not None or scenario.pusch is not None
    if on_grid or scenario.snr.definition in ("ebno", "ebno_grid"):
        raise InvalidInput(
            f"scenario: {scenario.name} has an OFDM grid or Eb/N0; training draws "
            "single channel uses of an SNR per channel use"
        )
    if scenario.interference is not None:
        raise InvalidInput(
            f"scenario: {scenario.name} has an [interference] table; training draws white "
            "noise, which is what detectors make of coloured noise before they look at it"
        )
    check_int("seed", seed, minimum=0)
    check_int("batch_size", batch_size)
    check_int("copies", copies)
    check_int("num_channels", num_channels, minimum=0)
    for name, value in (("copies", copies), ("num_channels", num_channels)):
        if value and batch_size % value:
            raise InvalidInput(
                f"{name}: got {value}, expected a divisor of batch_size = {batch_size}"
            )
    chosen = [streams is not None, num_channels > 0, copies > 1]
    if sum(chosen) > 1:
        raise InvalidInput("data: only one of copies, num_channels and streams can be chosen")
    if num_channels and (rho is not None or scenario.csi.type != "perfect"):
        raise InvalidInput(
            "num_channels: fixed channels have one correlation and are known, got "
            f"rho = {rho!r} and csi.type = {scenario.csi.type!r}"
        )
