"""Expectation propagation, pairs and hypotheses, weighed by small networks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
from keras import ops

from linksim.backend import Float32Layer, Tensor
from linksim.constellation import level_distance, mean_square, nearest_pam, pam_moments
from linksim.detectors.base import Detector
from linksim.detectors.ep import EPState, accurate_variance, ep_states
from linksim.detectors.lord import hypotheses
from linksim.detectors.pairs import (
    FLOOR,
    PairTerms,
    batch_first,
    batch_last,
    choose_pairs,
    log_probabilities,
    pair_terms,
)
from linksim.detectors.real import diagonal
from linksim.errors import check_int

# Updates of EP, weight of its old factors, and the state that hypotheses start from. More
# updates make EP too sure of itself on ill-conditioned channels
_UPDATES, _DAMPING, _START = 2, 0.5, 1
# Systems of more real dimensions than this have no hypotheses, whose work grows with N^3 L
_MOST_DIMS = 32
# Up to so many real dimensions all pairs count, and beyond only the strongest
_ALL_PAIRS, _NUM_PARTNERS = 16, 8
# Features of each dimension, in the order of the weights. "Inflation" is how much a variance
# grows because the other dimensions are unknown
NODE_FEATURES = (
    *("entropy of marginals", "entropy of best", "entropy of soft"),
    *("from marginals", "from soft", "cavity variance", "variance"),
    *("inflation", "inflation at first", "largest rho2", "sum of rho2", "information"),
    *("off level", "agree", "mean of agree", "mean of from marginals"),
    *("mean of entropy of soft", "mean of entropy of marginals"),
    *("gain", "bits", "has paths", "known"),
)
# Features of each pair; the last four are features of the partner
_OF_PARTNER = ("entropy of marginals", "entropy of soft", "cavity variance", "agree")
PAIR_FEATURES = (
    *("rho2", "log of 1 - rho2", "information", "gained", "lost", "entropy"),
    *(f"partner's {name}" for name in _OF_PARTNER),
)
# Each source of evidence has such a weight at first
_FIRST_WEIGHT, _FIRST_PAIR_WEIGHT = 0.5, 0.3


class Evidence(NamedTuple):
    """What is known of each dimension, and features that say how far to trust it.

    The prior is kept apart, so that what the channel adds is weighed and the prior is not.
    Batches are last. Apart from the number of levels and whether there are hypotheses,
    features do not depend on the sizes of the system, on the scale of y, H and N0, or on the
    order of the streams.
    """

    prior: Tensor | None  # log-probabilities up to a constant, float32 [N, L, B]
    marginals: Tensor  # log-probabilities by expectation propagation, float32 [N, L, B]
    hypotheses: Tensor  # log-likelihoods of the best candidates, float32 [N, L, B]
    left_out: Tensor  # what their paths left out, float32 [N, L, B]
    corrections: Tensor  # of the pairs, float32 [N, P, L, B]
    node_features: Tensor  # float32 [22, N, B]
    pair_features: Tensor  # float32 [10, N, P, B]


def evidence(
    y: Tensor, h: Tensor, no: Tensor, points: Sequence[float], prior: Tensor | None = None
) -> Evidence:
    """Gather the evidence about a real system.

    Args:
        y, h, no, prior: as `Detector.detect` takes them.
        points: float32 [L], the levels.
    """
    settings = points, _UPDATES, _DAMPING, accurate_variance(points)
    states = ep_states(y, h, no, *settings, prior)
    state, n = states[-1], h.shape[-1]
    gains = diagonal(state.gram) / (no / 2.0)[:, None]
    marginals = log_probabilities(batch_last(state.logits))
    has_paths = 1 < n <= _MOST_DIMS
    if has_paths:
        found = hypotheses(states[_START], y, h, no, points, prior)
        best, left_out = (batch_last(x) for x in found)
        best = ops.maximum(log_probabilities(best), 10 * FLOOR)
        left_out = left_out - ops.amax(left_out, axis=1, keepdims=True)
    else:
        best, left_out = marginals, ops.zeros_like(marginals)
    pairs, terms = None, None
    if n > 1:
        pairs = choose_pairs(state, _ALL_PAIRS - 1 if n <= _ALL_PAIRS else _NUM_PARTNERS)
        terms = pair_terms(state, no, points, pairs, prior)
    node = _node_features(
        states, batch_last(gains), (marginals, best, left_out), terms, points
    )
    node["has paths"] = ops.ones_like(node["agree"]) * float(has_paths)
    node["known"] = ops.zeros_like(node["agree"])
    if prior is not None:
        variance = pam_moments(prior, points)[1]
        energy = mean_square(points)
        node["known"] = batch_last((energy - variance) / energy)
    if terms is None:
        corrections = ops.zeros_like(marginals)[:, None]
        none = ops.zeros_like(node["agree"])[:, None]
        pair = ops.stack([none] * len(PAIR_FEATURES))
    else:
        corrections = terms.correction
        pair = _pair_features(terms, marginals, pairs, node, points)
    node = ops.stack([node[name] for name in NODE_FEATURES])
    if prior is not None:
        prior = batch_last(prior)
        marginals, best = marginals - prior, best - prior
    return Evidence(prior, marginals, best, left_out, corrections, node, pair)


def _node_features(
    states: list[EPState],
    gains: Tensor,
    logs: tuple[Tensor, Tensor, Tensor],
    terms: PairTerms | None,
    points: Sequence[float],
) -> dict[str, Tensor]:
    """Features of each dimension, {name: [N, B]}, which the kinds of evidence have."""
    state, distance = states[-1], level_distance(points)
    marginals, best, left_out = logs
    soft = log_probabilities(best + left_out)
    cavity_v, variance, precision, centre = (
        batch_last(x)
        for x in (
            state.cavity_variance,
            state.variance,
            state.precision,
            state.cavity_mean,
        )
    )
    first_variance, first_precision = (
        batch_last(x) for x in (states[0].variance, states[0].precision)
    )
    off_level = ops.abs(centre - nearest_pam(centre, points)) / distance
    none = ops.zeros_like(variance)
    rho2 = none[:, None] if terms is None else terms.rho2
    information = none[:, None] if terms is None else terms.information
    features = {
        "entropy of marginals": _entropy(marginals),
        "entropy of best": _entropy(best),
        "entropy of soft": _entropy(soft),
        "from marginals": ops.log(1.0 + _divergence(soft, marginals)),
        "from soft": ops.log(1.0 + _divergence(marginals, soft)),
        "cavity variance": _log(cavity_v / distance**2),
        "variance": _log(variance / distance**2),
        "inflation": _log(variance * (gains + precision)),
        "inflation at first": _log(first_variance * (gains + first_precision)),
        "largest rho2": ops.amax(rho2, axis=1),
        "sum of rho2": ops.log(1.0 + ops.sum(rho2, axis=1)),
        "information": ops.log(1.0 + ops.sum(information, axis=1)),
        "off level": ops.clip(off_level, 0.0, 3.0),
        "agree": ops.cast(
            ops.argmax(marginals, axis=1) == ops.argmax(best, axis=1), "float32"
        ),
    }
    # Streams whose channel is zero are not there, and do not count in the means
    present = ops.cast(gains > 0, "float32")
    present = present / ops.maximum(ops.sum(present, axis=0, keepdims=True), 1.0)
    for name in ("agree", "from marginals", "entropy of soft", "entropy of marginals"):
        mean = ops.sum(present * features[name], axis=0, keepdims=True)
        features[f"mean of {name}"] = none + mean
    features["gain"] = -_log(gains * distance**2)
    features["bits"] = none + math.log2(len(points)) / 4
    return features


def _pair_features(terms, marginals, pairs, node, points):
    """Features of each pair, float32 [10, N, P, B]."""
    marginal = ops.log(ops.maximum(terms.marginal, 1e-30))
    own = ops.maximum(marginals, FLOOR)[:, None]
    gained = ops.sum(terms.marginal * terms.correction, axis=2)
    lost = -ops.sum(ops.exp(own) * terms.correction, axis=2)
    entropy = -ops.sum(terms.marginal * marginal, axis=2) / math.log(len(points))
    features = {
        "rho2": terms.rho2,
        "log of 1 - rho2": ops.log(1.0 - terms.rho2) / 4,
        "information": terms.information,
        "gained": ops.log(1.0 + ops.maximum(gained, 0.0)),
        "lost": ops.log(1.0 + ops.maximum(lost, 0.0)),
        "entropy": entropy,
    }
    for name in _OF_PARTNER:
        features[f"partner's {name}"] = pairs.partners(node[name])
    return ops.stack([features[name] for name in PAIR_FEATURES])


def _log(x):
    return ops.clip(ops.log(ops.maximum(x, 1e-12)), -12.0, 12.0) / 4


def _entropy(log_p):
    """Entropy along the levels, relative to the largest."""
    largest = math.log(log_p.shape[1])
    return -ops.sum(ops.exp(log_p) * ops.maximum(log_p, FLOOR), axis=1) / largest


def _divergence(log_p, log_q):
    difference = ops.maximum(log_p, FLOOR) - ops.maximum(log_q, FLOOR)
    return ops.maximum(ops.sum(ops.exp(log_p) * difference, axis=1), 0.0)


class Perceptron(Float32Layer):
    """Dense layers with ReLU between them, on features that come first.

    Args:
        sizes: numbers of inputs, of units of each hidden layer, and of outputs.

    Call arguments:
        parts: float32 [inputs, ...], which may come in parts that together are the inputs.
            The further axes of the parts are broadcast after the first layer, so that its
            products with a feature that many pairs share are made once.

    Returns:
        float32 [outputs, ...].
    """

    def __init__(self, sizes: tuple[int, ...], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.sizes = tuple(sizes)

    def build(self, input_shape: Any = None) -> None:
        """Create the weights; the last layer starts small, so that gates start equal."""
        self._layers_of_weights = []
        for i, (inputs, outputs) in enumerate(zip(self.sizes[:-1], self.sizes[1:])):
            gain = 0.02 if i == len(self.sizes) - 2 else 2.0
            kernel = self.add_weight(
                shape=(outputs, inputs),
                initializer=keras.initializers.RandomNormal(stddev=(gain / inputs) ** 0.5),
                name=f"kernel_{i}",
            )
            bias = self.add_weight(shape=(outputs, 1), initializer="zeros", name=f"bias_{i}")
            self._layers_of_weights.append((kernel, bias))
        super().build(input_shape)

    def call(self, *parts: Tensor) -> Tensor:
        """Apply the layers."""
        (kernel, bias), *others = self._layers_of_weights
        x, start = 0.0, 0
        for part in parts:
            columns = kernel[:, start : start + part.shape[0]]
            start += part.shape[0]
            products = ops.matmul(columns, ops.reshape(part, (part.shape[0], -1)))
            x = x + ops.reshape(products, (self.sizes[1], *ops.shape(part)[1:]))
        shape = ops.shape(x)[1:]
        x = ops.reshape(x, (self.sizes[1], -1)) + bias
        for kernel, bias in others:
            x = ops.matmul(kernel, ops.relu(x)) + bias
        return ops.reshape(x, (self.sizes[-1], *shape))


@keras.saving.register_keras_serializable("linksim")
class PEPNetDetector(Detector):
    """Expectation propagation with learned pairwise corrections and hypotheses.

    Three kinds of evidence about a level of a dimension are added up:

    - its log-probability log q_i by two updates of expectation propagation [Cespedes14];
    - corrections by pairs of dimensions, see `linksim.detectors.pairs`;
    - the log-likelihood of the best of N L candidate vectors that have the level, and what
      the path to it left out, see `linksim.detectors.lord.hypotheses`.

    The first is right where cavities are Gaussian, the second where dimensions interfere in
    pairs, the third where one vector is much more likely than others. Two small perceptrons
    say how far to trust each: one is shared by all dimensions and weighs the kinds, the
    other is shared by all pairs and weighs each partner. Their features do not depend on the
    sizes of the system or the scale of y, H and N0, so that one set of weights serves every
    number of streams and antennas, every modulation and every channel. Permuting the streams
    permutes the result.

    A prior enters all three kinds, is taken off before they are weighed, and is added to the
    result once.

    A system of more than 16 real dimensions, counting absent streams, has only the eight
    strongest partners of each dimension, and one of more than 32 has no hypotheses.
    Otherwise the work would outgrow that of the matrix inverses.

    Args:
        width: units of the hidden layers of the perceptron of dimensions.
        pair_width: units of the hidden layers of the perceptron of pairs.

    Raises:
        InvalidInput: (a `ValueError`) an option is out of range.
    """

    accepts_prior = True
    any_num_streams = True

    def __init__(
        self, *args: Any, width: int = 32, pair_width: int = 16, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        check_int("width", width)
        check_int("pair_width", pair_width)
        self.width = int(width)
        self.pair_width = int(pair_width)
        self.kinds = Perceptron((len(NODE_FEATURES), self.width, self.width, 4), name="kinds")
        both = len(NODE_FEATURES) + len(PAIR_FEATURES)
        self.pairs = Perceptron((both, self.pair_width, self.pair_width, 1), name="pairs")

    def build(self, *shapes: Any) -> None:
        """Create the weights, whose shapes depend on no argument."""
        self.kinds.build()
        self.pairs.build()
        self.built = True

    def detect(self, y: Tensor, h: Tensor, no: Tensor, prior: Tensor | None = None) -> Tensor:
        return self.weigh(evidence(y, h, no, self.levels, prior))

    def weigh(self, found: Evidence) -> Tensor:
        """Add up evidence, of any system, with learned weights.

        Returns:
            PAM logits float32 [B, N, L].
        """
        kinds = _positive(self.kinds(found.node_features), _FIRST_WEIGHT)
        weights = self.pairs(found.node_features[:, :, None], found.pair_features)[0]
        weights = _positive(weights, _FIRST_PAIR_WEIGHT)
        logits = (
            kinds[0][:, None] * found.marginals
            + kinds[1][:, None] * found.hypotheses
            + kinds[2][:, None] * found.left_out
            + kinds[3][:, None] * ops.sum(weights[:, :, None] * found.corrections, axis=1)
        )
        return batch_first(logits if found.prior is None else found.prior + logits)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "width": self.width, "pair_width": self.pair_width}


def _positive(x, at_zero):
    """Softplus, shifted so that it is `at_zero` at 0."""
    return ops.softplus(x + math.log(math.expm1(at_zero)))
