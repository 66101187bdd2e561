"""The channel code of a scenario."""

from linksim.errors import InvalidInput
from linksim.link.coding.ldpc import AlistLDPC, WiFiLDPC
from linksim.link.coding.nr import NRLDPC
from linksim.link.coding.segments import SegmentedNRLDPC, num_segments
from linksim.link.coding.streams import StreamCodewords
from linksim.link.coding.uncoded import Uncoded


def create_code(code, num_bits_available, num_streams=1):
    """The code of a scenario.

    Args:
        code: a `linksim.link.scenario.Code`.
        num_bits_available: coded bits that fit into one block, or into one slot where each
            stream has a block of its own; None where the code decides the length of a block.
        num_streams: K, which codes without `per_stream` do not depend on.

    Returns:
        An object with `num_info_bits` k, `num_coded_bits` n, `coderate`, `encode`,
        `decode`, `decode_without_stopping` and `decoder_state`; if it is a code, also with
        `resume`, `first_messages`, `with_iterations`, `sent_llrs`, `decided` and `llr_max`.

    Raises:
        InvalidInput: the code does not exist in this size, or its size is not given.
    """
    if code.per_stream:
        if num_bits_available is not None:
            num_bits_available //= num_streams
        return StreamCodewords(_block_code(code, num_bits_available), num_streams)
    return _block_code(code, num_bits_available)


def _block_code(code, num_bits_available):
    """The code of one block."""
    options = code.num_iterations, code.cn_update
    if code.type == "none":
        return Uncoded(num_bits_available)
    if code.type == "alist":
        return AlistLDPC(code.file, *options)
    n = code.coded_bits_of(num_bits_available)
    if not n:
        raise InvalidInput("code.num_coded_bits: missing, there is no grid to fill")
    k = code.info_bits_of(n)
    if code.type == "802.11n":
        return WiFiLDPC(*options, k, n)
    kind = NRLDPC if num_segments(k, n) == 1 else SegmentedNRLDPC
    return kind(k, n, *options)
