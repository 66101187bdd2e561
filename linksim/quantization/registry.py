"""LLR quantizers by name."""

import importlib
import inspect

from linksim.errors import check_choice
from linksim.models import assign_weights, codebook_of, find_model, read_weights

# name -> module:class, and whether its networks need training
_QUANTIZERS = {
    "eqnet": ("linksim.quantization.eqnet:EQNetQuantizer", True),
    "eqnet-mi": ("linksim.quantization.eqnet:EQNetQuantizer", True),
    "deep-stream": ("linksim.quantization.eqnet:DeepStreamQuantizer", True),
    "max-mi": ("linksim.quantization.scalar:MaxMutualInformationQuantizer", False),
    "uniform": ("linksim.quantization.scalar:UniformQuantizer", False),
}


def list_quantizers():
    """Names that `create_quantizer` accepts."""
    return list(_QUANTIZERS)


def describe_quantizer(name):
    """The first line of a quantizer's documentation."""
    doc = inspect.getdoc(_load(name)) or ""
    return doc.split("\n\n")[0].replace("\n", " ")


def _load(name):
    check_choice("quantizer", name, _QUANTIZERS)
    module, attribute = _QUANTIZERS[name][0].split(":")
    return getattr(importlib.import_module(module), attribute)


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
    args = {"num_streams": num_streams, "num_bits_per_symbol": num_bits_per_symbol}
    if bits is not None:
        options["bits"] = bits
    if not pretrained:
        return cls(**args, **options)
    configuration = None if pretrained is True else pretrained
    path, card = find_model(name, num_streams, num_bits_per_symbol, configuration)
    layer = cls(**args, **{**card["options"], **options})
    arrays = read_weights(path, card)
    if is_learned(name):
        assign_weights(layer, arrays, path)
    return layer.set_codebook(*codebook_of(arrays, layer.bits, path))


def is_learned(name):
    """Whether a quantizer has networks."""
    return _QUANTIZERS[name][1]


def codebook_arrays(layer_of_bits, llrs, all_bits):
    """Codebooks of several sizes, as arrays of a model file.

    Args:
        layer_of_bits: function from bits to a quantizer with its networks.
        llrs: float32 [..., K, m] to fit to.
        all_bits: the numbers of bits.
    """
    arrays = {}
    for bits in all_bits:
        layer = layer_of_bits(bits).fit(llrs)
        arrays[f"thresholds_{bits}"] = layer.thresholds.numpy()
        arrays[f"levels_{bits}"] = layer.levels.numpy()
    return arrays
