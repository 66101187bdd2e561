"""What can be exported: a detector, a quantizer or a whole receiver, and its signatures."""

from dataclasses import dataclass, field
from typing import NamedTuple

import keras
import tensorflow as tf

from linksim.detectors.base import Detector
from linksim.errors import InvalidInput
from linksim.link.decoder_layer import BitDecoder
from linksim.link.link import Link
from linksim.link.receiver import create_quantizer_for, create_receiver
from linksim.names import names_quantizer, parse_quantizer
from linksim.quantization.base import LLRQuantizer
from linksim.registry import build_detector, create_detector

# Vectors and blocks of a test vector
_NUM_VECTORS, _NUM_BLOCKS = 64, 4

_LLR = "LLR log p(b=1)/p(b=0), natural logarithm"
_NO_MEANING = "noise variance N0 = E|n|^2 per receive antenna, linear, in the units of |y|^2"


class Tensor(NamedTuple):
    """An input or output of a signature. The leading axis, the batch, is None."""

    name: str
    shape: tuple
    dtype: str
    meaning: str

    @property
    def spec(self):
        return tf.TensorSpec(self.shape, self.dtype, name=self.name)


class Signature(NamedTuple):
    """A function of the inputs, in order, that returns {name of an output: tensor}."""

    inputs: tuple
    outputs: tuple
    function: object


@dataclass
class Target:
    """Something to export.

    Attributes:
        name: as it was asked for.
        what: "detector", "quantizer" or "receiver".
        scenario: the `Scenario`.
        signatures: {name: `Signature`}; "serving_default" is the first.
        onnx: {name: `Signature`}, the one that an ONNX file has.
        layers: Keras layers whose weights the functions use.
        weights: {"<model>/<configuration>": SHA-256} of shipped weights in use.
        arrays: inputs of the test vector, {name: NumPy array}.
        origin: one sentence: where these come from.
        keras_model: function without arguments that gives a Keras model with the
            inputs and outputs of "serving_default", or None.
        refusals: {format: why there is none}.
    """

    name: str
    what: str
    scenario: object
    signatures: dict
    onnx: dict
    layers: list
    weights: dict
    arrays: dict
    origin: str
    keras_model: object = None
    refusals: dict = field(default_factory=dict)


def target_of(name, scenario, receiver=False):
    """What a name stands for in a scenario.

    Args:
        name: `DETECTOR[...][+QUANTIZER[...]]`, as `parse_receiver` reads it, or a
            quantizer alone, `QUANTIZER[@MODEL][:BITS]`.
        scenario: the `Scenario`.
        receiver: the whole receiver behind the detector, down to decided bits.

    Returns:
        A `Target`.

    Raises:
        InvalidInput: unknown names, no weights that fit, or nothing that could be
            exported (`sdr-cvxpy`).
    """
    if names_quantizer(name):
        if receiver:
            raise InvalidInput(f"--receiver: {name} is a quantizer, a receiver has a detector")
        layer, weights = create_quantizer_for(parse_quantizer(name), scenario)
        return quantizer_target(name, layer, scenario, weights)
    found = create_receiver(name, scenario)
    options = {"quantizer": found.quantizer, "weights": found.weights}
    make = receiver_target if receiver else detector_target
    return make(name, found.detector, scenario, **options)


def detector_target(name, detector, scenario, quantizer=None, weights=None):
    """Export a detector, perhaps with a quantizer of its LLRs.

    Args:
        name: what it is called in the card.
        detector: a `Detector`, or a Sionna detector of the registry.
        scenario: the `Scenario` it is for.
        quantizer: layer called with the LLRs, or None.
        weights: hashes of shipped weights, for the card.
    """
    meaning = _LLR if quantizer is None else f"{_LLR}, after quantization"
    output = Tensor("llr", (None, *_llr_shape(scenario.system)), "float32", meaning)
    any_users = quantizer is None and getattr(detector, "any_num_streams", False)
    parts = _Parts(name, detector, quantizer, scenario, any_users=any_users)
    return _detecting_target("detector", parts, output, weights)


def receiver_target(name, detector, scenario, quantizer=None, weights=None):
    """Export a detector, perhaps a quantizer, the deinterleaver and the decoder.

    In an ONNX file every codeword has all iterations: the loops that end for each when
    its parity checks hold are too much for the converter.

    Arguments are those of `detector_target`.
    """
    decoder = BitDecoder(scenario)
    meaning = "decided information bits, 0 or 1"
    output = Tensor("bits", (None, decoder.link.num_info_bits), "float32", meaning)
    parts = _Parts(name, detector, quantizer, scenario, decoder)
    return _detecting_target("receiver", parts, output, weights)


def quantizer_target(name, quantizer, scenario, weights=None):
    """Export an LLR quantizer: all of it, and in a SavedModel also its two halves.

    Args:
        name: what it is called in the card.
        quantizer: an `LLRQuantizer`, or `Unquantized` with one.
        scenario: the `Scenario` whose LLRs it gets.
        weights: hashes of shipped weights, for the card.
    """
    shape = (None, *_llr_shape(scenario.system))
    llr = Tensor("llr", shape, "float32", _LLR)
    quantized = Tensor("quantized_llr", shape, "float32", f"{_LLR}, after quantization")
    whole = Signature((llr,), (quantized,), lambda llr: {"quantized_llr": quantizer(llr)})
    signatures = {"serving_default": whole}
    link = Link(scenario)
    draw, origin = _draw(link, receiver=False)
    llrs = _mmse(scenario)(*(tf.constant(draw[key]) for key in ("y", "h", "no")))
    arrays = {"llr": llrs.numpy()}
    if isinstance(quantizer, LLRQuantizer):
        cells = (None, quantizer.num_components)
        index = Tensor("index", cells, "int32", "cell of each component, from 0")
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
        onnx={"serving_default": whole},
        layers=[quantizer],
        weights=weights or {},
        arrays=arrays,
        origin=f"{origin}; LLRs by `mmse`",
        keras_model=keras_model,
    )


def _detecting_target(what, parts, output, weights):
    """The target of a detector and of what follows it."""
    name, detector, scenario = parts.name, parts.detector, parts.scenario
    if detector.eager_only:
        raise InvalidInput(
            f"{name}: cannot be exported, it has no graph: each vector is a call of cvxpy. "
            "All other detectors can, `sdr`, which solves the same problem, among them"
        )
    ours = isinstance(detector, Detector)
    if ours and not detector.built:
        build_detector(detector, scenario.system.num_rx)
    plain = BitDecoder(scenario, stopping=False) if parts.decoder else None
    inputs = _complex_inputs(scenario.system, parts.lead)
    # An ONNX file is for one number of users
    of_onnx = parts._replace(decoder=plain, any_users=False)
    for_onnx = Signature(_real_inputs(inputs), (output,), of_onnx.by_reals)
    if parts.any_users:
        inputs = _complex_inputs(scenario.system, parts.lead, any_users=True)
        output = output._replace(shape=(None, None, *output.shape[2:]))
    refusals = {}
    if not ours:
        why = "Sionna's detectors are {}; linksim's, such as `mmse`, can be exported"
        refusals["keras"] = why.format("no Keras layers")
        refusals["onnx"] = why.format("written in complex numbers, which ONNX has not")
    arrays, origin = _draw(Link(scenario), receiver=what == "receiver")
    return Target(
        name=name,
        what=what,
        scenario=scenario,
        signatures={
            "serving_default": Signature(inputs, (output,), parts.by_complex),
            "real": Signature(_real_inputs(inputs), (output,), parts.by_reals),
        },
        onnx={"real": for_onnx},
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
    detector: object
    quantizer: object
    scenario: object
    decoder: object = None  # None: LLRs are the result
    any_users: bool = False  # `h` may have fewer columns than `num_streams`

    @property
    def lead(self):
        """Axes between the batch and those of a vector."""
        return () if self.decoder is None else (self.decoder.link.num_uses,)

    def by_complex(self, y, h, no):
        return self._finish(self._in_blocks(self.detector(*self._vectors(y, h, no))))

    def by_reals(self, y_real, y_imag, h_real, h_imag, no):
        if self.any_users or not isinstance(self.detector, Detector):
            y, h = tf.complex(y_real, y_imag), tf.complex(h_real, h_imag)
            return self.by_complex(y, h, no)
        vectors = self._vectors(y_real, y_imag, h_real, h_imag, no)
        return self._finish(self._in_blocks(self.detector.llrs_of_parts(*vectors)))

    def keras_model(self, inputs):
        given = [keras.Input(t.shape[1:], dtype=t.dtype, name=t.name) for t in inputs]
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
        Tensor("y", (None, *lead, m), "complex64", "received vectors y = H x + n"),
        Tensor("h", (None, *lead, m, k), "complex64", "channel matrices, for E|x_k|^2 = 1"),
        Tensor("no", (None, *lead), "float32", _NO_MEANING),
    )


def _real_inputs(inputs):
    """The same with each complex one as its real and imaginary part."""
    parts = []
    for t in inputs:
        if t.dtype != "complex64":
            parts.append(t)
            continue
        for part in ("real", "imag"):
            meaning = f"{'real' if part == 'real' else 'imaginary'} part of the {t.meaning}"
            parts.append(Tensor(f"{t.name}_{part}", t.shape, "float32", meaning))
    return tuple(parts)


def _draw(link, receiver):
    """Inputs for a test vector, and what they are.

    A receiver gets blocks at the highest SNR of the scenario: belief propagation that does
    not converge amplifies rounding. Detectors get vectors at the middle one.
    """
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
