"""Detectors by name."""

import importlib
import inspect

from linksim.errors import InvalidInput

# name -> module:class; imported on first use, so that listing is instant
_DETECTORS = {
    "mf": "linksim.detectors.linear:MatchedFilterDetector",
    "zf": "linksim.detectors.linear:ZeroForcingDetector",
    "mmse": "linksim.detectors.linear:MMSEDetector",
    "mmse-biased": "linksim.detectors.linear:BiasedMMSEDetector",
    "zf-sic": "linksim.detectors.sic:ZFSICDetector",
    "vblast-zf": "linksim.detectors.sic:VBLASTZFDetector",
    "vblast-mmse": "linksim.detectors.sic:VBLASTMMSEDetector",
    "zf-pic": "linksim.detectors.sic:ZFPICDetector",
    "ml": "linksim.detectors.ml:MaximumLikelihoodDetector",
    "sphere": "linksim.detectors.sphere:SphereDetector",
    "kbest": "linksim.detectors.kbest:KBestDetector",
    "ep": "linksim.detectors.ep:EPDetector",
    "amp": "linksim.detectors.amp:AMPDetector",
    "oamp": "linksim.detectors.oamp:OAMPDetector",
    "sdr": "linksim.detectors.sdr:SDRDetector",
    "sionna-lmmse": "linksim.link.sionna_detectors:lmmse",
    "sionna-kbest": "linksim.link.sionna_detectors:kbest",
    "sionna-ep": "linksim.link.sionna_detectors:ep",
    "sionna-mmse-pic": "linksim.link.sionna_detectors:mmse_pic",
    "sionna-ml": "linksim.link.sionna_detectors:maximum_likelihood",
}


def list_detectors():
    """Names that `create_detector` accepts, linksim's own first."""
    return list(_DETECTORS)


def describe_detector(name):
    """The first line of a detector's documentation."""
    doc = inspect.getdoc(_load(name)) or ""
    return doc.split("\n\n")[0].replace("\n", " ")


def _load(name):
    if name not in _DETECTORS:
        raise InvalidInput(
            f"detector: got {name!r}, expected one of: {', '.join(_DETECTORS)}"
        )
    module, attribute = _DETECTORS[name].split(":")
    return getattr(importlib.import_module(module), attribute)


def create_detector(
    name, *, num_streams, num_bits_per_symbol, pretrained=False, **options
):
    """Create a detector by name.

    Args:
        name: one of `list_detectors()`.
        num_streams: K, number of transmitted streams.
        num_bits_per_symbol: bits of a QAM symbol; 1 is BPSK.
        pretrained: load shipped weights (learned detectors only).
        options: keywords of the detector, such as `output="symbol"`,
            `hard_out=True`, `demapping_method="maxlog"`, `k=32`.

    Returns:
        A Keras layer called `(y, h, s)` (see `linksim.detectors.Detector`), or for
        the `sionna-...` names the Sionna block behind the same call.

    Raises:
        InvalidInput: for an unknown name or option, or where there are no weights.

    Example:
        >>> detector = create_detector("mmse", num_streams=4, num_bits_per_symbol=4)
        >>> llr = detector(y, h, no)  # [..., 4, 4]
    """
    factory = _load(name)
    if pretrained:
        raise InvalidInput(f"pretrained: {name} is a classical detector, without weights")
    allowed = _options(factory)
    unknown = sorted(set(options) - allowed)
    if unknown:
        raise InvalidInput(
            f"{name}: unknown option {', '.join(unknown)}; expected some of: "
            f"{', '.join(sorted(allowed))}"
        )
    return factory(
        num_streams=num_streams, num_bits_per_symbol=num_bits_per_symbol, **options
    )


def _options(factory):
    """Keyword arguments of a layer class and its bases, or of a function."""
    callables = [factory]
    if inspect.isclass(factory):
        callables = [c.__init__ for c in factory.__mro__ if "__init__" in vars(c)]
    names = set()
    for function in callables:
        if getattr(function, "__module__", "").startswith("linksim"):
            for p in inspect.signature(function).parameters.values():
                if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY):
                    names.add(p.name)
    names |= {"name"} if inspect.isclass(factory) else set()
    return names - {"self", "num_streams", "num_bits_per_symbol"}
