"""Learned quantizers of LLRs: EQ-Net's, and the one per stream that it is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

from linksim.eqnet.autoencoder import (
    BranchedDecoder,
    LatentEncoder,
    default_latent_dim,
    size_or,
)
from linksim.errors import check_int
from linksim.quantization.base import LLRQuantizer, register


def kmeans_codebook(
    samples: np.ndarray, bits: int, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """A scalar codebook of 2^bits levels, fitted by k-means.

    Args:
        samples: floating point [N].
        bits: number of bits.
        seed: of the random initial levels (k-means++).

    Returns:
        Thresholds [2^bits - 1], halfway between the levels, and levels [2^bits], float64
        in ascending order.
    """
    from scipy.cluster.vq import kmeans2

    levels, _ = kmeans2(
        np.asarray(samples, np.float64)[:, None],
        2**bits,
        iter=50,
        minit="++",
        seed=np.random.default_rng(seed),
        missing="warn",
    )
    levels = np.sort(levels[:, 0])
    return (levels[1:] + levels[:-1]) / 2.0, levels


@register
class EQNetQuantizer(LLRQuantizer):
    """EQ-Net's quantizer: scalar k-means codebooks for the latents of an autoencoder.

    [Arvinte20], Sections IV and V-A. All LLRs of a channel use are quantized together, as
    D latents.

    Args:
        num_streams: K, the number of streams.
        num_bits_per_symbol: m.
        bits: bits per latent, one integer for all or D integers.
        latent_dim: D; default 3 K.
        width: units of each hidden layer of the encoder and of each branch of the
            decoder; default 4 K m.
    """

    def __init__(
        self,
        num_streams: int,
        num_bits_per_symbol: int,
        bits: int | Sequence[int] = 6,
        latent_dim: int | None = None,
        width: int | None = None,
        **kwargs: Any,
    ):
        check_int("num_streams", num_streams)
        streams = self._coded_streams(int(num_streams))
        self._latent_dim = size_or("latent_dim", latent_dim, default_latent_dim(streams))
        self._width = width
        super().__init__(num_streams, num_bits_per_symbol, bits=bits, **kwargs)
        sizes = (streams, self.num_bits_per_symbol, self._latent_dim, width)
        self.encoder = LatentEncoder(*sizes)
        self.decoder = BranchedDecoder(*sizes)
        self.encoder.build()
        self.decoder.build()

    @staticmethod
    def _coded_streams(num_streams):
        """How many streams the networks see at once."""
        return num_streams

    @property
    def num_components(self):
        return self._latent_dim

    @property
    def trained_weights(self):
        return self.encoder.weights + self.decoder.weights

    def encode(self, llrs):
        return self.encoder(llrs)

    def decode(self, components):
        return self.decoder(components)

    def fit_component(self, samples, bits, index):
        return kmeans_codebook(samples, bits, seed=index)

    def get_config(self):
        return {
            **super().get_config(),
            "latent_dim": self._latent_dim,
            "width": self._width,
        }


@register
class DeepStreamQuantizer(EQNetQuantizer):
    """The deep quantizer of single streams, applied to every stream [Arvinte19].

    It is extended to MIMO as in [Arvinte20], Section V-C: one network quantizes the LLRs
    of each stream by themselves.

    Args:
        num_streams: K, the number of streams.
        num_bits_per_symbol: m.
        bits: bits per latent, one integer for all or one for each latent of each stream.
        latent_dim: latents of one stream; default 3.
        width: units of each hidden layer; default 4 m.
    """

    @staticmethod
    def _coded_streams(num_streams):
        return 1

    @property
    def num_components(self):
        return self._latent_dim * self.num_streams

    def encode(self, llrs):
        z = self.encoder(ops.expand_dims(llrs, -2))  # [..., K, D]
        return ops.reshape(z, tuple(ops.shape(llrs)[:-2]) + (self.num_components,))

    def decode(self, components):
        lead = tuple(ops.shape(components)[:-1])
        z = ops.reshape(components, lead + (self.num_streams, self._latent_dim))
        llrs = self.decoder(z)  # [..., K, 1, m]
        return ops.squeeze(llrs, -2)
