"""The compiled functions of one scenario: draw, detect, decode and count."""

import math
import time

import numpy as np
import tensorflow as tf

from linksim.complexity.memory import peak_memory
from linksim.errors import InvalidInput, check_choice
from linksim.link.link import Link
from linksim.link.receiver import create_receiver
from linksim.names import ReceiverSpec, parse_receiver

XLA_MODES = ("auto", "on", "off")


class LinkSimulator:
    """Compiled functions of one scenario: draw, detect, decode and count.

    Draws are always made in graph mode: XLA draws different Gaussians from the same
    key, and a run must not depend on how its detectors are compiled.

    Args:
        scenario: the `Scenario`.
        xla: "on", "off", or "auto": compile a detector with XLA where that is
            faster. On CPU it is slower for detectors that rely on LAPACK.
    """

    def __init__(self, scenario, xla="auto"):
        check_choice("xla", xla, XLA_MODES)
        self.scenario = scenario
        self.link = Link(scenario)
        self.xla = xla
        self.gpus = [d.name for d in tf.config.list_physical_devices("GPU")]
        self.receivers = {}  # {name: Receiver}
        self._detect = {}  # {detection: compiled function}
        self._quantize = {}  # {receiver: compiled function}
        # Those that are yet to be compiled, by their first call
        self._cold_detections, self._cold_receivers = set(), set()
        self._draw = tf.function(self.link.draw, autograph=False)
        self._count = tf.function(self._count_batch, autograph=False, jit_compile=xla != "off")

    @property
    def weights(self):
        """{receiver: {"<model>/<configuration>": SHA-256}}."""
        return {name: receiver.weights for name, receiver in self.receivers.items()}

    def add_detector(self, detector):
        """Build and compile a detector, perhaps with a quantizer behind it, once.

        Args:
            detector: a name, a layer or a `Receiver`, see
                `linksim.link.receiver.create_receiver`.

        Returns:
            The `Receiver`; its `name` is what the other methods take.

        Raises:
            InvalidInput: as `create_receiver`, or another receiver has the name.
        """
        if isinstance(detector, str):
            detector = parse_receiver(detector)
        if isinstance(detector, ReceiverSpec) and detector.text in self.receivers:
            return self.receivers[detector.text]
        receiver = create_receiver(detector, self.scenario)
        name = receiver.name
        if name in self.receivers:
            if self.receivers[name].key != receiver.key:
                raise InvalidInput(f"detectors: two of them are called {name!r}")
            return self.receivers[name]
        if receiver.detection not in self._detect:
            self._detect[receiver.detection] = self._compiled(receiver.detector)
            if not receiver.detector.eager_only:
                self._cold_detections.add(receiver.detection)
        if receiver.quantizer is not None:
            self._quantize[name] = tf.function(receiver.quantizer, autograph=False)
        self.receivers[name] = receiver
        self._cold_receivers.add(name)
        return receiver

    def _compiled(self, detector):
        if detector.eager_only:
            return detector.llrs_and_symbols
        use_xla = self.xla == "on" or (
            self.xla == "auto" and (detector.xla_on_cpu or bool(self.gpus))
        )
        return tf.function(detector.llrs_and_symbols, autograph=False, jit_compile=use_xla)

    def draw(self, seed, snr_db, batch):
        """The `LinkBatch` number `batch` of an SNR point."""
        size = self.scenario.run.batch_size
        result = self._draw(
            tf.constant(self.link.keys(seed, snr_db, batch)),
            tf.constant(self.link.no(snr_db), tf.float32),
            tf.constant(batch * size, tf.int32),
            size,
        )
        for name in ("y", "h_hat"):
            if not np.all(np.isfinite(getattr(result, name).numpy())):
                raise InvalidInput(
                    f"{self.scenario.name}: {name} contains NaN or inf at {snr_db} dB; "
                    "check the channel's parameters"
                )
        return result

    def detect(self, name, batch):
        """LLRs [B, U, K, m], quantized if asked for, and symbol decisions [B, U, K].

        The decisions are those of the detector.
        """
        llrs, symbols, _ = self._detection(name, batch)
        return self._quantized(name, llrs), symbols

    def _quantized(self, name, llrs):
        return self._quantize[name](llrs) if name in self._quantize else llrs

    def _detection(self, name, batch):
        """LLRs, decisions and seconds of the detector alone."""
        key = self.receivers[name].detection
        if key in self._cold_detections:
            # Compilation is not part of what a detector costs
            self._detect[key](batch.y, batch.h_hat, batch.no)
            self._cold_detections.discard(key)
        start = time.perf_counter()
        llrs, symbols = self._detect[key](batch.y, batch.h_hat, batch.no)
        symbols.numpy()  # waits for a GPU
        return llrs, symbols, time.perf_counter() - start

    def errors(self, name, batch, detections=None):
        """Bit and symbol errors of every block, and the time they took.

        Args:
            name: of the receiver.
            batch: the `LinkBatch`.
            detections: None, or a dictionary that the calls for one batch share, empty at
                first: receivers that differ only in their quantizer then detect once.

        Returns:
            int64 [B], int64 [B] and the seconds of detection, quantization and
            decoding, without compilation.
        """
        key = self.receivers[name].detection
        if detections is None:
            detections = {}
        if key not in detections:
            detections[key] = self._detection(name, batch)
        detected, symbols, seconds = detections[key]
        if name in self._cold_receivers:
            llrs = self._quantized(name, detected)
            self._count(batch.bits, batch.symbols, llrs, symbols)
            self._cold_receivers.discard(name)
        start = time.perf_counter()
        llrs = self._quantized(name, detected)
        bits, symbols, finite = self._count(batch.bits, batch.symbols, llrs, symbols)
        bits, symbols = bits.numpy().astype(int), symbols.numpy().astype(int)
        seconds += time.perf_counter() - start
        if not finite.numpy():
            raise RuntimeError(f"{name}: the LLRs contain NaN; please report this")
        return bits, symbols, seconds

    def peak_memory(self):
        """The most bytes of tensors that are alive at once while a batch is computed.

        All detectors that were added count, except those that only run eagerly. Nothing
        is run. `linksim.complexity.peak_memory` says what is counted.
        """
        keys = self.link.keys(0, 0.0, 0)
        draw = self._draw.get_concrete_function(
            tf.TensorSpec(keys.shape, keys.dtype),
            tf.TensorSpec([], tf.float32),
            tf.TensorSpec([], tf.int32),
            self.scenario.run.batch_size,
        )
        batch = _specs(draw)
        functions, detected = [draw], {}
        for key, function in self._detect.items():
            if hasattr(function, "get_concrete_function"):
                function = function.get_concrete_function(batch.y, batch.h_hat, batch.no)
                functions.append(function)
                detected[key] = _specs(function)
        for name, receiver in self.receivers.items():
            if receiver.detection not in detected:
                continue
            llrs, symbols = detected[receiver.detection]
            if name in self._quantize:
                functions.append(self._quantize[name].get_concrete_function(llrs))
            functions.append(
                self._count.get_concrete_function(batch.bits, batch.symbols, llrs, symbols)
            )
        # The batch and what receivers share stay while one function works
        kept = [*batch, *(spec for specs in detected.values() for spec in specs)]
        held = sum(math.prod(spec.shape) * spec.dtype.size for spec in kept)
        # Receivers share functions
        return held + max(map(peak_memory, set(functions)))

    def _count_batch(self, bits, symbols, llrs, decided):
        finite = tf.logical_not(tf.reduce_any(tf.math.is_nan(llrs)))
        return *self.link.count_errors(bits, symbols, llrs, decided), finite


def _specs(function):
    """Shapes and types of what a concrete function returns."""
    return tf.nest.map_structure(
        lambda t: tf.TensorSpec(t.shape, t.dtype), function.structured_outputs
    )
