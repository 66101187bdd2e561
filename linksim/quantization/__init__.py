"""LLR quantizers: Keras layers with bit-exact storage; see `base.LLRQuantizer`.

The public names are imported on first use, so that names of quantizers are known
without loading Keras.
"""

from linksim.lazy import lazy_names

_MODULES = {
    "DeepStreamQuantizer": "eqnet",
    "EQNetQuantizer": "eqnet",
    "LLRQuantizer": "base",
    "MaxMutualInformationQuantizer": "scalar",
    "UniformQuantizer": "scalar",
    "bit_mutual_information": "scalar",
    "load_quantizer_file": "base",
}

__all__ = sorted(_MODULES)


__getattr__, __dir__ = lazy_names(__name__, _MODULES)
