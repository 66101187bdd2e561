"""LLR quantizers by name."""

from linksim.factories import check_options, describe_factory, load_factory
from linksim.models import assign_weights, codebook_of, find_model, read_weights

# name -> module:class
_QUANTIZERS = {
    "eqnet": "linksim.quantization.eqnet:EQNetQuantizer",
    "eqnet-mi": "linksim.quantization.eqnet:EQNetQuantizer",
    "deep-stream": "linksim.quantization.eqnet:DeepStreamQuantizer",
    "max-mi": "linksim.quantization.scalar:MaxMutualInformationQuantizer",
    "uniform": "linksim.quantization.scalar:UniformQuantizer",
}


def list_quantizers():
    """Names that `create_quantizer` accepts."""
    return list(_QUANTIZERS)


def describe_quantizer(name):
    """The first line of a quantizer's documentation."""
    return describe_factory(_load(name))


def _load(name):
    return load_factory(_QUANTIZERS, name, "quantizer")


def create_quantizer(
    name, *, num_streams, num_bits_per_symbol, bits=None, pretrained=False, **options
):
    """Create an LLR quantizer by name.

    Args:
        name: one of `list_quantizers()`.
        num_streams: K, number of transmitted streams.
        num_bits_per_symbol: bits of a QAM symbol.
        bits: bits of each component, one number or one per component; default that
            of the quantizer. A component is an LLR for the scalar quantizers, a
            latent for the learned ones.
        pretrained: load shipped networks and codebooks: True for the first trained
            configuration that fits, or the name of one.
        options: keywords of the quantizer.

    Returns:
        A Keras layer called with LLRs (see `linksim.quantization.LLRQuantizer`).

    Raises:
        InvalidInput: for an unknown name or option, or where there are no weights
            or no codebook of that many bits.

    Example:
        >>> quantizer = create_quantizer(
        ...     "eqnet", num_streams=2, num_bits_per_symbol=6, bits=6, pretrained=True
        ... )
        >>> data = quantizer.store(llr)  # bytes, 3 bits per LLR
        >>> llr = quantizer.restore(data)
    """
    cls = _load(name)
    check_options(name, cls, options)
    args = {"num_streams": num_streams, "num_bits_per_symbol": num_bits_per_symbol}
    if bits is not None:
        options["bits"] = bits
    if not pretrained:
        return cls(**args, **options)
    configuration = None if pretrained is True else pretrained
    path, card = find_model(name, num_streams, num_bits_per_symbol, configuration)
    layer = cls(**args, **{**card["options"], **options})
    arrays = read_weights(path, card)
    assign_weights(layer, arrays, path)
    return layer.set_codebook(*codebook_of(arrays, layer.bits, path))
