"""Training data: channel uses of a scenario, drawn on the fly.

Batch `i` of a source is a pure function of its seed and `i`, so a resumed training
sees what an uninterrupted one would have seen.
"""

import itertools

import keras
import numpy as np
from keras import ops

from linksim.channels import channel_of
from linksim.channels.random import StreamKey, complex_normal, stream_keys
from linksim.constellation import bit_labels, qam_points
from linksim.errors import InvalidInput, check_int, check_real
from linksim.registry import create_detector
from linksim.snr import SNR_DEFINITIONS, LinkBudget, snr_db_to_no

# New ones are appended: the keys of those before them do not change then
_PURPOSES = (
    *("symbols", "channel", "noise", "snr", "csi", "symmetry", "layer"),
    *("streams", "correlation"),
)
FIXED, TRAINING, VALIDATION = 0, 1, 2


class VectorSource:
    """Received vectors with what was sent, and the LLRs of a teacher.

    Symbols are uniform, as those of an interleaved codeword are; channel, CSI error
    and SNR definition are the scenario's.

    Args:
        scenario: the `Scenario`. Without an OFDM grid channel uses are independent.
        snr_db: (low, high) in dB; every channel use has its own SNR, uniform in dB.
        batch_size: channel uses of a batch.
        teacher: None, or the name of a detector whose LLRs are wanted.
        seed: non-negative integer.
        copies: of each drawn channel use, the batch has this many: itself, and
            others that differ by a symmetry of the problem (the order of the
            streams, rotations of a stream by 90 degrees), for which the LLRs are
            known from those of the first. A teacher then works for
            `batch_size/copies` vectors.
        num_channels: 0 for a new channel in every channel use; otherwise all batches
            have the same so many channels, `channels`, in that order and equally
            often.
        streams: None, or (low, high): every batch has its own number of users,
            with a probability that is proportional to it, as in the published code of
            RE-MIMO (the triangular distribution of its Section V-E never draws the
            lowest number). The columns of H beyond are zero; high is the scenario's.
        streams_step: only low, low + step, .. high users.
        snr_db_per_stream: dB added to `snr_db` for each user of a batch.
        rho: None, or (low, high) of a Kronecker channel: every batch has its own
            correlation, of triangular distribution with its mode at `high`
            (000_6f68bbc11e3dc672.txt, Section V-B), on the sides where the scenario
            has one.

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
    ):
        if len(snr_db) != 2:
            raise InvalidInput(f"snr_db: got {snr_db!r}, expected [low, high]")
        for value in snr_db:
            check_real("snr_db", value, low=-200, high=200)
        if snr_db[0] > snr_db[1]:
            raise InvalidInput(f"snr_db: got {snr_db!r}, expected low <= high")
        check_int("batch_size", batch_size)
        check_int("seed", seed, minimum=0)
        check_int("copies", copies)
        if batch_size % copies:
            raise InvalidInput(
                f"copies: got {copies}, expected a divisor of batch_size = {batch_size}"
            )
        if scenario.ofdm is not None or scenario.snr.definition == "ebno":
            raise InvalidInput(
                f"scenario: {scenario.name} has an OFDM grid or Eb/N0; training draws "
                "single channel uses of an SNR per channel use"
            )
        self.scenario = scenario
        self.snr_db = tuple(float(v) for v in snr_db)
        self.batch_size = batch_size
        self.seed = seed
        self.copies = copies
        system = scenario.system
        self.num_streams = system.num_streams
        self.num_rx = system.num_rx
        self.num_bits_per_symbol = system.num_bits_per_symbol
        self.channel = channel_of(scenario)
        check_int("num_channels", num_channels, minimum=0)
        check_real("snr_db_per_stream", snr_db_per_stream, low=-10, high=10)
        self._streams = self._check_streams(streams, streams_step)
        self._snr_db_per_stream = float(snr_db_per_stream)
        self._rho = self._check_rho(rho)
        if (streams or num_channels) and (copies > 1 or (streams and num_channels)):
            raise InvalidInput(
                "data: only one of copies, num_channels and streams can be chosen"
            )
        if num_channels and (rho is not None or scenario.csi.type != "perfect"):
            raise InvalidInput(
                "num_channels: fixed channels have one correlation and are known, got "
                f"rho = {rho!r} and csi.type = {scenario.csi.type!r}"
            )
        # N0 at 0 dB for each number of users
        self._no_at_0db = np.array([self._no_of(k) for k in self._streams], np.float32)
        self.channels = None
        if num_channels:
            if batch_size % num_channels:
                raise InvalidInput(
                    f"num_channels: got {num_channels}, expected a divisor of "
                    f"batch_size = {batch_size}"
                )
            key = self.keys(FIXED, 0)[_PURPOSES.index("channel")]
            self.channels = ops.convert_to_numpy(self.channel.fixed(key, num_channels))
        self._teacher = None
        if teacher is not None:
            self._teacher = create_detector(
                teacher,
                num_streams=self.num_streams,
                num_bits_per_symbol=self.num_bits_per_symbol,
            )

    def _check_streams(self, streams, step):
        """The numbers of users, ascending."""
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
        if not getattr(self.channel, "is_correlated", False):
            raise InvalidInput(
                f"rho: {self.scenario.name} has no correlated Kronecker channel, got {rho!r}"
            )
        if not isinstance(rho, (list, tuple)) or len(rho) != 2:
            raise InvalidInput(f"rho: got {rho!r}, expected [low, high]")
        for value in rho:
            check_real("rho", value, low=0, high=0.9999)
        if rho[0] > rho[1]:
            raise InvalidInput(f"rho: got {rho!r}, expected low <= high")
        return tuple(float(r) for r in rho)

    def _no_of(self, num_streams):
        budget = LinkBudget(
            num_rx=self.num_rx,
            num_streams=num_streams,
            num_bits_per_symbol=self.num_bits_per_symbol,
            channel_power=self.channel.power,
        )
        return snr_db_to_no(self.scenario.snr.definition, 0.0, budget)

    def keys(self, purpose, index):
        """Random-stream keys of a batch, int32 [9, 2].

        Args:
            purpose: `TRAINING` or `VALIDATION`.
            index: number of the batch.
        """
        return stream_keys(len(_PURPOSES), self.seed, purpose, index)

    def draw(self, keys):
        """Draw a batch; traceable, a pure function of `keys`.

        Returns:
            Dictionary: `y` complex64 [B, M], `h` complex64 [B, M, K] as known to the
            receiver, `no` float32 [B], `symbols` int32 [B, K], `bits` float32
            [B, K, m], `present` float32 [B, K] (1 for users that take part), `key` int32
            [2] for randomness inside layers, and with a teacher `llr` float32 [B, K, m].
        """
        key = {name: keys[i] for i, name in enumerate(_PURPOSES)}
        uses = self.batch_size // self.copies
        size = 2**self.num_bits_per_symbol
        symbols = keras.random.randint(
            (uses, self.num_streams), 0, size, seed=StreamKey(key["symbols"])
        )
        h = self._channels_of(key, uses)
        index = self._draw_streams(key["streams"])
        count = ops.take(ops.convert_to_tensor(self._streams.astype(np.int32)), index)
        present = ops.cast(ops.arange(self.num_streams) < count, "float32")
        h = h * ops.cast(present, "complex64")
        low, high = self.snr_db
        snr_db = keras.random.uniform((uses,), low, high, seed=StreamKey(key["snr"]))
        snr_db = snr_db + self._snr_db_per_stream * ops.cast(count, "float32")
        no = ops.take(ops.convert_to_tensor(self._no_at_0db), index)
        no = no * ops.exp(-np.log(10.0) / 10.0 * snr_db)
        if SNR_DEFINITIONS[self.scenario.snr.definition].per_realization:
            mean = self.num_rx * self.channel.power * ops.cast(count, "float32")
            no = no * ops.sum(ops.square(ops.abs(h)), axis=(-2, -1)) / mean
        x = ops.take(ops.convert_to_tensor(qam_points(self.num_bits_per_symbol)), symbols, 0)
        noise = complex_normal(key["noise"], (uses, self.num_rx), no[:, None])
        y = ops.matmul(h, x[..., None])[..., 0] + noise
        if self.scenario.csi.type == "noisy":
            ratio = 10 ** (-self.scenario.csi.error_snr_db / 10)
            error = complex_normal(key["csi"], h.shape, self.channel.power * ratio)
            h = h + error * ops.cast(present, "complex64")
        labels = ops.convert_to_tensor(bit_labels(self.num_bits_per_symbol))
        bits = ops.cast(ops.take(labels, symbols, axis=0), "float32")
        batch = {"y": y, "h": h, "no": no, "bits": bits}
        if self._teacher is not None:
            batch["llr"] = self._teacher(y, h, no)
        if self.copies > 1:
            batch = self._with_copies(batch, key["symmetry"])
        weights = (2 ** np.arange(self.num_bits_per_symbol - 1, -1, -1)).astype(np.int32)
        batch["symbols"] = ops.sum(ops.cast(batch["bits"], "int32") * weights, axis=-1)
        batch["present"] = present * ops.ones((self.batch_size, 1))
        batch["key"] = key["layer"]
        return batch

    def _channels_of(self, key, uses):
        if self.channels is not None:
            h = ops.convert_to_tensor(self.channels)
            return ops.repeat(h, uses // len(self.channels), axis=0)
        if self._rho is None:
            return self.channel.sample(key["channel"], uses, 1)[:, 0]
        low, high = self._rho
        u = keras.random.uniform((), seed=StreamKey(key["correlation"]))
        rho = low + (high - low) * ops.sqrt(u)
        return self.channel.sample_correlated(key["channel"], uses, 1, rho)[:, 0]

    def _draw_streams(self, key):
        """Which of its numbers of users a batch has, int32 []."""
        counts = self._streams
        if len(counts) == 1:
            return ops.convert_to_tensor(0)
        steps = np.cumsum(counts)[:-1] / counts.sum()
        u = keras.random.uniform((), seed=StreamKey(key))
        return ops.sum(ops.cast(u >= steps.astype(np.float32), "int32"))

    def _with_copies(self, batch, key):
        """The batch followed by symmetric copies of it, each copy by one symmetry."""
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
            for name in ("bits", "llr"):
                if name in batch:
                    value = ops.take(batch[name], order, axis=1)
                    flip = (lambda b: 1.0 - b) if name == "bits" else (lambda b: -b)
                    parts[name].append(_turn_labels(value, turns, flip))
        return {name: ops.concatenate(values, axis=0) for name, values in parts.items()}


def _quarter_turns(turns):
    """(-i)^turns, complex64: H' with H'x' = Hx for x' = i^turns x."""
    table = np.array([1, -1j, -1, 1j], np.complex64)
    return ops.take(ops.convert_to_tensor(table), turns, axis=0)


def _turn_labels(values, turns, flip):
    """Bits or LLRs [B, K, m] of symbols turned by i^turns, turns [K].

    One turn takes (Re, Im) to (-Im, Re); the sign of a PAM level is its first bit.
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
