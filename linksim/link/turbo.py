"""Iterative detection and decoding: detector and decoder tell each other what they found.

A *pass* is a detection and the decoding of what it found. The detector gets what the decoder
knows of the bits as a prior, and the decoder what the detector has added to that prior, the
extrinsic LLRs [Hochwald03], after the quantizer where there is one. The messages inside the
decoder are kept [Wiesmayr22], so that a pass goes on where the one before it ended. The first
pass is that of a receiver without iterations.

A codeword whose parity checks hold after a pass is final: its block is neither detected nor
decoded again. It is not known to be right, so a later pass might have mended it, or broken it.
"""

from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from linksim.complexity.graphs import specs_of
from linksim.link.open_blocks import TimedCalls, part_size, parts_of


class Decision(NamedTuple):
    """What the decoder makes of a pass; B blocks."""

    bits: Any  # information bits, float32 [B, k]
    final: Any  # whether all parity checks hold, bool [B]
    prior: Any  # what the detector is told next, LLRs float32 [B, U, K, m]
    messages: Any  # those of the decoder, float32 [B, edges]
    soft: Any  # LLRs of the mother code, information bits first, float32 [B, n]
    iterations: Any  # of the decoder in this pass, int32 [B]


class Exchange:
    """One pass of detector and decoder, as traceable functions.

    Args:
        link: the `Link`; its scenario's `loop` says how many iterations the decoder has in a
            pass, and what it tells the detector.
        detector: a layer with `accepts_prior`.
    """

    def __init__(self, link, detector):
        self._link, self._detector = link, detector
        self._loop = link.scenario.loop
        iterations = link.scenario.iterations_per_pass
        self._code = link.code.with_iterations(iterations)
        self._later = self._code
        if self._loop.cn_update:
            self._later = link.code.with_iterations(iterations, self._loop.cn_update)

    def detect(self, y, h, s, prior):
        """Detect blocks again.

        Args:
            y, h, s: as the detector takes them.
            prior: float32 [B, U, K, m], as `decode` returns it.

        Returns:
            Extrinsic LLRs float32 [B, U, K, m], and symbol indices int32 [B, U, K].
        """
        llrs, symbols = self._detector.llrs_and_symbols(y, h, s, prior)
        return llrs - prior, symbols

    def errors_of_blocks(self, wrong_bits, wrong_symbols):
        """See `Link.errors_of_blocks`; NumPy's int64 from NumPy's bool."""
        found = self._link.errors_of_blocks(wrong_bits, wrong_symbols)
        return [x.numpy().astype(int) for x in found]

    def first_messages(self, llrs):
        """The decoder's messages before the first pass, float32 [B, edges].

        Args:
            llrs: as `decode` takes them.
        """
        return self._code.first_messages(self._link.codeword_llrs(llrs))

    @property
    def decodes_alike(self):
        """Whether `decode` and `decode_again` are the same."""
        return self._loop.cn_update in ("", self._link.scenario.code.cn_update)

    def decode(self, llrs, messages, used=None):
        """Decode blocks, in the first pass.

        Args:
            llrs: extrinsic LLRs, quantized where there is a quantizer, float32 [B, U, K, m].
            messages: `first_messages`, or those of the pass before.
            used: None, or bool [B]: False for blocks that are left out.

        Returns:
            `Decision`. What it says of blocks that are left out has no meaning.
        """
        return self._decoded(self._code, llrs, messages, used)

    def decode_again(self, llrs, messages, used=None):
        """The same as `decode`, in later passes."""
        return self._decoded(self._later, llrs, messages, used)

    def _decoded(self, code, llrs, messages, used):
        limit = code.llr_max
        coded = self._link.codeword_llrs(llrs)
        decoded = code.resume(coded, messages, used)
        told = code.sent_llrs(decoded.soft)
        if self._loop.feedback == "extrinsic":
            # What the decoder knows is clipped, as its input was
            told -= tf.clip_by_value(coded, -limit, limit)
        return Decision(
            code.decided(decoded.soft),
            decoded.holds,
            self._link.symbol_llrs(self._loop.scale * told),
            decoded.messages,
            decoded.soft,
            decoded.iterations,
        )


def decode_in_passes(exchange, quantize, y, h, s, llrs, num_passes):
    """Information bits float32 [B, k] after all passes, in one graph; traceable.

    Every block gets all passes. The bits are those of the first one after which its parity
    checks hold, as in a simulation.

    Args:
        exchange: the `Exchange`.
        quantize: function of extrinsic LLRs.
        y, h, s: as the detector takes them.
        llrs: LLRs of a detection without prior, float32 [B, U, K, m].
        num_passes: how many.
    """
    llrs = quantize(llrs)
    decision = exchange.decode(llrs, exchange.first_messages(llrs))
    bits, final = decision.bits, decision.final
    for _ in range(num_passes - 1):
        llrs, _ = exchange.detect(y, h, s, decision.prior)
        decision = exchange.decode_again(quantize(llrs), decision.messages)
        bits = tf.where(final[:, None], bits, decision.bits)
        final |= decision.final
    return bits


class Pass(NamedTuple):
    """What one pass did; n blocks were still open before it."""

    blocks: np.ndarray  # which ones, int [n]
    prior: Any  # what their detector was told, [n, U, K, m], or None in the first pass
    llrs: Any  # what their decoder was told, [n, U, K, m]
    symbols: Any  # decisions of their detector, [n, U, K]
    decision: Decision  # of their decoder


class PassFunctions(TimedCalls):
    """The compiled functions of an `Exchange`.

    Args:
        exchange: the `Exchange`.
        quantize: the compiled quantizer of extrinsic LLRs, or None.
        compile_detector, compile_decoder: make a compiled function of a traceable one.
    """

    def __init__(self, exchange, quantize, compile_detector, compile_decoder):
        super().__init__()
        self.errors_of_blocks = exchange.errors_of_blocks
        self.detect = compile_detector(exchange.detect)
        self._quantize = quantize
        self.begin = compile_decoder(exchange.first_messages)
        self.decode = self.decode_again = compile_decoder(exchange.decode)
        if not exchange.decodes_alike:
            self.decode_again = compile_decoder(exchange.decode_again)

    def concrete(self, batch, llrs):
        """What a batch runs, for `peak_memory`.

        Args:
            batch: `LinkBatch` of `tf.TensorSpec`s.
            llrs: that of the LLRs.

        Returns:
            The concrete functions, and the specs of what stays between them.
        """
        begin = self.begin.get_concrete_function(llrs)
        messages = specs_of(begin)
        used = tf.TensorSpec(llrs.shape[:1], tf.bool)
        decode = self.decode.get_concrete_function(llrs, messages, used)
        again = self.decode_again.get_concrete_function(llrs, messages, used)
        size = part_size(llrs.shape[0])
        given = (batch.y, batch.h_hat, batch.no, llrs)
        part = [tf.TensorSpec([size, *x.shape[1:]], x.dtype) for x in given]
        detect = self.detect.get_concrete_function(*part)
        return [begin, decode, again, detect], (messages, specs_of(decode))

    def quantized(self, llrs):
        """Extrinsic LLRs as the quantizer leaves them, and the seconds it took."""
        return (llrs, 0.0) if self._quantize is None else self.timed(self._quantize, llrs)


class PassRun:
    """The passes over one batch, each made when it is first asked for.

    Receivers that differ only in their passes share a run: what a receiver of two passes
    finds is what one of four has found after two.

    Args:
        name: of the receiver with one pass, for errors.
        functions: the `PassFunctions`.
        batch: the `LinkBatch`.
        llrs, symbols: LLRs and decisions of the detector without prior.
        seconds: what that detection took.
        keep: whether to keep every `Pass` in `passes`.
    """

    def __init__(self, name, functions, batch, llrs, symbols, seconds, keep=False):
        self._name, self._functions, self._batch, self._keep = name, functions, batch, keep
        self.passes = []
        self._bits = np.zeros(batch.bits.shape, np.float32)
        self._symbols = np.zeros(batch.symbols.shape, np.int32)
        self._open = np.arange(len(self._bits))  # blocks
        self._after = []  # (bit errors, symbol errors, seconds) after each pass
        self._llrs, quantizing = functions.quantized(llrs)
        self._messages, beginning = functions.timed(functions.begin, self._llrs)
        self._finish(None, self._llrs, symbols, seconds + quantizing + beginning)

    def after(self, num_passes):
        """Bit errors int64 [B], symbol errors int64 [B] and seconds, after so many passes.

        The seconds are those of all passes up to there.
        """
        while len(self._after) < num_passes:
            if len(self._open):
                self._next()
            else:
                self._after.append(self._after[-1])
        return self._after[num_passes - 1]

    def _next(self):
        """Detect the open blocks again, and finish the pass."""
        functions, batch = self._functions, self._batch
        found, seconds = [], 0.0
        for blocks, count in parts_of(self._open, len(self._bits)):
            given = (batch.y, batch.h_hat, batch.no, self._prior)
            given = [tf.gather(x, blocks) for x in given]
            result, more = functions.timed(functions.detect, *given)
            llrs, quantizing = functions.quantized(result[0])
            found.append([x[:count] for x in (given[-1], llrs, result[1])])
            seconds += more + quantizing
        prior, llrs, symbols = (tf.concat(parts, axis=0) for parts in zip(*found))
        self._llrs = tf.tensor_scatter_nd_update(self._llrs, self._open[:, None], llrs)
        self._finish(prior, llrs, symbols, seconds)

    def _finish(self, prior, llrs, symbols, seconds):
        """Decode the open blocks, and note what came of the pass."""
        blocks = self._open
        if np.isnan(llrs.numpy()).any():
            raise RuntimeError(f"{self._name}: the LLRs contain NaN; please report this")
        used = np.zeros(len(self._bits), bool)
        used[blocks] = True
        given = self._llrs, self._messages, tf.constant(used)
        functions = self._functions
        decode = functions.decode_again if self._after else functions.decode
        decision, more = functions.timed(decode, *given)
        self._messages, self._prior = decision.messages, decision.prior
        self._bits[blocks] = decision.bits.numpy()[blocks]
        self._symbols[blocks] = symbols.numpy()
        if self._keep:
            kept = Decision(*(x.numpy()[blocks] for x in decision))
            first = (None if x is None else x.numpy() for x in (prior, llrs, symbols))
            self.passes.append(Pass(blocks, *first, kept))
        self._open = blocks[~decision.final.numpy()[blocks]]
        wrong_bits = self._bits != self._batch.bits.numpy()
        wrong_symbols = self._symbols != self._batch.symbols.numpy()
        errors = functions.errors_of_blocks(wrong_bits, wrong_symbols)
        before = self._after[-1][2] if self._after else 0.0
        self._after.append((*errors, before + seconds + more))
