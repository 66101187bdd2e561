"""Losses on LLRs, bits and symbols: functions of tensors, each a scalar."""

import numpy as np
from keras import ops

from linksim.constellation import pam_indices_of_symbols


def weighted_squared_error(llr, target, weights, epsilon=1e-6):
    """EQ-Net's loss (004_979a1825df3dec03.txt, eq. 7) in the tanh(llr/2) domain.

    Args:
        llr, target: float32 [B, K, m].
        weights: float32 [K, m], w_i.
    """
    value, wanted = ops.tanh(llr / 2.0), ops.tanh(target / 2.0)
    error = ops.square(value - wanted) / (ops.abs(wanted) + epsilon)
    return ops.mean(weights * error)


def bit_divergence(llr, target):
    """Mean over bits of KL(p || q) in nats, p and q the bit probabilities of the
    target's and the given LLRs, float32 [B, K, m].

    Up to a constant, the loss of bit-wise mutual information that the decoder of a
    bit-interleaved code suffers from working with `llr`.
    """
    p = ops.sigmoid(target)
    cross = ops.softplus(llr) - p * llr
    entropy = ops.softplus(target) - p * target
    return ops.mean(cross - entropy)


def bit_cross_entropy(llr, bits):
    """Mean over bits of -log q(bit) in nats; bits float32 [B, K, m] of 0 and 1."""
    return ops.mean(ops.softplus(llr) - bits * llr)


def mutual_information(llr, bits):
    """Achievable rate of bit-interleaved coding with these LLRs, in bits per bit."""
    return 1.0 - bit_cross_entropy(llr, bits) / np.log(2.0)


def pam_targets(symbols, num_bits_per_symbol):
    """PAM indices int32 [B, N] of symbol indices [B, K], real parts first."""
    table = ops.convert_to_tensor(pam_indices_of_symbols(num_bits_per_symbol))
    pam = ops.take(table, symbols, axis=0)  # [B, K, 2], or [B, K, 1] for BPSK
    return ops.concatenate([pam[..., i] for i in range(pam.shape[-1])], axis=-1)


def pam_cross_entropy(logits, symbols, num_bits_per_symbol):
    """Mean cross entropy in nats of PAM logits [B, N, L] to sent symbols [B, K]."""
    target = ops.one_hot(pam_targets(symbols, num_bits_per_symbol), logits.shape[-1])
    return -ops.mean(ops.sum(target * ops.log_softmax(logits, axis=-1), axis=-1))


def pam_squared_error(logits, symbols, num_bits_per_symbol, points):
    """Mean squared error of the posterior mean of PAM logits [B, N, L]."""
    levels = ops.convert_to_tensor(points)
    mean = ops.sum(ops.softmax(logits, axis=-1) * levels, axis=-1)
    sent = ops.take(levels, pam_targets(symbols, num_bits_per_symbol), axis=0)
    return ops.mean(ops.square(mean - sent))
