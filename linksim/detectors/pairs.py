"""Joint posteriors of pairs of dimensions, which correct expectation propagation.

Expectation propagation is exact where cavities are Gaussian. What it misses first are
pairs: two dimensions that interfere with each other, of which each takes one of a few
levels. For a pair, the cavity is a Gaussian of two dimensions, and all L x L combinations of
levels can be enumerated on it. The marginals of that table correct those of expectation
propagation [Cseke11] [Opper13].

Arrays have the batch last, so that every operation runs over contiguous memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from keras import ops

from linksim.backend import Tensor, constant, take_along_axis
from linksim.detectors.ep import EPState
from linksim.detectors.real import diagonal

# Log-probabilities are compared down to here; what is less likely does not matter
FLOOR = -40.0
# Largest squared correlation of a pair, for float32
_MOST_RHO2 = 1.0 - 1e-5


def batch_last(a: Tensor) -> Tensor:
    """[B, ...] as [..., B]."""
    return ops.transpose(a, (*range(1, len(a.shape)), 0))


def batch_first(a: Tensor) -> Tensor:
    """[..., B] as [B, ...]."""
    rank = len(a.shape)
    return ops.transpose(a, (rank - 1, *range(rank - 1)))


def log_probabilities(logits: Tensor) -> Tensor:
    """Normalize logits [N, L, ...] along their levels."""
    return logits - ops.logsumexp(logits, axis=1, keepdims=True)


class PairTerms(NamedTuple):
    """What each dimension i learns from its P partners j.

    `correction` are log p_ij(x_i) - log q_i(x_i), where p_ij is the marginal of the pair's
    table and q_i that of expectation propagation.
    """

    correction: Tensor  # float32 [N, P, L, B]
    marginal: Tensor  # p_ij, float32 [N, P, L, B]
    rho2: Tensor  # squared correlation of the pair, float32 [N, P, B]
    information: Tensor  # mutual information of the pair's levels in nats, [N, P, B]


class AllPairs:
    """Every dimension has every other one as a partner; tables are made once per pair.

    Args:
        num_dims: N, at least 2.
    """

    def __init__(self, num_dims: int) -> None:
        n = self.num_dims = num_dims
        self.num_partners = n - 1
        pairs = [(i, j) for i in range(n) for j in range(i + 1, n)]
        rank = {pair: q for q, pair in enumerate(pairs)}
        rank |= {(j, i): len(pairs) + q for q, (i, j) in enumerate(pairs)}
        # Directed pairs in the order of their dimensions, among (i, j) and then (j, i)
        directed = [(i, j) for i in range(n) for j in range(n) if i != j]

        def indices(values):
            return constant(tuple(values), "int32")

        self._i, self._j = indices(i for i, _ in pairs), indices(j for _, j in pairs)
        self._entries = indices(i * n + j for i, j in pairs)
        self._directed = indices(rank[pair] for pair in directed)
        self._partners = indices(j for _, j in directed)

    def coupling(self, matrix: Tensor) -> Tensor:
        """Entries [Q, B] of symmetric matrices [B, N, N] at the pairs."""
        flat = batch_last(ops.reshape(matrix, (-1, self.num_dims**2)))
        return ops.take(flat, self._entries, axis=0)

    def ends(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Values [N, ..., B] at both dimensions of the pairs, [Q, ..., B] each."""
        return ops.take(values, self._i, axis=0), ops.take(values, self._j, axis=0)

    def directed(self, at_i: Tensor, at_j: Tensor) -> Tensor:
        """Results [Q, ..., B] for both dimensions of the pairs, as [N, P, ..., B]."""
        both = ops.take(ops.concatenate([at_i, at_j], axis=0), self._directed, axis=0)
        shape = (self.num_dims, self.num_partners, *both.shape[1:-1], -1)
        return ops.reshape(both, shape)

    def partners(self, values: Tensor) -> Tensor:
        """Values [N, B] at the partners of each dimension, [N, P, B]."""
        values = ops.take(values, self._partners, axis=0)
        return ops.reshape(values, (self.num_dims, self.num_partners, -1))


class StrongestPairs:
    """Every dimension has as partners those that it is most correlated with.

    Args:
        covariance: float32 [B, N, N].
        num_partners: P, below N.
    """

    def __init__(self, covariance: Tensor, num_partners: int) -> None:
        self.num_dims = covariance.shape[-1]
        self.num_partners = num_partners
        variance = diagonal(covariance)
        rho2 = ops.square(covariance) / variance[:, :, None] / variance[:, None, :]
        rho2 = rho2 - 2.0 * ops.eye(self.num_dims)
        _, self._index = ops.top_k(rho2, num_partners)  # [B, N, P]
        self._flat = ops.reshape(self._index, (-1, self.num_dims * num_partners))

    def coupling(self, matrix: Tensor) -> Tensor:
        """Entries [Q, B] of symmetric matrices [B, N, N] at the pairs."""
        entries = take_along_axis(matrix, self._index, axis=-1)
        return batch_last(ops.reshape(entries, (-1, self.num_dims * self.num_partners)))

    def ends(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Values [N, B] at both dimensions of the pairs, [Q, B] each."""
        return ops.repeat(values, self.num_partners, axis=0), self._at_partners(values)

    def directed(self, at_i: Tensor, at_j: Tensor) -> Tensor:
        """Results [Q, ..., B] for the first dimension of the pairs, as [N, P, ..., B]."""
        shape = (self.num_dims, self.num_partners, *at_i.shape[1:-1], -1)
        return ops.reshape(at_i, shape)

    def partners(self, values: Tensor) -> Tensor:
        """Values [N, B] at the partners of each dimension, [N, P, B]."""
        shape = (self.num_dims, self.num_partners, -1)
        return ops.reshape(self._at_partners(values), shape)

    def _at_partners(self, values):
        return batch_last(take_along_axis(batch_first(values), self._flat, axis=-1))


def choose_pairs(state: EPState, num_partners: int) -> AllPairs | StrongestPairs:
    """Pairs of every dimension with `num_partners` others, or with all if there are fewer."""
    num_dims = state.covariance.shape[-1]
    if num_dims - 1 <= num_partners:
        return AllPairs(num_dims)
    return StrongestPairs(state.covariance, num_partners)


def pair_terms(
    state: EPState,
    no: Tensor,
    points: Sequence[float],
    pairs: AllPairs | StrongestPairs,
    prior: Tensor | None = None,
) -> PairTerms:
    """Enumerate the levels of pairs.

    With S the covariance of a pair in the approximation and lambda, gamma the precisions
    and shifts of its two factors, its cavity has the precision S^-1 - diag(lambda) and the
    shift S^-1 mu - gamma.

    Args:
        state: the approximation of expectation propagation.
        no: float32 [B], N0.
        points: float32 [L], the levels.
        pairs: which pairs.
        prior: float32 [B, N, L], log-probabilities of the levels up to a constant, or None.
    """
    half_no = no[None] / 2.0
    variance, mean, precision, shift = (
        batch_last(x) for x in (state.variance, state.mean, state.precision, state.shift)
    )
    scale = ops.sqrt(variance)
    (s_i, s_j), (mu_i, mu_j) = pairs.ends(scale), pairs.ends(mean)
    (lambda_i, lambda_j), (gamma_i, gamma_j) = pairs.ends(precision), pairs.ends(shift)
    rho = pairs.coupling(state.covariance) * half_no / (s_i * s_j)
    most = _MOST_RHO2**0.5
    rho = ops.clip(rho, -most, most)
    rho2 = ops.square(rho)
    # The inverse of S in units of both standard deviations is [[d, -rho d], [-rho d, d]]
    d = 1.0 / (1.0 - rho2)
    a = d / ops.square(s_i) - lambda_i
    c = d / ops.square(s_j) - lambda_j
    b = -rho * d / (s_i * s_j)
    e_i = d * (mu_i / s_i - rho * mu_j / s_j) / s_i - gamma_i
    e_j = d * (mu_j / s_j - rho * mu_i / s_i) / s_j - gamma_j
    levels = constant(points)[None, :, None]
    at_i = (e_i[:, None] - 0.5 * a[:, None] * levels) * levels
    at_j = (e_j[:, None] - 0.5 * c[:, None] * levels) * levels
    if prior is not None:
        known = batch_last(prior)
        known = [pairs.ends(known[:, level]) for level in range(len(points))]
        known_i, known_j = (ops.stack(ends, axis=1) for ends in zip(*known))
        at_i, at_j = at_i + known_i, at_j + known_j
    products = constant(tuple(tuple(float(p) * float(q) for q in points) for p in points))
    table = at_i[:, :, None] + at_j[:, None] - b[:, None, None] * products[None, ..., None]
    table = table - ops.amax(table, axis=(1, 2), keepdims=True)  # [Q, L, L, B]
    likely = ops.exp(table)
    sums = ops.sum(likely, axis=2), ops.sum(likely, axis=1)
    total = ops.sum(sums[0], axis=1)  # [Q, B]
    logs = [ops.log(ops.maximum(s, 1e-30)) - ops.log(total)[:, None] for s in sums]
    entropies = [-ops.sum(ops.exp(x) * x, axis=1) for x in logs]
    joint = ops.log(total) - ops.sum(likely * ops.maximum(table, -80.0), axis=(1, 2)) / total
    information = ops.maximum(entropies[0] + entropies[1] - joint, 0.0)
    own = ops.maximum(log_probabilities(batch_last(state.logits)), FLOOR)
    log_p = pairs.directed(*logs)
    return PairTerms(
        ops.maximum(log_p, FLOOR) - own[:, None],
        ops.exp(log_p),
        pairs.directed(rho2, rho2),
        pairs.directed(information, information),
    )
