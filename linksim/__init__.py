"""Link-level simulation of MIMO detectors on Sionna and Keras.

The public names are imported on first use, so `import linksim` alone takes no time.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from linksim.errors import InvalidInput, ResultFileError, WorkerError
    from linksim.link.scenario import list_scenarios, load_scenario
    from linksim.models import add_model_folder, list_models
    from linksim.montecarlo.engine import simulate
    from linksim.montecarlo.output import write_results
    from linksim.quantization.registry import create_quantizer, list_quantizers
    from linksim.registry import create_detector, list_detectors, register_detector
    from linksim.report import write_report

__version__ = "0.2.0"

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
    "write_report": "linksim.report",
    "write_results": "linksim.montecarlo.output",
    "InvalidInput": "linksim.errors",
    "ResultFileError": "linksim.errors",
    "WorkerError": "linksim.errors",
}

__all__ = [
    "InvalidInput",
    "ResultFileError",
    "WorkerError",
    "add_model_folder",
    "create_detector",
    "create_quantizer",
    "list_detectors",
    "list_models",
    "list_quantizers",
    "list_scenarios",
    "load_scenario",
    "register_detector",
    "simulate",
    "write_report",
    "write_results",
]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'linksim' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
