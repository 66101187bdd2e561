"""EQ-Net's autoencoder of LLRs: quantization encoder f_Q and branched decoder g.

Paper: 004_979a1825df3dec03.txt, Section IV-A, V-A and Fig. 4.
"""

import math

import keras
from keras import ops

from linksim.errors import check_int


def default_latent_dim(num_streams):
    """3 K: the dimension of a ZF-SIC solution (Theorem 1)."""
    return 3 * num_streams


class _LLRNetwork(keras.layers.Layer):
    """Sizes that both halves of the autoencoder share."""

    def __init__(
        self,
        num_streams,
        num_bits_per_symbol,
        latent_dim=None,
        width=None,
        num_hidden=5,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.num_streams = num_streams
        self.num_bits_per_symbol = num_bits_per_symbol
        self.num_llrs = num_streams * num_bits_per_symbol
        self.latent_dim = latent_dim or default_latent_dim(num_streams)
        self.width = width or 4 * self.num_llrs
        self.num_hidden = num_hidden
        for name in ("num_streams", "num_bits_per_symbol", "latent_dim", "width"):
            check_int(name, getattr(self, name))
        check_int("num_hidden", num_hidden, minimum=0)

    def get_config(self):
        return {
            **super().get_config(),
            "num_streams": self.num_streams,
            "num_bits_per_symbol": self.num_bits_per_symbol,
            "latent_dim": self.latent_dim,
            "width": self.width,
            "num_hidden": self.num_hidden,
        }


@keras.saving.register_keras_serializable("linksim")
class LatentEncoder(_LLRNetwork):
    """f_Q: LLRs of a channel use to a latent vector in (-1, 1).

    `tanh(llr/2)`, then `num_hidden` dense layers of ReLU, then tanh.

    Args:
        num_streams: K.
        num_bits_per_symbol: m.
        latent_dim: D, the bottleneck; default 3 K.
        width: of the hidden layers; default 4 K m.
        num_hidden: hidden layers; the paper's text says six layers in all, its code
            has five hidden ones and the output.

    Call arguments:
        llr: float32 [..., K, m].

    Returns:
        float32 [..., D].
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        dense = keras.layers.Dense
        hidden = [dense(self.width, activation="relu") for _ in range(self.num_hidden)]
        self.dense = [*hidden, dense(self.latent_dim, activation="tanh")]

    def build(self, input_shape=None):
        size = self.num_llrs
        for layer in self.dense:
            layer.build((None, size))
            size = layer.units

    def call(self, llr):
        lead = tuple(ops.shape(llr)[:-2])
        x = ops.tanh(ops.reshape(llr, (-1, self.num_llrs)) / 2.0)
        for layer in self.dense:
            x = layer(x)
        return ops.reshape(x, lead + (self.latent_dim,))

    def compute_output_shape(self, input_shape):
        return tuple(input_shape[:-2]) + (self.latent_dim,)


@keras.saving.register_keras_serializable("linksim")
class BranchedDecoder(_LLRNetwork):
    """g: a latent vector to the LLRs, one small network per LLR.

    Every branch sees the whole latent vector and ends in tanh, which stands for
    tanh(llr/2): its argument is half the LLR, and that is what is returned,
    doubled. All branches of a layer are one batched product.

    Args:
        num_streams, num_bits_per_symbol, latent_dim, width, num_hidden: as those
            of `LatentEncoder`; the widths are per branch.

    Call arguments:
        z: float32 [..., D].

    Returns:
        LLRs, float32 [..., K, m].
    """

    def build(self, input_shape=None):
        sizes = [self.latent_dim] + [self.width] * self.num_hidden + [1]
        self._kernels, self._biases = [], []
        for index, (rows, columns) in enumerate(zip(sizes, sizes[1:])):
            # Glorot's limit of one branch; Keras would count the branches as taps
            # of a convolution
            limit = math.sqrt(6.0 / (rows + columns))
            self._kernels.append(
                self.add_weight(
                    shape=(self.num_llrs, rows, columns),
                    initializer=keras.initializers.RandomUniform(-limit, limit),
                    name=f"kernel_{index}",
                )
            )
            self._biases.append(
                self.add_weight(
                    shape=(self.num_llrs, 1, columns),
                    initializer="zeros",
                    name=f"bias_{index}",
                )
            )

    def call(self, z):
        lead = tuple(ops.shape(z)[:-1])
        x = ops.reshape(z, (-1, self.latent_dim))[None]  # [1, B, D]
        x = ops.broadcast_to(x, (self.num_llrs,) + tuple(ops.shape(x)[1:]))
        last = len(self._kernels) - 1
        for index, (kernel, bias) in enumerate(zip(self._kernels, self._biases)):
            x = ops.matmul(x, kernel) + bias
            if index < last:
                x = ops.relu(x)
        llr = 2.0 * ops.transpose(x[..., 0])  # [B, K m]
        return ops.reshape(llr, lead + (self.num_streams, self.num_bits_per_symbol))

    def compute_output_shape(self, input_shape):
        return tuple(input_shape[:-1]) + (self.num_streams, self.num_bits_per_symbol)
