"""In which order coded bits are sent: interleavers, and codewords on streams of their own."""

import numpy as np

from linksim.errors import InvalidInput


def sent_order(options, num_coded_bits, num_streams, num_bits_per_symbol):
    """Positions of the coded bits of a slot in the order they are sent.

    Bits are sent channel use by channel use, and in each stream by stream.

    Args:
        options: a `linksim.link.scenario.Code`.
        num_coded_bits: n, coded bits of a slot.
        num_streams: K.
        num_bits_per_symbol: m.

    Returns:
        int32 [n].

    Raises:
        InvalidInput: a codeword does not end with a symbol, where it has to.
    """
    if not options.per_stream:
        return _of_codeword(options, num_coded_bits, num_bits_per_symbol).astype(np.int32)
    length = num_coded_bits // num_streams
    if length % num_bits_per_symbol:
        raise InvalidInput(
            f"code.per_stream: a codeword of {length} bits does not fill symbols of "
            f"{num_bits_per_symbol}, expected a multiple of that"
        )
    order = _of_codeword(options, length, num_bits_per_symbol)
    by_stream = order + length * np.arange(num_streams)[:, None]
    symbols = by_stream.reshape(num_streams, -1, num_bits_per_symbol)
    return symbols.transpose(1, 0, 2).reshape(-1).astype(np.int32)


def _of_codeword(options, length, num_bits_per_symbol):
    """The order of the bits of one codeword, int [n]."""
    if options.interleaver == "5g":
        if length % num_bits_per_symbol:
            raise InvalidInput(
                f'code.interleaver: "5g" needs whole symbols of {num_bits_per_symbol} bits, '
                f"but a codeword has {length}"
            )
        # By rows into a matrix with a row for each bit of a symbol, and out by columns
        return np.arange(length).reshape(num_bits_per_symbol, -1).T.reshape(-1)
    if options.interleaver_seed >= 0:
        return np.random.Generator(np.random.Philox(options.interleaver_seed)).permutation(
            length
        )
    return np.arange(length)
