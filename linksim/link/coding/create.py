"""The channel code of a scenario."""

from linksim.errors import InvalidInput
from linksim.link.coding.ldpc import AlistLDPC, WiFiLDPC
from linksim.link.coding.nr import NRLDPC
from linksim.link.coding.segments import SegmentedNRLDPC, num_segments
from linksim.link.coding.streams import StreamCodewords
from linksim.link.coding.uncoded import Uncoded

# What Sionna's encoder takes; [TS38212], 5.4.2.1 has rates up to 948/1024
_LEAST_INFO_BITS, _MOST_RATE = 12, 0.95


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
    _check_rate(code, k, n)
    kind = NRLDPC if num_segments(k, n) == 1 else SegmentedNRLDPC
    return kind(k, n, *options)


def _check_rate(code, k, n):
    """Refuse sizes that the 5G code does not have, by the key that they follow from."""
    if not _LEAST_INFO_BITS <= k <= _MOST_RATE * n:
        key = "rate" if code.rate else "num_info_bits"
        raise InvalidInput(
            f"code.{key}: got {getattr(code, key)}, which makes {k} information bits of {n} "
            f"coded bits; expected at least {_LEAST_INFO_BITS} and a rate of at most "
            f"{_MOST_RATE} with the 5g code"
        )
