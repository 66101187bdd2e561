"""The compiled functions of one scenario: draw, detect, decode and count."""

import time

import numpy as np
import tensorflow as tf

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
        self._detect = {}
        self.weights = {}  # {detector: {model: SHA-256}}
        self._cold = set()  # detectors whose first, compiling, call is to come
        self._draw = tf.function(self.link.draw, autograph=False)
        self._count = tf.function(
            self._count_batch, autograph=False, jit_compile=xla != "off"
        )

    def add_detector(self, name):
        """Build and compile `DETECTOR[+QUANTIZER[:bits]]` (see `Receiver`), once."""
        if name in self._detect:
            return
        receiver = Receiver(name, self.scenario)
        detector = receiver.detector
        function = receiver.__call__
        if not detector.eager_only:
            use_xla = self.xla == "on" or (
                self.xla == "auto" and (detector.xla_on_cpu or bool(self.gpus))
            )
            function = tf.function(function, autograph=False, jit_compile=use_xla)
        self._detect[name] = function
        self.weights[name] = receiver.weights
        if not detector.eager_only:
            self._cold.add(name)

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
        """LLRs [B, U, K, m] and symbol decisions [B, U, K] of a `LinkBatch`."""
        return self._detect[name](batch.y, batch.h_hat, batch.no)

    def errors(self, name, batch):
        """Bit and symbol errors of every block, and the time they took.

        Returns:
            int64 [B], int64 [B] and the seconds of detection and decoding, without
            compilation.
        """
        if name in self._cold:
            # Compilation is not part of what a detector costs
            self._count(batch.bits, batch.symbols, *self.detect(name, batch))
            self._cold.discard(name)
        start = time.perf_counter()
        llrs, symbols = self.detect(name, batch)
        bits, symbols, finite = self._count(batch.bits, batch.symbols, llrs, symbols)
        bits, symbols = bits.numpy().astype(int), symbols.numpy().astype(int)
        seconds = time.perf_counter() - start
        if not finite.numpy():
            raise RuntimeError(f"{name}: the LLRs contain NaN; please report this")
        return bits, symbols, seconds

    def _count_batch(self, bits, symbols, llrs, decided):
        finite = tf.logical_not(tf.reduce_any(tf.math.is_nan(llrs)))
        return *self.link.count_errors(bits, symbols, llrs, decided), finite
