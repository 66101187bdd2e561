"""HARQ: blocks that were not decoded are sent again, and what was received of them adds up.

Each transmission is a draw of its own of the whole batch: the bits of its redundancy version,
through another channel and with other noise. The LLRs of the mother code's bits add up over
the transmissions of a block, and the decoder begins anew with the sum. That a block is decoded
is known without error, and it is then not sent again; its slot goes on with other users, whose
signals are as before, so nothing changes for these.
"""

import functools
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from linksim.complexity.graphs import specs_of
from linksim.link.open_blocks import TimedCalls, part_size, parts_of


class Outcome(NamedTuple):
    """What became of the blocks of a batch, of which there are B, in up to T transmissions."""

    failed: np.ndarray  # whether a block is not decoded after each of them, bool [T, B]
    bit_errors: np.ndarray  # after the last one that it had, int64 [B]
    symbol_errors: np.ndarray  # of the detector in the first one, int64 [B]
    seconds: float  # of all detections, quantizations and decodings


class HarqFunctions(TimedCalls):
    """The compiled functions of one receiver.

    Args:
        link: the `Link`, whose `codes` are those of the transmissions.
        detect: the compiled detector, called with y, h and the noise.
        quantize: the compiled quantizer, or None.
        compile_decoder: makes a compiled function of a traceable one.
    """

    def __init__(self, link, detect, quantize, compile_decoder):
        super().__init__()
        self.detect, self._quantize = detect, quantize
        self._link = link
        self.num_transmissions, self.blocks_per_slot = len(link.codes), link.blocks_per_slot
        self._collect = [
            tf.function(functools.partial(self._collected, code), autograph=False)
            for code in link.codes
        ]
        # All after the first have the same mother code
        self._decode = [
            compile_decoder(functools.partial(self._errors, code))
            for code in (link.codes[0], link.codes[-1])
        ]

    def _collected(self, code, llrs, stored, memory=None):
        """What is decoded after a transmission, and what is kept for the next one.

        Args:
            code: of the transmission.
            llrs: of the transmission, float32 [B, U, K, m]: those that are decoded.
            stored: those that are kept, of the same shape.
            memory: what was kept of the transmissions before, or None.

        Returns:
            LLRs of the mother code, float32 [B, S, N] of S codewords, twice.
        """
        found = []
        for values in (llrs, stored):
            mother = code.mother_llrs(self._link.codeword_llrs(values))
            mother = tf.reshape(mother, [tf.shape(values)[0], -1, mother.shape[-1]])
            found.append(mother if memory is None else self._extended(memory, mother) + mother)
        return found

    def _extended(self, memory, mother):
        """What is kept of the first transmission, whose mother code may be shorter."""
        return tf.pad(memory, [[0, 0], [0, 0], [0, mother.shape[-1] - memory.shape[-1]]])

    def _errors(self, code, collected, bits, symbols, decided):
        """Errors of blocks, int32 [B blocks_per_slot] each, and whether no LLR is NaN, bool [].

        Args:
            code: of the transmission.
            collected: LLRs of the mother code, float32 [B, S, N].
            bits, symbols: what was sent, see `Link.count_errors`.
            decided: symbol indices int32 [B, U, K] of the detector.
        """
        mother = tf.reshape(collected, [-1, collected.shape[-1]])
        wrong_bits = tf.not_equal(code.decode_mother(mother), bits)
        wrong_symbols = tf.not_equal(decided, symbols)
        finite = tf.logical_not(tf.reduce_any(tf.math.is_nan(mother)))
        return *self._link.errors_of_blocks(wrong_bits, wrong_symbols), finite

    def heard(self, llrs):
        """The LLRs to decode, those to keep, and the seconds that the quantizer took."""
        if self._quantize is None:
            return llrs, llrs, 0.0
        stored, seconds = self.timed(self._quantize, llrs)
        everything = self._link.scenario.harq.quantized == "all"
        return stored if everything else llrs, stored, seconds

    def decoded(self, name, number, llrs, sent, decided, memory=None):
        """Decode a transmission.

        Args:
            name: of the receiver, for errors.
            number: of the transmission, from 0.
            llrs: of the detector, float32 [B, U, K, m].
            sent: bits and symbols that were sent.
            decided: symbol indices int32 [B, U, K] of the detector.
            memory: what an earlier call returned, in the same slots, or None.

        Returns:
            Bit and symbol errors of every block, NumPy's int64, what is kept for the next
            transmission, float32 [B, S, N], and the seconds it took.
        """
        llrs, stored, quantizing = self.heard(llrs)
        given = (llrs, stored) if memory is None else (llrs, stored, memory)
        (collected, kept), collecting = self.timed(self._collect[number], *given)
        decode = self._decode[min(number, 1)]
        found, decoding = self.timed(decode, collected, *sent, decided)
        *errors, finite = (x.numpy() for x in found)
        if not finite:
            raise RuntimeError(f"{name}: the LLRs contain NaN; please report this")
        seconds = quantizing + collecting + decoding
        return *(x.astype(int) for x in errors), kept, seconds

    def concrete(self, batch, llrs, symbols):
        """What a batch runs, for `peak_memory`.

        Args:
            batch: `LinkBatch` of `tf.TensorSpec`s.
            llrs, symbols: those of the detection.

        Returns:
            The concrete functions, and the specs of what stays between them.
        """
        functions, memory = [], ()
        given = batch.bits, batch.symbols, symbols
        for number, collect in enumerate(self._collect):
            if number == 1:  # from here on in parts
                size = part_size(llrs.shape[0])
                llrs, memory, *given = (
                    tf.TensorSpec([size, *x.shape[1:]], x.dtype)
                    for x in (llrs, memory[0], *given)
                )
                memory = (memory,)
            collect = collect.get_concrete_function(llrs, llrs, *memory)
            collected, kept = specs_of(collect)
            decode = self._decode[min(number, 1)].get_concrete_function(collected, *given)
            functions += [collect, decode]
            memory = (kept,)
        whole = tf.TensorSpec([batch.bits.shape[0], *kept.shape[1:]], kept.dtype)
        # The batch of a later transmission stands beside that of the first one
        return functions, (whole, batch)


def transmit_until_decoded(name, functions, batches, llrs, symbols, seconds):
    """Send the blocks of a batch until they are decoded or have had all transmissions.

    Args:
        name: of the receiver, for errors.
        functions: its `HarqFunctions`.
        batches: function from the number of a transmission, from 0, to its `LinkBatch`.
        llrs, symbols, seconds: of the detection of the first transmission.

    Returns:
        `Outcome`.
    """
    batch, in_slot = batches(0), functions.blocks_per_slot
    slots, sent = len(batch.bits), (batch.bits, batch.symbols)
    bit_errors, symbol_errors, memory, more = functions.decoded(name, 0, llrs, sent, symbols)
    seconds += more
    by_slot, failed = bit_errors.reshape(slots, in_slot), [bit_errors > 0]
    for number in range(1, functions.num_transmissions):
        waiting = np.flatnonzero((by_slot > 0).any(axis=1))
        kept = []
        for part, count in parts_of(waiting, slots):
            batch = batches(number)
            y, h_hat, no, bits, sent_symbols = (
                tf.gather(x, part)
                for x in (batch.y, batch.h_hat, batch.no, batch.bits, batch.symbols)
            )
            (llrs, decided), detecting = functions.timed(functions.detect, y, h_hat, no)
            sent, before = (bits, sent_symbols), tf.gather(memory, part)
            found, _, after, more = functions.decoded(
                name, number, llrs, sent, decided, before
            )
            seconds += detecting + more
            kept.append(after[:count])
            part, found = part.numpy()[:count], found.reshape(-1, in_slot)[:count]
            # Blocks that are decoded stay so
            by_slot[part] = np.where(by_slot[part] > 0, found, 0)
        if kept:
            missing = kept[0].shape[-1] - memory.shape[-1]
            memory = tf.tensor_scatter_nd_update(
                tf.pad(memory, [[0, 0], [0, 0], [0, missing]]),
                waiting[:, None],
                tf.concat(kept, axis=0),
            )
        failed.append(by_slot.reshape(-1) > 0)
    return Outcome(np.stack(failed), by_slot.reshape(-1), symbol_errors, seconds)
