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

_PURPOSES = ("symbols", "channel", "noise", "snr", "csi", "symmetry", "layer")
TRAINING, VALIDATION = 1, 2


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

    Raises:
        InvalidInput: a value out of range, or a scenario whose SNR definition needs
            a code rate.
    """

    def __init__(self, scenario, snr_db, batch_size, *, teacher=None, seed=0, copies=1):
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
        self._no_at_0db = snr_db_to_no(
            scenario.snr.definition,
            0.0,
            LinkBudget(
                num_rx=self.num_rx,
                num_streams=self.num_streams,
                num_bits_per_symbol=self.num_bits_per_symbol,
                channel_power=self.channel.power,
            ),
        )
        self._teacher = None
        if teacher is not None:
            self._teacher = create_detector(
                teacher,
                num_streams=self.num_streams,
                num_bits_per_symbol=self.num_bits_per_symbol,
            )

    def keys(self, purpose, index):
        """Random-stream keys of a batch, int32 [7, 2].

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
            [B, K, m], `key` int32 [2] for randomness inside layers, and with a
            teacher `llr` float32 [B, K, m].
        """
        key = {name: keys[i] for i, name in enumerate(_PURPOSES)}
        uses = self.batch_size // self.copies
        size = 2**self.num_bits_per_symbol
        symbols = keras.random.randint(
            (uses, self.num_streams), 0, size, seed=StreamKey(key["symbols"])
        )
        h = self.channel.sample(key["channel"], uses, 1)[:, 0]
        low, high = self.snr_db
        snr_db = keras.random.uniform((uses,), low, high, seed=StreamKey(key["snr"]))
        no = self._no_at_0db * ops.exp(-np.log(10.0) / 10.0 * snr_db)
        if SNR_DEFINITIONS[self.scenario.snr.definition].per_realization:
            mean = self.num_rx * self.num_streams * self.channel.power
            no = no * ops.sum(ops.square(ops.abs(h)), axis=(-2, -1)) / mean
        x = ops.take(ops.convert_to_tensor(qam_points(self.num_bits_per_symbol)), symbols, 0)
        noise = complex_normal(key["noise"], (uses, self.num_rx), no[:, None])
        y = ops.matmul(h, x[..., None])[..., 0] + noise
        if self.scenario.csi.type == "noisy":
            ratio = 10 ** (-self.scenario.csi.error_snr_db / 10)
            h = h + complex_normal(key["csi"], h.shape, self.channel.power * ratio)
        labels = ops.convert_to_tensor(bit_labels(self.num_bits_per_symbol))
        bits = ops.cast(ops.take(labels, symbols, axis=0), "float32")
        batch = {"y": y, "h": h, "no": no, "bits": bits}
        if self._teacher is not None:
            batch["llr"] = self._teacher(y, h, no)
        if self.copies > 1:
            batch = self._with_copies(batch, key["symmetry"])
        weights = (2 ** np.arange(self.num_bits_per_symbol - 1, -1, -1)).astype(np.int32)
        batch["symbols"] = ops.sum(ops.cast(batch["bits"], "int32") * weights, axis=-1)
        batch["key"] = key["layer"]
        return batch

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
