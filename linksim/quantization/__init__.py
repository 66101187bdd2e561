"""LLR quantizers: Keras layers with bit-exact storage; see `base.LLRQuantizer`."""

from linksim.quantization.base import LLRQuantizer, load_quantizer_file
from linksim.quantization.eqnet import DeepStreamQuantizer, EQNetQuantizer
from linksim.quantization.scalar import (
    MaxMutualInformationQuantizer,
    UniformQuantizer,
    bit_mutual_information,
)

__all__ = [
    "DeepStreamQuantizer",
    "EQNetQuantizer",
    "LLRQuantizer",
    "MaxMutualInformationQuantizer",
    "UniformQuantizer",
    "bit_mutual_information",
    "load_quantizer_file",
]
