"""LDPC codes: what all of them share, and those of a parity-check matrix whose bits are all sent."""

import copy

import numpy as np
import tensorflow as tf
from sionna.phy.fec.ldpc import LDPCBPDecoder
from sionna.phy.fec.linear import LinearEncoder

from linksim.errors import InvalidInput
from linksim.link.coding.alist import alist_form, read_alist
from linksim.link.coding.binary import systematic_form
from linksim.link.coding.wifi import SIZES, wifi_matrix
from linksim.link.decoding import StoppingDecoder, fast_decoder


class LDPC:
    """What LDPC codes share: decoding that stops early, and Sionna's own for comparison.

    A block has one codeword, or several of the same code. The *mother code* is that of the
    parity-check matrix; of its bits some are not sent, and some more than once.

    A subclass sets `num_info_bits`, `num_coded_bits`, `coderate`, `_encoder`, `_decoder`
    (Sionna's, with soft output) and `_stopping` (a `StoppingDecoder` of the same parity
    checks), and implements `mother_llrs` and `sent_llrs`. The information bits come first in
    the mother code unless it has its own `decided`.
    """

    @property
    def llr_max(self):
        """The magnitude at which the decoder clips LLRs, a float."""
        return float(self._decoder.llr_max)

    def encode(self, bits):
        """Coded bits float32 [B, n] of information bits [B, k]."""
        return self._encoder(bits)

    def mother_llrs(self, llrs):
        """LLRs of all bits of the mother code, from LLRs [B, n] of the bits sent.

        Returns:
            float32 [C, N] of C codewords. Where a block has S of them, these are neighbours
            and C is S B.
        """
        raise NotImplementedError

    def sent_llrs(self, mother):
        """Those of the bits sent [B, n], from values of all bits of the mother code.

        Args:
            mother: float32 [C, N], as `mother_llrs` returns them, or as `resume` does.
        """
        raise NotImplementedError

    def with_iterations(self, num_iterations, cn_update=None):
        """The same code, whose codewords get at most `num_iterations` in a call.

        Args:
            num_iterations: that number.
            cn_update: another check-node update, or None for the same.
        """
        other, mine = copy.copy(self), self._stopping
        wanted = num_iterations, cn_update or mine.cn_update
        if wanted != (mine.num_iterations, mine.cn_update):
            other._stopping = StoppingDecoder(mine.pcm, *wanted)
        return other

    def transmissions(self, versions):
        """The code of each transmission of a block that is sent several times.

        All have the information bits and the number of coded bits of this code. All after
        the first have the same mother code. That of the first one may lack some of its last
        bits: LLRs of the mother code add up, once these have LLRs of zero.

        Args:
            versions: redundancy versions, one for each transmission, which must all be 0: the
                same bits are sent again. The 5G code has others.

        Raises:
            InvalidInput: another version than 0.
        """
        if any(versions):
            raise InvalidInput(
                f"versions: got {list(versions)}, expected zeros: this code has no redundancy "
                "versions"
            )
        return [self] * len(versions)

    def resume(self, llrs, messages=None, used=None):
        """Decode soft, perhaps from where an earlier call ended; see `StoppingDecoder.resume`.

        Args:
            llrs: float32 [B, n], LLRs of the bits sent.
            messages: None, or those of an earlier result or of `first_messages`.
            used: None, or bool [B], False for blocks that are left out.

        Returns:
            `linksim.link.decoding.Decoded`, with the soft bits of the mother code. Where a
            block has S codewords, all but `holds` have another dimension for them, [B, S, ...],
            and `holds` says whether the checks of all hold.
        """
        return self._stopping.resume(self.mother_llrs(llrs), messages, used)

    def first_messages(self, llrs):
        """The messages [B, edges] with which the decoding of LLRs [B, n] begins."""
        return self._stopping.first_messages(self.mother_llrs(llrs))

    def decode(self, llrs):
        """Decided information bits float32 [B, k] from LLRs [B, n].

        Raises:
            InvalidInput: the number of LLRs is not n.
        """
        return self.decided(self._soft_bits(llrs)[0])

    def decode_mother(self, mother):
        """Decided information bits float32 [B, k] from LLRs of the mother code [C, N]."""
        return self.decided(self._stopping(mother)[0])

    def _soft_bits(self, llrs):
        self._check_length(llrs)
        return self._stopping(self.mother_llrs(llrs))

    def _check_length(self, llrs):
        if llrs.shape[-1] != self.num_coded_bits:
            raise InvalidInput(
                f"llrs: got shape {tuple(llrs.shape)}, expected [B, {self.num_coded_bits}]"
            )

    def decode_without_stopping(self, llrs):
        """The same as `decode`, but every codeword gets all iterations, in one plain loop."""
        stopping = self._stopping
        decoder = fast_decoder(stopping.pcm, stopping.num_iterations, stopping.cn_update)
        return self.decided(decoder(self.mother_llrs(llrs)))

    def decode_fully(self, llrs):
        """The same as `decode`, by Sionna's decoder: every codeword gets all iterations."""
        return self.decided(self._decoder(llrs))

    def decided(self, soft):
        """Information bits float32 [B, k], from the soft bits of the mother code."""
        return tf.cast(soft[:, : self.num_info_bits] > 0, tf.float32)

    def decoder_state(self, llrs):
        """Soft output and iterations of each codeword, for replays: {name: NumPy array}.

        Where a block has several codewords, the arrays have another dimension for them.
        """
        soft, iterations = self._soft_bits(llrs)
        return {"decoder_llr": soft.numpy(), "decoder_iterations": iterations.numpy()}


class MatrixLDPC(LDPC):
    """The code of a parity-check matrix; every bit of it is sent, in the order of the columns.

    Args:
        pcm: parity-check matrix [checks, n], NumPy, 0 or 1. Rows may depend on each other;
            the decoder uses all of them.
        num_iterations: most iterations of a codeword.
        cn_update: Sionna's name of the check-node update.
        form: its `SystematicForm`, if it is known.
    """

    def __init__(self, pcm, num_iterations, cn_update, form=None):
        form = systematic_form(pcm) if form is None else form
        self.num_info_bits, self.num_coded_bits = form.generator.shape
        self.coderate = self.num_info_bits / self.num_coded_bits
        self._encoder = LinearEncoder(form.generator, is_pcm=False)
        self._decoder = LDPCBPDecoder(
            pcm, num_iter=num_iterations, cn_update=cn_update, hard_out=False
        )
        self._stopping = StoppingDecoder(pcm, num_iterations, cn_update)
        first = np.arange(self.num_info_bits)
        self._information = (
            None if np.array_equal(form.information, first) else form.information
        )

    def mother_llrs(self, llrs):
        """The LLRs themselves: every bit of the mother code is sent."""
        return llrs

    def sent_llrs(self, mother):
        """The values themselves."""
        return mother

    def decided(self, soft):
        if self._information is not None:
            soft = tf.gather(soft, self._information, axis=1)
        return super().decided(soft)


class WiFiLDPC(MatrixLDPC):
    """An LDPC code of IEEE 802.11n with a systematic encoder.

    Args:
        num_iterations: most iterations of a codeword.
        cn_update: Sionna's name of the check-node update.
        num_info_bits: information bits k.
        num_coded_bits: coded bits n.

    Raises:
        InvalidInput: the standard has no code of these sizes.
    """

    def __init__(self, num_iterations, cn_update, num_info_bits=324, num_coded_bits=648):
        size = num_coded_bits, num_info_bits
        if size not in SIZES:
            raise InvalidInput(
                f"code: got (n, k) = {size}, expected one of those of 802.11n: "
                f"{', '.join(map(str, SIZES))}"
            )
        super().__init__(wifi_matrix(num_coded_bits, SIZES[size]), num_iterations, cn_update)


class AlistLDPC(MatrixLDPC):
    """The LDPC code of a parity-check matrix in an alist file.

    Args:
        file: path of the file, see `linksim.link.coding.alist`.
        num_iterations: most iterations of a codeword.
        cn_update: Sionna's name of the check-node update.

    Raises:
        InvalidInput: the file cannot be read, or its numbers do not agree.
    """

    def __init__(self, file, num_iterations, cn_update):
        pcm = read_alist(file).astype(np.float64)
        super().__init__(pcm, num_iterations, cn_update, alist_form(file))
