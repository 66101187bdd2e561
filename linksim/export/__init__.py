"""Export detectors, quantizers and receivers for use without linksim.

`target_of` makes a target from a name, and `export` writes a target to a folder.
"""

from linksim.export.targets import (
    detector_target,
    quantizer_target,
    receiver_target,
    target_of,
)
from linksim.export.write import FORMATS, export, load_keras_model

__all__ = [
    "FORMATS",
    "detector_target",
    "export",
    "load_keras_model",
    "quantizer_target",
    "receiver_target",
    "target_of",
]
