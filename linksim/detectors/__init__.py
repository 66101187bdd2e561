"""MIMO detectors: Keras layers that are called `(y, h, s)`; see `Detector`.

README.md in this folder lists them and says how to write one. Names are imported on first
use, so that importing this package does not import Keras.
"""

from typing import TYPE_CHECKING

from linksim.lazy import lazy_names

if TYPE_CHECKING:  # for type checkers and editors, which cannot see `__getattr__`
    from linksim.detectors.amp import AMPDetector as AMPDetector
    from linksim.detectors.base import Detector as Detector
    from linksim.detectors.capabilities import Capabilities as Capabilities
    from linksim.detectors.detnet import DetNetDetector as DetNetDetector
    from linksim.detectors.ep import EPDetector as EPDetector
    from linksim.detectors.eqnet import EQNetDetector as EQNetDetector
    from linksim.detectors.hypermimo import HyperDetector as HyperDetector
    from linksim.detectors.hypermimo import HyperMIMODetector as HyperMIMODetector
    from linksim.detectors.kbest import KBestDetector as KBestDetector
    from linksim.detectors.linear import BiasedMMSEDetector as BiasedMMSEDetector
    from linksim.detectors.linear import MatchedFilterDetector as MatchedFilterDetector
    from linksim.detectors.linear import MMSEDetector as MMSEDetector
    from linksim.detectors.linear import ZeroForcingDetector as ZeroForcingDetector
    from linksim.detectors.lord import LORDDetector as LORDDetector
    from linksim.detectors.ml import MaximumLikelihoodDetector as MaximumLikelihoodDetector
    from linksim.detectors.mmnet import MMNetDetector as MMNetDetector
    from linksim.detectors.mmnet import MMNetIIDDetector as MMNetIIDDetector
    from linksim.detectors.nndet import NNDetDetector as NNDetDetector
    from linksim.detectors.oamp import OAMPDetector as OAMPDetector
    from linksim.detectors.oampnet import OAMPNet2Detector as OAMPNet2Detector
    from linksim.detectors.oampnet import OAMPNetDetector as OAMPNetDetector
    from linksim.detectors.oampnet import WeSOAMPNetDetector as WeSOAMPNetDetector
    from linksim.detectors.pep import PairwiseEPDetector as PairwiseEPDetector
    from linksim.detectors.pepnet import PEPNetDetector as PEPNetDetector
    from linksim.detectors.perchannel import ChannelNetworks as ChannelNetworks
    from linksim.detectors.perchannel import FixedChannelDetector as FixedChannelDetector
    from linksim.detectors.remimo import REMIMODetector as REMIMODetector
    from linksim.detectors.sdr import SDRDetector as SDRDetector
    from linksim.detectors.sdr import SDRReferenceDetector as SDRReferenceDetector
    from linksim.detectors.sic import VBLASTMMSEDetector as VBLASTMMSEDetector
    from linksim.detectors.sic import VBLASTZFDetector as VBLASTZFDetector
    from linksim.detectors.sic import ZFPICDetector as ZFPICDetector
    from linksim.detectors.sic import ZFSICDetector as ZFSICDetector
    from linksim.detectors.sphere import SphereDetector as SphereDetector
    from linksim.detectors.weight_scaling import WeightScaled as WeightScaled
    from linksim.detectors.weight_scaling import WeightScaling as WeightScaling

# Public name -> module of this package that defines it
_MODULES = {
    "AMPDetector": "amp",
    "BiasedMMSEDetector": "linear",
    "Capabilities": "capabilities",
    "ChannelNetworks": "perchannel",
    "DetNetDetector": "detnet",
    "Detector": "base",
    "EPDetector": "ep",
    "EQNetDetector": "eqnet",
    "FixedChannelDetector": "perchannel",
    "HyperDetector": "hypermimo",
    "HyperMIMODetector": "hypermimo",
    "KBestDetector": "kbest",
    "LORDDetector": "lord",
    "MMNetDetector": "mmnet",
    "MMNetIIDDetector": "mmnet",
    "MMSEDetector": "linear",
    "MatchedFilterDetector": "linear",
    "MaximumLikelihoodDetector": "ml",
    "NNDetDetector": "nndet",
    "OAMPDetector": "oamp",
    "OAMPNet2Detector": "oampnet",
    "OAMPNetDetector": "oampnet",
    "PEPNetDetector": "pepnet",
    "PairwiseEPDetector": "pep",
    "REMIMODetector": "remimo",
    "SDRDetector": "sdr",
    "SDRReferenceDetector": "sdr",
    "SphereDetector": "sphere",
    "VBLASTMMSEDetector": "sic",
    "VBLASTZFDetector": "sic",
    "WeSOAMPNetDetector": "oampnet",
    "WeightScaled": "weight_scaling",
    "WeightScaling": "weight_scaling",
    "ZFPICDetector": "sic",
    "ZFSICDetector": "sic",
    "ZeroForcingDetector": "linear",
}

__all__ = sorted(_MODULES)


__getattr__, __dir__ = lazy_names(__name__, _MODULES)
