"""LLR quantizers: Keras layers with bit-exact storage; see `base.LLRQuantizer`.

The public names are imported on first use, so that names of quantizers are known
without loading Keras.
"""

import importlib

_PUBLIC = {
    "DeepStreamQuantizer": "linksim.quantization.eqnet",
    "EQNetQuantizer": "linksim.quantization.eqnet",
    "LLRQuantizer": "linksim.quantization.base",
    "MaxMutualInformationQuantizer": "linksim.quantization.scalar",
    "UniformQuantizer": "linksim.quantization.scalar",
    "bit_mutual_information": "linksim.quantization.scalar",
    "load_quantizer_file": "linksim.quantization.base",
}

__all__ = sorted(_PUBLIC)


def __getattr__(name):
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *__all__])
