"""NN-Det, an unfolded network that EQ-Net is compared with."""

import keras
from keras import ops

from linksim.backend import Float32Layer, constant
from linksim.detectors.base import Detector
from linksim.detectors.real import matched_inputs, matvec
from linksim.detectors.weight_scaling import WeightScaled, scaled_norm
from linksim.errors import InvalidInput, check_choice, check_int, check_real

STRUCTURES = ("highway", "residual")


@keras.saving.register_keras_serializable("linksim")
class NNDetDetector(WeightScaled, Detector):
    """NN-Det: unfolded blocks of dense layers, trained on symbol labels [Sholev20].

    It follows the reimplementation that [Arvinte20] compares with. Blocks refine a soft
    estimate x of the symbols, in real dimensions and starting from 0. A block takes H'y,
    H'H x and x. For each hidden size it has a dense layer, batch normalisation, ReLU and,
    after all but the last, dropout. Another dense layer gives the logits of the PAM levels
    of each dimension, whose mean is E. LLRs sum the probabilities of the last block's
    levels. The hidden sizes are 250 and 150; at 2x2 64-QAM, NN-Det-L has 3 blocks and
    NN-Det-P has 4, at 4x4 16-QAM there are 10 [Arvinte20, Section V-B].

    The paper leaves out details, which come from the code published with it
    (github.com/utcsilab/eq-net):
        - a dropout rate of 0.2;
        - highway connections between blocks, x <- T E + (1 - C) x with T = sigmoid(A x)
          and C = sigmoid(B x), where A and B are learned and have no bias;
        - no noise variance among the inputs, so LLRs are scaled for the SNR that the
          network was trained at;
        - the cross-entropy of the last block as loss.
    The start x = 0 differs from that code, which draws it from CN(0, 1) at every call.
    Detection should be reproducible.

    The weights fit any M, but one K and one modulation.

    Args:
        num_blocks: the number of unfolded blocks.
        hidden_sizes: widths of the hidden layers of a block.
        dropout: dropout rate, in [0, 0.999].
        structure: "highway", as published, or "residual", which suits a loss on every
            block. With "residual", x <- E, each block adds its logits to those of the
            blocks before, there is dropout after every hidden layer, and a block also
            sees a running feature vector as in DetNet (2N entries, linear in the last
            hidden layer, 0 at the start).
        normalize: take the gain out of H'y and H'H and make it an input, see
            `linksim.detectors.real.matched_inputs`. One network then serves any SNR and
            scale. The default is off, as published.
        profile, fraction, learnable_profile: those of `WeightScaled`, for the units of all
            hidden layers. With their defaults nothing is scaled.

    Raises:
        InvalidInput: (a `ValueError`) an option is out of range.
    """

    xla_on_cpu = True
    depth_option = "num_blocks"

    def __init__(
        self,
        *args,
        num_blocks=4,
        hidden_sizes=(250, 150),
        dropout=0.2,
        structure="highway",
        normalize=False,
        **kwargs,
    ):
        super().__init__(*args, **kwargs)
        check_int("num_blocks", num_blocks)
        if not isinstance(hidden_sizes, (list, tuple)) or not hidden_sizes:
            raise InvalidInput(
                f"hidden_sizes: got {hidden_sizes!r}, expected a list of integers"
            )
        for size in hidden_sizes:
            check_int("hidden_sizes", size)
        check_real("dropout", dropout, low=0, high=0.999)
        check_choice("structure", structure, STRUCTURES)
        if not isinstance(normalize, bool):
            raise InvalidInput(f"normalize: got {normalize!r}, expected True or False")
        self.num_blocks = int(num_blocks)
        self.hidden_sizes = tuple(int(size) for size in hidden_sizes)
        self.dropout = float(dropout)
        self.structure = structure
        self.normalize = normalize
        dims, levels = self.num_dims, len(self.levels)
        residual = structure == "residual"
        num_inputs = (5 if residual else 3) * dims + (1 if normalize else 0)
        rates = [self.dropout] * len(hidden_sizes)
        if not residual:
            rates[-1] = 0.0
        # All weights are created here, because no size depends on the data. A detector
        # that was never called can then load them.
        self.blocks = [
            _Block(self, rates, dims * levels, name=f"block_{k}")
            for k in range(self.num_blocks)
        ]
        for block in self.blocks:
            block.build((None, num_inputs))
        last = self.blocks[-1].hidden[-1].units
        between = range(self.num_blocks - 1)
        if residual:
            self.features = [_dense(last, 2 * dims, name=f"features_{k}") for k in between]
        else:
            gate = {"activation": "sigmoid", "use_bias": False}
            self.admit = [_dense(dims, dims, name=f"admit_{k}", **gate) for k in between]
            self.forget = [_dense(dims, dims, name=f"forget_{k}", **gate) for k in between]
        self.built = True

    @property
    def depth(self):
        return self.num_blocks

    def by_layer(self):
        residual = self.structure == "residual"
        between = zip(self.features) if residual else zip(self.admit, self.forget)
        groups = [*between, ()]  # nothing follows the last block
        return [[block, *rest] for block, rest in zip(self.blocks, groups)], []

    def layer_norms(self):
        return [block.norm() for block in self.blocks]

    def detect(self, y, h, no):
        return self.all_logits(y, h, no)[-1]

    def all_logits(self, y, h, no, training=None):
        # Passing None would hide the mode of the outer layer
        flag = {} if training is None else {"training": training}
        hty, gram, inputs = matched_inputs(y, h, no, self.normalize)
        x = ops.zeros_like(hty)
        residual = self.structure == "residual"
        memory = [x, x] if residual else []
        every = []
        for k, block in enumerate(self.blocks):
            seen = ops.concatenate([hty, matvec(gram, x), x] + memory + inputs, axis=-1)
            logits, hidden = block(seen, **flag)
            logits = ops.reshape(logits, (-1, self.num_dims, len(self.levels)))
            every.append(every[-1] + logits if residual and every else logits)
            if k == self.num_blocks - 1:
                break
            mean = ops.sum(ops.softmax(every[-1]) * constant(self.levels), axis=-1)
            if residual:
                x, memory = mean, [self.features[k](hidden)]
            else:
                x = self.admit[k](x) * mean + (1.0 - self.forget[k](x)) * x
        return every

    def get_config(self):
        return {
            **super().get_config(),
            "num_blocks": self.num_blocks,
            "hidden_sizes": self.hidden_sizes,
            "dropout": self.dropout,
            "structure": self.structure,
            "normalize": self.normalize,
        }


class _Block(Float32Layer):
    """The hidden layers of one block, and its logits."""

    def __init__(self, detector, rates, num_logits, **kwargs):
        super().__init__(**kwargs)
        self.scalings = [detector.scaling(size) for size in detector.hidden_sizes]
        self.hidden = [keras.layers.Dense(s.kept, dtype="float32") for s in self.scalings]
        self.norms = [keras.layers.BatchNormalization(dtype="float32") for _ in self.scalings]
        self.drops = [keras.layers.Dropout(rate, dtype="float32") for rate in rates]
        self.logits = keras.layers.Dense(num_logits, dtype="float32")

    def build(self, shape):
        for dense, norm in zip(self.hidden, self.norms):
            dense.build(shape)
            shape = (None, dense.units)
            norm.build(shape)
        self.logits.build(shape)
        self.built = True

    def call(self, x, training=None):
        # Keras passes `training` on to the layers called here
        for dense, norm, scale, drop in zip(
            self.hidden, self.norms, self.scalings, self.drops
        ):
            x = drop(scale(ops.relu(norm(dense(x)))))
        return self.logits(x), x

    def norm(self):
        """The sum of |W beta| over the hidden layers, plus |W| of the logits."""
        total = scaled_norm(self.logits.kernel)
        for dense, scale in zip(self.hidden, self.scalings):
            total = total + scaled_norm(dense.kernel, None, scale.coefficients())
        return total


def _dense(num_inputs, units, **options):
    layer = keras.layers.Dense(units, dtype="float32", **options)
    layer.build((None, num_inputs))
    return layer
