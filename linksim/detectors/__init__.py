"""MIMO detectors: Keras layers called `(y, h, s)`; see `base.Detector`."""

from linksim.detectors.amp import AMPDetector
from linksim.detectors.base import Detector
from linksim.detectors.ep import EPDetector
from linksim.detectors.kbest import KBestDetector
from linksim.detectors.linear import (
    BiasedMMSEDetector,
    MatchedFilterDetector,
    MMSEDetector,
    ZeroForcingDetector,
)
from linksim.detectors.ml import MaximumLikelihoodDetector
from linksim.detectors.oamp import OAMPDetector
from linksim.detectors.sdr import SDRDetector, SDRReferenceDetector
from linksim.detectors.sic import (
    VBLASTMMSEDetector,
    VBLASTZFDetector,
    ZFPICDetector,
    ZFSICDetector,
)
from linksim.detectors.sphere import SphereDetector

__all__ = [
    "AMPDetector",
    "BiasedMMSEDetector",
    "Detector",
    "EPDetector",
    "KBestDetector",
    "MMSEDetector",
    "MatchedFilterDetector",
    "MaximumLikelihoodDetector",
    "OAMPDetector",
    "SDRDetector",
    "SDRReferenceDetector",
    "SphereDetector",
    "VBLASTMMSEDetector",
    "VBLASTZFDetector",
    "ZFPICDetector",
    "ZFSICDetector",
    "ZeroForcingDetector",
]
