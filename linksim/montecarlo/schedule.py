"""Which batches are run, and the order in which their results count.

Whether a detector goes on after batch b of an SNR point depends only on its batches 0 to
b. An executor may compute several batches at once, in any order: batches that are likely
to be needed are handed out before that is decided, and results count in the order of the
batches. Results that turn out not to be needed are dropped. The counts are therefore the
same as those of one process, whatever computes the batches.

An executor has `capacity`, the number of jobs worth having out at once; `submit(job)`;
and `next()`, which waits for any job and returns it with its outcome, {detector:
`BatchResult` or exception}. Jobs may end in any order, and more than once.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

from linksim.errors import check_int, check_real
from linksim.montecarlo.statistics import Counts


@dataclass(frozen=True)
class StopRule:
    """When a detector is done at an SNR point.

    Attributes:
        target_block_errors: enough block errors.
        max_blocks: enough blocks.
        relative_width: the BLER interval is narrower than this fraction of the
            BLER; 0 never stops on it.
    """

    target_block_errors: int
    max_blocks: int
    relative_width: float = 0.0

    def __post_init__(self):
        check_int("target_block_errors", self.target_block_errors)
        check_int("max_blocks", self.max_blocks)
        check_real("relative_width", self.relative_width, low=0)

    def done(self, counts):
        """Whether a detector with these `Counts` is done."""
        if counts.blocks >= self.max_blocks:
            return True
        if counts.block_errors >= self.target_block_errors:
            return True
        if self.relative_width and counts.block_errors:
            low, high = counts.bler_interval()
            return high - low <= self.relative_width * counts.bler
        return False

    def likely_blocks(self, counts):
        """The number of blocks after which a detector is likely to be done."""
        bler = _likely_bler(counts)
        blocks = self.target_block_errors / bler
        if self.relative_width:
            # Width of a 95 % interval, by the normal distribution
            blocks = min(blocks, (3.92 / self.relative_width) ** 2 * (1 - bler) / bler)
        return min(self.max_blocks, math.ceil(blocks))


def _likely_bler(counts):
    """An estimate of the BLER that is never 0."""
    return (counts.block_errors + 0.5) / (counts.blocks + 1)


class Job(NamedTuple):
    """A batch of an SNR point, for some detectors."""

    snr_db: float
    batch: int
    detectors: tuple


class Schedule:
    """The batches of a run: decides which are needed, and has them computed.

    Args:
        executor: computes jobs (see the module).
        store: the `CountStore`; batches that it holds are not computed again.
        rule: the `StopRule`.
        points: SNR in dB, in the order of the run.
        detectors: names.
        batch_size: blocks of a batch.
        min_bler: a detector that falls below it at a point is left out from then on.
        on_progress: called as `f(snr_db, {detector: Counts}, active)` before every
            decision.
        on_point: called as `f()` after every finished point.
    """

    def __init__(
        self,
        executor,
        store,
        rule,
        points,
        detectors,
        *,
        batch_size,
        min_bler=0.0,
        on_progress=None,
        on_point=None,
    ):
        self._executor, self._store, self._rule = executor, store, rule
        self._points, self._detectors = tuple(points), tuple(detectors)
        self._batch_size, self._min_bler = batch_size, min_bler
        self._on_progress, self._on_point = on_progress, on_point
        # {(snr_db, detector): first batch that was neither stored nor handed out}
        self._next = {}
        # {(snr_db, batch): {detector: its result, or None while it is handed out}}
        self._out = {}
        self._jobs = set()  # handed out, not yet back
        # {(snr_db, detector): Counts} of all results that came back, needed or not
        self._seen = {}

    def run(self):
        """Run batches until every detector is done at every point.

        Raises:
            Exception: what a batch that is needed ended with.
        """
        left = list(self._detectors)
        for index, point in enumerate(self._points):
            if not left:
                return
            self._run_point(index, left)
            left = [d for d in left if self._store.total(d, point).bler >= self._min_bler]
            if self._on_point is not None:
                self._on_point()

    def _run_point(self, index, names):
        """Run batches 0, 1, ... of a point until every detector is done.

        A decision depends only on batches 0 to b, so a resumed run decides as an
        uninterrupted one would have.
        """
        point, store = self._points[index], self._store
        totals = {name: Counts() for name in names}
        batch = 0
        while True:
            active = [name for name in names if not self._rule.done(totals[name])]
            if self._on_progress is not None:
                shown = {name: store.total(name, point) for name in names}
                self._on_progress(point, shown, active)
            if not active:
                break
            todo = [name for name in active if store.get(name, point, batch) is None]
            if todo:
                results = self._results(index, batch, names, active, todo)
                store.append(point, batch, results)
            for name in active:
                totals[name] = totals[name] + store.get(name, point, batch).counts
            batch += 1
        # Handed out, but never needed
        for key in [key for key in self._out if key[0] == point]:
            del self._out[key]

    # --- handing out and taking back --------------------------------------------------

    def _results(self, index, batch, names, active, todo):
        """{detector: `BatchResult`} of the detectors `todo`, and of no other."""
        point = self._points[index]
        missing = tuple(d for d in todo if self._next_batch(point, d) == batch)
        if missing:
            self._hand_out(Job(point, batch, missing))
        found = self._out[point, batch]
        while any(found[name] is None for name in todo):
            self._hand_out_ahead(index, names, active)
            self._take(*self._executor.next())
        del self._out[point, batch]
        for name in todo:
            if isinstance(found[name], Exception):
                raise found[name]
        return {name: found[name] for name in todo}

    def _hand_out(self, job):
        self._executor.submit(job)
        self._jobs.add(job)
        batch = self._out.setdefault((job.snr_db, job.batch), {})
        for name in job.detectors:
            batch[name] = None
            self._next[job.snr_db, name] = job.batch + 1

    def _hand_out_ahead(self, index, names, active):
        while len(self._jobs) < self._executor.capacity:
            job = self._likely_job(index, names, active)
            if job is None:
                return
            self._hand_out(job)

    def _take(self, job, outcome):
        """Note what came back. If a job ends twice, its first result counts."""
        batch = self._out.get((job.snr_db, job.batch), {})
        waiting = [name for name in job.detectors if name in batch and batch[name] is None]
        for name in waiting:
            batch[name] = outcome[name]
            if not isinstance(outcome[name], Exception):
                key = job.snr_db, name
                self._seen[key] = self._counts(*key) + outcome[name].counts
        self._jobs.discard(job)

    def _next_batch(self, point, name):
        """The first batch of a detector that was neither stored nor handed out."""
        batch = self._next.get((point, name), 0)
        while self._store.get(name, point, batch) is not None:
            batch += 1
        self._next[point, name] = batch
        return batch

    def _counts(self, point, name):
        """All counts that are known of a detector at a point."""
        seen = self._seen.get((point, name))
        return self._store.total(name, point) if seen is None else seen

    def _likely_job(self, index, names, active):
        """The job that is most likely to be needed next, or None.

        First come the batches that this point is likely to need, judged by the errors so
        far, then those of the points that follow. Where nothing is known yet, a detector is
        taken to need as many batches as at the point before, since curves fall. Last come
        further batches of this point.
        """
        batches = {}
        for position in range(index, len(self._points)):
            point = self._points[position]
            goes_on = []
            for name in names:
                counts = self._counts(point, name)
                if counts.blocks:
                    blocks = self._rule.likely_blocks(counts)
                    batches[name] = -(-blocks // self._batch_size)
                elif name not in batches:
                    batches[name] = 1
                if not counts.blocks or _likely_bler(counts) >= self._min_bler:
                    goes_on.append(name)
            wanted = active if position == index else names
            job = self._job(point, {name: batches[name] for name in wanted})
            if job is not None:
                return job
            names = goes_on
        most = -(-self._rule.max_blocks // self._batch_size)
        return self._job(self._points[index], dict.fromkeys(active, most))

    def _job(self, point, batches):
        """The first batch that some of {detector: number of batches} still lack."""
        behind = {name: self._next_batch(point, name) for name in batches}
        behind = {name: b for name, b in behind.items() if b < batches[name]}
        if not behind:
            return None
        first = min(behind.values())
        return Job(point, first, tuple(d for d, b in behind.items() if b == first))
