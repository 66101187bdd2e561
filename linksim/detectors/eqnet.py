"""EQ-Net: one feed-forward network that estimates all LLRs."""

import functools
import math

import keras
from keras import ops

from linksim.backend import constant
from linksim.constellation import (
    llrs_to_symbol_logits,
    logits_to_llrs,
    pam_logits_to_llrs,
    pam_posterior,
)
from linksim.detectors.base import Detector
from linksim.detectors.linear import mmse_estimate, mmse_pic_estimate
from linksim.detectors.real import interleaved_order, interleaved_qr, matched_filter
from linksim.detectors.sic import successive_cancellation
from linksim.eqnet.autoencoder import BranchedDecoder, default_latent_dim
from linksim.eqnet.codebook import ScalarCodebook
from linksim.errors import InvalidInput, check_choice, check_int

FEATURES = ("raw", "scaled", "qr", "sic", "prior")
# Those that are y, H and sigma without any linear algebra
_DIRECT = ("raw", "scaled")
# Zero forcing gives estimates of any size in nearly singular channels, and those that
# enter the network are clipped to this
_CLIP = 3.0


@keras.saving.register_keras_serializable("linksim")
class EQNetDetector(Detector):
    """EQ-Net: one feed-forward network estimates all LLRs [Arvinte20].

    An estimation encoder f_E maps (y, H, N0) to the latent vector of an autoencoder of ML
    LLRs, and the decoder g of that autoencoder gives the LLRs (Section IV and Fig. 4).

    Args:
        num_blocks: residual blocks of f_E: 1 for EQ-Net-L, 3 for EQ-Net-P. A block is
            three dense layers, twice; the output of the first of three is added to that
            of the third.
        features: the inputs of f_E. With "raw", the paper's, they are y, H and sigma, each
            with a dense layer of its own. With "scaled" they are y/sigma, H/sigma and
            log(sigma), which say the same. With "qr" they are the QR-reduced systems of the
            streams in both orders, and MMSE LLRs as tanh(llr/2). With "sic" there are also
            the LLRs of successive cancellation in both orders. With "prior", which is ours,
            these and the MMSE LLRs use a prior and leave it out again, its own LLRs are a
            fourth input, and g gives what the channel adds to them. Only then the detector
            takes a prior.
        width: units of the layers of f_E; by default 16Km.
        latent_dim: D; by default 3K.
        decoder_width: units of each branch of g; by default 4Km.
        latent_bits: bits of the latent components, for joint estimation and quantization:
            one number, or D of them. None quantizes nothing. `set_codebook` sets the
            codebook, which trained weights bring with them.

    With "raw" and "scaled" the weights fit one number of receive antennas.

    Raises:
        InvalidInput: (a `ValueError`) an option is out of range, or BPSK.
    """

    demapping_methods = ("app",)

    def __init__(
        self,
        *args,
        num_blocks=1,
        features="raw",
        width=None,
        latent_dim=None,
        decoder_width=None,
        latent_bits=None,
        **kwargs,
    ):
        super().__init__(*args, **kwargs)
        check_int("num_blocks", num_blocks)
        check_choice("features", features, FEATURES)
        if self.is_real:
            raise InvalidInput("num_bits_per_symbol: EQ-Net needs QAM, got 1 (BPSK)")
        self.num_blocks = num_blocks
        self.features = features
        num_llrs = self.num_streams * self.num_bits_per_symbol
        self.width = width or 16 * num_llrs
        self.latent_dim = latent_dim or default_latent_dim(self.num_streams)
        self.decoder_width = decoder_width or 4 * num_llrs
        check_int("width", self.width)
        check_int("latent_dim", self.latent_dim)
        check_int("decoder_width", self.decoder_width)
        dense = functools.partial(keras.layers.Dense, dtype="float32")
        self.accepts_prior = features == "prior"
        num_inputs = {"qr": 2, "prior": 4}.get(features, 3)
        self._inputs = [dense(self.width, activation="relu") for _ in range(num_inputs)]
        self._hidden = [dense(self.width, activation="relu") for _ in range(6 * num_blocks)]
        self._output = dense(self.latent_dim)
        self.decoder = BranchedDecoder(
            self.num_streams,
            self.num_bits_per_symbol,
            self.latent_dim,
            width=self.decoder_width,
        )
        self.codebook = None
        self.latent_bits = None
        if latent_bits is not None:
            self.codebook = ScalarCodebook(
                self.latent_dim, latent_bits, owner=type(self).__name__
            )
            self.latent_bits = self.codebook.bits

    def set_codebook(self, thresholds, levels):
        """Set the codebook of the latents (see `ScalarCodebook.set`)."""
        if self.codebook is None:
            raise InvalidInput("latent_bits: None, there is no codebook to set")
        self.codebook.set(thresholds, levels)

    @property
    def trained_weights(self):
        """The weights of f_E and g, without the codebook of the latents."""
        layers = [*self._inputs, *self._hidden, self._output, self.decoder]
        return [weight for layer in layers for weight in layer.weights]

    # --- network ----------------------------------------------------------------

    def build(self, y_shape, h_shape, s_shape):
        """Create all weights; those for y and H themselves fit one number of antennas."""
        k = self.num_streams
        num_llrs = k * self.num_bits_per_symbol
        if self.features in _DIRECT:
            sizes = [2 * y_shape[-1], 2 * y_shape[-1] * k, 1]
        else:
            # For each order Q'y, the last estimate, the diagonal and its logarithm and the
            # entries above it; once log(sigma)
            sizes = [
                2 * (2 * k + 2 + 2 * k + k * (k - 1)) + 1,
                num_llrs,
                2 * num_llrs,
                num_llrs,
            ]
        for layer, size in zip(self._inputs, sizes):
            layer.build((None, size))
        size = self.width * len(self._inputs)
        for layer in [*self._hidden, self._output]:
            layer.build((None, size))
            size = layer.units
        self.decoder.build()

    @property
    def built_for_num_rx(self):
        if self.features not in _DIRECT or not self.built:
            return None
        return self._inputs[0].kernel.shape[0] // 2

    def inputs(self, y, h, no, prior=None):
        """The inputs of f_E's first layers, a list of float32 [B, ...].

        Arguments are those of `detect`.
        """
        if self.features in _DIRECT:
            h = h[:, :, : self.num_streams]
            h = ops.reshape(h, (-1, h.shape[1] * h.shape[2]))
            sigma = ops.sqrt(no)[:, None]
            if self.features == "scaled":
                return [y / sigma, h / sigma, ops.log(sigma)]
            return [y, h, sigma]
        if self.features == "prior" and prior is None:
            # Nothing known is known in the same way, so that zeros change nothing
            prior = ops.zeros((ops.shape(y)[0], self.num_dims, len(self.levels)))
        systems = self._reduced_systems(y, h)
        inputs = [self._reduced(systems, no), self._linear_llrs(y, h, no, prior)]
        if self.features in ("sic", "prior"):
            inputs.append(self._cancelled_llrs(systems, no, prior))
        if self.features == "prior":
            inputs.append(_bounded(self._prior_llrs(prior)))
        return inputs

    def latents(self, y, h, no, prior=None):
        """f_E: latent vectors [B, D]. Arguments are those of `detect`."""
        return self.latents_of_inputs(self.inputs(y, h, no, prior))

    def latents_of_inputs(self, inputs):
        """f_E from the result of `inputs`: latent vectors [B, D]."""
        x = ops.concatenate(
            [layer(part) for layer, part in zip(self._inputs, inputs)], axis=-1
        )
        for first in range(0, len(self._hidden), 3):
            a, b, c = self._hidden[first : first + 3]
            skip = a(x)
            x = c(b(skip)) + skip
        return self._output(x)

    def _reduced_systems(self, y, h):
        """Q'y and R of the streams in both orders, as a list of pairs.

        The diagonal of R is positive.
        """
        k = self.num_streams
        systems = []
        for columns in self._orders():
            ordered = ops.take(h, constant(columns, "int32"), axis=-1)
            z, r = interleaved_qr(y, ordered, k, False)
            sign = ops.where(ops.diagonal(r, axis1=-2, axis2=-1) < 0, -1.0, 1.0)
            systems.append((z * sign, r * sign[..., None]))
        return systems

    def _orders(self):
        """The real dimensions with the streams in either order, two tuples of 2K indices."""
        streams = tuple(range(self.num_streams))
        return [
            (*order, *(self.num_streams + i for i in order))
            for order in (streams, streams[::-1])
        ]

    def _reduced(self, systems, no):
        """Q'y, R, the estimate of the last stream and the SNRs, of both orders."""
        k = self.num_streams
        sigma = ops.sqrt(no)[:, None]
        features = []
        for z, r in systems:
            diagonal = ops.diagonal(r, axis1=-2, axis2=-1)
            diagonal = ops.maximum(diagonal, 1e-6)
            last = z[:, -2:] / diagonal[:, -2:]
            upper = [
                r[:, 2 * i + part, 2 * j]
                for i in range(k)
                for j in range(i + 1, k)
                for part in (0, 1)
            ]
            features += [
                z,
                ops.clip(last, -_CLIP, _CLIP),
                diagonal[:, ::2],
                ops.log(diagonal[:, ::2] / sigma),
            ]
            if upper:
                features.append(ops.stack(upper, axis=-1))
        return ops.concatenate(features + [ops.log(sigma)], axis=-1)

    def _cancelled_llrs(self, systems, no, prior):
        """tanh(llr/2) of successive cancellation in both orders, [B, 2 K m]."""
        llrs, order = [], interleaved_order(self.num_streams, False)
        for (z, r), columns in zip(systems, self._orders()):
            known = None
            if prior is not None:
                known = tuple(columns[i] for i in order)
                known = ops.take(prior, constant(known, "int32"), axis=1)
            logits = successive_cancellation(z, r, no, self.levels, known)
            found = logits_to_llrs(ops.stack(logits, axis=1))
            llrs.append(found if known is None else found - logits_to_llrs(known))
        return _bounded(ops.concatenate(llrs, axis=1))

    def _linear_llrs(self, y, h, no, prior):
        """tanh(llr/2) of linear MMSE, [B, K m]."""
        if prior is None:
            hty, gram = matched_filter(y, h)
            z, variance = mmse_estimate(hty, gram, no, self.pam_energy)
        else:
            z, variance = mmse_pic_estimate(y, h, no, prior, self.levels)
        logits = pam_posterior(z, variance, self.levels, prior)[0]
        llrs = pam_logits_to_llrs(logits, self.num_bits_per_symbol)
        return _bounded(llrs if prior is None else llrs - self._prior_llrs(prior))

    def _prior_llrs(self, prior):
        """The LLRs [B, K, m] of a prior's PAM logits [B, N, L]."""
        return pam_logits_to_llrs(prior, self.num_bits_per_symbol)

    # --- detector ---------------------------------------------------------------

    def detect_llrs(self, y, h, no, prior=None):
        z = self.latents(y, h, no, prior)
        if self.codebook is not None:
            z = self.codebook(z)
        llrs = self.decoder(z)
        return llrs if prior is None else llrs + self._prior_llrs(prior)

    def detect_both(self, y, h, no, prior=None):
        llrs = self.detect_llrs(y, h, no, prior)
        weights = tuple(2**i for i in reversed(range(self.num_bits_per_symbol)))
        bits = ops.cast(llrs > 0, "int32")
        return llrs, ops.cast(ops.sum(bits * constant(weights, "int32"), axis=-1), "int32")

    def detect(self, y, h, no, prior=None):
        # These are the PAM logits of independent bits, whose LLRs are g's again
        llrs = self.detect_llrs(y, h, no, prior)
        real, imag = llrs[..., 0::2], llrs[..., 1::2]
        return llrs_to_symbol_logits(ops.concatenate([real, imag], axis=1))

    def get_config(self):
        return {
            **super().get_config(),
            "num_blocks": self.num_blocks,
            "features": self.features,
            "width": self.width,
            "latent_dim": self.latent_dim,
            "decoder_width": self.decoder_width,
            "latent_bits": None if self.latent_bits is None else list(self.latent_bits),
        }


def _bounded(llrs):
    """tanh(llr/2) of LLRs [B, ...] as vectors [B, ...] of an input."""
    return ops.tanh(ops.reshape(llrs, (-1, math.prod(llrs.shape[1:]))) / 2.0)
