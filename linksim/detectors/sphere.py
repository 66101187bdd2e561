"""The sphere decoder: exact max-log detection by depth-first tree search."""

import keras
from keras import ops

from linksim.backend import constant, take_along_axis
from linksim.constellation import level_distance, nearest_pam
from linksim.detectors.base import Detector, arranged_as
from linksim.detectors.kbest import checked_llr_clip
from linksim.detectors.linear import mmse_estimate
from linksim.detectors.real import matched_filter, matvec
from linksim.errors import check_int

# Passes of coordinate descent over all dimensions of the starting point
_SWEEPS = 2


@keras.saving.register_keras_serializable("linksim")
class SphereDetector(Detector):
    """Sphere decoder: exact max-log by depth-first tree search [Studer10].

    It serves where `ml` has too many hypotheses to enumerate. One search per vector finds,
    for every real dimension i and level a, the smallest |y - Hx|^2 of all x with x_i = a.
    This is the single tree search of [Studer10] on PAM levels instead of bits. The tree is
    that of a real QR decomposition. Children are visited in Schnorr-Euchner order, and a
    node is cut when it cannot improve any of the minima that it could reach. The minima
    start from feasible points, namely the sliced MMSE estimate, improved by coordinate
    descent, and its neighbours. The result is therefore exact whenever the search ends by
    itself.

    The search stops at levels whose logit is `llr_clip` below the best, and gives them
    that distance. LLRs up to `llr_clip` are exact, and larger ones are clipped to it. So
    are they in Sionna's decoders, which clip at 20 by default.

    With a prior, each level costs N0 times the negative of its log-probability beside the
    distance, and the result is exact max-log as well. `llr_clip` then bounds what the
    channel adds to the prior of a level, and with it the difference of an LLR and its prior
    (see `KBestDetector`).

    The number of visited nodes, and with it the time, varies from vector to vector and
    grows exponentially with the number of streams and with N0. A batch takes as long as
    its hardest vector.

    Args:
        llr_clip: the largest magnitude of an LLR, without its prior. None or infinity
            searches for every level, which takes many times longer.
        max_visits: the number of nodes after which a search gives up and returns the best
            that it has found. None, the default, searches to the end.

    Raises:
        InvalidInput: (a `ValueError`) an option is out of range.
    """

    accepts_prior = True
    needs_full_column_rank = True
    demapping_methods = ("maxlog",)
    xla_on_cpu = True

    def __init__(self, *args, llr_clip=20.0, max_visits=None, **kwargs):
        super().__init__(*args, **kwargs)
        self.llr_clip = checked_llr_clip(llr_clip)
        if max_visits is not None:
            check_int("max_visits", max_visits)
        self.max_visits = max_visits

    def detect(self, y, h, no, prior=None):
        return self.search(y, h, no, prior)[0]

    def visited_nodes(self, y, h, s, prior=None):
        """The number of nodes visited for each vector, int32 [...].

        Args:
            y, h, s, prior: as in a call.
        """
        system, lead = self._to_real(y, h, s, prior)
        return arranged_as(self.search(*system)[1], lead)

    def search(self, y, h, no, prior=None):
        """PAM logits [B, N, L] and visited nodes int32 [B].

        Args:
            y, h, no, prior: as in `detect`.
        """
        # The root, which is the last column of R, decides the strongest dimension
        order = ops.argsort(ops.sum(ops.square(h), axis=-2), axis=-1)
        h = take_along_axis(h, order[:, None, :], axis=-1)
        cost = None  # of each level, in the unit of the distance
        if prior is not None:
            cost = take_along_axis(-prior * no[:, None, None], order[..., None], axis=1)
        best = self._initial_minima(y, h, no, cost)
        q, r = ops.qr(h)
        z = matvec(ops.swapaxes(q, -1, -2), y)
        # |y - Hx|^2 = |z - Rx|^2 + offset
        offset = ops.sum(ops.square(y), -1) - ops.sum(ops.square(z), -1)
        best = best - ops.maximum(offset, 0.0)[:, None, None]
        # Rounding of the initial minima should not cut the leaves that they come from
        best = best * (1.0 + 1e-5) + 1e-6 * ops.sum(ops.square(z), -1)[:, None, None]
        best, visits = self._depth_first(z, r, no, cost, self._clip(best, no, cost))
        logits = -best / no[:, None, None]
        back = ops.argsort(order, axis=-1)
        return take_along_axis(logits, back[..., None], axis=1), visits

    def _depth_first(self, z, r, no, cost, best):
        """Search all trees at once, one node of each per step.

        Args:
            z: float32 [B, N].
            r: float32 [B, N, N].
            no: float32 [B].
            cost: float32 [B, N, L] of each level, or None.
            best: float32 [B, N, L], minima of |z - Rx|^2, plus the costs of x, so far, by
                dimension and level.

        Returns:
            The final minima, and the number of visited nodes int32 [B].
        """
        dims, batch = self.num_dims, ops.shape(z)[0]
        state = (
            # The level of the tree where each search is. The root is N - 1, and N means
            # that the search has ended
            ops.full((batch,), dims - 1, dtype="int32"),
            # The PAM level that is chosen at each level of the tree
            ops.zeros((batch, dims), dtype="int32"),
            # The rank of the next child at each level of the tree
            ops.zeros((batch, dims), dtype="int32"),
            # The metric of the path down to and including each level; entry N is 0
            ops.zeros((batch, dims + 1)),
            best,
            # Visited nodes
            ops.zeros((batch,), dtype="int32"),
            # Steps
            ops.convert_to_tensor(0, dtype="int32"),
        )

        def running(level, chosen, child, metric, best, visits, step):
            go = ops.any(level < dims)
            if self.max_visits is not None:
                go = ops.logical_and(go, step < self.max_visits)
            return go

        def body(level, chosen, child, metric, best, visits, step):
            moved = self._step(z, r, no, cost, level, chosen, child, metric, best, visits)
            return *moved, step + 1

        _, _, _, _, best, visits, _ = ops.while_loop(running, body, state)
        return best, visits

    def _step(self, z, r, no, cost, level, chosen, child, metric, best, visits):
        """Look at the next child of the current node of each search.

        Arguments are the state of `_depth_first`, which is returned after the step.
        """
        dims = self.num_dims
        active = level < dims
        # Zero after the search has ended, at level N, of which `one_hot` would be undefined
        at_int = ops.cast(level[:, None] == ops.arange(dims, dtype="int32"), "int32")
        at = ops.cast(at_int, "float32")
        rank = ops.sum(child * at_int, -1)
        picked, distance = self._child(z, r, cost, at, chosen, rank)
        reached = ops.sum(metric[:, 1:] * at, -1) + distance
        leave, cut = self._cuts(level, at, chosen, rank, picked, reached, best)
        enter = active & ~leave & ~cut
        visits = visits + ops.cast(active & ~leave, "int32")

        take_it = ops.where(enter[:, None], at_int, 0)
        chosen = chosen * (1 - take_it) + picked[:, None] * take_it
        entered = ops.where(take_it > 0, reached[:, None], metric[:, :-1])
        metric = ops.concatenate([entered, metric[:, -1:]], axis=-1)
        # A leaf improves the minima of all its levels
        leaf = level == 0
        at_leaf = (enter & leaf)[:, None, None]
        sizes = ops.arange(len(self.levels), dtype="int32")
        on_path = (chosen[..., None] == sizes) & at_leaf
        best = ops.where(on_path, ops.minimum(best, reached[:, None, None]), best)
        best = self._clip(best, no, cost)

        # The next step looks at the first child, at the next sibling or at the parent
        down = enter & ~leaf
        up = active & leave
        child = child + ops.where((active & ~leave)[:, None], at_int, 0)
        level = level - ops.cast(down, "int32") + ops.cast(up, "int32")
        fresh = (ops.arange(dims, dtype="int32")[None] == level[:, None]) & down[:, None]
        child = ops.where(fresh, 0, child)
        return level, chosen, child, metric, best, visits

    def _child(self, z, r, cost, at, chosen, rank):
        """The PAM level int32 [B] of the current node's child of a rank, best first, and
        what it adds to the metric, float32 [B]."""
        levels = constant(self.levels)
        x = ops.take(levels, chosen, axis=0)
        row = ops.sum(r * at[..., None], axis=1)  # the current row of R, [B, N]
        decided = ops.cumsum(at, axis=-1) - at  # the dimensions above the current one
        target = ops.sum(z * at, -1) - ops.sum(row * decided * x, -1)
        gain = ops.sum(row * at, -1)
        distances = ops.square(target[:, None] - gain[:, None] * levels)  # [B, L]
        if cost is not None:
            distances = distances + ops.sum(cost * at[..., None], axis=1)
        sequence = ops.argsort(distances, axis=-1)
        last = len(self.levels) - 1
        picked = take_along_axis(sequence, ops.minimum(rank, last)[:, None], axis=-1)
        picked = ops.cast(picked, "int32")
        distance = take_along_axis(distances, picked, axis=-1)[:, 0]
        return picked[:, 0], distance

    def _cuts(self, level, at, chosen, rank, picked, reached, best):
        """Whether to leave the current node for its parent, and whether to skip the child.

        Both depend on the minima that the child, or its later siblings, could improve.
        """
        dim_index = ops.arange(self.num_dims, dtype="int32")
        above = dim_index[None] > level[:, None]
        below = dim_index[None] < level[:, None]
        own = take_along_axis(best, chosen[..., None], axis=-1)[..., 0]
        worst = ops.amax(best, axis=-1)  # [B, N]
        limit = ops.maximum(
            ops.amax(ops.where(above, own, -1.0), -1),
            ops.amax(ops.where(below, worst, -1.0), -1),
        )
        here = ops.sum(best * at[..., None], axis=1)  # [B, L]
        mine = take_along_axis(here, picked[:, None], axis=-1)[:, 0]
        exhausted = rank >= len(self.levels)
        leave = exhausted | (reached >= ops.maximum(limit, ops.amax(here, -1)))
        cut = reached >= ops.maximum(limit, mine)
        return leave, cut

    def _clip(self, best, no, cost):
        """Limit the minima, without the cost of the level itself, to `llr_clip` N0 above the
        smallest of the dimension."""
        if self.llr_clip is None:
            return best
        if cost is None:  # the dimensions have the same smallest
            smallest = ops.amin(best, axis=(1, 2))
            return ops.minimum(best, (smallest + self.llr_clip * no)[:, None, None])
        # A level that the prior favours may be clipped to less than the smallest of all, so
        # that each dimension has to look at its own
        smallest = ops.amin(best - cost, axis=-1, keepdims=True)
        return ops.minimum(best, smallest + (self.llr_clip * no)[:, None, None] + cost)

    def _initial_minima(self, y, h, no, cost):
        """|y - Hx|^2, plus the costs of x, of a feasible x for every dimension and level,
        [B, N, L]."""
        levels = constant(self.levels)
        hty, gram = matched_filter(y, h)
        x = nearest_pam(mmse_estimate(hty, gram, no, self.pam_energy)[0], self.levels)
        energy = ops.diagonal(gram, axis1=-2, axis2=-1)
        for _ in range(_SWEEPS):
            for i in range(self.num_dims):
                slope = hty[:, i] - ops.sum(gram[:, i] * x, -1)
                free = slope / ops.maximum(energy[:, i], 1e-30) + x[:, i]
                unit = constant(tuple(float(j == i) for j in range(self.num_dims)))
                better = nearest_pam(free, self.levels)
                if cost is not None:
                    better = self._cheaper(better, free, energy[:, i], cost[:, i])
                x = x + (better - x[:, i])[:, None] * unit
        residual = y - matvec(h, x)
        base = ops.sum(ops.square(residual), -1)
        slope = matvec(ops.swapaxes(h, -1, -2), residual)
        step = levels - x[..., None]  # [B, N, L]
        change = -2.0 * step * slope[..., None] + ops.square(step) * energy[..., None]
        minima = base[:, None, None] + change
        if cost is None:
            return minima
        own = self._cost_of(x, cost)
        return minima + ops.sum(own, axis=-1)[:, None, None] + cost - own[..., None]

    def _cheaper(self, nearest, free, energy, cost):
        """The best levels [B] of one dimension where all others are fixed.

        Args:
            nearest: the levels nearest to `free`.
            free: float32 [B], where the distance is smallest.
            energy: float32 [B], of the column of H.
            cost: float32 [B, L] of the levels.
        """
        levels = constant(self.levels)
        total = energy[:, None] * ops.square(levels - free[:, None]) + cost
        picked = ops.take(levels, ops.argmin(total, axis=-1), axis=0)
        gains = self._cost_of(nearest, cost) > self._cost_of(picked, cost)
        return ops.where(gains, picked, nearest)

    def _cost_of(self, x, cost):
        """The costs [...] of levels x [...], from those of all levels [..., L]."""
        away = ops.abs(x[..., None] - constant(self.levels))
        return ops.sum(ops.where(away < level_distance(self.levels) / 2, cost, 0.0), axis=-1)

    def get_config(self):
        return {
            **super().get_config(),
            "llr_clip": self.llr_clip,
            "max_visits": self.max_visits,
        }
