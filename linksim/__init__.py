"""Link-level simulation of MIMO detectors on Sionna and Keras.

The public names are imported on first use, so `import linksim` alone takes no time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from linksim.lazy import lazy_names
from linksim.start import check_backend

if TYPE_CHECKING:
    from linksim.errors import InvalidInput, ResultFileError, WorkerError
    from linksim.link.scenario import list_scenarios, load_scenario
    from linksim.models import add_model_folder, list_cards, list_models
    from linksim.montecarlo.engine import simulate
    from linksim.montecarlo.output import write_results
    from linksim.quantization.registry import create_quantizer, list_quantizers
    from linksim.registry import create_detector, list_detectors, register_detector
    from linksim.report import write_report

__version__ = "0.2.0"

_MODULES = {
    "create_detector": "registry",
    "list_detectors": "registry",
    "register_detector": "registry",
    "create_quantizer": "quantization.registry",
    "list_quantizers": "quantization.registry",
    "list_cards": "models",
    "list_models": "models",
    "add_model_folder": "models",
    "load_scenario": "link.scenario",
    "list_scenarios": "link.scenario",
    "simulate": "montecarlo.engine",
    "write_report": "report",
    "write_results": "montecarlo.output",
    "InvalidInput": "errors",
    "ResultFileError": "errors",
    "WorkerError": "errors",
}

__all__ = [
    "InvalidInput",
    "ResultFileError",
    "WorkerError",
    "add_model_folder",
    "create_detector",
    "create_quantizer",
    "list_cards",
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


check_backend()
__getattr__, __dir__ = lazy_names(__name__, _MODULES)
