"""What can be exported: a detector, a quantizer or a whole receiver, with its signatures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from linksim.detectors.base import Detector
from linksim.detectors.oamp import OAMPDetector
from linksim.detectors.oampnet import OAMPNetDetector
from linksim.errors import InvalidInput
from linksim.link.decoder_layer import BitDecoder, IterativeReceiver
from linksim.link.link import Link
from linksim.link.receiver import create_quantizer_for, create_receiver
from linksim.link.scenario import Scenario
from linksim.names import names_quantizer, parse_quantizer
from linksim.quantization.base import LLRQuantizer
from linksim.registry import build_detector, create_detector

# How many vectors, or blocks, a test vector holds
_NUM_VECTORS, _NUM_BLOCKS = 64, 4

# Measured with TensorFlow 2.21
_WRONG_IN_TFLITE = (OAMPDetector, OAMPNetDetector)

_LLR = "LLR log p(b=1)/p(b=0), natural logarithm"
_NO_MEANING = "noise variance N0 = E|n|^2 per receive antenna, linear, in the units of |y|^2"


class NamedTensor(NamedTuple):
    """An input or output of a signature; an axis of unknown size, such as the batch, is None."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str
    meaning: str

    @property
    def named_shape(self) -> list[int | str]:
        """The shape with a name for each axis of unknown size: B, the batch, comes first; any
        other one is K, the number of users."""
        return [
            ("K" if axis else "B") if size is None else size
            for axis, size in enumerate(self.shape)
        ]

    @property
    def spec(self) -> tf.TensorSpec:
        """The same for TensorFlow."""
        return tf.TensorSpec(self.shape, self.dtype, name=self.name)


class Signature(NamedTuple):
    """A function of the inputs, in their order, that returns {name of an output: tensor}."""

    inputs: tuple[NamedTensor, ...]
    outputs: tuple[NamedTensor, ...]
    function: Callable[..., dict[str, Any]]


@dataclass
class Target:
    """Something to export.

    Attributes:
        name: the name under which it was requested.
        what: "detector", "quantizer" or "receiver".
        scenario: the `Scenario` it is for.
        signatures: {name: `Signature`}; "serving_default" is the first.
        plain: {name: `Signature`}, the only one that an ONNX or a TFLite file has.
        layers: Keras layers whose weights the functions use.
        weights: {"<model>/<configuration>": SHA-256} of the trained weights in use.
        arrays: inputs of the test vector, {name: NumPy array}.
        origin: where these inputs come from, for the card.
        keras_model: function without arguments that returns a Keras model with the
            inputs and outputs of "serving_default".
        refusals: {format: why the target cannot be written in it}.
    """

    name: str
    what: str
    scenario: Scenario
    signatures: dict[str, Signature]
    plain: dict[str, Signature]
    layers: list[keras.layers.Layer]
    weights: dict[str, str]
    arrays: dict[str, np.ndarray]
    origin: str
    keras_model: Callable[[], keras.Model]
    refusals: dict[str, str] = field(default_factory=dict)


def target_of(name: str, scenario: Scenario, receiver: bool = False) -> Target:
    """The target that a name stands for in a scenario.

    Args:
        name: a receiver, `DETECTOR[...][+QUANTIZER[...]][/PASSES]`, or a quantizer alone,
            `QUANTIZER[@MODEL][:BITS]`.
        scenario: the `Scenario`.
        receiver: whether to export the whole receiver, from received vectors to decided
            bits; otherwise the LLRs are the output.

    Raises:
        InvalidInput: a name is unknown, no weights fit, the detector cannot be exported
            (`sdr-cvxpy`), or there are several passes without the decoder.
    """
    if names_quantizer(name):
        if receiver:
            raise InvalidInput(f"receiver: {name} is a quantizer, a receiver needs a detector")
        layer, weights = create_quantizer_for(parse_quantizer(name), scenario)
        return quantizer_target(name, layer, scenario, weights)
    found = create_receiver(name, scenario)
    parts = name, found.detector, scenario, found.quantizer, found.weights
    if receiver:
        return receiver_target(*parts, num_passes=found.num_passes)
    if found.num_passes > 1:
        raise InvalidInput(
            f"receiver: got {receiver}, expected True: {name} has several passes of detector and "
            "decoder, and can be exported as a whole receiver only"
        )
    return detector_target(*parts)


def detector_target(
    name: str,
    detector: Any,
    scenario: Scenario,
    quantizer: Callable[..., Any] | None = None,
    weights: dict[str, str] | None = None,
) -> Target:
    """The target of a detector, perhaps with a quantizer of its LLRs.

    Args:
        name: what the card calls it.
        detector: a `Detector`, or a Sionna detector of the registry.
        scenario: the `Scenario` it is for.
        quantizer: a layer that is called with the LLRs, or None.
        weights: {"<model>/<configuration>": SHA-256} of trained weights, for the card.

    Raises:
        InvalidInput: the detector cannot be exported (`sdr-cvxpy`).
    """
    meaning = _LLR if quantizer is None else f"{_LLR}, after quantization"
    output = NamedTensor("llr", (None, *_llr_shape(scenario.system)), "float32", meaning)
    any_users = quantizer is None and detector.any_num_streams
    parts = _Parts(name, detector, quantizer, scenario, any_users=any_users)
    return _detecting_target("detector", parts, output, weights)


def receiver_target(
    name: str,
    detector: Any,
    scenario: Scenario,
    quantizer: Callable[..., Any] | None = None,
    weights: dict[str, str] | None = None,
    num_passes: int = 1,
) -> Target:
    """The target of a detector, perhaps a quantizer, the deinterleaver and the decoder.

    The decoder stops for each codeword as soon as its parity checks hold. The converter
    to ONNX cannot translate such loops, so an ONNX or TFLite file runs all iterations.

    Arguments and errors are those of `detector_target`; `num_passes` are those of detector
    and decoder, which every block gets.
    """
    decoder = BitDecoder(scenario)
    meaning = "decided information bits, 0 or 1"
    if num_passes > 1:
        meaning += f", after {num_passes} passes, which every block gets"
    output = NamedTensor("bits", (None, decoder.link.num_info_bits), "float32", meaning)
    loop = None
    if num_passes > 1:
        loop = IterativeReceiver(scenario, detector, num_passes, quantizer)
    parts = _Parts(name, detector, quantizer, scenario, decoder, loop=loop)
    return _detecting_target("receiver", parts, output, weights)


def quantizer_target(
    name: str,
    quantizer: Any,
    scenario: Scenario,
    weights: dict[str, str] | None = None,
) -> Target:
    """The target of an LLR quantizer; a SavedModel also has its two halves.

    Args:
        name: what the card calls it.
        quantizer: an `LLRQuantizer`, or `Unquantized` with one.
        scenario: the `Scenario` whose LLRs it is for.
        weights: {"<model>/<configuration>": SHA-256} of trained weights, for the card.
    """
    shape = (None, *_llr_shape(scenario.system))
    llr = NamedTensor("llr", shape, "float32", _LLR)
    quantized = NamedTensor("quantized_llr", shape, "float32", f"{_LLR}, after quantization")
    whole = Signature((llr,), (quantized,), lambda llr: {"quantized_llr": quantizer(llr)})
    signatures = {"serving_default": whole}
    draw, origin = _draw(scenario, receiver=False)
    llrs = _mmse(scenario)(*(tf.constant(draw[key]) for key in ("y", "h", "no")))
    arrays = {"llr": llrs.numpy()}
    if isinstance(quantizer, LLRQuantizer):
        cells = (None, quantizer.num_components)
        index = NamedTensor("index", cells, "int32", "cell of each component, from 0")
        signatures["quantize"] = Signature(
            (llr,), (index,), lambda llr: {"index": quantizer.quantize_llrs(llr)}
        )
        signatures["dequantize"] = Signature(
            (index,),
            (quantized,),
            lambda index: {"quantized_llr": quantizer.dequantize(index)},
        )
        arrays["index"] = quantizer.quantize_llrs(llrs).numpy()

    def keras_model():
        given = keras.Input(shape[1:], name="llr")
        return keras.Model(given, {"quantized_llr": quantizer(given)})

    return Target(
        name=name,
        what="quantizer",
        scenario=scenario,
        signatures=signatures,
        plain={"serving_default": whole},
        layers=[quantizer],
        weights=weights or {},
        arrays=arrays,
        origin=f"{origin}; LLRs by `mmse`",
        keras_model=keras_model,
    )


def _detecting_target(what, parts, output, weights):
    """The target of a detector and what follows it."""
    name, detector, scenario = parts.name, parts.detector, parts.scenario
    if detector.eager_only:
        raise InvalidInput(
            f"{name}: cannot be exported, because it calls cvxpy for each vector and has no "
            "graph. Export `sdr` instead, which solves the same problem"
        )
    ours = isinstance(detector, Detector)
    if ours and not detector.built:
        build_detector(detector, scenario.system.num_rx)
    plain = BitDecoder(scenario, stopping=False) if parts.decoder else None
    inputs = _complex_inputs(scenario.system, parts.lead)
    # An ONNX or TFLite file is for one number of users
    restricted = parts._replace(decoder=plain, any_users=False)
    real = Signature(_real_inputs(inputs), (output,), restricted.by_reals)
    if parts.any_users:
        inputs = _complex_inputs(scenario.system, parts.lead, any_users=True)
        output = output._replace(shape=(None, None, *output.shape[2:]))
    refusals = {}
    if isinstance(detector, _WRONG_IN_TFLITE):
        refusals["tflite"] = (
            "the interpreter's XNNPACK kernels compute the product of a scalar and a matrix "
            "in their linear step wrongly"
        )
    if not ours:
        why = "Sionna's detectors {}; linksim's, such as `mmse`, can be exported"
        refusals["keras"] = why.format("are no Keras layers")
        refusals["onnx"] = why.format("use complex numbers, which ONNX does not have")
        refusals["tflite"] = why.format("use complex matrices, which TFLite does not have")
    if parts.loop is not None:
        # The messages are kept by the decoder that stops, for which see `receiver_target`
        why = "has no form for a decoder that goes on with what it has from the pass before"
        refusals |= {format: why for format in ("onnx", "tflite")}
    arrays, origin = _draw(scenario, receiver=what == "receiver")
    return Target(
        name=name,
        what=what,
        scenario=scenario,
        signatures={
            "serving_default": Signature(inputs, (output,), parts.by_complex),
            "real": Signature(_real_inputs(inputs), (output,), parts.by_reals),
        },
        plain={"real": real},
        layers=[x for x in (detector, parts.quantizer) if isinstance(x, keras.layers.Layer)],
        weights=weights or {},
        arrays=arrays,
        origin=origin,
        keras_model=lambda: parts.keras_model(inputs),
        refusals=refusals,
    )


class _Parts(NamedTuple):
    """A detector and what follows it, as functions of the inputs."""

    name: str
    detector: Any
    quantizer: Callable[..., Any] | None
    scenario: Scenario
    decoder: Any = None  # without one, the LLRs are the output
    any_users: bool = False  # `h` may have fewer columns than `num_streams`
    loop: Any = None  # a layer from the inputs to bits, of several passes

    @property
    def lead(self):
        """The axes between the batch and those of a vector."""
        return () if self.decoder is None else (self.decoder.link.num_uses,)

    def by_complex(self, y, h, no):
        if self.loop is not None:
            return {"bits": self.loop(y, h, no)}
        return self._finish(self._in_blocks(self.detector(*self._vectors(y, h, no))))

    def by_reals(self, y_real, y_imag, h_real, h_imag, no):
        if self.loop or self.any_users or not isinstance(self.detector, Detector):
            y, h = tf.complex(y_real, y_imag), tf.complex(h_real, h_imag)
            return self.by_complex(y, h, no)
        vectors = self._vectors(y_real, y_imag, h_real, h_imag, no)
        return self._finish(self._in_blocks(self.detector.llrs_of_parts(*vectors)))

    def keras_model(self, inputs):
        given = [keras.Input(t.shape[1:], dtype=t.dtype, name=t.name) for t in inputs]
        if self.loop is not None:
            return keras.Model(given, {"bits": self.loop(*given)})
        return keras.Model(given, self._finish(self.detector(*given)))

    def _vectors(self, *inputs):
        if not self.lead:
            return inputs
        skip = 1 + len(self.lead)
        return [tf.reshape(x, [-1, *x.shape[skip:]]) for x in inputs]

    def _in_blocks(self, llrs):
        if not self.lead:
            return llrs
        return tf.reshape(llrs, [-1, *self.lead, *_llr_shape(self.scenario.system)])

    def _finish(self, llrs):
        if self.quantizer is not None:
            llrs = self.quantizer(llrs)
        return {"llr": llrs} if self.decoder is None else {"bits": self.decoder(llrs)}


def _llr_shape(system):
    return system.num_streams, system.num_bits_per_symbol


def _complex_inputs(system, lead, any_users=False):
    m, k = system.num_rx, None if any_users else system.num_streams
    return (
        NamedTensor("y", (None, *lead, m), "complex64", "received vectors y = H x + n"),
        NamedTensor(
            "h", (None, *lead, m, k), "complex64", "channel matrices, for E|x_k|^2 = 1"
        ),
        NamedTensor("no", (None, *lead), "float32", _NO_MEANING),
    )


def _real_inputs(inputs):
    """The same inputs, with the real and the imaginary part instead of each complex one."""
    parts = []
    for t in inputs:
        if t.dtype != "complex64":
            parts.append(t)
            continue
        for part in ("real", "imag"):
            meaning = f"{'real' if part == 'real' else 'imaginary'} part of the {t.meaning}"
            parts.append(NamedTensor(f"{t.name}_{part}", t.shape, "float32", meaning))
    return tuple(parts)


def _draw(scenario, receiver):
    """Inputs for a test vector, and a text that says where they come from.

    Models take N0 and no covariance, so that there is no interference in their vectors.

    A receiver gets blocks at the highest SNR of the scenario, because belief propagation
    amplifies rounding errors where it does not converge. Detectors get vectors at the
    middle SNR.
    """
    link = Link(replace(scenario, interference=None))
    points = link.scenario.snr.points
    snr_db = points[-1] if receiver else points[len(points) // 2]
    blocks = _NUM_BLOCKS if receiver else -(-_NUM_VECTORS // link.num_uses)
    draw = tf.function(link.draw, autograph=False)
    batch = draw(
        tf.constant(link.keys(0, snr_db, 0)),
        tf.constant(link.no(snr_db), tf.float32),
        tf.constant(0, tf.int32),
        blocks,
    )
    arrays = {"y": batch.y.numpy(), "h": batch.h_hat.numpy(), "no": batch.no.numpy()}
    if not receiver:
        arrays = {k: a.reshape(-1, *a.shape[2:])[:_NUM_VECTORS] for k, a in arrays.items()}
    for name in ("y", "h"):
        arrays[f"{name}_real"] = arrays[name].real.copy()
        arrays[f"{name}_imag"] = arrays[name].imag.copy()
    count = f"{blocks} blocks" if receiver else f"{len(arrays['y'])} vectors"
    if receiver:
        arrays["sent_bits"] = batch.bits.numpy()
    definition = link.scenario.snr.definition
    return arrays, (
        f"{count} of `{link.scenario.name}` at {snr_db:g} dB ({definition}), seed 0, batch 0"
    )


def _mmse(scenario):
    system = scenario.system
    return create_detector(
        "mmse",
        num_streams=system.num_streams,
        num_bits_per_symbol=system.num_bits_per_symbol,
    )
