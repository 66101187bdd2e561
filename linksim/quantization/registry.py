"""LLR quantizers by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from linksim.factories import Entry, Registry, check_options
from linksim.models import assign_weights, codebook_of, find_pretrained, read_weights
from linksim.tables import plain

QUANTIZERS = Registry(
    "quantizer",
    [
        Entry(
            "eqnet",
            "linksim.quantization.eqnet:EQNetQuantizer",
            "EQ-Net's autoencoder of all LLRs of a vector, trained with the paper's loss",
            learned=True,
        ),
        Entry(
            "eqnet-mi",
            "linksim.quantization.eqnet:EQNetQuantizer",
            "EQ-Net's autoencoder, trained for mutual information",
            learned=True,
        ),
        Entry(
            "deep-stream",
            "linksim.quantization.eqnet:DeepStreamQuantizer",
            "Deep quantizer of the LLRs of each stream by itself",
            learned=True,
        ),
        Entry(
            "max-mi",
            "linksim.quantization.scalar:MaxMutualInformationQuantizer",
            "Scalar quantizer of most mutual information, one per LLR position",
            learned=True,
        ),
        Entry(
            "uniform",
            "linksim.quantization.scalar:UniformQuantizer",
            "Scalar quantizer with equal steps",
            learned=True,
        ),
    ],
)

# Stands in a receiver's name for the quantizer of an EQ-Net detector's own latents
LATENT = "latent"


def list_quantizers() -> list[str]:
    """Names that `create_quantizer` accepts."""
    return QUANTIZERS.names()


def describe_quantizer(name: str) -> str:
    """One line about a quantizer.

    Raises:
        InvalidInput: for an unknown name.
    """
    return QUANTIZERS.entry(name).summary


def create_quantizer(
    name: str,
    *,
    num_streams: int,
    num_bits_per_symbol: int,
    bits: int | tuple[int, ...] | None = None,
    pretrained: bool | str = False,
    **options: Any,
) -> Any:
    """Create an LLR quantizer by name.

    Args:
        name: one of `list_quantizers()`.
        num_streams: K, number of transmitted streams.
        num_bits_per_symbol: bits of a QAM symbol.
        bits: bits of each component, one number or one per component; default that
            of the quantizer. A component is an LLR for the scalar quantizers, a
            latent for the learned ones.
        pretrained: load trained networks and codebooks: True for the first recommended
            configuration that fits, or the name of any one.
        options: keywords of the quantizer.

    Returns:
        A Keras layer called with LLRs (see `linksim.quantization.LLRQuantizer`).

    Raises:
        InvalidInput: for an unknown name or option, or where there are no weights
            or no codebook of that many bits.

    Example:
        >>> quantizer = linksim.create_quantizer(
        ...     "eqnet-mi", num_streams=2, num_bits_per_symbol=6, bits=6, pretrained=True
        ... )
        >>> data = quantizer.store(llr_2x2_qam64)  # bytes, 3 bits per LLR
        >>> quantizer.restore(data).shape
        (3, 2, 6)
    """
    entry = QUANTIZERS.entry(name)
    model = None
    if pretrained is not None and pretrained is not False:
        model = find_pretrained(name, num_streams, num_bits_per_symbol, pretrained)
    return make_quantizer(entry, num_streams, num_bits_per_symbol, bits, options, model)


def make_quantizer(
    entry: Entry,
    num_streams: int,
    num_bits_per_symbol: int,
    bits: int | tuple[int, ...] | None = None,
    options: Mapping[str, Any] | None = None,
    model: tuple[str, dict[str, Any]] | None = None,
) -> Any:
    """The layer of a registry entry, with the weights of a model where one is given.

    Args:
        entry: of `QUANTIZERS`.
        num_streams, num_bits_per_symbol, bits, options: as for `create_quantizer`.
        model: what `linksim.models.find_model` found: path and card.

    Raises:
        InvalidInput: an unknown option, or no codebook of that many bits.
    """
    trained = {} if model is None else model[1]["options"]
    options = {**entry.options, **trained, **plain(dict(options or {}))}
    if bits is not None:
        options["bits"] = bits
    cls = entry.load()
    check_options(entry.name, cls, options)
    layer = cls(num_streams=num_streams, num_bits_per_symbol=num_bits_per_symbol, **options)
    if model is None:
        return layer
    path, card = model
    arrays = read_weights(path, card)
    assign_weights(layer, arrays, path)
    return layer.set_codebook(*codebook_of(arrays, layer.bits, path))
