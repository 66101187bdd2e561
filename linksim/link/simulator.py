"""The compiled functions of one scenario: draw, detect, decode and count."""

import functools
import math
import time

import tensorflow as tf

from linksim.backend import wait_for
from linksim.complexity.graphs import specs_of
from linksim.complexity.memory import peak_memory
from linksim.errors import InvalidInput, check_choice
from linksim.link.devices import gpus_in_float32
from linksim.link.link import Link
from linksim.link.receiver import create_receiver
from linksim.link.retransmission import HarqFunctions, transmit_until_decoded
from linksim.link.turbo import Exchange, PassFunctions, PassRun
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
        self.gpus = gpus_in_float32()
        self.receivers = {}  # {name: Receiver}
        self._detect = {}  # {detection: compiled function}
        # {receiver of one pass: ...}
        self._quantize = {}  # compiled functions
        self._passes = {}  # `PassFunctions`, of receivers of several passes
        self._harq = {}  # `HarqFunctions`, where blocks are sent again
        # Those that are yet to be compiled, by their first call
        self._cold_detections, self._cold_receivers = set(), set()
        self._draw = tf.function(self.link.draw, autograph=False)
        self._count = self._compiled_decoder(self._count_batch)

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
        detector, one_pass = receiver.detector, receiver.one_pass
        if receiver.detection not in self._detect:
            detect = self._compiled(detector, detector.llrs_and_symbols)
            self._detect[receiver.detection] = detect
            if not detector.eager_only:
                self._cold_detections.add(receiver.detection)
        if receiver.quantizer is not None and one_pass not in self._quantize:
            self._quantize[one_pass] = tf.function(receiver.quantizer, autograph=False)
        if receiver.num_passes > 1 and one_pass not in self._passes:
            self._passes[one_pass] = PassFunctions(
                Exchange(self.link, detector),
                self._quantize.get(one_pass),
                functools.partial(self._compiled, detector),
                self._compiled_decoder,
            )
        if len(self.link.codes) > 1:
            self._harq[name] = HarqFunctions(
                self.link,
                self._detect[receiver.detection],
                self._quantize.get(one_pass),
                self._compiled_decoder,
            )
        self.receivers[name] = receiver
        self._cold_receivers.add(name)
        return receiver

    def _compiled(self, detector, function):
        """A function that calls a detector, compiled as suits that."""
        if detector.eager_only:
            return function
        use_xla = self.xla == "on" or (
            self.xla == "auto" and (detector.xla_on_cpu or bool(self.gpus))
        )
        return tf.function(function, autograph=False, jit_compile=use_xla)

    def _compiled_decoder(self, function):
        return tf.function(function, autograph=False, jit_compile=self.xla != "off")

    def draw(self, seed, snr_db, batch, transmission=0):
        """The `LinkBatch` number `batch` of an SNR point.

        With HARQ each transmission of its blocks is a batch of its own, with other channels
        and noise.
        """
        size = self.scenario.run.batch_size
        position = batch * len(self.link.codes) + transmission
        result = self._draw(
            tf.constant(self.link.keys(seed, snr_db, batch, transmission)),
            tf.constant(self.link.no(snr_db), tf.float32),
            tf.constant(position * size, tf.int32),
            size,
            tf.constant(transmission, tf.int32),
        )
        for name in ("y", "h_hat"):
            if not _all_finite(getattr(result, name)).numpy():
                raise InvalidInput(
                    f"{self.scenario.name}: {name} contains NaN or inf at {snr_db} dB; "
                    "check the channel's parameters"
                )
        return result

    def detect(self, name, batch):
        """LLRs [B, U, K, m], quantized if asked for, and symbol decisions [B, U, K].

        The decisions are those of the detector. Both are of the first pass.
        """
        llrs, symbols, _ = self._detection(name, batch)
        return self._quantized(name, llrs), symbols

    def passes(self, name, batch):
        """Every `linksim.link.turbo.Pass` that a receiver of several passes makes.

        Args:
            name: of the receiver.
            batch: the `LinkBatch`.
        """
        run = self._pass_run(name, batch, self._detection(name, batch), keep=True)
        run.after(self.receivers[name].num_passes)
        return run.passes

    def pass_functions(self, name):
        """The `linksim.link.turbo.PassFunctions` of a receiver of several passes."""
        return self._passes[self.receivers[name].one_pass]

    def _pass_run(self, name, batch, detection, keep=False):
        one_pass = self.receivers[name].one_pass
        return PassRun(one_pass, self._passes[one_pass], batch, *detection, keep=keep)

    def _quantized(self, name, llrs):
        quantize = self._quantize.get(self.receivers[name].one_pass)
        return llrs if quantize is None else quantize(llrs)

    def _detection(self, name, batch):
        """LLRs, decisions and seconds of the detector alone."""
        key = self.receivers[name].detection
        if key in self._cold_detections:
            # Compilation is not part of what a detector costs
            self._detect[key](batch.y, batch.h_hat, batch.no)
            self._cold_detections.discard(key)
        start = time.perf_counter()
        llrs, symbols = self._detect[key](batch.y, batch.h_hat, batch.no)
        wait_for(llrs)
        return llrs, symbols, time.perf_counter() - start

    def errors(self, name, batch, detections=None):
        """Bit and symbol errors of every block, and the time they took.

        Args:
            name: of the receiver.
            batch: the `LinkBatch`.
            detections: None, or a dictionary that the calls for one batch share, empty at
                first: receivers that differ only in their quantizer then detect once, and
                those that differ only in their passes share these.

        Returns:
            int64 [B], int64 [B] and the seconds of detection, quantization and
            decoding, without compilation: of all passes that were made.
        """
        receiver = self.receivers[name]
        key = receiver.detection
        if detections is None:
            detections = {}
        if key not in detections:
            detections[key] = self._detection(name, batch)
        if receiver.num_passes > 1:
            passes = receiver.one_pass, "passes"
            if passes not in detections:
                detections[passes] = self._pass_run(name, batch, detections[key])
            return detections[passes].after(receiver.num_passes)
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

    def harq(self, name, batches, detections=None):
        """What becomes of the blocks of a batch that are sent until they are decoded.

        Args:
            name: of the receiver.
            batches: function from the number of a transmission, from 0, to its `LinkBatch`.
            detections: as for `errors`.

        Returns:
            `linksim.link.retransmission.Outcome`.
        """
        key = self.receivers[name].detection
        detections = {} if detections is None else detections
        if key not in detections:
            detections[key] = self._detection(name, batches(0))
        return transmit_until_decoded(name, self._harq[name], batches, *detections[key])

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
            tf.TensorSpec([], tf.int32),
        )
        batch = specs_of(draw)
        functions, detected = [draw], {}
        for key, function in self._detect.items():
            if hasattr(function, "get_concrete_function"):
                function = function.get_concrete_function(batch.y, batch.h_hat, batch.no)
                functions.append(function)
                detected[key] = specs_of(function)
        for receiver in self.receivers.values():
            if receiver.detection not in detected:
                continue
            llrs, symbols = detected[receiver.detection]
            if receiver.one_pass in self._quantize:
                quantize = self._quantize[receiver.one_pass]
                functions.append(quantize.get_concrete_function(llrs))
            if receiver.name in self._harq:
                harq = self._harq[receiver.name]
                made, detected["memory"] = harq.concrete(batch, llrs, symbols)
                functions += made
                continue
            if receiver.num_passes > 1:
                made, kept = self._passes[receiver.one_pass].concrete(batch, llrs)
                functions += made
                detected[receiver.one_pass, "passes"] = kept
                continue
            functions.append(
                self._count.get_concrete_function(batch.bits, batch.symbols, llrs, symbols)
            )
        # The batch and what receivers share stay while one function works
        kept = tf.nest.flatten([batch, list(detected.values())])
        held = sum(math.prod(spec.shape) * spec.dtype.size for spec in kept)
        # Receivers share functions
        return held + max(map(peak_memory, set(functions)))

    def _count_batch(self, bits, symbols, llrs, decided):
        finite = tf.logical_not(tf.reduce_any(tf.math.is_nan(llrs)))
        return *self.link.count_errors(bits, symbols, llrs, decided), finite


@tf.function(autograph=False, reduce_retracing=True)
def _all_finite(x):
    """Whether complex numbers are neither infinite nor NaN; they stay on a GPU."""
    parts = tf.stack([tf.math.real(x), tf.math.imag(x)])
    return tf.reduce_all(tf.math.is_finite(parts))
