"""K-best tree search."""

import keras
from keras import ops

from linksim.backend import constant, take_along_axis
from linksim.detectors.base import Detector
from linksim.detectors.real import matvec
from linksim.errors import check_int, check_real

# Larger than any metric, and its multiples are finite in float32
_NO_CLIP = 1e30


def checked_llr_clip(value):
    """`llr_clip` as a number, or None for no bound.

    Raises:
        InvalidInput: it is neither positive nor None.
    """
    if value is None or value == float("inf"):
        return None
    check_real("llr_clip", value, low=0, open_low=True)
    return float(value)


@keras.saving.register_keras_serializable("linksim")
class KBestDetector(Detector):
    """K-best: breadth-first tree search that keeps the k best paths [Guo06].

    The tree is that of the real system, with its dimensions in order of decreasing
    column norm. LLRs are max-log over the surviving paths. A level that no path takes
    gets the metric of the best path plus `llr_clip`, so |LLR| <= `llr_clip`. Sionna's
    `KBestDetector(use_real_rep=True)` does the same with `List2LLRSimple`.

    A prior enters the metrics of the paths, so that it decides with the channel which of
    them survive. `llr_clip` then bounds what the channel adds to the prior of a level,
    hence also the difference of an LLR and its prior: were it the sum that is bounded, what
    a receiver gets when it takes the prior off could have the wrong sign.

    Args:
        k: the number of paths that are kept.
        llr_clip: the largest magnitude of an LLR, without its prior. None or infinity sets
            no bound; the LLR of a bit of which no path takes one value is then 1e30, so
            that it is finite.

    Raises:
        InvalidInput: (a `ValueError`) an option is out of range.
    """

    accepts_prior = True
    needs_full_column_rank = True
    demapping_methods = ("maxlog",)
    xla_on_cpu = True

    def __init__(self, *args, k=64, llr_clip=20.0, **kwargs):
        super().__init__(*args, **kwargs)
        check_int("k", k)
        self.k = int(k)
        self.llr_clip = checked_llr_clip(llr_clip)

    def detect(self, y, h, no, prior=None):
        dims, size = self.num_dims, len(self.levels)
        levels = constant(self.levels)
        norms = ops.sum(ops.square(h), axis=-2)
        order = ops.argsort(-norms, axis=-1)  # [B, N]
        h = take_along_axis(h, order[:, None, :], axis=-1)
        q, r = ops.qr(h)
        scale = 1.0 / ops.sqrt(no)[:, None]
        y = matvec(ops.swapaxes(q, -1, -2), y) * scale
        r = r * scale[..., None]
        if prior is not None:
            prior = take_along_axis(prior, order[..., None], axis=1)

        # `taken` are the levels that each path has chosen so far, newest first,
        # [B, P, depth], and `metrics` [B, P] what they cost
        taken, metrics = None, ops.zeros_like(y[:, :1])
        for i in reversed(range(dims)):
            centre = y[:, i, None]
            if taken is not None:
                known = ops.take(levels, taken, axis=0)
                centre = centre - ops.sum(known * r[:, None, i, i + 1 :], axis=-1)
            branch = centre[..., None] - r[:, i, i, None, None] * levels
            metrics = metrics[..., None] + ops.square(branch)  # [B, P, L]
            if prior is not None:
                metrics = metrics - prior[:, i, None]
            paths = metrics.shape[1]
            metrics = ops.reshape(metrics, (-1, paths * size))
            keep = min(self.k, paths * size)
            if keep < paths * size:
                metrics, chosen = ops.top_k(-metrics, keep)
                metrics = -metrics
            else:
                chosen = ops.broadcast_to(ops.arange(keep, dtype="int32"), ops.shape(metrics))
            newest = (chosen % size)[..., None]
            if taken is None:
                taken = newest
            else:
                past = take_along_axis(taken, (chosen // size)[..., None], axis=1)
                taken = ops.concatenate([newest, past], axis=-1)

        logits = self._list_to_logits(taken, metrics, prior)
        # Undo the sorting of the dimensions
        return take_along_axis(logits, ops.argsort(order)[..., None], axis=1)

    def _list_to_logits(self, taken, metrics, prior):
        """PAM logits [B, N, L] from the levels of the paths, their metrics and the prior."""
        best = ops.amin(metrics, axis=-1)[:, None, None]
        clip = _NO_CLIP if self.llr_clip is None else self.llr_clip
        found = ops.stack(
            [
                ops.amin(ops.where(taken == level, metrics[..., None], float("inf")), axis=1)
                for level in range(len(self.levels))
            ],
            axis=-1,
        )
        if prior is None:
            return -ops.minimum(found, best + clip)
        # The metrics without the prior of the level itself
        found = found + prior
        best = ops.amin(found, axis=-1, keepdims=True)
        return prior - ops.minimum(found, best + clip)

    def get_config(self):
        return {**super().get_config(), "k": self.k, "llr_clip": self.llr_clip}
