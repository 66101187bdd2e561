"""The compiled functions of one scenario: draw, detect, decode and count."""

import math
import time

import numpy as np
import tensorflow as tf

from linksim.complexity.memory import peak_memory
from linksim.errors import InvalidInput, check_choice
from linksim.link.link import Link
from linksim.link.receiver import Receiver

XLA_MODES = ("auto", "on", "off")


class LinkSimulator:
    """Compiled functions of one scenario: draw, detect, decode and count.

    Draws are always made in graph mode: XLA draws other Gaussians for the same
    key, and a run must not depend on how its detectors are compiled.

    Args:
        scenario: the `Scenario`.
        xla: "on", "off", or "auto": compile a detector with XLA where that is
            faster. On CPU that is not so for those that live on LAPACK.
    """

    def __init__(self, scenario, xla="auto"):
        check_choice("xla", xla, XLA_MODES)
        self.scenario = scenario
        self.link = Link(scenario)
        self.xla = xla
        self.gpus = [d.name for d in tf.config.list_physical_devices("GPU")]
        self._receivers = {}
        self._detect = {}  # {detection: compiled function}
        self._quantize = {}  # {receiver: compiled function}
        self.weights = {}  # {receiver: {model: SHA-256}}
        # Those whose first, compiling, call is still to come
        self._cold_detections, self._cold_receivers = set(), set()
        # Results of detections that several receivers share, on the last batch
        self._batch, self._results = None, {}
        self._draw = tf.function(self.link.draw, autograph=False)
        self._count = tf.function(self._count_batch, autograph=False, jit_compile=xla != "off")

    def add_detector(self, name):
        """Build and compile `DETECTOR[+QUANTIZER[:BITS]]` (see `Receiver`), once."""
        if name in self._receivers:
            return
        receiver = Receiver(name, self.scenario)
        detector = receiver.detector
        if receiver.detection not in self._detect:
            function = detector.llrs_and_symbols
            if not detector.eager_only:
                use_xla = self.xla == "on" or (
                    self.xla == "auto" and (detector.xla_on_cpu or bool(self.gpus))
                )
                function = tf.function(function, autograph=False, jit_compile=use_xla)
                self._cold_detections.add(receiver.detection)
            self._detect[receiver.detection] = function
        if receiver.quantizer is not None:
            function = tf.function(receiver.quantizer, autograph=False)
            self._quantize[name] = function
        self._receivers[name] = receiver
        self.weights[name] = receiver.weights
        self._cold_receivers.add(name)

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
        key = self._receivers[name].detection
        if batch is not self._batch:
            self._batch, self._results = batch, {}
        if key in self._results:
            return self._results[key]
        if key in self._cold_detections:
            # Compilation is not part of what a detector costs
            self._detect[key](batch.y, batch.h_hat, batch.no)
            self._cold_detections.discard(key)
        start = time.perf_counter()
        llrs, symbols = self._detect[key](batch.y, batch.h_hat, batch.no)
        symbols.numpy()  # waits for a GPU
        result = llrs, symbols, time.perf_counter() - start
        users = [r for r in self._receivers.values() if r.detection == key]
        if len(users) > 1:
            self._results[key] = result
        return result

    def errors(self, name, batch):
        """Bit and symbol errors of every block, and the time they took.

        Returns:
            int64 [B], int64 [B] and the seconds of detection, quantization and
            decoding, without compilation.
        """
        detected, symbols, seconds = self._detection(name, batch)
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
        """Bytes of a batch with all detectors added: tensors alive at once, at most.

        Nothing is run. See `linksim.complexity.peak_memory` for what is counted;
        detectors that work eagerly only are not.
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
        for name, receiver in self._receivers.items():
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
