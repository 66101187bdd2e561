"""Detectors by name."""

import re
from typing import NamedTuple

import numpy as np

from linksim.errors import InvalidInput, ResultFileError, check_choice
from linksim.factories import check_options, describe_factory, load_factory
from linksim.models import (
    assign_weights,
    codebook_of,
    find_model,
    list_models,
    read_weights,
)
from linksim.quantization.registry import list_quantizers

# name -> module:class, imported on first use, so that listing is instant; or a class, of
# `register_detector`
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
    "sdr-cvxpy": "linksim.detectors.sdr:SDRReferenceDetector",
    "eqnet-l": "linksim.detectors.eqnet:EQNetDetector",
    "eqnet-p": "linksim.detectors.eqnet:EQNetDetector",
    "eqnet-l-qr": "linksim.detectors.eqnet:EQNetDetector",
    "eqnet-l-sic": "linksim.detectors.eqnet:EQNetDetector",
    "eqnet-p-sic": "linksim.detectors.eqnet:EQNetDetector",
    "nndet-l": "linksim.detectors.nndet:NNDetDetector",
    "nndet-p": "linksim.detectors.nndet:NNDetDetector",
    "oampnet": "linksim.detectors.oampnet:OAMPNetDetector",
    "oampnet2": "linksim.detectors.oampnet:OAMPNet2Detector",
    "detnet": "linksim.detectors.detnet:DetNetDetector",
    "wesnet-hf": "linksim.detectors.detnet:DetNetDetector",
    "wesnet-l": "linksim.detectors.detnet:DetNetDetector",
    "l-wesnet": "linksim.detectors.detnet:DetNetDetector",
    "r-wesnet": "linksim.detectors.detnet:DetNetDetector",
    "wes-oampnet": "linksim.detectors.oampnet:WeSOAMPNetDetector",
    "rwes-oampnet": "linksim.detectors.oampnet:WeSOAMPNetDetector",
    "mmnet": "linksim.detectors.mmnet:MMNetDetector",
    "mmnet-iid": "linksim.detectors.mmnet:MMNetIIDDetector",
    "remimo": "linksim.detectors.remimo:REMIMODetector",
    "remimo-mf": "linksim.detectors.remimo:REMIMODetector",
    "remimo-lmmse": "linksim.detectors.remimo:REMIMODetector",
    "remimo-pic": "linksim.detectors.remimo:REMIMODetector",
    "detnet-fc": "linksim.detectors.perchannel:FixedChannelDetector",
    "hypermimo": "linksim.detectors.hypermimo:HyperMIMODetector",
    "hypermimo-lr": "linksim.detectors.hypermimo:HyperDetector",
    "sionna-lmmse": "linksim.link.sionna_detectors:lmmse",
    "sionna-kbest": "linksim.link.sionna_detectors:kbest",
    "sionna-ep": "linksim.link.sionna_detectors:ep",
    "sionna-mmse-pic": "linksim.link.sionna_detectors:mmse_pic",
    "sionna-ml": "linksim.link.sionna_detectors:maximum_likelihood",
}

# Names that are a class with some of its options set, and what they stand for
_PRESETS = {
    "eqnet-l": {"num_blocks": 1, "features": "raw"},
    "eqnet-p": {"num_blocks": 3, "features": "raw"},
    "eqnet-l-qr": {"num_blocks": 1, "features": "qr"},
    "eqnet-l-sic": {"num_blocks": 1, "features": "sic"},
    "eqnet-p-sic": {"num_blocks": 3, "features": "sic"},
    "nndet-l": {"num_blocks": 3},
    "nndet-p": {"num_blocks": 4},
    "detnet-fc": {"network": "detnet"},
    "hypermimo-lr": {"network": "mmnet"},
    "wesnet-hf": {"head": "soft-sign", "profile": "half-exponential"},
    "wesnet-l": {"head": "soft-sign", "profile": "linear"},
    "l-wesnet": {
        "head": "soft-sign",
        "profile": "half-exponential",
        "learnable_profile": True,
    },
    # The same layers, trained with the log-L1 penalty
    "r-wesnet": {"head": "soft-sign", "profile": "half-exponential"},
    "wes-oampnet": {"profile": "half-exponential"},
    "rwes-oampnet": {"profile": "half-exponential"},
    "remimo-mf": {"estimates": "matched-filter"},
    "remimo-lmmse": {"estimates": "lmmse"},
    "remimo-pic": {"estimates": "lmmse-pic"},
}
_LEARNED = (
    *_PRESETS,
    *("oampnet", "oampnet2", "detnet", "mmnet", "mmnet-iid", "remimo", "hypermimo"),
)
# Those of `register_detector`, and whether they are learned
_REGISTERED = {}


def list_detectors():
    """Names that `create_detector` accepts, linksim's own first."""
    return list(_DETECTORS)


def register_detector(name, cls, *, learned=False, replace=False):
    """Give a detector of your own a name, for this process and workers of its simulations.

    `create_detector`, `simulate` and recipes know it by that name then. A result store
    knows a detector by its name and weights: after a change of its code, start with a
    fresh one.

    Args:
        name: lower-case letters, digits and dashes, beginning with a letter.
        cls: a subclass of `linksim.detectors.Detector`.
        learned: whether it has weights to be trained. `simulate` then takes those of a
            trained model of this name; see `linksim.add_model_folder`.
        replace: take the place of an earlier registration, as when a cell of a notebook
            runs again. linksim's own names cannot be replaced.

    Raises:
        InvalidInput: a name that is taken or malformed, or another kind of class.

    Example:
        >>> linksim.register_detector("mine", MyDetector)
        >>> linksim.simulate("rayleigh-2x2-qam64", ["mmse", "mine"])
    """
    from linksim.detectors.base import Detector

    if not isinstance(name, str) or not re.fullmatch("[a-z][a-z0-9-]*", name):
        raise InvalidInput(
            f"name: got {name!r}, expected lower-case letters, digits and dashes, beginning "
            "with a letter"
        )
    if name in _REGISTERED and not replace:
        raise InvalidInput(
            f"name: {name!r} is registered already; replace=True takes its place"
        )
    if name == LATENT or name in list_quantizers():
        raise InvalidInput(f"name: {name!r} is the name of a quantizer")
    if name in _DETECTORS and name not in _REGISTERED:
        raise InvalidInput(f"name: {name!r} is a detector of linksim itself")
    if not (isinstance(cls, type) and issubclass(cls, Detector)):
        raise InvalidInput(f"cls: got {cls!r}, expected a subclass of Detector")
    if not isinstance(learned, bool):
        raise InvalidInput(f"learned: got {learned!r}, expected True or False")
    _DETECTORS[name] = cls
    _REGISTERED[name] = learned


def registered_detectors():
    """Those of `register_detector`, as {name: (class, learned)}."""
    return {name: (_DETECTORS[name], learned) for name, learned in _REGISTERED.items()}


# Stands for the quantizer of a detector's own latents
LATENT = "latent"


class ReceiverSpec(NamedTuple):
    """What `parse_receiver` reads from a text."""

    detector: str
    detector_model: str | None  # configuration of its weights
    operating_point: dict | None  # arguments of the detector's `slim`
    quantizer: str | None
    quantizer_model: str | None
    bits: int | tuple | str | None  # "none": the transform without quantization


def parse_receiver(text, what="detector"):
    """A detector with an optional quantizer of its LLRs.

    Args:
        text: `DETECTOR[@MODEL][:POINT][+QUANTIZER[@MODEL][:BITS]]`. MODEL is the
            configuration of the weights, where not the one that fits best is wanted.
            POINT makes a weight-scaled network smaller: "50%" of its units, "20L", its
            first 20 layers, or "50%-20L". BITS is one
            number, or several with dashes between, one per component, or "none" for
            a learned quantizer's networks without quantization. The quantizer
            "latent" quantizes the latents of an EQ-Net detector (joint estimation
            and quantization).
        what: the argument that errors name.

    Returns:
        A `ReceiverSpec`.

    Raises:
        InvalidInput: for unknown names, or bits that are not numbers.

    Example:
        >>> parse_receiver("ml+eqnet:6").bits
        6
        >>> parse_receiver("r-wesnet:50%-20L").operating_point
        {'fraction': 0.5, 'num_layers': 20}
    """
    detector, plus, rest = text.partition("+")
    detector, colon, point = detector.partition(":")
    detector, _, detector_model = detector.partition("@")
    check_choice(what, detector, _DETECTORS)
    if detector_model and not is_learned(detector):
        raise InvalidInput(f"{what}: {detector} has no weights to choose from, got {text!r}")
    operating_point = _operating_point(point, text, what) if colon else None
    if operating_point and not is_learned(detector):
        raise InvalidInput(f"{what}: {detector} has no units or layers to cut, got {text!r}")
    first = detector, detector_model or None, operating_point
    if not plus:
        return ReceiverSpec(*first, None, None, None)
    quantizer = parse_quantizer(rest, (*list_quantizers(), LATENT))
    if quantizer[0] == LATENT and not detector.startswith("eqnet-"):
        raise InvalidInput(f"quantizer: {detector} has no latents to quantize")
    return ReceiverSpec(*first, *quantizer)


def names_quantizer(text):
    """Whether a text is of a quantizer alone, not of a detector."""
    return re.split("[:@]", text)[0] in list_quantizers()


def parse_quantizer(text, names=None):
    """A quantizer alone, `QUANTIZER[@MODEL][:BITS]` (see `parse_receiver`).

    Returns:
        Its name, the configuration of its weights or None, and its bits or None.

    Raises:
        InvalidInput: for unknown names, or bits that are not numbers.
    """
    quantizer, _, bits = text.partition(":")
    quantizer, _, model = quantizer.partition("@")
    check_choice("quantizer", quantizer, names or list_quantizers())
    return quantizer, model or None, _bits(bits, text)


def _operating_point(point, text, what):
    match = re.fullmatch(r"(?:(\d+(?:\.\d+)?)%)?-?(?:(\d+)L)?", point)
    if not match or not any(match.groups()) or point.startswith("-") or point.endswith("-"):
        raise InvalidInput(
            f"{what}: got {text!r}, expected an operating point such as :50%, :20L or :50%-20L"
        )
    percent, layers = match.groups()
    found = {"fraction": float(percent) / 100} if percent else {}
    return {**found, "num_layers": int(layers)} if layers else found


def _bits(bits, text):
    if bits in ("", "none"):
        return bits or None
    try:
        numbers = tuple(int(b) for b in bits.split("-"))
    except ValueError:
        raise InvalidInput(
            f"quantizer: got {text!r}, expected bits such as :6, :6-6-5 or :none"
        ) from None
    return numbers[0] if len(numbers) == 1 else numbers


def describe_detector(name):
    """The first line of a detector's documentation."""
    return describe_factory(_load(name))


def _load(name):
    return load_factory(_DETECTORS, name, "detector")


def create_detector(name, *, num_streams, num_bits_per_symbol, pretrained=False, **options):
    """Create a detector by name.

    Args:
        name: one of `list_detectors()`.
        num_streams: K, number of transmitted streams.
        num_bits_per_symbol: bits of a QAM symbol; 1 is BPSK.
        pretrained: load shipped weights (learned detectors only): True for the first
            trained configuration that fits, or the name of one.
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
    if pretrained and not is_learned(name):
        raise InvalidInput(f"pretrained: {name} is a classical detector, without weights")
    if pretrained:
        configuration = None if pretrained is True else pretrained
        path, card = find_model(name, num_streams, num_bits_per_symbol, configuration)
        options = {**card["options"], **options}
    options = {**_PRESETS.get(name, {}), **options}
    check_options(name, factory, options)
    layer = factory(
        num_streams=num_streams, num_bits_per_symbol=num_bits_per_symbol, **options
    )
    if pretrained:
        load_detector(layer, path, card)
    return layer


def is_learned(name):
    """Whether a detector has weights that are trained."""
    return name in _LEARNED or _REGISTERED.get(name, False)


def build_detector(layer, num_rx):
    """Create the weights of a detector, by one call.

    Args:
        layer: the `Detector`.
        num_rx: M, receive antennas.
    """
    h = np.ones((1, num_rx, layer.num_streams), np.complex64)
    h += np.eye(num_rx, layer.num_streams, dtype=np.complex64)
    layer(np.ones((1, num_rx), np.complex64), h, np.ones(1, np.float32))


def load_detector(layer, path, card):
    """Give a new detector the weights of a trained model, "<model>/<configuration>"."""
    if getattr(layer, "latent_bits", None) is not None:
        quantizer = card["autoencoder"]
        cards = list_models()
        if quantizer not in cards:
            raise ResultFileError(
                f"{path}: its latents are those of {quantizer!r}, which is not there"
            )
        arrays = read_weights(quantizer, cards[quantizer])
        layer.set_codebook(*codebook_of(arrays, layer.latent_bits, quantizer))
    build_detector(layer, card["num_rx"])
    assign_weights(layer, read_weights(path, card), path)
