"""Worker processes: jobs that are handed out again, refusals, and how Ray is used."""

import concurrent.futures
import importlib.util
import os
import socket
import sys
import types

import pytest

import linksim.workers
from linksim.errors import InvalidInput, WorkerError
from linksim.montecarlo.remote import check_weights
from linksim.provenance import software
from linksim.workers import (
    MAX_DEATHS,
    InPlace,
    Pool,
    check_reachable,
    check_software,
    worker_share,
)

# --- a stand-in for Ray, whose calls end when the test says so -------------------------


class Reference:
    def __init__(self, actor, method, args):
        self.actor, self.method, self.args = actor, method, args
        self._future = concurrent.futures.Future()

    def future(self):
        return self._future

    def ends(self, value=None):
        self._future.set_result(value)

    def fails(self, error):
        self._future.set_exception(error)


class FakeRay(types.ModuleType):
    """The parts of Ray that `Pool` uses."""

    def __init__(self, nodes):
        super().__init__("ray")
        self.exceptions = types.ModuleType("ray.exceptions")
        for name in (
            "RayTaskError RayActorError WorkerCrashedError NodeDiedError "
            "OutOfMemoryError ObjectLostError"
        ).split():
            setattr(self.exceptions, name, type(name, (Exception,), {}))
        self.calls, self.killed, self.options = [], [], {}
        self.made = []  # what each actor was made of
        self._nodes, self._up = nodes, False

    def is_initialized(self):
        return self._up

    def init(self, **options):
        self.options, self._up = options, True

    def shutdown(self):
        self._up = False

    def nodes(self):
        return [{"Alive": True, "Resources": r} for r in self._nodes] + [{"Alive": False}]

    def remote(self, **options):
        self.asked = options

        class Actor:
            def __init__(actor, *args):
                self.made.append(args)
                for method in ("start", "do"):
                    setattr(actor, method, types.SimpleNamespace())
                    call = getattr(actor, method)
                    call.remote = lambda *args, m=method: self._call(actor, m, args)

        return lambda kind: types.SimpleNamespace(remote=Actor)

    def _call(self, actor, method, args):
        self.calls.append(Reference(actor, method, args))
        return self.calls[-1]

    def kill(self, actor):
        self.killed.append(actor)

    # for the tests

    def open_calls(self, method):
        return [c for c in self.calls if c.method == method and not c.future().done()]

    def ready(self):
        """Let all workers that were started become ready."""
        for call in self.open_calls("start"):
            call.ends({"processor": "cpu", "platform": "os", "pid": 1})

    def dies(self, actor):
        for call in self.calls:
            if call.actor is actor and not call.future().done():
                call.fails(self.exceptions.RayActorError("died"))

    def job_fails(self, call, error):
        told = self.exceptions.RayTaskError("in a worker")
        told.cause = error
        call.fails(told)


@pytest.fixture
def ray(monkeypatch):
    fake = FakeRay([{"CPU": 4.0}])
    fake.__spec__ = importlib.util.spec_from_loader("ray", loader=None)
    monkeypatch.setitem(sys.modules, "ray", fake)
    monkeypatch.setitem(sys.modules, "ray.exceptions", fake.exceptions)
    monkeypatch.setattr(linksim.workers, "software", lambda: {})
    return fake


def make():
    """Stands for the function that a worker calls first."""


def handled(pool):
    """Let the pool handle all events; return {job: outcome} of the jobs that ended."""
    while not pool._events.empty():
        pool._handle(*pool._events.get())
    ended = dict(pool._ended)
    pool._ended.clear()
    return ended


def jobs_of(ray):
    return [call.args[0] for call in ray.open_calls("do")]


def test_jobs_are_spread_and_ended(ray):
    pool = Pool(make, 2)
    assert not ray.is_initialized()  # until there is a job
    pool.submit(0)
    assert pool.capacity == 4 and ray.asked["num_cpus"] == 2
    assert jobs_of(ray) == []  # nobody is ready
    ray.ready()
    assert handled(pool) == {} and pool.workers["machines"] == {"cpu, os": 2}
    for job in range(1, 5):
        pool.submit(job)
    # Each worker has two, given in turn, and the fifth waits
    assert jobs_of(ray) == [0, 1, 2, 3]
    assert len({id(c.actor) for c in ray.open_calls("do")[:2]}) == 2
    ray.open_calls("do")[1].ends("one")
    assert pool.next() == (1, "one")
    assert jobs_of(ray) == [0, 2, 3, 4]
    ray.job_fails(ray.open_calls("do")[0], ValueError("wrong"))
    job, error = pool.next()
    assert job == 0 and isinstance(error, ValueError)
    pool.close()
    assert len(ray.killed) == 2 and not ray.is_initialized()
    pool.close()


def test_what_a_dead_worker_had_is_handed_out_again(ray):
    pool = Pool(make, 2)
    for job in "abcde":
        pool.submit(job)
    ray.ready()
    handled(pool)
    first = ray.open_calls("do")[0].actor
    had = [c.args[0] for c in ray.open_calls("do") if c.actor is first]
    assert len(had) == 2
    ray.dies(first)
    assert handled(pool) == {} and first in ray.killed
    # The other worker is full. The new one gets them before anything else, once it is ready
    assert not set(had) & set(jobs_of(ray))
    ray.ready()
    handled(pool)
    assert jobs_of(ray)[2:] == had
    ended = {}
    while call := next(iter(ray.open_calls("do")), None):
        call.ends(call.args[0].upper())
        ended.update(handled(pool))
    assert ended == {job: job.upper() for job in "abcde"}
    assert pool.workers["deaths"] == 1


def test_a_result_that_comes_twice_is_one(ray):
    """A worker only seemed dead, so its result arrives, and later that of its successor."""
    pool = Pool(make, 1)
    pool.submit("a")
    ray.ready()
    handled(pool)
    (call,) = ray.open_calls("do")
    ticket = pool._processes[0].tickets[0]
    pool._bury(pool._processes[0], "out of reach")
    ray.ready()
    handled(pool)
    pool._events.put((types.SimpleNamespace(tickets=[], dead=True), ticket, call.future()))
    call.ends("result")
    assert handled(pool) == {"a": "result"}
    again = ray.open_calls("do")[-1]
    again.ends("result")
    assert handled(pool) == {}


def test_a_job_that_kills_its_workers_ends_with_an_error(ray):
    pool = Pool(make, 1)
    pool.submit("poison")
    pool.submit("good")
    for _ in range(MAX_DEATHS):
        assert handled(pool) == {}
        ray.ready()
        assert handled(pool) == {}
        assert jobs_of(ray) == ["poison", "good"]
        ray.dies(ray.open_calls("do")[0].actor)
    ended = handled(pool)
    assert isinstance(ended["poison"], WorkerError)
    assert "poison" in str(ended["poison"]) and "3 workers died" in str(ended["poison"])
    ray.ready()
    handled(pool)
    assert jobs_of(ray) == ["good"]


def test_workers_that_die_at_the_start_are_given_up(ray):
    pool = Pool(make, 1)
    pool.submit("a")
    for _ in range(MAX_DEATHS - 1):
        ray.dies(ray.open_calls("start")[0].actor)
        handled(pool)
    # A worker that becomes ready resets the count
    ray.ready()
    handled(pool)
    ray.dies(ray.open_calls("do")[0].actor)
    handled(pool)
    with pytest.raises(WorkerError, match="3 times in a row while they started: died"):
        for _ in range(MAX_DEATHS):
            ray.dies(ray.open_calls("start")[0].actor)
            handled(pool)


def test_a_worker_that_refuses_to_start_ends_the_run(ray):
    pool = Pool(make, 1)
    pool.submit("a")
    ray.job_fails(ray.open_calls("start")[0], WorkerError("has another source"))
    with pytest.raises(WorkerError, match="could not be started: has another source"):
        pool.next()


def test_every_training_has_a_process_of_its_own(ray):
    pool = Pool(make, 1, jobs_each=1, new_process=True)
    for job in "ab":
        pool.submit(job)
    actors = []
    for job in "ab":
        ray.ready()
        handled(pool)
        (call,) = ray.open_calls("do")
        actors.append(call.actor)
        call.ends(job)
        assert handled(pool) == {job: job}
    assert actors[0] is not actors[1] and set(actors) <= set(ray.killed)


def test_shares_of_a_machine_and_of_clusters():
    assert worker_share([(2, 0)], 1) == (1, 2, 0.0)
    assert worker_share([(2, 0)], 2) == (2, 1, 0.0)
    assert worker_share([(8, 0)], 3) == (3, 2, 0.0)
    assert worker_share([(8, 0), (3, 0)], None) == (11, 1, 0.0)
    assert worker_share([(8, 0), (3, 0)], 3) == (3, 3, 0.0)
    # Whole GPUs, or equal parts of them; nodes without a GPU stay idle
    assert worker_share([(16, 4), (64, 0)], 4) == (4, 4, 1.0)
    assert worker_share([(16, 4), (64, 0)], None) == (4, 4, 1.0)
    assert worker_share([(16, 2)], 6) == (6, 2, 0.3333)
    for nodes, workers in (([(2, 0)], 3), ([(2, 1), (64, 0)], 3)):
        with pytest.raises(InvalidInput, match="workers: got 3"):
            worker_share(nodes, workers)


def test_workers_take_memory_of_a_gpu_as_they_need_it(ray, monkeypatch):
    for name in linksim.workers.SHARED_GPU:
        monkeypatch.delenv(name, raising=False)
    Pool(make, 2).submit("a")
    assert len(ray.made) == 2
    for environment, _ in ray.made:
        assert environment["TF_FORCE_GPU_ALLOW_GROWTH"] == "true"
        assert environment["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"
    # So does the process that starts them, which leaves a choice of the user as it is
    monkeypatch.setenv("XLA_PYTHON_CLIENT_PREALLOCATE", "true")
    linksim.workers.share_gpus()
    assert os.environ["TF_FORCE_GPU_ALLOW_GROWTH"] == "true"
    assert os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] == "true"


def test_other_software_is_refused():
    mine = software()
    check_software(mine)
    assert len(mine["source"]) == 12 and mine["linksim"]
    with pytest.raises(WorkerError, match="source .* \\(expected 0123\\)"):
        check_software({**mine, "source": "0123"})
    with pytest.raises(WorkerError, match="tensorflow .* \\(expected 1.0\\).*same checkout"):
        check_software({**mine, "tensorflow": "1.0"})


def test_source_is_that_of_every_module_and_scenario(tmp_path, monkeypatch):
    import linksim.provenance as provenance

    (tmp_path / "linksim").mkdir()
    file, scenario = tmp_path / "linksim/a.py", tmp_path / "b.toml"
    file.write_text("x = 1\n")
    scenario.write_text("[system]\n")
    monkeypatch.setattr(
        provenance, "linksim",
        types.SimpleNamespace(__file__=str(tmp_path / "linksim/__init__.py"), __version__="0"),
    )  # fmt: skip
    monkeypatch.setattr(provenance, "scenario_folder", lambda: tmp_path)
    hashes = [software()["source"]]
    for path in (file, scenario):
        path.write_text(path.read_text() + "\n")
        hashes.append(software()["source"])
    assert len(set(hashes)) == 3


def test_a_worker_limits_threads_before_tensorflow_is_loaded(monkeypatch):
    for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "XLA_FLAGS"):
        monkeypatch.setenv(name, "")
    linksim.workers.Worker({"XLA_FLAGS": "--inherited"}, 3)
    assert os.environ["TF_NUM_INTRAOP_THREADS"] == os.environ["TF_NUM_INTEROP_THREADS"] == "3"
    assert os.environ["XLA_FLAGS"] == "--inherited"


def test_other_weights_are_refused():
    expected = {"ml": {}, "oampnet": {"oampnet/x": "00"}}
    check_weights(dict(expected), expected)
    with pytest.raises(WorkerError, match="oampnet: the worker on .* has the weights"):
        check_weights({**expected, "oampnet": {"oampnet/x": "01"}}, expected)


def test_without_ray_it_is_said(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "ray" else find(name)
    )
    with pytest.raises(InvalidInput, match=r'pip install -e "\.\[ray\]"'):
        Pool(make, 2)


def test_an_address_where_nobody_listens_is_refused_at_once():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        check_reachable(f"127.0.0.1:{port}")
    for address in (f"127.0.0.1:{port}", f"ray://127.0.0.1:{port}"):
        with pytest.raises(InvalidInput, match=f"ray_address: cannot connect to '{address}'"):
            check_reachable(address)
    for address in ("auto", None):
        check_reachable(address)  # Ray finds out


def test_bad_numbers_of_workers(ray):
    for workers in (0, -1, 1.5, True):
        with pytest.raises(InvalidInput, match="workers: got"):
            Pool(make, workers)
    with pytest.raises(InvalidInput, match="without ray_address"):
        Pool(make, None)


def test_in_place():
    executor = InPlace(lambda job: 1 / job)
    executor.submit(2)
    executor.submit(0)
    assert executor.next() == (2, 0.5)
    job, error = executor.next()
    assert job == 0 and isinstance(error, ZeroDivisionError)
