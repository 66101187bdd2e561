"""What stands between the channel and the decoder: a detector, perhaps a quantizer, and how
often they and the decoder work on a block."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from linksim.detectors.base import Detector
from linksim.detectors.inputs import check_column_rank
from linksim.errors import InvalidInput
from linksim.link.scenario import Loop, Scenario
from linksim.models import find_model
from linksim.names import (
    QuantizerSpec,
    ReceiverSpec,
    counts_key,
    needs_prior,
    parse_receiver,
    split_passes,
    with_passes,
)
from linksim.quantization.base import Unquantized
from linksim.quantization.registry import LATENT, QUANTIZERS, make_quantizer
from linksim.registry import DETECTORS, build_detector, make_detector


@dataclass(frozen=True)
class Receiver:
    """A detector with its weights, and a quantizer of its LLRs where there is one.

    Attributes:
        name: what results call it.
        detector: layer called `(y, h, s)`.
        detection: name of the detection alone. Receivers that differ only in their
            quantizer have it in common, and share the work.
        quantizer: layer called with the LLRs, or None.
        weights: {"<model>/<configuration>": SHA-256} of all trained weights in use; of a
            layer that was passed, {its class: a hash of its options and weights}.
        key: what its counts are stored under: its name, with a hash of its weights if it
            has any, of the revision of its detector if that is above 1, and where it has
            several passes of the scenario's `loop` as far as that is not the default.
        num_passes: the most passes of detector and decoder over a block.
    """

    name: str
    detector: Callable[..., Any]
    detection: str
    quantizer: Callable[..., Any] | None
    weights: dict[str, str]
    key: str
    num_passes: int = 1

    @property
    def one_pass(self) -> str:
        """The name of the receiver that has one pass. Receivers that differ only in their
        passes have it in common, and share the work."""
        return split_passes(self.name)[0]


def create_receiver(
    what: str | ReceiverSpec | Receiver | tuple[str, Callable[..., Any]] | Callable[..., Any],
    scenario: Scenario,
) -> Receiver:
    """The receiver of a name, or around a layer, for a scenario.

    Trained detectors and quantizers come with their weights: those trained on a scenario
    of this name if there are any, else the first that fit the system.

    Args:
        what: a name (see `linksim.names`), what `parse_receiver` made of it, or a detector
            layer, alone or as `(name, layer)`; alone it goes by its own `name`. The name
            `"mine/2"` gives a layer two passes. A `Receiver` is returned as it is.
        scenario: the `Scenario`.

    Raises:
        InvalidInput: unknown names, no weights that fit, a layer for another system, more
            streams than receive antennas for a detector that cannot take that, or several
            passes without a code, or of a detector that cannot use a prior.
    """
    if isinstance(what, Receiver):
        return what
    if isinstance(what, ReceiverSpec):
        return _of_spec(what, scenario)
    if isinstance(what, str):
        return _of_spec(parse_receiver(what), scenario)
    if isinstance(what, (tuple, list)):
        if len(what) != 2 or not isinstance(what[0], str) or isinstance(what[1], str):
            raise InvalidInput(f"detectors: got {what!r}, expected (name, layer)")
        return _of_layer(*what, scenario)
    return _of_layer(None, what, scenario)


def _of_spec(spec, scenario):
    entry = DETECTORS.entry(spec.detector)
    weights, options, model, quantizer = {}, dict(spec.options), None, None
    if entry.learned:
        model = _model(spec.detector, spec.model, scenario, weights)
    if spec.quantizer is not None and spec.quantizer.name == LATENT:
        if model is None or not model[1]["autoencoder"]:
            raise InvalidInput(f"quantizer: {spec.detector} has no latents to quantize")
        options["latent_bits"] = 6 if spec.quantizer.bits is None else spec.quantizer.bits
        _model(*model[1]["autoencoder"].split("/"), scenario, weights)
    elif spec.quantizer is not None:
        quantizer, found = create_quantizer_for(spec.quantizer, scenario)
        weights.update(found)
    detector = make_detector(entry, *_system(scenario), options, model)
    if spec.operating_point:
        if not detector.weight_scaled:
            raise InvalidInput(f"detector: {spec.detector} has no operating points")
        detector = detector.slim(**spec.operating_point)
    check_column_rank(detector, scenario.system.num_rx, spec.detector)
    _check_passes(spec.text, spec.num_passes, detector, scenario)
    content = "".join(sorted(weights.values()))
    if entry.revision > 1:
        content += f"revision {entry.revision}"
    content += _loop_content(spec.num_passes, scenario)
    key = counts_key(spec.text, content.encode())
    return Receiver(
        spec.text, detector, spec.detection, quantizer, weights, key, spec.num_passes
    )


def _check_passes(name, num_passes, detector, scenario):
    """Refuse passes that a detector or a link cannot make."""
    if num_passes == 1:
        return
    if scenario.code.type == "none":
        raise InvalidInput(
            f"detector: got {name!r}, but {scenario.name} has no code, and several passes "
            "need a decoder"
        )
    if scenario.harq.max_transmissions > 1:
        raise InvalidInput(
            f"detector: got {name!r}, but {scenario.name} sends blocks again "
            f"(harq.max_transmissions = {scenario.harq.max_transmissions}), and receivers of "
            "several passes do not combine transmissions; expected a name without passes"
        )
    if not detector.accepts_prior:
        raise needs_prior(name)


def _loop_content(num_passes, scenario):
    """What counts depend on where there are several passes; "" by default."""
    if num_passes == 1:
        return ""
    default, found = Loop(), {}
    if scenario.iterations_per_pass != scenario.code.num_iterations:
        found["iterations"] = int(scenario.iterations_per_pass)
    if scenario.loop.feedback != default.feedback:
        found["feedback"] = scenario.loop.feedback
    if scenario.loop.scale != default.scale:
        found["scale"] = float(scenario.loop.scale)
    if scenario.loop.cn_update not in ("", scenario.code.cn_update):
        found["cn_update"] = scenario.loop.cn_update
    return f"loop {json.dumps(found, sort_keys=True)}" if found else ""


def is_outdated(scenario: Scenario, name: str, key: str) -> bool:
    """Whether counts are of a detector that the name stands for no longer.

    Args:
        scenario: the `Scenario` of the counts.
        name: of a receiver, or of a layer that a user passed.
        key: what its counts are stored under, see `Receiver`.

    Returns:
        True where the results of the detector's default options have changed since linksim
        first had it, or the receiver has several passes, and `key` is not that of today.
    """
    try:
        spec = parse_receiver(name)
    except InvalidInput:  # the name of a layer
        return False
    if DETECTORS.entry(spec.detector).revision == 1 and spec.num_passes == 1:
        return False
    try:
        return create_receiver(spec, scenario).key != key
    except InvalidInput:  # it cannot be made today
        return True


def create_quantizer_for(
    spec: QuantizerSpec, scenario: Scenario
) -> tuple[Callable[..., Any], dict[str, str]]:
    """The quantizer of a name with its trained weights, for a scenario.

    Returns:
        A layer called with LLRs, and {"<model>/<configuration>": SHA-256}.

    Raises:
        InvalidInput: no weights that fit, or no codebook of that many bits.
    """
    weights: dict[str, str] = {}
    model = _model(spec.name, spec.model, scenario, weights)
    bits: Any = None if spec.bits == "none" else spec.bits
    entry = QUANTIZERS.entry(spec.name)
    layer = make_quantizer(entry, *_system(scenario), bits=bits, model=model)
    return Unquantized(layer) if spec.bits == "none" else layer, weights


def _system(scenario: Scenario) -> tuple[int, int]:
    return scenario.system.num_streams, scenario.system.num_bits_per_symbol


def _model(name, configuration, scenario, weights):
    """Path and card of the weights to use, noted in `weights`."""
    path, card = find_model(
        name, *_system(scenario), configuration=configuration, scenario=scenario
    )
    weights[path] = card["sha256"]
    return path, card


def _of_layer(name, layer, scenario):
    if not isinstance(layer, Detector):
        from linksim.link.sionna_detectors import as_detector

        layer = as_detector(layer, *_system(scenario))
    name = layer.name if name is None else name
    if name is None:
        raise InvalidInput(f"detectors: {layer!r} has no name; pass it as (name, layer)")
    full_name = name
    name, num_passes = split_passes(name, "detectors")
    if not name or any(character in name for character in "+@:,()/"):
        raise InvalidInput(
            f"detectors: a layer cannot be called {name!r}; its name is a text without "
            "any of + @ : , ( ) /"
        )
    if name in DETECTORS:
        raise InvalidInput(
            f"detectors: a layer is called {name!r}, which is a detector's name; pass it "
            "as (name, layer) with another one"
        )
    for key, wanted in zip(("num_streams", "num_bits_per_symbol"), _system(scenario)):
        if getattr(layer, key) != wanted:
            raise InvalidInput(
                f"detectors: {name} has {key} = {getattr(layer, key)}, "
                f"{scenario.name} needs {wanted}"
            )
    check_column_rank(layer, scenario.system.num_rx, name)
    _check_passes(full_name, num_passes, layer, scenario)
    if not layer.built:
        build_detector(layer, scenario.system.num_rx)
    content = _content(layer)
    weights = {type(layer).__name__: hashlib.sha256(content).hexdigest()}
    full_name = with_passes(name, num_passes)
    key = counts_key(full_name, content + _loop_content(num_passes, scenario).encode())
    return Receiver(
        full_name, layer, name, None, weights if layer.weights else {}, key, num_passes
    )


def _content(layer):
    """Bytes that differ where a layer's class, options or weights do."""
    config = {k: v for k, v in layer.get_config().items() if k not in ("name", "dtype")}
    kind = f"{type(layer).__module__}.{type(layer).__qualname__}"
    digest = hashlib.sha256(
        f"{kind} {json.dumps(config, sort_keys=True, default=str)}".encode()
    )
    for weight in layer.weights:
        digest.update(np.ascontiguousarray(np.asarray(weight)).tobytes())
    return digest.digest()
