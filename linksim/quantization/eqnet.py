"""Learned quantizers of LLRs: EQ-Net's, and the per-stream one it is compared with."""

import numpy as np
from keras import ops

from linksim.quantization.autoencoder import (
    BranchedDecoder,
    LatentEncoder,
    default_latent_dim,
)
from linksim.quantization.base import LLRQuantizer, register


def kmeans_codebook(samples, bits, seed=0):
    """Scalar codebook of 2^bits levels by k-means++ (SciPy).

    Args:
        samples: float [n].
        bits: of the codebook.

    Returns:
        thresholds [2^bits - 1] halfway between levels, and levels [2^bits], ascending.
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
    """EQ-Net's quantizer: the latents of f_Q, each by a scalar k-means codebook.

    Paper: 004_979a1825df3dec03.txt, Sections IV and V-A. All LLRs of a channel use
    are quantized together: D latents of `bits` bits each.

    Args:
        num_streams: K.
        num_bits_per_symbol: m.
        bits: of every latent, or D numbers.
        latent_dim: D; default 3 K.
        width: of f_Q's layers and of each branch of g; default 4 K m.
    """

    def __init__(
        self, num_streams, num_bits_per_symbol, bits=6, latent_dim=None, width=None, **kwargs
    ):
        self._latent_dim = latent_dim or default_latent_dim(self._coded_streams(num_streams))
        self._width = width
        super().__init__(num_streams, num_bits_per_symbol, bits=bits, **kwargs)
        args = (self._coded_streams(num_streams), num_bits_per_symbol)
        options = {"latent_dim": self._latent_dim, "width": width}
        self.encoder = LatentEncoder(*args, **options)
        self.decoder = BranchedDecoder(*args, **options)
        self.encoder.build()
        self.decoder.build()

    @staticmethod
    def _coded_streams(num_streams):
        """Streams that one pass of the networks sees."""
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
    """The deep quantizer of a single stream, applied to every stream.

    Arvinte, Vishwanath and Tewfik (Globecom Workshops 2019), reference [14] of EQ-Net,
    extended to MIMO as there (Section V-C): the LLRs of each stream are quantized on
    their own, in three latents, by one network for all streams. `latent_dim` and
    `width` are per stream; `bits` are of each latent of a stream.
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
