"""What detector and decoder tell each other, in bits of information: the curves of an EXIT
chart [TenBrink01], and the path that the loop of the two takes.

All information is `bit_information` of the LLRs of the coded bits that were sent: a mean over
the bits of a block, and then over blocks, whose standard deviation gives the error.
"""

import itertools
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from linksim.constellation import bit_labels
from linksim.information import bit_information, gaussian_llrs, llr_deviation

# Random numbers of the two kinds of curves, beside those of the draws
_PRIORS, _CHANNEL = 1, 2


class Information(NamedTuple):
    """A mean over blocks, in bits per coded bit."""

    mean: float
    error: float  # its standard error


class Step(NamedTuple):
    """What one pass of the loop told, over all blocks.

    The loop leaves blocks that are finished alone. Here such a block counts with what its
    decoder has added in its last pass, and with what its detector would tell then.
    """

    blocks: int  # blocks that the pass worked on
    detector: Information  # what the detector told the decoder
    decoder: Information  # what the decoder told the detector


class ExitMeter:
    """Measures detectors and decoder of a scenario at one SNR.

    All detectors, and all points of a curve, see the same draws and the same random numbers
    in their priors.

    Args:
        simulator: the `LinkSimulator`, with receivers of several passes.
        snr_db: the SNR in dB.
        num_batches: how many batches are drawn.
        seed: of the draws and of the priors.
    """

    def __init__(self, simulator, snr_db, num_batches, seed=0):
        self._simulator, self._link = simulator, simulator.link
        self._seed = seed
        self._draws = [simulator.draw(seed, snr_db, i) for i in range(num_batches)]
        self._bits = [self._coded_bits(draws) for draws in self._draws]
        code, iterations = self._link.code, self._link.scenario.iterations_per_pass
        self._code, self._once = code.with_iterations(iterations), code.with_iterations(1)
        compiled = {"autograph": False, "jit_compile": simulator.xla != "off"}
        self._decode = tf.function(self._code.resume, **compiled)
        self._extrinsic = tf.function(self._added, **compiled)

    def detector(self, name, information):
        """What a detector tells a decoder that has told it so much.

        The detector is told Gaussian LLRs that are calibrated; bits that pad the last
        channel use are told as 0, as in the loop. What it tells is extrinsic, and quantized
        where the receiver has a quantizer.

        Args:
            name: of a receiver of several passes.
            information: what it is told, in bits, in [0, 1).

        Returns:
            `Information`.
        """
        functions = self._simulator.pass_functions(name)
        found = []
        for number, (draws, bits) in enumerate(zip(self._draws, self._bits)):
            prior = self._link.symbol_llrs(self._told(_PRIORS, number, information))
            llrs, _ = functions.detect(draws.y, draws.h_hat, draws.no, prior)
            llrs, _ = functions.quantized(llrs)
            found.append(self._by_block(bits, self._link.codeword_llrs(llrs)))
        return _mean(np.concatenate(found))

    def decoder(self, information):
        """What the decoder tells a detector that has told it so much.

        The decoder is told Gaussian LLRs that are calibrated, and begins anew, with the
        iterations of one pass. What it tells is what it has added to them. The loop clips
        that and may scale it; the curve does not.

        Args:
            information: what it is told, in bits, in [0, 1).

        Returns:
            `Information`.
        """
        found = []
        for number, bits in enumerate(self._bits):
            llrs = self._told(_CHANNEL, number, information)
            messages = self._decode(llrs).messages
            found.append(self._by_block(bits, self._extrinsic(llrs, messages)))
        return _mean(np.concatenate(found))

    def loop(self, name):
        """What the two tell each other in each pass of the loop itself.

        Args:
            name: of a receiver of several passes.

        Returns:
            A list of `Step`, up to the last pass that any block needs.
        """
        batches = [self._passes(name, number) for number in range(len(self._draws))]
        steps = []
        for one in itertools.zip_longest(*(worked for worked, _ in batches)):
            told = [step or ended for step, (_, ended) in zip(one, batches)]
            blocks = sum(step.blocks for step in told)
            means = (_mean(np.concatenate(x)) for x in list(zip(*told))[1:])
            steps.append(Step(blocks, *means))
        return steps

    def _passes(self, name, number):
        """What was told in each pass over a batch, and what once all blocks are finished.

        Returns:
            A list of `Step`s and one more, all with information by block, float64 [B].
        """
        bits, in_code = self._bits[number], self._link.codeword_llrs
        functions, draws = self._simulator.pass_functions(name), self._draws[number]
        passes = self._simulator.passes(name, draws)
        first = passes[0]  # in which all blocks are
        last = [np.array(x) for x in (first.llrs, first.decision.messages)]
        for one in passes[1:]:
            for whole, part in zip(last, (one.llrs, one.decision.messages)):
                whole[one.blocks] = part
        added = self._extrinsic(in_code(last[0]), last[1])
        llrs, _ = functions.detect(
            draws.y, draws.h_hat, draws.no, self._link.symbol_llrs(added)
        )
        llrs, _ = functions.quantized(llrs)
        ended = Step(0, self._by_block(bits, in_code(llrs)), self._by_block(bits, added))
        steps = []
        for one in passes:
            detector, decoder = ended.detector.copy(), ended.decoder.copy()
            rows = bits.numpy()[one.blocks]
            detector[one.blocks] = self._by_block(rows, in_code(one.llrs))
            open_ones = ~one.decision.final
            told = self._by_block(rows, in_code(one.decision.prior))
            decoder[one.blocks[open_ones]] = told[open_ones]
            steps.append(Step(len(one.blocks), detector, decoder))
        return steps, ended

    def _coded_bits(self, draws):
        """The coded bits that were sent, float32 [B, n], in code order."""
        labels = bit_labels(self._link.num_bits_per_symbol).astype(np.float32)
        return self._link.codeword_llrs(tf.gather(labels, draws.symbols))

    def _added(self, llrs, messages):
        """What a decoder with these messages knows of each bit beside the bit's own LLR.

        Its soft bits are clipped, so that where the LLR alone is as large nothing would be
        left after a subtraction. One more iteration without LLRs gives the sum of what the
        checks say; the LLRs of repetitions of a bit are added.
        """
        checks = self._once.resume(tf.zeros_like(llrs), messages).soft
        all_copies = self._code.sent_llrs(self._code.mother_llrs(llrs))
        return self._code.sent_llrs(checks) + all_copies - llrs

    def _told(self, purpose, number, information):
        """Calibrated Gaussian LLRs of a batch's coded bits, float32 [B, n]."""
        bits = self._bits[number]
        rng = np.random.default_rng((self._seed, number, purpose))
        normal = rng.normal(size=bits.shape).astype(np.float32)
        return gaussian_llrs(bits, llr_deviation(np.float32(information)), normal)

    @staticmethod
    def _by_block(bits, llrs):
        """Information of each block, float64 [B]."""
        return np.asarray(bit_information(bits, llrs), np.float64).mean(-1)


def _mean(values):
    return Information(float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values))))
