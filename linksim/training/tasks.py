"""Training tasks: a layer, the losses that it can have, and its validation measures.

A task is a Keras model that is called with a prepared batch and returns its loss, so that
`train_on_batch` compiles the whole step on every backend.
"""

from typing import Any

import keras
import numpy as np
from keras import ops

from linksim.channels.random import StreamKey
from linksim.constellation import (
    bit_labels,
    llrs_to_pam_logits,
    pam_logits_to_llrs,
    pam_num_bits,
    pam_points,
)
from linksim.detectors.pepnet import Evidence, PEPNetDetector, evidence
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

    A subclass implements `terms` and `soft_output`, and sets `terms_available` and
    `product`.

    Args:
        weights_of_losses: {name of a term: its weight}. The loss is the weighted sum.

    Attributes:
        terms_available: the names of terms that the loss can have.
        needs_teacher: batches need the LLRs of a teacher.
        any_num_streams: batches may have absent streams.
        takes_prior: batches may have a prior.
        product: the layer whose weights are the result of the training.

    Raises:
        InvalidInput: unknown terms or negative weights.
    """

    terms_available: tuple[str, ...] = ()
    needs_teacher = False
    any_num_streams = False
    takes_prior = False
    # An annotation alone: on PyTorch a class attribute would hide the layer
    product: Any

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
        """Do nothing, because the layers are built before they become a task."""

    def take_data_from(self, source, data):
        """Give the layer the fixed channels or user drops of its data, before training.

        Args:
            source: the `VectorSource`.
            data: the `data` table of the recipe.

        Raises:
            InvalidInput: the layer cannot be trained on these data.
        """
        name = type(self.product).__name__
        if data.streams and not self.any_num_streams:
            raise InvalidInput(f"data.streams: {name} has weights for one number of streams")
        if data.prior_information and not self.takes_prior:
            raise InvalidInput(f"data.prior_information: {name} is not trained with a prior")

    def prepare(self, batch):
        """The part of a `VectorSource` batch that the training step needs.

        This runs outside of the compiled step, where LAPACK is faster on CPU.
        """
        return batch

    def calibrate(self, batch):
        """Adapt the losses to a prepared validation batch, before training."""

    def terms(self, batch, training):
        """The losses in use, {name: scalar}."""
        raise NotImplementedError

    def soft_output(self, batch):
        """LLRs [B, K, m] of a prepared batch, as the trained layer gives them."""
        raise NotImplementedError

    def call(self, batch, training=False):
        """The loss of a prepared batch, the weighted sum of its terms."""
        terms = self.terms(batch, training)
        return sum(w * terms[name] for name, w in self.loss_weights_by_term.items())

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return y_pred

    def measures(self, batch):
        """The validation measures of a prepared batch, {name: scalar}."""
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
    """Base class of tasks whose target is the LLRs of a teacher."""

    needs_teacher = True

    def __init__(self, weights_of_losses):
        super().__init__(weights_of_losses)
        self._bit_weights = None

    def calibrate(self, batch):
        # w_i is the mean magnitude of LLR i in the data
        magnitude = ops.mean(ops.abs(ops.tanh(batch["llr"] / 2.0)), axis=0)
        self._bit_weights = ops.convert_to_numpy(magnitude / ops.mean(magnitude))

    def weighted_squared_error(self, llr, target):
        """The loss of EQ-Net with weights from the data [Arvinte20, eq. 7]."""
        weights = ops.convert_to_tensor(self._bit_weights)
        return losses.weighted_squared_error(llr, target, weights)


class AutoencoderTask(LLRTask):
    """Stage 1 of EQ-Net, which trains f_Q and g on the LLRs of a teacher [Arvinte20].

    Terms are "weighted-squared-error" (eq. 7, the paper's) and "divergence".

    Args:
        quantizer: an `EQNetQuantizer`.
        weights_of_losses: see `Task`.
        noise: standard deviation of the noise on the latents, which stands for
            quantization (eq. 8).
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
            "weighted-squared-error": self.weighted_squared_error(llr, batch["llr"]),
            "divergence": losses.bit_divergence(llr, batch["llr"]),
        }

    def soft_output(self, batch):
        return self.product.decode(self.product.encode(batch["llr"]))


class EstimatorTask(LLRTask):
    """Stage 2 of EQ-Net, which trains f_E for the f_Q and g of stage 1 [Arvinte20].

    Terms are "latent", the mean absolute error to the latents of f_Q (eq. 9), and three on
    the output of g: "divergence" from the teacher, "weighted-squared-error" (eq. 7) and
    the "cross-entropy" of the sent bits.

    Args:
        detector: an `EQNetDetector`.
        quantizer: the `EQNetQuantizer` of stage 1, whose decoder the detector takes.
        weights_of_losses: see `Task`.
        joint: train f_E and g together from scratch instead, which is the paper's baseline
            (Section IV-C).

    With a prior, f_E and g are trained on what the channel adds to it: the LLRs of the
    teacher, which knows it, less the prior.
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
        system = *complex_to_real_channel(batch["y"], batch["h"]), batch["no"]
        prepared, added = {"llr": batch["llr"], "bits": batch["bits"]}, batch["llr"]
        if "prior" in batch:
            prior = batch["prior"]
            prepared["prior"], added = prior, added - prior
            system += (llrs_to_pam_logits(prior, self.product.num_bits_per_symbol),)
        inputs = self.product.inputs(*system)
        prepared.update({f"input_{i}": value for i, value in enumerate(inputs)})
        if self._encoder is not None:
            prepared["latent"] = self._encoder(added)
        return prepared

    @property
    def takes_prior(self):
        """As the detector has it."""
        return self.product.accepts_prior

    def _latents(self, batch):
        count = sum(name.startswith("input_") for name in batch)
        return self.product.latents_of_inputs([batch[f"input_{i}"] for i in range(count)])

    def terms(self, batch, training):
        z = self._latents(batch)
        values = {}
        if "latent" in self.loss_weights_by_term:
            values["latent"] = ops.mean(ops.abs(z - batch["latent"]))
        if set(self.loss_weights_by_term) - {"latent"}:
            llr, added = self.product.decoder(z), batch["llr"]
            whole = llr
            if "prior" in batch:
                whole, added = llr + batch["prior"], added - batch["prior"]
            values["divergence"] = losses.bit_divergence(llr, added)
            values["cross-entropy"] = losses.bit_cross_entropy(whole, batch["bits"])
            values["weighted-squared-error"] = self.weighted_squared_error(llr, added)
        return values

    def measures(self, batch):
        # All kinds of training are compared by this, whatever their loss
        error = self.weighted_squared_error(self.soft_output(batch), batch["llr"])
        return {**super().measures(batch), "weighted-squared-error": error}

    def soft_output(self, batch):
        llr = self.product.decoder(self._latents(batch))
        return llr + batch["prior"] if "prior" in batch else llr


class DetectorTask(Task):
    """Trains any detector on the sent symbols.

    Terms are:
        - "cross-entropy" of the PAM levels, or of the symbols if the detector's logits are
          not those of PAMs;
        - "squared-error" of the estimates of the levels, which are `all_estimates` of the
          detector if it has them, else the means of its PAM logits;
        - "detnet", the loss of DetNet on `all_estimates` [Mohammad20, eq. 20];
        - "teacher-distance", for a hypernetwork: the L1 distance between the weights that
          it makes for the channels of `teachers` and the teachers' own, averaged over
          channels. Its weight is beta in [Zilberstein21], eq. 3, which sums over channels;
          the published code averages over channels and layers.
        - "log-l1", the penalty of weight-scaled detectors [Mohammad20, eq. 22], with lambda
          as its weight.

    The first two look at the last layer, or with `all_layers` at the average over all.
    Users whose channel is zero do not count.

    Args:
        detector: the layer to train, built.
        weights_of_losses: see `Task`.
        all_layers: see above.
        by_channel: use `all_logits_by_channel` (MMNet), for data with `num_channels`.
        by_drop: use `all_logits_by_drop` (HyperMIMO), for data with as many user drops.
        teachers: a `ChannelNetworks` with weights, whose networks are of the kind that
            `detector` makes the weights of.
        penalized_from: the first unfolded layer under the "log-l1" penalty. In the code
            published with [Mohammad20] it is layer 10 of 90.

    Raises:
        InvalidInput: the detector lacks what an option or a loss needs.
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
        taught = "teacher-distance" in weights_of_losses
        if taught != (teachers is not None):
            raise InvalidInput(
                "teachers: needed for the loss teacher-distance, and for no other; got "
                f"{'none' if teachers is None else 'some without it'}"
            )
        for option, wanted, offered, what in (
            ("all_layers", all_layers, detector.has_layers, "unfolded layers"),
            ("by_channel", by_channel, detector.fixed_channels, "networks per channel"),
            ("by_drop", by_drop, detector.num_drops > 0, "networks per user drop"),
            ("teachers", taught, detector.makes_networks, "hypernetwork to teach"),
        ):
            if wanted and not offered:
                raise InvalidInput(f"{option}: {type(detector).__name__} has no {what}")
        _check_losses(weights_of_losses, detector, penalized_from)
        self.product = detector
        self._penalized_from = penalized_from
        self._all_layers = all_layers
        # Detects a batch with one network for each group of vectors, if there are groups
        self._grouped = None
        if by_channel:
            self._grouped = detector.all_logits_by_channel
        elif by_drop:
            self._grouped = detector.all_logits_by_drop
        self._taught = None
        if taught:
            targets = detector.weights_of_teachers(teachers)
            self._taught = [ops.convert_to_numpy(t) for t in (teachers.channels, targets)]

    def take_data_from(self, source, data):
        detector, name = self.product, type(self.product).__name__
        super().take_data_from(source, data)
        if detector.fixed_channels:
            if not data.num_channels:
                raise InvalidInput(
                    f"data.num_channels: missing, {name} has weights per channel"
                )
            detector.set_channels(source.channels)
        if detector.num_drops > 1:
            covariances = source.channel.covariances
            if covariances is None or len(covariances) != detector.num_drops:
                raise InvalidInput(
                    f"model.num_drops: got {detector.num_drops}, expected the number of user "
                    f"drops of {data.scenario}: "
                    f"{'none' if covariances is None else len(covariances)}"
                )
            detector.set_drops(covariances)

    @property
    def any_num_streams(self):
        """As the detector has it."""
        return self.product.any_num_streams

    @property
    def takes_prior(self):
        """Whether the detector uses a prior and the loss looks at what it makes of it."""
        return self.product.accepts_prior and self._grouped is None

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
        if "prior" in batch:
            m = self.product.num_bits_per_symbol
            prepared["prior"] = llrs_to_pam_logits(batch["prior"], m)
        if "detnet" in self.loss_weights_by_term:
            hty, gram = matched_filter(y, h)
            prepared["zero_forcing"] = matvec(regularized_inverse(gram, 0.0), hty)
        return prepared

    def terms(self, batch, training):
        detector, symbols = self.product, batch["symbols"]
        args = batch["y"], batch["h"], batch["no"]
        m, points = detector.num_bits_per_symbol, detector.points
        present = batch["present"]
        layers = self._logits(*args, training, **_prior_of(batch))
        entropy = [losses.cross_entropy(x, symbols, m, present) for x in layers]
        values = {"cross-entropy": sum(entropy) / len(layers)}
        if {"squared-error", "detnet"} & set(self.loss_weights_by_term):
            sent = losses.sent_levels(symbols, m, points)
            if detector.has_estimates:
                estimates = detector.all_estimates(*args, **_prior_of(batch))
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
            # A hypernetwork that sees N0 gets the values of the batch in turn
            no = ops.take(args[2], np.arange(len(self._taught[0])) % args[2].shape[0])
            distance = ops.abs(detector.made_weights(channels, no) - targets)
            values["teacher-distance"] = ops.mean(ops.sum(distance, axis=-1))
        if "log-l1" in self.loss_weights_by_term:
            values["log-l1"] = losses.log_l1_penalty(
                detector.layer_norms(), self._penalized_from
            )
        return values

    def _logits(self, y, h, no, training, **prior):
        """The logits of the layers that the loss looks at."""
        if self._grouped is not None:
            every = self._grouped(y, h, no)
        else:
            every = self.product.all_logits(y, h, no, training=training, **prior)
        return every if self._all_layers else every[-1:]

    def soft_output(self, batch):
        args = batch["y"], batch["h"], batch["no"]
        if self._grouped is not None:
            last = self._grouped(*args)[-1]
            return pam_logits_to_llrs(last, self.product.num_bits_per_symbol)
        return self.product.detect_llrs(*args, **_prior_of(batch))


class AnySizeDetectorTask(Task):
    """Trains a detector whose weights serve systems of every size, on several kinds in turn.

    What does not depend on weights, the evidence of `linksim.detectors.pepnet`, is found
    when a batch is prepared. The loss has one term, the bitwise "cross-entropy".

    Args:
        detector: a `PEPNetDetector` of any size, built.
        weights_of_losses: see `Task`.
    """

    terms_available = ("cross-entropy",)

    def __init__(self, detector, weights_of_losses):
        super().__init__(weights_of_losses)
        if not isinstance(detector, PEPNetDetector):
            raise InvalidInput(
                f"task: {type(detector).__name__} has no weights for systems of every size"
            )
        self.product = detector

    def take_data_from(self, source, data):
        """Do nothing: the recipe has checked that data and parts go together."""

    def prepare(self, batch):
        m = batch["bits"].shape[-1]
        y, h = complex_to_real_channel(batch["y"], batch["h"])
        h = h[..., : batch["bits"].shape[1]] if m == 1 else h
        points = pam_points(m)
        prior = batch.get("prior")
        if prior is not None:
            prior = llrs_to_pam_logits(prior, m)
        found = evidence(y, h, batch["no"], points, prior)
        # [B, N, n]: the bits of a real dimension, as its levels are labelled
        step = 1 if m == 1 else 2
        bits = [batch["bits"][..., i::step] for i in range(step)]
        labels = bit_labels(pam_num_bits(m)).astype(np.float32)
        given = {k: v for k, v in found._asdict().items() if v is not None}
        return {
            **given,
            "bits": ops.concatenate(bits, axis=1),
            "labels": ops.convert_to_tensor(labels),
        }

    def soft_output(self, batch):
        """LLRs [B, N, n] of the bits of each real dimension."""
        return self.llrs_of(self.product, batch)

    @staticmethod
    def llrs_of(detector, batch):
        """What `soft_output` is with another detector."""
        logits = detector.weigh(Evidence(*(batch.get(k) for k in Evidence._fields)))
        # Masks instead of indices: Keras forgets the number of levels between batches
        never = -1e30
        ones = batch["labels"][None, None]  # [1, 1, L, n]
        logits = logits[..., None]
        return ops.logsumexp(logits + never * (1.0 - ones), axis=-2) - ops.logsumexp(
            logits + never * ones, axis=-2
        )

    def terms(self, batch, training):
        llr = self.soft_output(batch)
        return {"cross-entropy": losses.bit_cross_entropy(llr, batch["bits"])}


def _prior_of(batch):
    """The keyword `prior` of a prepared batch that has one."""
    return {"prior": batch["prior"]} if "prior" in batch else {}


def _check_losses(terms, detector, penalized_from):
    """Raise `InvalidInput` if a detector lacks what the terms of a loss need."""
    name = type(detector).__name__
    if "squared-error" in terms and not detector.factored:
        raise InvalidInput(
            "loss: squared-error needs the logits of PAMs; set model.factored = true"
        )
    if "detnet" in terms:
        if not detector.has_estimates:
            raise InvalidInput(f"loss: {name} has no estimates of its layers, for detnet")
        if detector.depth < 2:
            raise InvalidInput("loss: detnet gives the first layer no weight; needs two")
    check_int("penalized_from", penalized_from)
    if "log-l1" in terms:
        if not detector.weight_scaled:
            raise InvalidInput(f"loss: {name} has no weight-scaled layers, for log-l1")
        if penalized_from > detector.depth:
            raise InvalidInput(
                f"penalized_from: got {penalized_from}, there are {detector.depth} layers"
            )
