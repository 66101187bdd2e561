"""DetNet and the WeSNets, which are DetNet with weight scaling."""

import keras
import numpy as np
from keras import ops

from linksim.backend import Float32Layer, constant
from linksim.constellation import pam_posterior
from linksim.detectors.base import Detector
from linksim.detectors.real import matched_inputs, matvec
from linksim.detectors.weight_scaling import WeightScaled, scaled_norm
from linksim.errors import InvalidInput, check_choice, check_int, check_real

HEADS = ("one-hot", "soft-sign")
SCALED = ("units", "inputs")


@keras.saving.register_keras_serializable("linksim")
class DetNetDetector(WeightScaled, Detector):
    """DetNet: projected gradient descent unfolded into dense layers [Samuel17, Samuel19].

    Each layer computes, in real dimensions and starting from x = a = 0
    [Mohammad20, eq. 8 to 11]:
        - u = ReLU(W1 [H'y, x, H'H x, a] + b1);
        - the estimate x, which the head makes from W2 u + b2;
        - a = W3 u + b3.
    Both outputs are mixed with those of the layer before,
    out <- (1 - residual) out + residual out_before.

    There are two heads:
        - "one-hot": W2 u + b2 are the logits of the PAM levels, and x is their mean. This
          is the form of [Samuel19] for any QAM, which there has a linear output trained
          on one-hot vectors; a softmax has the same minimiser and stays a probability.
          Train it with "cross-entropy" or "squared-error".
        - "soft-sign": x = A psi_t(W2 u + b2), where A is the largest level and psi_t the
          piecewise linear sign with a learned t per layer, as in [Samuel17], in
          [Mohammad20] and in the comparisons of [Pratik21], which use it for 16-QAM too.
          Train it with "detnet" [Mohammad20, eq. 20]. It has no posterior: soft output
          takes x to be the sent level in Gaussian noise, whose variance is one weight
          per layer. "cross-entropy" trains these variances alone: the logits that
          training takes (`all_logits`) have no gradient with respect to anything else,
          while those of a call have all gradients.

    Weights start at N(0, 0.01^2) and biases at zero. (Table III of [Mohammad20] names
    Xavier, which at 20x10 leaves twice the loss after 5000 steps.)

    The network does not see N0, so its LLRs are scaled for the SNR that it was trained
    at, unless `normalize` is set. The weights fit any M, but one K and one modulation. A
    network for one fixed channel is the same layer, trained on that channel.

    Weight scaling [Mohammad20] can be read in two ways:
        - "units": u <- beta u, once, and only a fraction of u's entries exists. W2 and W3
          both see beta u. The paper's Table II, where all products shrink with the
          fraction, its model sizes and its published code (which scales u twice) agree
          with this reading.
        - "inputs": beta scales the inputs of W1, and u before W3, but W2 sees all of u,
          which is eq. 18 and 19 to the letter. At a fraction of 0.2 only H'y is left of
          the inputs, so no layer knows H. This cannot be what the paper's curves show.

    Args:
        num_layers: L; by default 3K.
        hidden_size: entries of u; by default 8N.
        auxiliary_size: entries of a; by default 2N.
        residual: weight of the layer before, in [0, 0.999].
        head: "one-hot" or "soft-sign".
        normalize: take the gain out of H'y and H'H and make it an input, see
            `linksim.detectors.real.matched_inputs`. One network then serves any SNR and
            scale.
        profile, fraction, learnable_profile: those of `WeightScaled`. With their defaults
            this is DetNet.
        scaled: "units" or "inputs", see above.

    Raises:
        InvalidInput: (a `ValueError`) an option is out of range.
    """

    has_estimates = True

    def __init__(
        self,
        *args,
        num_layers=None,
        hidden_size=None,
        auxiliary_size=None,
        residual=0.9,
        head="one-hot",
        normalize=False,
        scaled="units",
        **kwargs,
    ):
        super().__init__(*args, **kwargs)
        dims = self.num_dims
        self.num_layers = 3 * self.num_streams if num_layers is None else num_layers
        self.hidden_size = 8 * dims if hidden_size is None else hidden_size
        self.auxiliary_size = 2 * dims if auxiliary_size is None else auxiliary_size
        check_int("num_layers", self.num_layers)
        check_int("hidden_size", self.hidden_size)
        check_int("auxiliary_size", self.auxiliary_size)
        check_real("residual", residual, low=0, high=0.999)
        check_choice("head", head, HEADS)
        check_choice("scaled", scaled, SCALED)
        if not isinstance(normalize, bool):
            raise InvalidInput(f"normalize: got {normalize!r}, expected True or False")
        self.residual = float(residual)
        self.head = head
        self.normalize = normalize
        self.scaled = scaled
        one_hot = head == "one-hot"
        num_outputs = dims * len(self.levels) if one_hot else dims
        num_inputs = 3 * dims + self.auxiliary_size + (1 if normalize else 0)
        # XLA computes each mixed output again from those of all layers before it. Its time
        # grows with the square of the layers, to 2 to 8 times the graph's at 48 x 128.
        self.xla_on_cpu = self.num_layers * num_outputs <= 4000
        # All weights are created here, because no size depends on the data
        sizes = [self.auxiliary_size] * (self.num_layers - 1) + [0]
        self.unfolded = [
            _Layer(self, num_inputs, num_outputs, size, name=f"layer_{r}")
            for r, size in enumerate(sizes)
        ]
        if not one_hot:
            self.widths = self._vector("widths", 0.1)  # t of psi_t
            self.log_variances = self._vector("log_variances", np.log(self.pam_energy))
        self.built = True

    def _vector(self, name, value):
        return self.add_weight(
            name=name,
            shape=(self.num_layers,),
            initializer=keras.initializers.Constant(value),
            autocast=False,
        )

    @property
    def depth(self):
        return self.num_layers

    def by_layer(self):
        stacked = [self.widths, self.log_variances] if self.head == "soft-sign" else []
        return [[layer] for layer in self.unfolded], stacked

    def layer_norms(self):
        return [layer.norm() for layer in self.unfolded]

    def detect(self, y, h, no):
        return self._head_logits(self._unfold(y, h, no)[-1], self.num_layers - 1)

    def all_logits(self, y, h, no, training=None):
        outputs = self._unfold(y, h, no)
        if self.head == "soft-sign":
            # So that "cross-entropy" trains the variances alone
            outputs = [ops.stop_gradient(out) for out in outputs]
        return [self._head_logits(out, r) for r, out in enumerate(outputs)]

    def all_estimates(self, y, h, no):
        """The estimate x of every layer: list of float32 [B, N]."""
        return [self._estimate(out) for out in self._unfold(y, h, no)]

    def _unfold(self, y, h, no):
        """The output of every layer's head: logits [B, N L], or x [B, N]."""
        hty, gram, extra = matched_inputs(y, h, no, self.normalize)
        x = ops.zeros_like(hty)
        a = ops.zeros((ops.shape(x)[0], self.auxiliary_size))
        out, outputs, keep = 0.0, [], self.residual
        for r, layer in enumerate(self.unfolded):
            seen = ops.concatenate([hty, x, matvec(gram, x), a] + extra, axis=-1)
            new_out, new_a = layer(seen)
            if self.head == "soft-sign":
                new_out = self._soft_sign(new_out, r)
            out = (1.0 - keep) * new_out + keep * out
            if new_a is not None:
                a = (1.0 - keep) * new_a + keep * a
            x = self._estimate(out)
            outputs.append(out)
        return outputs

    def _soft_sign(self, x, r):
        """A psi_t, which is -A below -t, A above t, and linear between."""
        width = ops.abs(self.widths[r]) + 1e-5
        return max(self.levels) * ops.clip(x / width, -1.0, 1.0)

    def _estimate(self, out):
        if self.head == "soft-sign":
            return out
        return ops.sum(ops.softmax(self._by_level(out)) * constant(self.levels), axis=-1)

    def _head_logits(self, out, r):
        if self.head == "one-hot":
            return self._by_level(out)
        variance = ops.exp(self.log_variances[r]) * ops.ones_like(out)
        return pam_posterior(out, variance, self.levels)[0]

    def _by_level(self, out):
        return ops.reshape(out, (-1, self.num_dims, len(self.levels)))

    def get_config(self):
        return {
            **super().get_config(),
            "num_layers": self.num_layers,
            "hidden_size": self.hidden_size,
            "auxiliary_size": self.auxiliary_size,
            "residual": self.residual,
            "head": self.head,
            "normalize": self.normalize,
            "scaled": self.scaled,
        }


class _Layer(Float32Layer):
    """One unfolded layer: the hidden sublayer, the head and the auxiliary output.

    The last layer has no auxiliary output, because nothing would read it.
    """

    def __init__(self, detector, num_inputs, num_outputs, auxiliary_size, **kwargs):
        super().__init__(**kwargs)

        def dense(size, inputs, **options):
            initializer = keras.initializers.RandomNormal(stddev=0.01)
            layer = keras.layers.Dense(
                size, kernel_initializer=initializer, dtype="float32", **options
            )
            layer.build((None, inputs))
            return layer

        units = detector.hidden_size
        self.by_units = detector.scaled == "units"
        self.scaling = detector.scaling(units if self.by_units else num_inputs)
        if self.by_units:
            units = self.scaling.kept
        else:
            num_inputs = self.scaling.kept
        self.hidden = dense(units, num_inputs, activation="relu")
        self.head = dense(num_outputs, units)
        # These come last because `slim` pairs weights in order, and a layer that becomes
        # the last one has none of these
        self.auxiliary = self.auxiliary_scaling = None
        if auxiliary_size:
            if not self.by_units:
                self.auxiliary_scaling = detector.scaling(units)
                units = self.auxiliary_scaling.kept
            self.auxiliary = dense(auxiliary_size, units)
        self.built = True

    def call(self, x):
        u = self.scaling(self.hidden(x)) if self.by_units else self.hidden(self.scaling(x))
        if self.auxiliary is None:
            return self.head(u), None
        seen = u if self.by_units else self.auxiliary_scaling(u)
        return self.head(u), self.auxiliary(seen)

    def norm(self):
        """|beta_1 W1| + |W2| + |beta_3 W3|."""
        beta = self.scaling.coefficients()
        first = (None, beta) if self.by_units else (beta, None)
        total = scaled_norm(self.hidden.kernel, *first) + scaled_norm(self.head.kernel)
        if self.auxiliary is not None:
            if not self.by_units:
                beta = self.auxiliary_scaling.coefficients()
            total = total + scaled_norm(self.auxiliary.kernel, beta)
        return total
