"""Losses on LLRs, bits and symbols, each a scalar function of tensors."""

import numpy as np
from keras import ops

from linksim.constellation import pam_indices_of_symbols


def weighted_squared_error(llr, target, weights, epsilon=1e-6):
    """The loss of EQ-Net, in the tanh(llr/2) domain [Arvinte20, eq. 7].

    Args:
        llr, target: float32 [B, K, m].
        weights: float32 [K, m], w_i.
        epsilon: added to the denominator.
    """
    value, wanted = ops.tanh(llr / 2.0), ops.tanh(target / 2.0)
    error = ops.square(value - wanted) / (ops.abs(wanted) + epsilon)
    return ops.mean(weights * error)


def bit_divergence(llr, target):
    """Mean over bits of KL(p || q) in nats.

    Up to a constant, it is the bit-wise mutual information that the decoder of a
    bit-interleaved code loses when it works with `llr`.

    Args:
        llr: float32 [B, K, m], the LLRs of the bit probabilities q.
        target: float32 [B, K, m], the LLRs of the bit probabilities p.
    """
    p = ops.sigmoid(target)
    cross = ops.softplus(llr) - p * llr
    entropy = ops.softplus(target) - p * target
    return ops.mean(cross - entropy)


def bit_cross_entropy(llr, bits, weights=None):
    """Mean over bits of -log q(bit) in nats.

    Args:
        llr: float32 [B, K, m].
        bits: float32 [B, K, m] of 0 and 1.
        weights: float32 [B, K], the weights of the symbols. None weights them equally.
    """
    return _weighted_mean(ops.mean(ops.softplus(llr) - bits * llr, axis=-1), weights)


def mutual_information(llr, bits, weights=None):
    """The achievable rate of bit-interleaved coding with these LLRs, in bits per bit.

    Arguments are those of `bit_cross_entropy`.
    """
    return 1.0 - bit_cross_entropy(llr, bits, weights) / np.log(2.0)


def pam_targets(symbols, num_bits_per_symbol):
    """PAM indices int32 [B, N] from symbol indices [B, K], real parts first."""
    table = ops.convert_to_tensor(pam_indices_of_symbols(num_bits_per_symbol))
    pam = ops.take(table, symbols, axis=0)  # [B, K, 2], or [B, K, 1] for BPSK
    return ops.concatenate([pam[..., i] for i in range(pam.shape[-1])], axis=-1)


def cross_entropy(logits, symbols, num_bits_per_symbol, weights=None):
    """Mean cross-entropy in nats, with the sent symbols as target.

    Args:
        logits: PAM logits float32 [B, N, L], or symbol logits [B, K, 2^m].
        symbols: int32 [B, K], the sent symbols.
        num_bits_per_symbol: m.
        weights: float32 [B, K], the weights of the symbols. None weights them equally.
    """
    target = symbols
    if logits.shape[-1] != 2**num_bits_per_symbol:
        target = pam_targets(symbols, num_bits_per_symbol)
    target = ops.one_hot(target, logits.shape[-1])
    entropy = -ops.sum(target * ops.log_softmax(logits, axis=-1), axis=-1)
    return _weighted_mean(entropy, weights)


def sent_levels(symbols, num_bits_per_symbol, points):
    """PAM levels float32 [B, N] from symbol indices [B, K], real parts first."""
    targets = pam_targets(symbols, num_bits_per_symbol)
    return ops.take(ops.convert_to_tensor(points), targets, axis=0)


def squared_error(estimate, sent, weights=None):
    """Mean squared error of real dimensions.

    Args:
        estimate, sent: float32 [B, N].
        weights: float32 [B, K], the weights of the symbols. None weights them equally.
    """
    return _weighted_mean(ops.square(estimate - sent), weights)


def pam_means(logits, points):
    """Posterior means [B, N] from PAM logits [B, N, L]."""
    return ops.sum(ops.softmax(logits, axis=-1) * ops.convert_to_tensor(points), axis=-1)


def detnet_loss(estimates, sent, zero_forcing):
    """The loss of DetNet [Mohammad20, eq. 20], averaged over the batch.

    Args:
        estimates: list of float32 [B, N], those of layers 1 to L.
        sent: float32 [B, N].
        zero_forcing: float32 [B, N], whose squared error, at least 1e-6 per dimension,
            divides those of the layers.
    """
    scale = ops.mean(ops.square(sent - zero_forcing), axis=-1)
    scale = 1.0 / ops.maximum(scale, 1e-6)
    errors = [ops.mean(ops.square(sent - x), axis=-1) * scale for x in estimates]
    return sum(float(np.log(r + 1)) * ops.mean(e) for r, e in enumerate(errors))


def log_l1_penalty(layer_norms, first_layer):
    """The regulariser of WeSNet without lambda [Mohammad20, eq. 22 and 23].

    Args:
        layer_norms: list of scalars, sum_k |beta_k W_k| of layers 1 to L.
        first_layer: l, the first layer with a penalty.
    """
    penalties = [
        ops.log(1.0 + (r - 1) * norm)
        for r, norm in enumerate(layer_norms, start=1)
        if r >= first_layer
    ]
    return sum(penalties)


def _weighted_mean(values, weights):
    """Mean of values [B, K], or [B, 2K] with real parts first, with weights [B, K]."""
    if weights is None:
        return ops.mean(values)
    if values.shape[-1] != weights.shape[-1]:
        weights = ops.concatenate([weights, weights], axis=-1)
    return ops.sum(values * weights) / ops.maximum(ops.sum(weights), 1.0)
