"""Link-level simulation of MIMO detectors on Sionna and Keras.

The public names are imported on first use: `import linksim` costs nothing.
"""

import importlib

__version__ = "0.1.0"

_PUBLIC = {
    "create_detector": "linksim.registry",
    "list_detectors": "linksim.registry",
    "register_detector": "linksim.registry",
    "create_quantizer": "linksim.quantization.registry",
    "list_quantizers": "linksim.quantization.registry",
    "list_models": "linksim.models",
    "add_model_folder": "linksim.models",
    "load_scenario": "linksim.link.scenario",
    "list_scenarios": "linksim.link.scenario",
    "simulate": "linksim.montecarlo.engine",
    "InvalidInput": "linksim.errors",
    "ResultFileError": "linksim.errors",
    "WorkerError": "linksim.errors",
}

__all__ = sorted(_PUBLIC)


def __getattr__(name):
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'linksim' has no attribute {name!r}")


def __dir__():
    return sorted(list(globals()) + __all__)
