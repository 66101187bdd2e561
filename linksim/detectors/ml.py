"""Exact maximum-likelihood (ML) detection by enumeration.

A QR decomposition with the two real dimensions of a stream side by side leaves the first
stream in the first rows only. Given all other streams, its real and imaginary parts are
independent, so |C|^(K-1) * 2 sqrt|C| terms replace the |C|^K of a brute-force search, with
the same result.
"""

import keras
from keras import ops

from linksim.backend import constant
from linksim.constellation import level_distance, nearest_pam, pam_indices_of_symbols
from linksim.detectors.base import Detector
from linksim.detectors.real import (
    interleaved_order,
    interleaved_qr,
    small_interleaved_qr,
    with_zeros,
)
from linksim.errors import InvalidInput, check_int

MAX_HYPOTHESES = 2**20
# Columns up to which Gram-Schmidt is faster than LAPACK on CPU
_SMALL = 8
# Slices of the hypotheses that `_marginals` combines. With 8 it would be up to a fifth
# faster, but take twice as long to compile.
_SLICES = 2


@keras.saving.register_keras_serializable("linksim")
class MaximumLikelihoodDetector(Detector):
    """Exact maximum likelihood (ML) by enumeration, for few streams.

    With "app" it sums over the hypotheses, with "maxlog" it takes the best one.

    Args:
        max_elements: the largest number of elements of one intermediate tensor. The batch
            is processed in chunks of at least one vector to stay below it. With the
            default a chunk fits about into the processor's cache; larger ones are slower.

    Raises:
        InvalidInput: (a `ValueError`) |C|^(K-1) exceeds 2^20 (use "sphere"), or an option
            is out of range.
    """

    accepts_prior = True

    def __init__(self, *args, max_elements=2**20, **kwargs):
        super().__init__(*args, **kwargs)
        check_int("max_elements", max_elements)
        self.max_elements = int(max_elements)
        # On CPU, XLA reduces over the hypotheses of three or more streams slowly
        self.xla_on_cpu = self.num_streams == 2
        self._num_symbols = 2**self.num_bits_per_symbol
        hypotheses = self._num_symbols ** (self.num_streams - 1)
        if hypotheses > MAX_HYPOTHESES:
            raise InvalidInput(
                f"ml: {self.num_streams} streams of {self.num_bits_per_symbol} bits "
                f"need {hypotheses:.3g} hypotheses, at most {MAX_HYPOTHESES} are "
                'enumerated; use "sphere" for the exact max-log solution'
            )
        # For each real dimension of a symbol, the index of its level by symbol
        indices = pam_indices_of_symbols(self.num_bits_per_symbol).T.tolist()
        self._parts = tuple(map(tuple, indices))
        # Levels of the real dimensions of each symbol, [|C|, 1 or 2]
        parts = (tuple(self.levels[i] for i in part) for part in self._parts)
        self._symbol_levels = tuple(zip(*parts))

    def detect(self, y, h, no, prior=None):
        return self._enumerate(y, h, no, prior, joint=False)

    def symbol_logits(self, y, h, no, prior=None):
        return self._enumerate(y, h, no, prior, joint=True)

    def symbol_indices(self, y, h, no, prior=None):
        return ops.cast(ops.argmax(self.symbol_logits(y, h, no, prior), axis=-1), "int32")

    def _enumerate(self, y, h, no, prior, joint):
        """PAM logits [B, N, L], or with `joint` symbol logits [B, K, |C|].

        Inside, the batch is the last axis of all tensors, which makes every step a long
        vector operation.
        """
        qr = small_interleaved_qr if self.num_dims <= _SMALL else interleaved_qr
        y, r = qr(y, h, self.num_streams, self.is_real)
        # Scaled by 1/sqrt(N0), squared distances are exponents
        scale = 1.0 / ops.sqrt(no)
        y = y * scale[:, None]
        r = r * scale[:, None, None]
        system = [y, r]
        if prior is not None:
            order = interleaved_order(self.num_streams, self.is_real)
            system.append(ops.take(prior, constant(order, "int32"), axis=1))
        # The largest tensor has all hypotheses of the other streams, times the levels of
        # one real dimension of the first
        others = self._num_symbols ** (self.num_streams - 1)
        chunk = max(1, self.max_elements // (others * len(self.levels)))
        batch = y.shape[0]
        if batch is not None and batch <= chunk:
            return self._chunk(joint, *system)
        return self._map_chunks(joint, chunk, system)

    def _map_chunks(self, joint, chunk, system):
        # A loop over slices needs the memory of one chunk
        rows = batch = ops.shape(system[0])[0]
        if system[0].shape[0] is None:
            system, rows = [with_zeros(x) for x in system], ops.maximum(batch, 1)
        num_chunks = (rows + chunk - 1) // chunk
        width = self._num_symbols if joint else len(self.levels)
        dims = self.num_streams if joint else self.num_dims
        result = ops.zeros((num_chunks * chunk, dims, width))

        def body(i, result):
            # The last row is repeated, so that every slice is full
            index = ops.minimum(i * chunk + ops.arange(chunk), rows - 1)
            part = self._chunk(joint, *[ops.take(x, index, axis=0) for x in system])
            return i + 1, ops.slice_update(result, (i * chunk, 0, 0), part)

        _, result = ops.while_loop(
            lambda i, result: i < num_chunks,
            body,
            (ops.convert_to_tensor(0, dtype="int32"), result),
        )
        return result[:batch]

    def _chunk(self, joint, y, r, prior=None):
        """`_enumerate` for one chunk of vectors.

        Args:
            y: float32 [B, N], r: float32 [B, N, N], both divided by sqrt(N0).
            prior: float32 [B, N, L] or None. All are in interleaved order.
        """
        per_stream = self.num_dims // self.num_streams
        streams, size = self.num_streams, self._num_symbols
        levels = constant(self._symbol_levels)  # [|C|, per_stream]
        y = ops.transpose(y)  # [N, B]
        r = ops.transpose(r, (1, 2, 0))  # [N, N, B]
        if prior is not None:
            prior = ops.transpose(prior, (1, 2, 0))  # [N, L, B]
        if streams == 2 and not joint:
            return self._two_streams(y, r, levels, prior)

        # Residuals of the rows of the streams that are not enumerated yet, each
        # [|C|^done, B], and the metric of the rows that are complete, less the prior
        residual = [y[i][None] for i in range(self.num_dims)]
        metric = ops.zeros_like(residual[0])
        for k in range(streams - 1, 0, -1):
            for i in range((k + 1) * per_stream):
                shift = 0.0
                for part in range(per_stream):
                    shift = shift + levels[:, part, None] * r[i, k * per_stream + part]
                # The newest stream becomes the slowest index
                residual[i] = _outer(residual[i], shift)
            if prior is not None:
                metric = _outer(metric, self._symbol_prior(prior, k))
            for i in range(k * per_stream, (k + 1) * per_stream):
                term = ops.square(residual[i])
                metric = _repeat(metric, term) + term
        # The real and imaginary parts of the first stream are separable
        pam = constant(self.levels)[:, None, None]
        open_terms = [
            -ops.square(residual[i][None] - pam * r[i, i]) for i in range(per_stream)
        ]  # each [L, others, B]
        if prior is not None:
            open_terms = [term + prior[i][:, None] for i, term in enumerate(open_terms)]
        others_metric = -metric
        totals = [self._reduce(term, axis=0) for term in open_terms]
        weight = others_metric
        for total in totals:
            weight = weight + total  # [others, B], marginal over the first stream

        logits = [self._first_stream(others_metric, open_terms, totals, joint)]
        for k in range(1, streams):
            # Stream 1 was enumerated last, so its index is the slowest
            slower, faster = size ** (k - 1), size ** (streams - 1 - k)
            split = ops.reshape(weight, (slower, size, faster, -1))
            symbol = self._reduce(split, axis=(0, 2))
            logits.append(symbol if joint else self._split_pams(symbol))
        if joint:
            return ops.transpose(ops.stack(logits), (2, 0, 1))
        return self._by_dimension(logits)

    def _by_dimension(self, logits):
        """Arrange a list of [per_stream, L, B] for each stream as [B, N, L]."""
        out = ops.transpose(ops.stack(logits), (3, 1, 0, 2))  # [B, part, K, L]
        return ops.reshape(out, (-1, self.num_dims, len(self.levels)))

    def _symbol_prior(self, prior, k):
        """Log-probabilities [|C|, B] of the symbols of stream k, from a prior [N, L, B]."""
        first = k * len(self._parts)
        parts = [
            ops.take(prior[first + i], constant(part, "int32"), axis=0)
            for i, part in enumerate(self._parts)
        ]
        return _tree(ops.add, parts)

    def _two_streams(self, y, r, levels, prior):
        """`_chunk` for two streams, y [N, B], r [N, N, B] and prior [N, L, B] or None.

        The hypotheses fit into the cache, and there are few passes over them.
        """
        dims = range(self.num_dims // 2)
        metric = 0.0
        residual = [y[i][None] for i in range(self.num_dims)]
        for i in range(self.num_dims):
            for part in dims:
                level = levels[:, part, None]
                residual[i] = residual[i] - level * r[i, len(dims) + part]
        for i in dims:
            metric = metric + ops.square(residual[len(dims) + i])
        # Exponents are relative to that of the nearest level, which needs no search
        nearest, totals = [], []
        for i in dims:
            level = nearest_pam(residual[i] / ops.maximum(r[i, i], 1e-30), self.levels)
            nearest.append(ops.square(residual[i] - level * r[i, i]))
            own = None if prior is None else prior[i]
            totals.append(self._log_sum(nearest[i], level, residual[i], r[i, i], own))
        weight = -sum(nearest, metric)  # [|C|, B]
        if prior is not None:
            weight = weight + self._symbol_prior(prior, 1)
        first = [
            self._marginals(
                sum(totals[:i] + totals[i + 1 :], weight + nearest[i]), residual[i], r[i, i]
            )
            for i in dims
        ]
        if prior is not None:
            first = [logits + prior[i] for i, logits in enumerate(first)]
        return self._by_dimension([ops.stack(first), self._split_pams(sum(totals, weight))])

    def _log_sum(self, nearest, level, residual, gain, prior):
        """The logarithm of a sum over the levels, or the largest term with "maxlog".

        Args:
            nearest: squared distance [|C|, B] of the nearest level, to which exponents are
                relative.
            level: that level, [|C|, B].
            residual: float32 [|C|, B].
            gain: float32 [B].
            prior: log-probabilities [L, B] of the levels, or None.
        """
        if self.demapping_method == "maxlog" and prior is None:
            return 0.0
        terms = [nearest - ops.square(residual - float(p) * gain) for p in self.levels]
        # Halfway between two levels, rounding may choose the farther one. At a high SNR
        # the exponent of the nearer is then large.
        terms = [ops.minimum(term, 0.0) for term in terms]
        if self.demapping_method == "maxlog":
            # The exponent of the nearest level is zero but for rounding
            half = level_distance(self.levels) / 2
            terms = [
                ops.where(ops.abs(level - float(p)) < half, 0.0, term) + prior[i]
                for i, (p, term) in enumerate(zip(self.levels, terms))
            ]
            return _tree(ops.maximum, terms)
        if prior is None:
            total = _tree(ops.add, [ops.exp(term) for term in terms])
            # The nearest level counts 1, but for rounding, which at an SNR of 120 dB may leave
            # nothing. Less rounding stays: stored counts have it
            return ops.log(ops.where(total < 0.5, 1.0, total))
        terms = [term + prior[i] for i, term in enumerate(terms)]
        # All exponentials may be zero where the nearest level is an unlikely one
        largest = _tree(ops.maximum, terms)
        largest = ops.where(largest < -1.0, largest, 0.0)
        return ops.log(_tree(ops.add, [ops.exp(term - largest) for term in terms])) + largest

    def _marginals(self, weight, residual, gain):
        """Logits of the levels, [L, B], marginal over the other stream's symbols.

        A few slices of the symbols are combined element by element. XLA makes one pass
        over its inputs of that, which it does not do for a reduction on CPU.
        """
        count = min(_SLICES, self._num_symbols)
        weights, residuals = ops.split(weight, count), ops.split(residual, count)
        rows = []
        for level in self.levels:
            shift = float(level) * gain
            parts = [w - ops.square(x - shift) for w, x in zip(weights, residuals)]
            largest = _tree(ops.maximum, parts)
            if self.demapping_method == "maxlog":
                rows.append(largest)
                continue
            largest = ops.amax(largest, axis=0)
            total = _tree(ops.add, [ops.exp(part - largest) for part in parts])
            rows.append(largest + ops.log(ops.sum(total, axis=0)))
        rows = ops.stack(rows)
        return ops.amax(rows, axis=1) if self.demapping_method == "maxlog" else rows

    def _first_stream(self, metric, terms, totals, joint):
        if joint:
            rows = []
            for symbol in zip(*self._parts):
                exponent = metric
                for term, index in zip(terms, symbol):
                    exponent = exponent + term[index]
                rows.append(self._reduce(exponent, axis=0))
            return ops.stack(rows)
        parts = []
        for i, term in enumerate(terms):
            exponent = metric
            for j, total in enumerate(totals):
                if j != i:
                    exponent = exponent + total
            parts.append(self._reduce(term + exponent[None], axis=1))
        return ops.stack(parts)

    def _split_pams(self, symbol):
        """PAM logits [per_stream, L, B] from symbol logits [|C|, B]."""
        rows = []
        for part in self._parts:
            for level in range(len(self.levels)):
                having = tuple(s for s, index in enumerate(part) if index == level)
                some = ops.take(symbol, constant(having, "int32"), axis=0)
                rows.append(self._reduce(some, axis=0))
        rows = ops.stack(rows)
        return ops.reshape(rows, (len(self._parts), len(self.levels), -1))

    def _reduce(self, x, axis):
        if self.demapping_method == "maxlog":
            return ops.amax(x, axis=axis)
        return ops.logsumexp(x, axis=axis)

    def get_config(self):
        return {**super().get_config(), "max_elements": self.max_elements}


def _tree(combine, values):
    """Combine all values, pair by pair."""
    while len(values) > 1:
        pairs = [combine(a, b) for a, b in zip(values[::2], values[1::2])]
        values = pairs + values[len(values) - len(values) % 2 :]
    return values[0]


def _outer(residual, shift):
    """residual [R, B] minus shift [|C|, B] for all pairs: [|C| * R, B]."""
    pairs = residual[None] - shift[:, None]
    return ops.reshape(pairs, (-1, ops.shape(residual)[-1]))


def _repeat(metric, like):
    """Repeat metric [R, B] to the rows of `like` [|C| * R, B]."""
    times = like.shape[0] // metric.shape[0]
    return ops.tile(metric, (times, 1))
