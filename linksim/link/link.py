"""The link of a scenario: bits to received vectors, and LLRs back to decided bits.

A *block* is one codeword or, uncoded, a packet of channel uses. Its bits are coded,
interleaved and mapped use by use to the K streams, as 5G NR maps a codeword to layers, so
a codeword is spread over all streams. Blocks have independent channels; block errors are
therefore independent trials. With transport blocks each user of a slot has a block of its
own, and with `code.per_stream` each stream has: what is drawn together, and independent of
everything else, is then a *slot*.
"""

import copy
import functools

import numpy as np
import tensorflow as tf
from sionna.phy import config
from sionna.phy.mapping import Constellation

from linksim.backend import check_floatx, require_tensorflow
from linksim.channels import channel_of
from linksim.channels.random import random_bits, stream_keys
from linksim.errors import InvalidInput, check_int
from linksim.link.bit_order import sent_order
from linksim.link.coding import create_code
from linksim.link.draw import LinkBatch, draw, symbols_of_bits
from linksim.link.fronts import create_front
from linksim.link.interference import INTERFERENCE_PURPOSES
from linksim.link.scenario import naming_scenario
from linksim.snr import LinkBudget, snr_db_to_no

__all__ = ["CodedSender", "Link", "LinkBatch"]

# One random stream each; their order is part of every stored count, so that new ones come last
_PURPOSES = ("bits", "padding", "channel", "noise", "csi", *INTERFERENCE_PURPOSES)


class CodedSender:
    """Sends codewords: code, interleaver, padding, and the bits of every channel use.

    Its keys are "bits" and "padding". Random padding fills the last channel use.

    Args:
        codes: the channel code of each transmission, see `linksim.link.coding`. `send` uses
            the first one; the sender that `at` returns uses another.
        interleaver: positions of the coded bits in the order they are sent, int32 [n].
        num_uses: channel uses U of a block.
        num_streams: K.
        num_bits_per_symbol: m.
    """

    def __init__(self, codes, interleaver, num_uses, num_streams, num_bits_per_symbol):
        kind = "pam" if num_bits_per_symbol == 1 else "qam"
        # `linksim.constellation.qam_points` rounds the last bit of some points otherwise;
        # stored counts have Sionna's rounding
        self.points = Constellation(kind, num_bits_per_symbol)().numpy()
        self._codes, self._number = codes, None
        self._num_info_bits = codes[0].num_info_bits
        self._interleaver = interleaver
        self._labels_shape = (num_uses, num_streams, num_bits_per_symbol)
        self._num_padding = int(np.prod(self._labels_shape)) - codes[0].num_coded_bits

    def at(self, number):
        """The sender of the transmission of a number, int32 scalar, from 0."""
        other = copy.copy(self)
        other._number = number
        return other

    def send(self, keys, num_blocks):
        """Information bits float32 [B, k] and symbols int32 [B, U, K]."""
        bits = random_bits(keys["bits"], (num_blocks, self._num_info_bits))
        coded = tf.gather(self._encoded(bits), self._interleaver, axis=-1)
        padding = random_bits(keys["padding"], (num_blocks, self._num_padding))
        sent = tf.concat([coded, padding], axis=-1)
        return bits, symbols_of_bits(tf.reshape(sent, (num_blocks, *self._labels_shape)))

    def _encoded(self, bits):
        if self._number is None:
            return self._codes[0].encode(bits)
        ways = [functools.partial(code.encode, bits) for code in self._codes]
        return tf.switch_case(self._number, ways)


class Link:
    """The link of a scenario.

    Args:
        scenario: a `linksim.link.scenario.Scenario`.

    Attributes:
        blocks_per_slot: blocks that share a slot: the users where blocks are transport
            blocks, the streams where each has its own, else 1. All sizes below are of all of
            them together.
        num_info_bits: information bits of a slot, k.
        num_uses: channel uses of a slot, U.
        num_symbols: symbols of a slot, U K.
        channel: the `linksim.channels.Channel`.
        code: the channel code, see `linksim.link.coding`.
        codes: the code of each transmission, as `code.transmissions` makes them; without HARQ
            only `code`, which is that of the first.
        sender, front: the parts of `linksim.link.draw.draw`.
        budget: the `LinkBudget` that SNR definitions refer to.

    Raises:
        InvalidInput: a channel or code that the scenario's sizes do not allow, or a global
            setting of Keras or Sionna that the simulator cannot work with.
    """

    def __init__(self, scenario):
        _check_settings()
        self.scenario = scenario
        with naming_scenario(scenario):
            self._create_parts(scenario)

    def _create_parts(self, scenario):
        system = scenario.system
        self.num_streams = system.num_streams
        self.num_rx = system.num_rx
        self.num_bits_per_symbol = system.num_bits_per_symbol
        self.channel = channel_of(scenario)
        self.front = create_front(scenario, self.channel)
        self.blocks_per_slot = 1
        self._create_code()
        self.front.check(self.num_uses)
        self.codes = [self.code]
        if scenario.harq.max_transmissions > 1:
            self.codes = self.code.transmissions(scenario.harq.versions)
            self.code = self.codes[0]
        self.num_info_bits = self.code.num_info_bits
        self.num_symbols = self.num_uses * self.num_streams
        if scenario.code.type == "transport-block":
            interleaver = self.code.sent_order
        else:
            interleaver = sent_order(
                scenario.code,
                self.code.num_coded_bits,
                self.num_streams,
                self.num_bits_per_symbol,
            )
        self._interleaver = interleaver
        self._deinterleaver = np.argsort(interleaver).astype(np.int32)
        versions = scenario.harq.versions
        self._distinct = [versions.index(version) for version in versions]
        self.sender = CodedSender(
            self.codes, interleaver, self.num_uses, self.num_streams, self.num_bits_per_symbol
        )
        self.budget = LinkBudget(
            num_rx=system.num_rx,
            num_streams=system.num_streams,
            num_bits_per_symbol=system.num_bits_per_symbol,
            coderate=self.code.coderate,
            channel_power=self.channel.power,
            resource_efficiency=self.front.resource_efficiency,
            streams_per_transmitter=self.front.streams_per_transmitter,
        )

    def _create_code(self):
        """Set `code` and `num_uses`: the front or the code decides how long a block is."""
        options = self.scenario.code
        if options.type == "transport-block":
            from linksim.link.pusch import create_transport_blocks  # loads Sionna's 5G

            self.code = create_transport_blocks(self.scenario, self.channel)
            self.num_uses, self.blocks_per_slot = self.front.num_uses, self.code.num_blocks
            return
        bits_per_use = self.num_streams * self.num_bits_per_symbol
        num_uses = self.front.num_uses
        if num_uses is None and options.type == "none":
            num_uses = options.uses_per_block
        available = None if num_uses is None else num_uses * bits_per_use
        self.code = create_code(options, available, self.num_streams)
        if options.per_stream:
            self.blocks_per_slot = self.num_streams
        num_coded_bits = self.code.num_coded_bits
        if available is not None and num_coded_bits > available:
            raise InvalidInput(
                f"code.num_coded_bits: {num_coded_bits} bits do not fit into "
                f"the grid's {available}"
            )
        self.num_uses = num_uses or -(-num_coded_bits // bits_per_use)

    # --- transmitter and channel ---------------------------------------------

    def keys(self, seed, snr_db, batch, transmission=0):
        """Random-stream keys of one batch, int32 [9, 2], NumPy.

        The rows are for information bits, padding, channel, noise, CSI error, and four of
        interference. They are a pure function of seed, SNR point, batch number and transmission.
        All transmissions of a batch have the information bits in common.
        """
        check_int("seed", seed, minimum=0)
        point = int(round(snr_db * 1000)) + 10**6
        keys = stream_keys(len(_PURPOSES), seed, point, batch)
        if transmission:
            later = stream_keys(len(_PURPOSES), seed, point, batch, transmission)
            keys = np.concatenate([keys[:1], later[1:]])
        return keys

    def no(self, snr_db):
        """Noise variance N0 at an SNR point in dB, mean over channels; float."""
        return snr_db_to_no(self.scenario.snr.definition, snr_db, self.budget)

    def draw(self, keys, no, first_block, num_blocks, transmission=0):
        """Draw a batch; traceable, a pure function of its arguments.

        Args:
            keys: int32 [9, 2] from `keys`.
            no: noise variance N0, float32 [] or, without an OFDM grid, [B, U].
            first_block: int32 scalar, number of the first block of the batch.
            num_blocks: int, B.
            transmission: int32 scalar, which one of a block; each sends the bits of its
                redundancy version.

        Returns:
            `LinkBatch`.
        """
        sender = self.sender
        if any(self._distinct):
            sender = sender.at(tf.gather(self._distinct, transmission))
        keys = dict(zip(_PURPOSES, tf.unstack(tf.convert_to_tensor(keys), axis=0)))
        return draw(keys, sender, self.front, no, num_blocks, first_block)

    def throughput_of(self, lost, interval):
        """What is delivered where a share of the transmissions is lost.

        Args:
            lost: the share of transmissions after which their block is not decoded, a mean
                over the users. Without HARQ it is the block error rate.
            interval: its bounds.

        Returns:
            {name: float}. With transport blocks it has

            * `throughput`, in bit/s: information bits of all users' transport blocks that are
              delivered, over the duration of the slots that they take, with its bounds `_low`
              and `_high`;
            * `spectral_efficiency`, in bit/s/Hz: the throughput over the bandwidth of the
              allocated subcarriers, with its bounds. DMRS, cyclic prefixes and symbols of the
              slot that are not allocated count against it;

            and with HARQ `bits_per_use`: information bits of all streams that are delivered
            for each channel use, with its bounds. Without either it is empty.
        """
        most = {}
        if self.scenario.code.type == "transport-block":
            most["throughput"] = self.num_info_bits / self.code.slot_duration
            most["spectral_efficiency"] = most["throughput"] / self.code.bandwidth
        if len(self.codes) > 1:
            most["bits_per_use"] = self.num_info_bits / self.num_uses
        low, high = interval
        found = {}
        for name, value in most.items():
            found[name] = value * (1.0 - lost)
            found[f"{name}_low"] = value * (1.0 - high)
            found[f"{name}_high"] = value * (1.0 - low)
        return found

    # --- receiver ------------------------------------------------------------

    def codeword_llrs(self, llrs):
        """LLRs of the coded bits in code order, float32 [B, n], from those of the symbols.

        Args:
            llrs: float32 [B, U, K, m], `log p(b=1)/p(b=0)`.
        """
        flat = tf.reshape(llrs, [tf.shape(llrs)[0], -1])
        return tf.gather(flat[:, : self.code.num_coded_bits], self._deinterleaver, axis=-1)

    def symbol_llrs(self, llrs):
        """LLRs of the symbols' bits, float32 [B, U, K, m], from those of the coded bits.

        `codeword_llrs` takes them back. Padding gets LLRs of 0.

        Args:
            llrs: float32 [B, n], in code order.
        """
        shape = (self.num_uses, self.num_streams, self.num_bits_per_symbol)
        padding = int(np.prod(shape)) - self.code.num_coded_bits
        sent = tf.gather(llrs, self._interleaver, axis=-1)
        sent = tf.pad(sent, [[0, 0], [0, padding]])
        return tf.reshape(sent, [tf.shape(llrs)[0], *shape])

    def decode(self, llrs):
        """Decided information bits float32 [B, k] from LLRs [B, U, K, m]."""
        return self.code.decode(self.codeword_llrs(llrs))

    def count_errors(self, batch_bits, batch_symbols, llrs, symbols):
        """Bit and symbol errors of every block, int32 [B blocks_per_slot] each.

        Args:
            batch_bits: information bits that were sent, float32 [B, k].
            batch_symbols: symbol indices that were sent, int32 [B, U, K].
            llrs: LLRs of the detector, float32 [B, U, K, m].
            symbols: symbol decisions of the detector, int32 [B, U, K].
        """
        wrong_bits = tf.not_equal(self.decode(llrs), batch_bits)
        wrong_symbols = tf.not_equal(symbols, batch_symbols)
        return self.errors_of_blocks(wrong_bits, wrong_symbols)

    def errors_of_blocks(self, wrong_bits, wrong_symbols):
        """Bit and symbol errors of every block, int32 [B blocks_per_slot] each.

        Args:
            wrong_bits: bool [B, k].
            wrong_symbols: bool [B, U, K].
        """
        # Users follow each other in the bits of a slot, and in the streams of a channel use
        blocks, layers = self.blocks_per_slot, self.num_streams // self.blocks_per_slot
        wrong_bits = tf.reshape(wrong_bits, [-1, self.num_info_bits // blocks])
        wrong_symbols = tf.reshape(wrong_symbols, [-1, self.num_uses, blocks, layers])
        symbol_errors = tf.reduce_sum(tf.cast(wrong_symbols, tf.int32), axis=[1, 3])
        return (
            tf.reduce_sum(tf.cast(wrong_bits, tf.int32), axis=-1),
            tf.reshape(symbol_errors, [-1]),
        )


def _check_settings():
    """Refuse global settings that would end in an error of TensorFlow's, by their names."""
    require_tensorflow("the simulator")
    check_floatx("the simulator")
    if config.precision != "single":
        raise InvalidInput(
            f"sionna.phy.config.precision: set to {config.precision!r} in this process, but "
            "the simulator needs 'single'; set it back, and give double precision to blocks of "
            "your own by their precision="
        )
