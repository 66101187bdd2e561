"""RE-MIMO, a network for any number of users."""

import keras
import numpy as np
from keras import ops

from linksim.backend import Float32Layer, constant
from linksim.constellation import (
    logits_to_llrs,
    marginal_pam_logits,
    pam_logits_to_llrs,
    pam_logits_to_symbol_logits,
    qam_points,
)
from linksim.detectors.base import Detector, arranged_as
from linksim.detectors.linear import mmse_filter
from linksim.detectors.real import MIN_SYMBOL_VARIANCE, matvec
from linksim.errors import InvalidInput, check_choice, check_int

# Estimates that tokens may hold, and how many numbers per PAM each adds to them
ESTIMATES = {"none": 0, "matched-filter": 1, "lmmse": 2, "lmmse-pic": 2}


@keras.saving.register_keras_serializable("linksim")
class REMIMODetector(Detector):
    """RE-MIMO: users attend to each other, any number of them [Pratik21].

    Every user has a state s. An embedding network makes it from y, the user's channel h_i,
    sigma = sqrt(N0) and the encoded number of users (eq. 22 to 24). Then there are
    `num_blocks` blocks with weights of their own. A block
        - computes z, the mean of the symbols' probabilities so far, and the residual
          y - Hz (eq. 12 and 16, the likelihood module);
        - updates all states by self-attention between the users' tokens
          [s, logits, residual/sqrt(2K), h_i] and by a feed-forward network, each with
          a residual connection and layer normalisation (eq. 17 to 20, the encoder);
        - computes new logits from [s, logits, residual/sqrt(2K), h_i, sigma/sqrt(2K)]
          (eq. 21, the predictor).
    The same weights serve any K, and permuting the users permutes the result.

    A user whose channel is exactly zero is absent: it is not counted, nobody attends to
    it, and its LLRs are 0. Vectors with fewer users can therefore be padded with zero
    columns to a common K without effect on the others. An `h` with fewer columns than
    `num_streams` is padded in this way, and the result has the users of `h`.

    The weights fit one number of receive antennas and one modulation.

    A prior, which the paper does not have, is added to the logits of every block, also to
    those of zero before the first: z and the variances of interference are the posterior's
    from the start, and so is the result, while the logits in the tokens stay those of the
    network, which says what the channel adds. In this way weights that were trained without
    priors can use them, if tokens hold estimates of the user's own symbol, in which
    interference is cancelled. Without such estimates (`remimo`) they cannot: they
    misread a y - Hz from which interference is cancelled, so a prior is refused.

    Args:
        num_blocks: the number of encoder-predictor blocks; 12 in the paper, and 16 on
            correlated channels.
        state_size: d_s; 512 in the paper.
        num_heads: the number of attention heads; 8 in the paper.
        factored: predict the logits of the two PAMs of a symbol, 2 sqrt(2^m) numbers,
            instead of all 2^m. By default this is so from 64-QAM on. 64-QAM then has
            16 numbers like 16-QAM, which is predicted as in the paper.
        estimates: estimates of the user's own symbol in its token, which the paper does
            not have. Its eq. 15 is the product h_i'(y - Hz), of which the network gets
            only the two factors ("none") and has to learn to multiply them.
            "matched-filter" (`remimo-mf`) adds the estimate z_i + h_i'(y - Hz)/|h_i|^2,
            and the noise and interference in it, |y - Hz|/(|h_i| sqrt(2M)).
            "lmmse" (`remimo-lmmse`) adds, beside these, the estimate with the unbiased
            LMMSE filter in place of h_i'/|h_i|^2, and the standard deviation of that
            filter's estimate at z = 0.
            "lmmse-pic" (`remimo-pic`) computes that filter and deviation again in every
            block, for interference that has the variances of the symbols' probabilities
            so far (parallel interference cancellation [Wang99]).
        normalize: divide y, H and sqrt(N0) by the root mean square of the present users'
            entries of H. The result then does not depend on the scale of y, H and
            sqrt(N0). The paper does not divide, and its entries, of variance 1/Nr, are
            small; with division the network learns several times faster.

    Raises:
        InvalidInput: (a `ValueError`) an option is out of range.
    """

    any_num_streams = True

    def __init__(
        self,
        *args,
        num_blocks=12,
        state_size=512,
        num_heads=8,
        factored=None,
        estimates="none",
        normalize=False,
        **kwargs,
    ):
        super().__init__(*args, **kwargs)
        for name, value in (
            ("num_blocks", num_blocks),
            ("state_size", state_size),
            ("num_heads", num_heads),
        ):
            check_int(name, value)
        if factored is None:
            factored = self.num_bits_per_symbol > 4
        if not isinstance(factored, bool):
            raise InvalidInput(f"factored: got {factored!r}, expected True or False")
        check_choice("estimates", estimates, ESTIMATES)
        if not isinstance(normalize, bool):
            raise InvalidInput(f"normalize: got {normalize!r}, expected True or False")
        self.num_blocks = int(num_blocks)
        self.state_size = int(state_size)
        self.num_heads = int(num_heads)
        # A BPSK symbol is one PAM level
        self.factored = factored or self.is_real
        self.estimates = estimates
        self.normalize = normalize
        # With more streams, large matrix products take nearly all the time, and XLA does
        # not make them faster
        self.xla_on_cpu = self.num_streams < 12
        self._pams = 1 if self.is_real else 2
        levels = len(self.levels)
        self._num_logits = self._pams * levels if self.factored else levels**self._pams
        # Python numbers, because torch.compile cannot trace how NumPy makes an array
        symbols = qam_points(self.num_bits_per_symbol)
        self._symbol_parts = tuple(symbols.real.tolist()), tuple(symbols.imag.tolist())
        self._symbol_powers = tuple((np.abs(symbols) ** 2).tolist())
        self.embedding = _Perceptron([4 * self.state_size, self.state_size], name="embedding")
        self.blocks = [
            _Block(self.state_size, self.num_heads, self._num_logits, name=f"block_{t}")
            for t in range(self.num_blocks)
        ]

    def build(self, y_shape, h_shape, s_shape):
        """Create all weights, which fit one number of antennas."""
        num_rx = y_shape[-1]
        self.num_rx = num_rx
        self.embedding.build((None, None, 5 * num_rx + 1))
        token = self.state_size + 4 * num_rx + self._num_logits
        token += ESTIMATES[self.estimates] * (self._pams + 1)
        for block in self.blocks:
            block.build((None, None, token))

    @property
    def accepts_prior(self):
        return self.estimates != "none"

    @property
    def built_for_num_rx(self):
        return self.num_rx if self.built else None

    # --- network ------------------------------------------------------------------

    def all_logits(self, y, h, no, training=None, prior=None):
        """Logits of every block; arguments are those of `Detector.all_logits`.

        Returns:
            list of PAM logits float32 [B, N, L], or of symbol logits [B, K, 2^m] if they
            are not factored.
        """
        return self._unfold(y, h, no, prior)[0]

    def attention_maps(self, y, h, s, prior=None):
        """The attention in every block [Pratik21, eq. 19].

        Args:
            y, h, s, prior: as in a call.

        Returns:
            list of float32 [..., num_heads, K, K], where K is the number of columns of h
            and entry [i, j] is the attention that user i pays to user j.

        Raises:
            InvalidInput: the layer has no weights yet, or a call would raise it.
        """
        if not self.built:
            raise InvalidInput("attention_maps: no weights yet; call or build the layer first")
        streams = self._streams_of(h)
        system, lead = self._to_real(y, h, s, prior)
        size = (self.num_heads, streams, streams)
        maps = self._unfold(*system)[1]
        return [arranged_as(a[..., :streams, :streams], lead, *size) for a in maps]

    def _unfold(self, y, h, no, prior=None):
        columns = ops.swapaxes(h[..., : self.num_streams], -1, -2)  # [B, K, 2M]
        present = ops.cast(ops.any(columns != 0, axis=-1), "float32")
        count = ops.maximum(ops.sum(present, axis=-1, keepdims=True), 1.0)
        if self.normalize:
            energy = ops.sum(ops.square(columns), axis=(-2, -1))[:, None]
            # With no users the energy is zero
            energy = ops.where(energy > 0, energy / (count * columns.shape[-1]), 1.0)
            unit = ops.sqrt(energy)
            y, no = y / unit, no / energy[:, 0]
            h, columns = h / unit[..., None], columns / unit[..., None]
        scale = ops.sqrt(2.0 * count)  # [B, 1]
        sigma = self._to_users(ops.sqrt(no)[:, None] / scale)
        first = [self._to_users(y / scale), columns, sigma]
        encoded = self._to_users(_encode(count, self.num_rx) / self.state_size**0.5)
        s = self.embedding(ops.concatenate(first + [encoded], axis=-1))
        s = s * self.state_size**0.5
        logits = ops.zeros_like(columns[..., :1]) * ops.zeros((self._num_logits,))
        if prior is not None:
            prior = self._by_user(prior)

        def posterior(logits):
            return logits if prior is None else logits + prior

        every, maps = [], []
        filters = self._filters(h, no)
        for block in self.blocks:
            means, variances = self._moments(posterior(logits))
            residual = y - matvec(h, means)
            token = [logits, self._to_users(residual / scale), columns]
            token += self._own(filters(variances), residual, means)
            s, logits, attention = block(s, ops.concatenate(token, axis=-1), sigma, present)
            every.append(self._arranged(posterior(logits * present[..., None])))
            maps.append(attention)
        return every, maps

    def _filters(self, h, no):
        """The filters of `estimates`, as a function of the symbols' variances [B, N].

        The function returns a list of pairs: a matrix [B, N, 2M] that estimates symbols
        from a residual, and the standard deviations [B, N] of these estimates. The matched
        filter's are for a noise and interference variance of one per dimension, the LMMSE
        filter's for N0.
        """
        if self.estimates == "none":
            return lambda variances: []
        ht = ops.swapaxes(h, -1, -2)
        energy = ops.sum(ops.square(h), axis=-2)
        # An absent user has no energy to divide by
        energy = ops.where(energy > 0, energy, 1.0)
        matched = ht / energy[..., None], ops.sqrt(1.0 / energy)
        if self.estimates == "matched-filter":
            return lambda variances: [matched]
        gram = ops.matmul(ht, h)

        def lmmse(variances):
            inverse, gain, variance = mmse_filter(gram, no, variances)
            absent = gain <= 1e-30
            matrix = ops.matmul(inverse, ht) / ops.where(absent, 1.0, gain)[..., None]
            return matrix, ops.sqrt(ops.where(absent, 1.0, variance))

        if self.estimates == "lmmse":
            first = lmmse(self.pam_energy)
            return lambda variances: [matched, first]
        return lambda variances: [matched, lmmse(ops.maximum(variances, MIN_SYMBOL_VARIANCE))]

    def _own(self, filters, residual, means):
        """Each user's estimates and their deviations, a list of [B, K, ...]."""
        if not filters:
            return []
        own = []
        for matrix, _ in filters:
            estimate = ops.reshape(
                means + matvec(matrix, residual), (-1, self._pams, self.num_streams)
            )
            own.append(ops.swapaxes(estimate, -1, -2))
        # The square root has no gradient at zero
        size = ops.sqrt(ops.mean(ops.square(residual), axis=-1, keepdims=True) + 1e-12)
        for (_, deviations), scale in zip(filters, [size, 1.0]):
            # The two dimensions of a user have equal deviations
            own.append((deviations[:, : self.num_streams] * scale)[..., None])
        return own

    def _to_users(self, x):
        """Repeat x [B, J] for every user: [B, K, J]."""
        return ops.repeat(x[:, None], self.num_streams, axis=1)

    def _by_user(self, prior):
        """The prior [B, N, L] as logits of the users [B, K, ...], like those of a block."""
        if not self.factored:
            return pam_logits_to_symbol_logits(prior, self.num_bits_per_symbol)
        return ops.concatenate(ops.split(prior, self._pams, axis=1), axis=-1)

    def _arranged(self, logits):
        """Reshape the users' PAM logits [B, K, 2L] to [B, N, L]; return others as is."""
        if not self.factored or self.is_real:
            return logits
        return ops.concatenate(ops.split(logits, 2, axis=-1), axis=1)

    def _moments(self, logits):
        """Means z of the real dimensions and variances per dimension, both [B, N].

        The two dimensions of a symbol share their mean variance.
        """
        if self.factored:
            pmf = ops.softmax(self._arranged(logits))
            means = ops.sum(pmf * constant(self.levels), axis=-1)
            powers = ops.sum(pmf * constant(tuple(p**2 for p in self.levels)), axis=-1)
            powers = ops.reshape(powers, (-1, self._pams, self.num_streams))
            power = ops.mean(powers, axis=1)
        else:
            pmf = ops.softmax(logits)
            parts = [ops.sum(pmf * constant(part), axis=-1) for part in self._symbol_parts]
            means = ops.concatenate(parts, axis=-1)
            power = ops.sum(pmf * constant(self._symbol_powers), axis=-1) / self._pams
        squares = ops.reshape(ops.square(means), (-1, self._pams, self.num_streams))
        variances = power - ops.mean(squares, axis=1)
        return means, ops.tile(variances, (1, self._pams))

    # --- detector -----------------------------------------------------------------

    def detect(self, y, h, no, prior=None):
        logits = self.all_logits(y, h, no, prior=prior)[-1]
        return logits if self.factored else self._marginal(logits)

    def _marginal(self, logits):
        """PAM logits [B, N, L] from symbol logits [B, K, 2^m]."""
        return marginal_pam_logits(logits, self.num_bits_per_symbol)

    def symbol_logits(self, y, h, no, prior=None):
        if self.factored:
            return super().symbol_logits(y, h, no, prior)
        return self.all_logits(y, h, no, prior=prior)[-1]

    def symbol_indices(self, y, h, no, prior=None):
        if self.factored:
            return super().symbol_indices(y, h, no, prior)
        return _largest(self.symbol_logits(y, h, no, prior))

    def detect_llrs(self, y, h, no, prior=None):
        logits = self.all_logits(y, h, no, prior=prior)[-1]
        if self.factored:
            return pam_logits_to_llrs(logits, self.num_bits_per_symbol, self.demapping_method)
        return logits_to_llrs(logits, self.demapping_method)

    def detect_both(self, y, h, no, prior=None):
        if self.factored:
            return super().detect_both(y, h, no, prior)
        logits = self.all_logits(y, h, no, prior=prior)[-1]
        return logits_to_llrs(logits, self.demapping_method), _largest(logits)

    def get_config(self):
        return {
            **super().get_config(),
            "num_blocks": self.num_blocks,
            "state_size": self.state_size,
            "num_heads": self.num_heads,
            "factored": self.factored,
            "estimates": self.estimates,
            "normalize": self.normalize,
        }


def _largest(logits):
    return ops.cast(ops.argmax(logits, axis=-1), "int32")


def _encode(count, size):
    """The encoded number of users, eq. 23 and 24 without the division by sqrt(d_s).

    Args:
        count: float32 [B, 1].
        size: d_TE = Nr.
    """
    even = range(0, size, 2)
    angles = count / constant(tuple((2.0 * size) ** (i / size) for i in even))
    pairs = ops.stack([ops.sin(angles), ops.cos(angles)], axis=-1)
    return ops.reshape(pairs, (-1, 2 * len(even)))[:, :size]


class _Block(Float32Layer):
    """One encoder-predictor block."""

    def __init__(self, state_size, num_heads, num_logits, **kwargs):
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.state_size = state_size
        self._num_logits = num_logits
        self.norms = [
            keras.layers.LayerNormalization(epsilon=1e-5, dtype="float32") for _ in range(2)
        ]
        self.feed_forward = _Perceptron([4 * state_size, state_size], name="feed_forward")

    def build(self, shape):
        size = shape[-1]  # d_phi
        self.head_size = size // self.num_heads
        if not self.head_size:
            raise InvalidInput(
                f"num_heads: got {self.num_heads}, expected at most the token's size {size}"
            )
        width = self.num_heads * self.head_size
        # Of queries, keys and values
        self.projections = keras.layers.Dense(3 * width, dtype="float32")
        self.projections.build((None, None, size))
        self.output_projection = keras.layers.Dense(self.state_size, dtype="float32")
        self.output_projection.build((None, None, width))
        for norm in self.norms:
            norm.build((None, None, self.state_size))
        self.feed_forward.build((None, None, self.state_size))
        size += 1  # d_psi, which includes sigma
        sizes = [-(-size // 2), -(-size // 4), self._num_logits]
        self.predictor = _Perceptron(sizes, name="predictor")
        self.predictor.build((None, None, size))
        self.built = True

    def call(self, s, token, sigma, present):
        """New states [B, K, d_s], logits [B, K, ...] and attention [B, heads, K, K]."""
        update, attention = self._attend(ops.concatenate([s, token], axis=-1), present)
        s = self.norms[0](s + update)
        s = self.norms[1](s + self.feed_forward(s))
        logits = self.predictor(ops.concatenate([s, token, sigma], axis=-1))
        return s, logits, attention

    def _attend(self, token, present):
        users, heads = token.shape[1], self.num_heads
        parts = ops.reshape(self.projections(token), (-1, users, 3, heads, self.head_size))
        query, key, value = (ops.swapaxes(parts[:, :, i], 1, 2) for i in range(3))
        scores = ops.matmul(query, ops.swapaxes(key, -1, -2)) / self.head_size**0.5
        # Absent users get no attention. If all are absent, the result is not used.
        scores = scores - 1e9 * (1.0 - present[:, None, None])
        # Keras warns about a softmax over one user
        attention = ops.softmax(scores, axis=-1) if users > 1 else ops.ones_like(scores)
        mixed = ops.swapaxes(ops.matmul(attention, value), 1, 2)
        mixed = ops.reshape(mixed, (-1, users, heads * self.head_size))
        return self.output_projection(mixed), attention


class _Perceptron(Float32Layer):
    """Dense layers with ReLU between them."""

    def __init__(self, sizes, **kwargs):
        super().__init__(**kwargs)
        self.hidden = [
            keras.layers.Dense(size, activation="relu", dtype="float32") for size in sizes[:-1]
        ]
        self.last = keras.layers.Dense(sizes[-1], dtype="float32")

    def build(self, shape):
        for layer in [*self.hidden, self.last]:
            layer.build(shape)
            shape = (*shape[:-1], layer.units)
        self.built = True

    def call(self, x):
        for layer in self.hidden:
            x = layer(x)
        return self.last(x)
