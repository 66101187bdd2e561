"""Detectors by name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from linksim.errors import (
    InvalidInput,
    ResultFileError,
    check_bits_per_symbol,
    check_int,
)
from linksim.factories import Entry, Registry, check_options, first_paragraph_of
from linksim.models import (
    assign_weights,
    codebook_of,
    find_pretrained,
    list_models,
    read_weights,
)
from linksim.quantization.registry import LATENT, QUANTIZERS
from linksim.tables import plain


def _entry(
    name: str,
    target: str,
    summary: str,
    options: Mapping[str, Any] | None = None,
    learned: bool = False,
    revision: int = 1,
) -> Entry:
    return Entry(name, f"linksim.{target}", summary, options or {}, learned, revision=revision)


DETECTORS = Registry(
    "detector",
    [
        _entry(
            "mf",
            "detectors.linear:MatchedFilterDetector",
            "Matched filter; interference counts as Gaussian noise",
        ),
        _entry(
            "zf",
            "detectors.linear:ZeroForcingDetector",
            "Zero forcing, with the noise that it enhances in each stream",
        ),
        _entry(
            "mmse",
            "detectors.linear:MMSEDetector",
            "Linear MMSE with unbiased estimates and calibrated LLRs",
        ),
        _entry(
            "mmse-biased",
            "detectors.linear:BiasedMMSEDetector",
            "MMSE as in the published comparisons: half the noise loaded, biased",
        ),
        _entry(
            "zf-sic",
            "detectors.sic:ZFSICDetector",
            "Zero forcing with successive cancellation by QR, unordered",
        ),
        _entry(
            "vblast-zf",
            "detectors.sic:VBLASTZFDetector",
            "V-BLAST with zero forcing, strongest remaining stream first",
        ),
        _entry(
            "vblast-mmse",
            "detectors.sic:VBLASTMMSEDetector",
            "V-BLAST with MMSE, strongest remaining stream first",
        ),
        _entry(
            "zf-pic",
            "detectors.sic:ZFPICDetector",
            "Zero forcing, then one pass of parallel interference cancellation",
        ),
        _entry(
            "ml",
            "detectors.ml:MaximumLikelihoodDetector",
            "Exact maximum likelihood by enumeration, for few streams",
        ),
        _entry(
            "sphere",
            "detectors.sphere:SphereDetector",
            "Exact max-log by depth-first tree search (sphere decoder)",
        ),
        _entry(
            "kbest",
            "detectors.kbest:KBestDetector",
            "K-best: breadth-first tree search that keeps the k best paths",
        ),
        _entry("ep", "detectors.ep:EPDetector", "Expectation propagation", revision=2),
        _entry(
            "pep",
            "detectors.pep:PairwiseEPDetector",
            "Expectation propagation with pairwise corrections",
        ),
        _entry(
            "lord",
            "detectors.lord:LORDDetector",
            "Layered orthogonal lattice detection, started from expectation propagation",
        ),
        _entry(
            "pepnet",
            "detectors.pepnet:PEPNetDetector",
            "Expectation propagation, pairs and hypotheses, weighed by small networks",
            learned=True,
        ),
        _entry(
            "amp",
            "detectors.amp:AMPDetector",
            "Approximate message passing, for independent channel entries",
            revision=2,
        ),
        _entry(
            "oamp",
            "detectors.oamp:OAMPDetector",
            "Orthogonal approximate message passing with an LMMSE step",
        ),
        _entry(
            "sdr",
            "detectors.sdr:SDRDetector",
            "Semidefinite relaxation, solved for a whole batch at once",
        ),
        _entry(
            "sdr-cvxpy",
            "detectors.sdr:SDRReferenceDetector",
            "Semidefinite relaxation by cvxpy, one vector at a time (reference)",
        ),
        _entry(
            "eqnet-l",
            "detectors.eqnet:EQNetDetector",
            "EQ-Net-L: LLRs by one network of one block, inputs y, H and sigma",
            {"num_blocks": 1, "features": "raw"},
            learned=True,
        ),
        _entry(
            "eqnet-p",
            "detectors.eqnet:EQNetDetector",
            "EQ-Net-P: as eqnet-l with three blocks",
            {"num_blocks": 3, "features": "raw"},
            learned=True,
        ),
        _entry(
            "eqnet-l-qr",
            "detectors.eqnet:EQNetDetector",
            "EQ-Net-L on QR-reduced systems and MMSE LLRs",
            {"num_blocks": 1, "features": "qr"},
            learned=True,
        ),
        _entry(
            "eqnet-l-sic",
            "detectors.eqnet:EQNetDetector",
            "EQ-Net-L on QR-reduced systems, MMSE and ZF-SIC LLRs",
            {"num_blocks": 1, "features": "sic"},
            learned=True,
        ),
        _entry(
            "eqnet-p-sic",
            "detectors.eqnet:EQNetDetector",
            "EQ-Net-P on QR-reduced systems, MMSE and ZF-SIC LLRs",
            {"num_blocks": 3, "features": "sic"},
            learned=True,
        ),
        _entry(
            "eqnet-l-prior",
            "detectors.eqnet:EQNetDetector",
            "EQ-Net-L-SIC whose inputs have a prior, for several passes with the decoder (ours)",
            {"num_blocks": 1, "features": "prior"},
            learned=True,
        ),
        _entry(
            "nndet-l",
            "detectors.nndet:NNDetDetector",
            "NN-Det-L: unfolded dense blocks trained on symbols, three blocks",
            {"num_blocks": 3},
            learned=True,
        ),
        _entry(
            "nndet-p",
            "detectors.nndet:NNDetDetector",
            "NN-Det-P: as nndet-l with four blocks",
            {"num_blocks": 4},
            learned=True,
        ),
        _entry(
            "oampnet",
            "detectors.oampnet:OAMPNetDetector",
            "OAMP-Net: OAMP with two learned step sizes per layer",
            learned=True,
        ),
        _entry(
            "oampnet2",
            "detectors.oampnet:OAMPNet2Detector",
            "OAMP-Net2: OAMP with four learned scalars per layer",
            learned=True,
        ),
        _entry(
            "detnet",
            "detectors.detnet:DetNetDetector",
            "DetNet: unfolded projected gradient descent in dense layers",
            learned=True,
        ),
        _entry(
            "wesnet-hf",
            "detectors.detnet:DetNetDetector",
            "WeSNet-HF: DetNet whose units can be cut, half-exponential profile",
            {"head": "soft-sign", "profile": "half-exponential"},
            learned=True,
        ),
        _entry(
            "wesnet-l",
            "detectors.detnet:DetNetDetector",
            "WeSNet-L: DetNet whose units can be cut, linear profile",
            {"head": "soft-sign", "profile": "linear"},
            learned=True,
        ),
        _entry(
            "l-wesnet",
            "detectors.detnet:DetNetDetector",
            "L-WeSNet: WeSNet with a learned profile",
            {"head": "soft-sign", "profile": "half-exponential", "learnable_profile": True},
            learned=True,
        ),
        _entry(
            "r-wesnet",
            "detectors.detnet:DetNetDetector",
            "R-WeSNet: WeSNet-HF trained with a log-L1 penalty, layers can be cut",
            {"head": "soft-sign", "profile": "half-exponential"},
            learned=True,
        ),
        _entry(
            "wes-oampnet",
            "detectors.oampnet:WeSOAMPNetDetector",
            "WeS-OAMP-Net: OAMP-Net with a weight-scaled sublayer per layer",
            {"profile": "half-exponential"},
            learned=True,
        ),
        _entry(
            "rwes-oampnet",
            "detectors.oampnet:WeSOAMPNetDetector",
            "R-WeS-OAMP-Net: WeS-OAMP-Net trained with a log-L1 penalty",
            {"profile": "half-exponential"},
            learned=True,
        ),
        _entry(
            "mmnet",
            "detectors.mmnet:MMNetDetector",
            "MMNet: a linear step learned for each fixed channel and layer",
            learned=True,
        ),
        _entry(
            "mmnet-iid",
            "detectors.mmnet:MMNetIIDDetector",
            "MMNet-iid: a scaled matched filter, two learned scalars per layer",
            learned=True,
        ),
        _entry(
            "remimo",
            "detectors.remimo:REMIMODetector",
            "RE-MIMO: users that attend to each other, for any number of them",
            learned=True,
        ),
        _entry(
            "remimo-mf",
            "detectors.remimo:REMIMODetector",
            "RE-MIMO that also sees each user's matched-filter estimate",
            {"estimates": "matched-filter"},
            learned=True,
        ),
        _entry(
            "remimo-lmmse",
            "detectors.remimo:REMIMODetector",
            "RE-MIMO that also sees matched-filter and LMMSE estimates",
            {"estimates": "lmmse"},
            learned=True,
        ),
        _entry(
            "remimo-pic",
            "detectors.remimo:REMIMODetector",
            "RE-MIMO that also sees matched-filter and MMSE-PIC estimates",
            {"estimates": "lmmse-pic"},
            learned=True,
        ),
        _entry(
            "detnet-fc",
            "detectors.perchannel:FixedChannelDetector",
            "DetNet for fixed channels, one network for each",
            {"network": "detnet"},
            learned=True,
        ),
        _entry(
            "hypermimo",
            "detectors.hypermimo:HyperMIMODetector",
            "HyperMIMO: a hypernetwork makes MMNet's weights for each channel",
            learned=True,
        ),
        _entry(
            "hypermimo-lr",
            "detectors.hypermimo:HyperDetector",
            "HyperMIMO-LR: hypernetwork trained towards fixed-channel networks",
            {"network": "mmnet"},
            learned=True,
        ),
        _entry(
            "sionna-lmmse",
            "link.sionna_detectors:lmmse",
            "Sionna's LinearDetector with the LMMSE equalizer",
        ),
        _entry(
            "sionna-kbest",
            "link.sionna_detectors:kbest",
            "Sionna's KBestDetector, complex-valued tree",
        ),
        _entry("sionna-ep", "link.sionna_detectors:ep", "Sionna's EPDetector (QAM only)"),
        _entry(
            "sionna-mmse-pic",
            "link.sionna_detectors:mmse_pic",
            "Sionna's MMSEPICDetector: MMSE with parallel interference cancellation",
        ),
        _entry(
            "sionna-ml",
            "link.sionna_detectors:maximum_likelihood",
            "Sionna's MaximumLikelihoodDetector: enumerates all vectors",
        ),
    ],
)


def list_detectors() -> list[str]:
    """Names that `create_detector` accepts, linksim's own first."""
    return DETECTORS.names()


def describe_detector(name: str) -> str:
    """One line about a detector.

    Raises:
        InvalidInput: for an unknown name.
    """
    return DETECTORS.entry(name).summary


def detector_table() -> str:
    """All detectors of linksim as a Markdown table: name, what it is, whether it is learned."""
    rows = [
        f"| `{entry.name}` | {entry.summary} | {'yes' if entry.learned else ''} |"
        for entry in DETECTORS
        if not entry.own
    ]
    return "\n".join(["| name | what it is | learned |", "|---|---|---|", *rows])


def is_learned(name: str) -> bool:
    """Whether a detector has weights that are trained.

    Raises:
        InvalidInput: for an unknown name.
    """
    return DETECTORS.entry(name).learned


def register_detector(
    name: str, cls: type, *, learned: bool = False, replace: bool = False
) -> None:
    """Give a detector of your own a name, in this process and in workers of its simulations.

    `create_detector`, `simulate` and recipes then know it by that name. A result store
    tells detectors apart by their names, options and weights: after a change of the
    class's code, start with a fresh store.

    Args:
        name: lower-case letters, digits and dashes, beginning with a letter.
        cls: a subclass of `linksim.detectors.Detector`.
        learned: whether it has weights to be trained. `simulate` then takes those of a
            trained model of this name; see `linksim.add_model_folder`.
        replace: take the place of an earlier registration, as when a cell of a notebook
            runs again. linksim's own names cannot be replaced.

    Raises:
        InvalidInput: the name is taken or malformed, or `cls` is not a detector.

    Example:
        >>> from linksim.detectors import MMSEDetector
        >>> class MyDetector(MMSEDetector):
        ...     "Linear MMSE under another name."
        >>> linksim.register_detector("mine", MyDetector)
        >>> linksim.list_detectors()[-1]
        'mine'
    """
    from linksim.detectors.base import Detector

    if not isinstance(name, str) or not re.fullmatch("[a-z][a-z0-9-]*", name):
        raise InvalidInput(
            f"name: got {name!r}, expected lower-case letters, digits and dashes, beginning "
            "with a letter"
        )
    if name == LATENT or name in QUANTIZERS:
        raise InvalidInput(f"name: {name!r} is the name of a quantizer")
    if name in DETECTORS and not DETECTORS.entry(name).own:
        raise InvalidInput(f"name: {name!r} is a detector of linksim itself")
    if name in DETECTORS and not replace:
        raise InvalidInput(
            f"name: {name!r} is registered already; replace=True takes its place"
        )
    if not (isinstance(cls, type) and issubclass(cls, Detector)):
        raise InvalidInput(f"cls: got {cls!r}, expected a subclass of Detector")
    if not isinstance(learned, bool):
        raise InvalidInput(f"learned: got {learned!r}, expected True or False")
    summary = first_paragraph_of(cls)
    DETECTORS.add(Entry(name, cls, summary, learned=learned, own=True))


def create_detector(
    name: str,
    *,
    num_streams: int,
    num_bits_per_symbol: int,
    pretrained: bool | str = False,
    **options: Any,
) -> Any:
    """Create a detector by name.

    Args:
        name: one of `list_detectors()`.
        num_streams: K, number of transmitted streams.
        num_bits_per_symbol: bits of a QAM symbol; 1 is BPSK.
        pretrained: load trained weights (learned detectors only): True for the first
            recommended configuration that fits, or the name of any one.
        options: keywords of the detector, such as `output="symbol"`,
            `hard_out=True`, `demapping_method="maxlog"`, `k=32`.

    Returns:
        A Keras layer called `(y, h, s)` (see `linksim.detectors.Detector`), or for
        the `sionna-...` names the Sionna block behind the same call.

    Raises:
        InvalidInput: for an unknown name or option, or where there are no weights.

    Example:
        >>> detector = linksim.create_detector("mmse", num_streams=2, num_bits_per_symbol=4)
        >>> detector(y, h, no).shape  # LLRs [..., K, m]
        TensorShape([3, 2, 4])
    """
    entry = DETECTORS.entry(name)
    model = None
    if pretrained is not None and pretrained is not False:
        if not entry.learned:
            raise InvalidInput(f"pretrained: {name} is a classical detector, without weights")
        model = find_pretrained(name, num_streams, num_bits_per_symbol, pretrained)
    return make_detector(entry, num_streams, num_bits_per_symbol, options, model)


def make_detector(
    entry: Entry,
    num_streams: int,
    num_bits_per_symbol: int,
    options: Mapping[str, Any],
    model: tuple[str, dict[str, Any]] | None = None,
) -> Any:
    """The layer of a registry entry, with the weights of a model where one is given.

    Args:
        entry: of `DETECTORS`.
        num_streams: K.
        num_bits_per_symbol: bits of a QAM symbol.
        options: keywords of the detector; they come before those of the model and of
            the entry.
        model: what `linksim.models.find_model` found: path and card.

    Raises:
        InvalidInput: an unknown option, or one that the weights do not fit.
    """
    trained = {} if model is None else model[1]["options"]
    options = {**entry.options, **trained, **plain(dict(options))}
    factory = entry.load()
    check_options(entry.name, factory, options)
    check_int("num_streams", num_streams)
    check_bits_per_symbol("num_bits_per_symbol", num_bits_per_symbol)
    layer = factory(
        num_streams=num_streams, num_bits_per_symbol=num_bits_per_symbol, **options
    )
    if model is not None:
        _load_weights(layer, *model)
    return layer


def _load_weights(layer, path, card):
    """Give a new detector the weights of a trained model, "<model>/<configuration>"."""
    if layer.latent_bits is not None:
        quantizer = card["autoencoder"]
        cards = list_models(quantizer.split("/")[0])
        if quantizer not in cards:
            raise ResultFileError(
                f"{path}: it estimates the latents of {quantizer!r}, which has no weights here"
            )
        arrays = read_weights(quantizer, cards[quantizer])
        layer.set_codebook(*codebook_of(arrays, layer.latent_bits, quantizer))
    build_detector(layer, card["num_rx"])
    assign_weights(layer, read_weights(path, card), path)


def build_detector(layer: Any, num_rx: int) -> None:
    """Create the weights of a detector, by one call.

    Args:
        layer: the `Detector`.
        num_rx: M, receive antennas.
    """
    h = np.ones((1, num_rx, layer.num_streams), np.complex64)
    h += np.eye(num_rx, layer.num_streams, dtype=np.complex64)
    layer(np.ones((1, num_rx), np.complex64), h, np.ones(1, np.float32))
