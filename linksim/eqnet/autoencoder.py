"""EQ-Net's autoencoder of LLRs: the encoder f_Q and the branched decoder g.

[Arvinte20], Sections IV-A and V-A, Fig. 4.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import keras
from keras import ops

from linksim.backend import Float32Layer, Tensor
from linksim.errors import check_int


def default_latent_dim(num_streams: int) -> int:
    """3 K, the number of reals that determine the LLRs of ZF-SIC ([Arvinte20], Theorem 1)."""
    return 3 * num_streams


class _LLRNetwork(Float32Layer):
    """What the encoder and the decoder have in common: their sizes."""

    def __init__(
        self,
        num_streams: int,
        num_bits_per_symbol: int,
        latent_dim: int | None = None,
        width: int | None = None,
        num_hidden: int = 5,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        check_int("num_streams", num_streams)
        check_int("num_bits_per_symbol", num_bits_per_symbol)
        check_int("num_hidden", num_hidden, minimum=0)
        self.num_streams = int(num_streams)
        self.num_bits_per_symbol = int(num_bits_per_symbol)
        self.num_llrs = self.num_streams * self.num_bits_per_symbol
        self.latent_dim = size_or("latent_dim", latent_dim, default_latent_dim(num_streams))
        self.width = size_or("width", width, 4 * self.num_llrs)
        self.num_hidden = int(num_hidden)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_streams": self.num_streams,
            "num_bits_per_symbol": self.num_bits_per_symbol,
            "latent_dim": self.latent_dim,
            "width": self.width,
            "num_hidden": self.num_hidden,
        }


def size_or(name: str, value: int | None, default: int) -> int:
    """An optional size: `value`, or for None the default.

    Raises:
        InvalidInput: it is not a positive integer.
    """
    if value is None:
        return int(default)
    check_int(name, value)
    return int(value)


@keras.saving.register_keras_serializable("linksim")
class LatentEncoder(_LLRNetwork):
    """f_Q, which maps the LLRs of one channel use to a latent vector in (-1, 1).

    It takes tanh(llr/2), then has `num_hidden` dense layers with ReLU and a last one with
    tanh.

    Args:
        num_streams: K, the number of streams.
        num_bits_per_symbol: m.
        latent_dim: D, the size of the latent vector; default 3 K.
        width: units of each hidden layer; default 4 K m.
        num_hidden: number of hidden layers. The paper's text says six layers in all; its
            code has five hidden layers and the last one.

    Call arguments:
        llr: float32 [..., K, m].

    Returns:
        float32 [..., D].

    Raises:
        InvalidInput: a size is not a positive integer.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        dense = functools.partial(keras.layers.Dense, dtype="float32")
        hidden = [dense(self.width, activation="relu") for _ in range(self.num_hidden)]
        self.dense = [*hidden, dense(self.latent_dim, activation="tanh")]

    def build(self, input_shape=None):
        size = self.num_llrs
        for layer in self.dense:
            layer.build((None, size))
            size = layer.units

    def call(self, llr: Tensor) -> Tensor:
        lead = tuple(ops.shape(llr)[:-2])
        x = ops.tanh(ops.reshape(llr, (-1, self.num_llrs)) / 2.0)
        for layer in self.dense:
            x = layer(x)
        return ops.reshape(x, lead + (self.latent_dim,))

    def compute_output_shape(self, input_shape):
        return tuple(input_shape[:-2]) + (self.latent_dim,)


@keras.saving.register_keras_serializable("linksim")
class BranchedDecoder(_LLRNetwork):
    """g, which maps a latent vector to the LLRs, with a small network for each LLR.

    Every branch sees the whole latent vector. In the paper it ends in a tanh that stands
    for tanh(llr/2); here the argument of that tanh is returned, times two, which is the
    LLR itself. The same layer of all branches is computed as one batched product.

    Args:
        num_streams: K, the number of streams.
        num_bits_per_symbol: m.
        latent_dim: D, the size of the latent vector; default 3 K.
        width: units of each hidden layer of a branch; default 4 K m.
        num_hidden: number of hidden layers of a branch.

    Call arguments:
        z: float32 [..., D].

    Returns:
        LLRs, float32 [..., K, m].

    Raises:
        InvalidInput: a size is not a positive integer.
    """

    def build(self, input_shape=None):
        sizes = [self.latent_dim] + [self.width] * self.num_hidden + [1]
        self._kernels, self._biases = [], []
        for index, (rows, columns) in enumerate(zip(sizes, sizes[1:])):
            # Glorot's limit for one branch: Keras' own initializer would take the first
            # axis for the taps of a convolution
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

    def call(self, z: Tensor) -> Tensor:
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
