"""Exact max-log detection by depth-first tree search (sphere decoding)."""

import keras
import numpy as np
from keras import ops

from linksim.constellation import nearest_pam
from linksim.detectors.base import Detector
from linksim.detectors.linear import mmse_estimate
from linksim.detectors.real import matched_filter, matvec
from linksim.errors import check_int, check_real

_SWEEPS = 2


@keras.saving.register_keras_serializable("linksim")
class SphereDetector(Detector):
    """The exact max-log posterior where enumeration is out of reach.

    One search per vector finds, for every real dimension i and level a, the
    smallest |y - Hx|^2 among all x with x_i = a (single tree search of Studer and
    Boelcskei, IEEE Trans. Inf. Theory 56(10), 2010, on PAM levels instead of
    bits). The tree is that of a real QR decomposition; children are visited in
    Schnorr-Euchner order, and a node is cut when it cannot improve any of the
    minima it could reach. The minima start from feasible points (the sliced MMSE
    estimate, improved by coordinate descent, and its neighbours), so the result
    is exact whenever the search ends by itself.

    Levels whose logit is more than `llr_clip` below the best are reported at that
    distance and are not searched for: LLRs up to `llr_clip` are exact, larger ones
    are clipped to it. Decoders clip at 20 too (Sionna's default).

    The number of visited nodes, and with it the time, varies from vector to
    vector and grows exponentially with the number of streams and with N0. A batch
    takes as long as its hardest vector.

    Args:
        llr_clip: largest magnitude of an LLR; None searches for every level, which
            takes many times longer.
        max_visits: give up after this many nodes; the result is then the best
            found so far. The default, None, searches to the end.
    """

    needs_full_column_rank = True
    demapping_methods = ("maxlog",)
    xla_on_cpu = True

    def __init__(self, *args, llr_clip=20.0, max_visits=None, **kwargs):
        super().__init__(*args, **kwargs)
        if llr_clip is not None:
            check_real("llr_clip", llr_clip, low=0, open_low=True)
        self.llr_clip = llr_clip
        if max_visits is not None:
            check_int("max_visits", max_visits)
        self.max_visits = max_visits

    def detect(self, y, h, no):
        return self.search(y, h, no)[0]

    def visited_nodes(self, y, h, s):
        """Nodes visited for each vector, int32 [...]; arguments as in the call."""
        y, h, no, lead = self._to_real(y, h, s)
        return ops.reshape(self.search(y, h, no)[1], lead)

    def search(self, y, h, no):
        """PAM logits [B, N, L] and visited nodes int32 [B] of the real system."""
        dims, size = self.num_dims, len(self.points)
        levels = ops.convert_to_tensor(self.points)
        # Strong dimensions are decided first, at the root: last column of R
        order = ops.argsort(ops.sum(ops.square(h), axis=-2), axis=-1)
        h = ops.take_along_axis(h, order[:, None, :], axis=-1)
        best = self._initial_minima(y, h, no)
        q, r = ops.qr(h)
        z = matvec(ops.swapaxes(q, -1, -2), y)
        # |y - Hx|^2 = |z - Rx|^2 + what no x explains
        offset = ops.sum(ops.square(y), -1) - ops.sum(ops.square(z), -1)
        best = best - ops.maximum(offset, 0.0)[:, None, None]
        # Rounding of the initial minima must not cut their own leaves
        best = best * (1.0 + 1e-5) + 1e-6 * ops.sum(ops.square(z), -1)[:, None, None]

        best = self._clip(best, no)
        batch = ops.shape(z)[0]
        dim_index = np.arange(dims)

        def children(level_onehot, x):
            """Centre and gain of the current row given the levels above it."""
            row = ops.sum(r * level_onehot[..., None], axis=1)  # R[level], [B, N]
            above = ops.cumsum(level_onehot, axis=-1) - level_onehot
            target = ops.sum(z * level_onehot, -1) - ops.sum(row * above * x, -1)
            gain = ops.sum(row * level_onehot, -1)
            return target, gain

        # State per vector: tree level (N-1 is the root; N means finished), chosen
        # levels, rank of the next child at every level, metric of the path down to
        # and including each level (entry N is the root's 0).
        state = (
            ops.full((batch,), dims - 1, dtype="int32"),
            ops.zeros((batch, dims), dtype="int32"),
            ops.zeros((batch, dims), dtype="int32"),
            ops.zeros((batch, dims + 1)),
            best,
            ops.zeros((batch,), dtype="int32"),
            ops.convert_to_tensor(0, dtype="int32"),
        )

        def running(level, chosen, child, metric, best, visits, step):
            go = ops.any(level < dims)
            if self.max_visits is not None:
                go = ops.logical_and(go, step < self.max_visits)
            return go

        def body(level, chosen, child, metric, best, visits, step):
            active = level < dims
            at = ops.one_hot(level, dims, dtype="float32")  # zero when finished
            at_int = ops.cast(at, "int32")
            x = ops.take(levels, chosen, axis=0)
            target, gain = children(at, x)
            distance = ops.square(target[:, None] - gain[:, None] * levels)  # [B, L]
            rank = ops.sum(child * at_int, -1)
            sequence = ops.argsort(distance, axis=-1)
            picked = ops.take_along_axis(
                sequence, ops.minimum(rank, size - 1)[:, None], axis=-1
            )
            picked = ops.cast(picked, "int32")
            parent = ops.sum(metric[:, 1:] * at, -1)
            reached = parent + ops.take_along_axis(distance, picked, axis=-1)[:, 0]
            picked = picked[:, 0]

            # Which minima can this node, and its later siblings, still improve?
            above = dim_index[None] > level[:, None]
            below = dim_index[None] < level[:, None]
            own = ops.take_along_axis(best, chosen[..., None], axis=-1)[..., 0]
            worst = ops.max(best, axis=-1)  # [B, N]
            limit = ops.maximum(
                ops.max(ops.where(above, own, -1.0), -1),
                ops.max(ops.where(below, worst, -1.0), -1),
            )
            here = ops.sum(best * at[..., None], axis=1)  # [B, L]
            mine = ops.take_along_axis(here, picked[:, None], axis=-1)[:, 0]
            exhausted = rank >= size
            leave = exhausted | (reached >= ops.maximum(limit, ops.max(here, -1)))
            cut = reached >= ops.maximum(limit, mine)
            leaf = level == 0
            enter = active & ~leave & ~cut
            visits = visits + ops.cast(active & ~leave, "int32")

            take_it = ops.where(enter[:, None], at_int, 0)
            chosen = chosen * (1 - take_it) + picked[:, None] * take_it
            metric = ops.concatenate(
                [
                    ops.where(take_it > 0, reached[:, None], metric[:, :-1]),
                    metric[:, -1:],
                ],
                axis=-1,
            )
            # A leaf improves the minima of all its levels
            at_leaf = (enter & leaf)[:, None, None]
            on_path = ops.one_hot(chosen, size, dtype="bool") & at_leaf
            best = ops.where(on_path, ops.minimum(best, reached[:, None, None]), best)
            best = self._clip(best, no)

            # Next: down to a fresh child, on to the sibling, or up
            down = enter & ~leaf
            up = active & leave
            child = child + ops.where((active & ~leave)[:, None], at_int, 0)
            level = level - ops.cast(down, "int32") + ops.cast(up, "int32")
            fresh = (dim_index[None] == level[:, None]) & down[:, None]
            child = ops.where(fresh, 0, child)
            return level, chosen, child, metric, best, visits, step + 1

        _, _, _, _, best, visits, _ = ops.while_loop(running, body, state)
        logits = -best / no[:, None, None]
        back = ops.argsort(order, axis=-1)
        return ops.take_along_axis(logits, back[..., None], axis=1), visits

    def _clip(self, best, no):
        if self.llr_clip is None:
            return best
        smallest = ops.min(best, axis=(1, 2))
        return ops.minimum(best, (smallest + self.llr_clip * no)[:, None, None])

    def _initial_minima(self, y, h, no):
        """|y - Hx|^2 of a feasible x for every (dimension, level), [B, N, L]."""
        levels = ops.convert_to_tensor(self.points)
        hty, gram = matched_filter(y, h)
        x = nearest_pam(mmse_estimate(hty, gram, no, self.pam_energy)[0], self.points)
        energy = ops.diagonal(gram, axis1=-2, axis2=-1)
        for _ in range(_SWEEPS):
            for i in range(self.num_dims):
                slope = hty[:, i] - ops.sum(gram[:, i] * x, -1)
                free = slope / ops.maximum(energy[:, i], 1e-30) + x[:, i]
                unit = np.eye(self.num_dims, dtype="float32")[i]
                better = nearest_pam(free, self.points)
                x = x + (better - x[:, i])[:, None] * unit
        residual = y - matvec(h, x)
        base = ops.sum(ops.square(residual), -1)
        slope = matvec(ops.swapaxes(h, -1, -2), residual)
        step = levels - x[..., None]  # [B, N, L]
        change = -2.0 * step * slope[..., None] + ops.square(step) * energy[..., None]
        return base[:, None, None] + change

    def get_config(self):
        return {
            **super().get_config(),
            "llr_clip": self.llr_clip,
            "max_visits": self.max_visits,
        }
