"""The order of batches: counts do not depend on what computes them, or on the order."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linksim.montecarlo.schedule import Job, Schedule, StopRule
from linksim.montecarlo.statistics import Counts
from linksim.montecarlo.store import BatchResult, CountStore
from linksim.workers import InPlace

SIZE = 10  # blocks of a batch


def compute(job, rate=0.3):
    """What a worker finds: a function of detector, point and batch alone."""
    found = {}
    for name in job.detectors:
        rng = random.Random(f"{name} {job.snr_db} {job.batch}")
        bler = min(1.0, rate * (1 + len(name)) * 10 ** (-job.snr_db / 4))
        failed = np.array([rng.random() < bler for _ in range(SIZE)])
        errors = int(failed.sum())
        counts = Counts(SIZE, errors, 100 * SIZE, errors, errors, SIZE, errors, errors, 0.5)
        found[name] = BatchResult(counts, failed)
    return found


class Workers:
    """An executor whose jobs end in any order, some of them twice.

    Args:
        capacity: jobs out at once.
        seed: of the order.
        do: function of a job.
    """

    def __init__(self, capacity, seed, do=compute):
        self.capacity, self._rng, self._do = capacity, random.Random(seed), do
        self._out, self._ended = [], []
        self.jobs, self.num_idle = [], 0

    def submit(self, job):
        self._out.append(job)
        self.jobs.append(job)

    def next(self):
        self.num_idle += self.capacity - len(self._out)
        if self._ended and self._rng.random() < 0.2:  # a worker taken for dead
            job = self._rng.choice(self._ended)
        else:
            job = self._out.pop(self._rng.randrange(len(self._out)))
            self._ended.append(job)
        return job, self._do(job)


def plain_counts(rule, points, detectors, min_bler, rate):
    """Counts by the rule in its plainest form, a batch after the other."""
    found, left = {}, list(detectors)
    for point in points:
        for name in left:
            total, batch = Counts(), 0
            while not rule.done(total):
                total += compute(Job(point, batch, (name,)), rate)[name].counts
                batch += 1
            found[name, point] = total
        left = [name for name in left if found[name, point].bler >= min_bler]
    return found


def counts_of(store, points, detectors):
    return {
        (name, point): store.total(name, point)
        for name in detectors
        for point in points
        if store.total(name, point).blocks
    }


class Recorder(CountStore):
    """A store that knows the order of what was appended."""

    def __init__(self):
        super().__init__(None, {})
        self.lines = []

    def append(self, snr_db, batch, results):
        super().append(snr_db, batch, results)
        self.lines.append((snr_db, batch, tuple(results)))


RULES = st.builds(
    StopRule,
    target_block_errors=st.integers(1, 60),
    max_blocks=st.integers(1, 400),
    relative_width=st.sampled_from([0.0, 0.4, 1.0]),
)


@settings(max_examples=60, deadline=None)
@given(
    rule=RULES,
    capacity=st.integers(1, 40),
    seed=st.integers(0, 100),
    rate=st.sampled_from([0.002, 0.1, 1.0]),
    min_bler=st.sampled_from([0.0, 0.05]),
    detectors=st.sampled_from([("a",), ("bb", "a", "dddd")]),
    stops=st.lists(st.integers(0, 30), max_size=3),
)
def test_any_order_gives_the_counts_of_one_process(
    rule, capacity, seed, rate, min_bler, detectors, stops
):
    """Whatever the capacity, the order, repeats, and where a run was cut and resumed."""
    points = (0.0, 3.0, 6.0)

    def run(store, executor, stop=None):
        decisions = 0

        def on_progress(*state):
            nonlocal decisions
            if decisions == stop:
                raise KeyboardInterrupt
            decisions += 1

        Schedule(
            executor, store, rule, points, detectors,
            batch_size=SIZE, min_bler=min_bler, on_progress=on_progress,
        ).run()  # fmt: skip

    def do(job):
        return compute(job, rate)

    embedded, store = Recorder(), Recorder()
    run(embedded, InPlace(do))
    for number, stop in enumerate(stops):
        try:
            run(store, Workers(capacity, seed + number, do), stop)
        except KeyboardInterrupt:
            pass
    run(store, Workers(capacity, seed, do))
    # The same lines in the same order: nothing more, nothing less
    assert store.lines == embedded.lines
    expected = plain_counts(rule, points, detectors, min_bler, rate)
    assert counts_of(store, points, detectors) == expected
    for name, point in expected:
        np.testing.assert_array_equal(store.failed(name, point), embedded.failed(name, point))


def test_embedded_computes_nothing_that_is_not_needed():
    store, jobs = Recorder(), []

    def do(job):
        jobs.append(job)
        return compute(job)

    rule = StopRule(25, 200)
    Schedule(InPlace(do), store, rule, (0.0, 4.0), ("a", "bb"), batch_size=SIZE).run()
    assert [tuple(job) for job in jobs] == store.lines
    # Again, with more errors asked for: only what is missing
    del jobs[:]
    before = list(store.lines)
    Schedule(
        InPlace(do), store, StopRule(40, 200), (0.0, 4.0), ("a", "bb"), batch_size=SIZE
    ).run()
    assert [tuple(job) for job in jobs] == store.lines[len(before) :] != []


def test_workers_have_work_and_little_is_dropped():
    rule, points, detectors = StopRule(100, 4000), (0.0, 2.0, 4.0), ("a", "bb")
    executor, store = Workers(16, seed=1), Recorder()
    schedule = Schedule(executor, store, rule, points, detectors, batch_size=SIZE)
    schedule.run()
    computed = sum(len(job.detectors) for job in executor.jobs)
    needed = sum(len(names) for _, _, names in store.lines)
    assert needed > 100
    # What is computed in vain is what was out when it turned out that a detector is done
    assert computed - needed <= len(points) * len(detectors) * executor.capacity
    # A place is empty only while the last errors of the last point come in
    assert executor.num_idle == 0


def test_a_detector_that_takes_longer_gets_its_batches_alone():
    """What is handed out ahead is of the detectors that are likely to need it."""
    rule, detectors = StopRule(30, 2000), ("a", "bbbbbbbb")
    executor = Workers(4, seed=1)
    store = Recorder()
    Schedule(executor, store, rule, (4.0,), detectors, batch_size=SIZE).run()
    batches = {
        name: [batch for _, batch, names in store.lines if name in names] for name in detectors
    }
    assert len(batches["a"]) > 2 * len(batches["bbbbbbbb"])
    in_vain = [
        job for job in executor.jobs
        if "bbbbbbbb" in job.detectors and job.batch not in batches["bbbbbbbb"]
    ]  # fmt: skip
    assert len(in_vain) <= 2 * executor.capacity


class Broken(ValueError):
    pass


def failing(*where):
    """A worker that fails for some (detector, batch)."""

    def do(job):
        found = compute(job)
        failed = {
            n: Broken(f"{n} {job.batch}") for n in job.detectors if (n, job.batch) in where
        }
        return {**found, **failed}

    return do


def test_only_a_batch_that_is_needed_can_fail_a_run():
    rule = StopRule(25, 100)
    embedded = Recorder()
    Schedule(InPlace(compute), embedded, rule, (0.0,), ("a", "bb"), batch_size=SIZE).run()
    last = max(batch for _, batch, names in embedded.lines if "bb" in names)
    # Beyond the last batch of "bb" nobody asks for it
    store = Recorder()
    beyond = [("bb", batch) for batch in range(last + 1, 100)]
    Schedule(
        Workers(8, 0, failing(*beyond)), store, rule, (0.0,), ("a", "bb"), batch_size=SIZE
    ).run()
    assert store.lines == embedded.lines
    for executor in (Workers(8, 0, failing(("bb", last))), InPlace(failing(("bb", last)))):
        store = Recorder()
        with pytest.raises(Broken, match=f"bb {last}"):
            Schedule(executor, store, rule, (0.0,), ("a", "bb"), batch_size=SIZE).run()
        assert store.lines == embedded.lines[:last]


def test_likely_blocks_is_what_the_rule_takes():
    rng = np.random.default_rng(0)
    for rule, bler in ((StopRule(100, 10**6), 0.01), (StopRule(10**6, 10**6, 0.5), 0.05)):
        counts = Counts(blocks=2000, block_errors=rng.binomial(2000, bler))
        blocks = rule.likely_blocks(counts)
        assert not rule.done(Counts(blocks=blocks // 2, block_errors=int(bler * blocks / 2)))
        assert rule.done(Counts(blocks=2 * blocks, block_errors=int(bler * blocks * 2)))
    assert StopRule(10, 300).likely_blocks(Counts(blocks=100)) == 300
    assert StopRule(10, 300).likely_blocks(Counts(blocks=10, block_errors=10)) == 11
