"""What is trained: layers, the losses they can have, and what is measured.

A task is a Keras model called with a prepared batch and returning its loss, so that
`train_on_batch` compiles the whole step on every backend.
"""

import keras
import numpy as np
from keras import ops

from linksim.channels.random import StreamKey
from linksim.constellation import pam_logits_to_llrs
from linksim.detectors.base import Detector
from linksim.detectors.real import (
    complex_to_real_channel,
    matched_filter,
    matvec,
    regularized_inverse,
)
from linksim.errors import InvalidInput, check_int, check_real
from linksim.training import losses


class Task(keras.Model):
    """Base class of all tasks.

    Args:
        weights_of_losses: {name of a term: its weight}; the loss is their sum.

    A subclass implements `terms` and `soft_output`, and sets `terms_available`,
    `needs_teacher` and `product`, the layer whose weights are the result.
    """

    terms_available = ()
    needs_teacher = False

    def __init__(self, weights_of_losses):
        super().__init__()
        if not weights_of_losses:
            raise InvalidInput("loss: empty, expected at least one term")
        for name, weight in weights_of_losses.items():
            if name not in self.terms_available:
                raise InvalidInput(
                    f"loss: unknown term {name!r}; expected some of: "
                    f"{', '.join(self.terms_available)}"
                )
            check_real(f"loss.{name}", weight, low=0)
        self.loss_weights_by_term = dict(weights_of_losses)

    def build(self, input_shape=None):
        """The layers are built before they become a task."""

    def prepare(self, batch):
        """What the training step needs of a `VectorSource` batch.

        Runs outside of the compiled step: on CPU, LAPACK is faster there.
        """
        return batch

    def calibrate(self, batch):
        """Look at a prepared validation batch before training starts."""

    def terms(self, batch, training):
        """{name: scalar} of the losses in use."""
        raise NotImplementedError

    def soft_output(self, batch):
        """LLRs [B, K, m] of a prepared batch, as in use after training."""
        raise NotImplementedError

    def call(self, batch, training=False):
        terms = self.terms(batch, training)
        return sum(w * terms[name] for name, w in self.loss_weights_by_term.items())

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return y_pred

    def measures(self, batch):
        """Validation measures of a prepared batch: scalars by name."""
        llr = self.soft_output(batch)
        values = {
            "loss": self(batch, training=False),
            "mutual_information": losses.mutual_information(
                llr, batch["bits"], batch.get("present")
            ),
        }
        if "llr" in batch:
            values["divergence"] = losses.bit_divergence(llr, batch["llr"])
        return values


class LLRTask(Task):
    """Base class of the tasks that have the LLRs of a teacher as target."""

    needs_teacher = True

    def __init__(self, weights_of_losses):
        super().__init__(weights_of_losses)
        self._bit_weights = None

    def calibrate(self, batch):
        # w_i: the mean magnitude of LLR i in the data
        magnitude = ops.mean(ops.abs(ops.tanh(batch["llr"] / 2.0)), axis=0)
        self._bit_weights = ops.convert_to_numpy(magnitude / ops.mean(magnitude))

    def weighted_squared_error(self, llr, batch):
        """EQ-Net's loss (eq. 7) with the weights of the data."""
        weights = ops.convert_to_tensor(self._bit_weights)
        return losses.weighted_squared_error(llr, batch["llr"], weights)


class AutoencoderTask(LLRTask):
    """Stage 1 of EQ-Net: f_Q and g on the LLRs of a teacher.

    Terms: "weighted-squared-error" (eq. 7, the paper's) and "divergence".

    Args:
        quantizer: an `EQNetQuantizer`.
        noise: standard deviation of the noise that stands for quantization (eq. 8).
    """

    terms_available = ("weighted-squared-error", "divergence")

    def __init__(self, quantizer, weights_of_losses, noise=1e-3):
        super().__init__(weights_of_losses)
        check_real("noise", noise, low=0)
        self.product = quantizer
        self._noise = noise

    def prepare(self, batch):
        return {name: batch[name] for name in ("llr", "bits", "key")}

    def terms(self, batch, training):
        z = self.product.encode(batch["llr"])
        if training:
            z = z + self._noise * keras.random.normal(
                ops.shape(z), seed=StreamKey(batch["key"])
            )
        llr = self.product.decode(z)
        return {
            "weighted-squared-error": self.weighted_squared_error(llr, batch),
            "divergence": losses.bit_divergence(llr, batch["llr"]),
        }

    def soft_output(self, batch):
        return self.product.decode(self.product.encode(batch["llr"]))


class EstimatorTask(LLRTask):
    """Stage 2 of EQ-Net: f_E, with f_Q and g as stage 1 left them.

    Terms: "latent" (mean absolute error to the latents of f_Q, eq. 9), and through
    g "divergence" to the teacher, "weighted-squared-error" (eq. 7) and
    "cross-entropy" to the sent bits.

    Args:
        detector: an `EQNetDetector`.
        quantizer: the `EQNetQuantizer` of stage 1, whose decoder the detector takes.
        joint: train f_E and g together from scratch instead (the paper's baseline,
            Section IV-C).
    """

    terms_available = ("latent", "divergence", "weighted-squared-error", "cross-entropy")

    def __init__(self, detector, quantizer, weights_of_losses, joint=False):
        super().__init__(weights_of_losses)
        self.product = detector
        self._encoder = None
        if joint:
            if "latent" in weights_of_losses:
                raise InvalidInput("loss: joint training has no latents to learn from")
            return
        self._encoder = quantizer.encoder
        self._encoder.trainable = False
        detector.decoder.set_weights(quantizer.decoder.get_weights())
        detector.decoder.trainable = False

    def prepare(self, batch):
        y, h = complex_to_real_channel(batch["y"], batch["h"])
        inputs = self.product.inputs(y, h, batch["no"])
        prepared = {f"input_{i}": value for i, value in enumerate(inputs)}
        prepared.update(llr=batch["llr"], bits=batch["bits"])
        if self._encoder is not None:
            prepared["latent"] = self._encoder(batch["llr"])
        return prepared

    def _latents(self, batch):
        count = sum(name.startswith("input_") for name in batch)
        return self.product.latents_of_inputs([batch[f"input_{i}"] for i in range(count)])

    def terms(self, batch, training):
        z = self._latents(batch)
        values = {}
        if "latent" in self.loss_weights_by_term:
            values["latent"] = ops.mean(ops.abs(z - batch["latent"]))
        if set(self.loss_weights_by_term) - {"latent"}:
            llr = self.product.decoder(z)
            values["divergence"] = losses.bit_divergence(llr, batch["llr"])
            values["cross-entropy"] = losses.bit_cross_entropy(llr, batch["bits"])
            values["weighted-squared-error"] = self.weighted_squared_error(llr, batch)
        return values

    def measures(self, batch):
        # Whatever the loss, the one that all kinds of training are compared by
        error = self.weighted_squared_error(self.soft_output(batch), batch)
        return {**super().measures(batch), "weighted-squared-error": error}

    def soft_output(self, batch):
        return self.product.decoder(self._latents(batch))


class DetectorTask(Task):
    """Any detector with logits, on the sent symbols.

    Terms:
        - "cross-entropy" of the PAM levels, or of the symbols where a detector's
          logits are not those of PAMs;
        - "squared-error" of the estimates of the levels: a detector's
          `all_estimates`, or else the means of its PAM logits;
        - "detnet": eq. 20 of 001_199363b04b6b0fc1.txt on `all_estimates`;
        - "teacher-distance", for a hypernetwork: the L1 distance of the weights it makes
          for the channels of `teachers` from theirs, mean over channels. Its weight is
          beta of 003_a2d4684ab4cda01d.txt, eq. 3, which sums over channels; the
          published code takes the mean over channels and layers.
        - "log-l1": eq. 22 of 001_199363b04b6b0fc1.txt, the penalty of weight-scaled
          detectors; the weight of the term is lambda.

    The first two are of the last layer or, with `all_layers`, averaged over all.
    Users whose channel is zero do not count.

    Args:
        detector: the layer to train, built.
        all_layers: see above.
        by_channel: use `all_logits_by_channel` (MMNet), for data with `num_channels`.
        by_drop: use `all_logits_by_drop` (HyperMIMO), for data of as many user drops.
        teachers: a `ChannelNetworks` with weights, of the networks that `detector` makes
            the weights of.
        penalized_from: the first unfolded layer under the "log-l1" penalty; that of the
            code published with WeSNet is 10 of 90.
    """

    terms_available = (
        "cross-entropy",
        "squared-error",
        "detnet",
        "teacher-distance",
        "log-l1",
    )

    def __init__(
        self,
        detector,
        weights_of_losses,
        all_layers=False,
        by_channel=False,
        by_drop=False,
        teachers=None,
        penalized_from=2,
    ):
        super().__init__(weights_of_losses)
        own_layers = type(detector).all_logits is not Detector.all_logits
        if all_layers and not own_layers:
            raise InvalidInput(
                f"all_layers: {type(detector).__name__} has the logits of one layer only"
            )
        if "squared-error" in weights_of_losses and not getattr(detector, "factored", True):
            raise InvalidInput(
                "loss: squared-error needs the logits of PAMs; set model.factored = true"
            )
        taught = "teacher-distance" in weights_of_losses
        if taught != (teachers is not None):
            raise InvalidInput(
                "teachers: needed for the loss teacher-distance, and for no other; got "
                f"{'none' if teachers is None else 'some without it'}"
            )
        needed = [
            ("by_channel", "all_logits_by_channel", by_channel),
            ("by_drop", "all_logits_by_drop", by_drop),
            ("teachers", "weights_of_teachers", taught),
            ("loss", "all_estimates", "detnet" in weights_of_losses),
            ("loss", "layer_norms", "log-l1" in weights_of_losses),
        ]
        for option, method, wanted in needed:
            if wanted and not hasattr(detector, method):
                raise InvalidInput(
                    f"{option}: {type(detector).__name__} has no {method}, which it needs"
                )
        if "detnet" in weights_of_losses and _depth(detector) < 2:
            raise InvalidInput("loss: detnet gives the first layer no weight; needs two")
        check_int("penalized_from", penalized_from)
        if "log-l1" in weights_of_losses and penalized_from > _depth(detector):
            raise InvalidInput(
                f"penalized_from: got {penalized_from}, there are {_depth(detector)} layers"
            )
        self.product = detector
        self._penalized_from = penalized_from
        self._all_layers = all_layers
        self._grouped = None  # how the batch is detected, unless vector by vector
        if by_channel:
            self._grouped = detector.all_logits_by_channel
        elif by_drop:
            self._grouped = detector.all_logits_by_drop
        self._taught = None
        if taught:
            targets = detector.weights_of_teachers(teachers)
            self._taught = [ops.convert_to_numpy(t) for t in (teachers.channels, targets)]

    def prepare(self, batch):
        y, h = complex_to_real_channel(batch["y"], batch["h"])
        if self.product.is_real:
            h = h[..., : self.product.num_streams]
        prepared = {
            "y": y,
            "h": h,
            "no": batch["no"],
            "bits": batch["bits"],
            "symbols": batch["symbols"],
            "present": batch["present"],
        }
        if "detnet" in self.loss_weights_by_term:
            hty, gram = matched_filter(y, h)
            prepared["zero_forcing"] = matvec(regularized_inverse(gram, 0.0), hty)
        return prepared

    def terms(self, batch, training):
        detector, symbols = self.product, batch["symbols"]
        args = batch["y"], batch["h"], batch["no"]
        m, points = detector.num_bits_per_symbol, detector.points
        present = batch["present"]
        layers = self._logits(*args, training)
        entropy = [losses.cross_entropy(x, symbols, m, present) for x in layers]
        values = {"cross-entropy": sum(entropy) / len(layers)}
        if {"squared-error", "detnet"} & set(self.loss_weights_by_term):
            sent = losses.sent_levels(symbols, m, points)
            if hasattr(detector, "all_estimates"):
                estimates = detector.all_estimates(*args)
            else:
                estimates = [losses.pam_means(x, points) for x in layers]
            kept = estimates if self._all_layers else estimates[-1:]
            errors = [losses.squared_error(x, sent, present) for x in kept]
            values["squared-error"] = sum(errors) / len(kept)
            if "detnet" in self.loss_weights_by_term:
                reference = batch["zero_forcing"]
                values["detnet"] = losses.detnet_loss(estimates, sent, reference)
        if self._taught is not None:
            channels, targets = (ops.convert_to_tensor(t) for t in self._taught)
            # Of a hypernetwork that sees N0, those of the batch in turn
            no = ops.take(args[2], np.arange(len(self._taught[0])) % args[2].shape[0])
            distance = ops.abs(detector.made_weights(channels, no) - targets)
            values["teacher-distance"] = ops.mean(ops.sum(distance, axis=-1))
        if "log-l1" in self.loss_weights_by_term:
            values["log-l1"] = losses.log_l1_penalty(
                detector.layer_norms(), self._penalized_from
            )
        return values

    def _logits(self, y, h, no, training):
        """Logits of the layers that the loss is of."""
        if self._grouped is not None:
            every = self._grouped(y, h, no)
        else:
            every = self.product.all_logits(y, h, no, training=training)
        return every if self._all_layers else every[-1:]

    def soft_output(self, batch):
        args = batch["y"], batch["h"], batch["no"]
        if self._grouped is not None:
            last = self._grouped(*args)[-1]
            return pam_logits_to_llrs(last, self.product.num_bits_per_symbol)
        return self.product.detect_llrs(*args)


def _depth(detector):
    """How many estimates `all_estimates` of a detector has."""
    if hasattr(detector, "by_layer"):
        return getattr(detector, detector.depth_option)
    return getattr(detector, "num_layers", 1)
