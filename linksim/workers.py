"""Worker processes on Ray, on this machine or on a cluster.

Ray is imported when the first job is handed out. This module loads neither TensorFlow
nor Keras, so that a worker can limit their threads and memory before it loads them.
"""

from __future__ import annotations

import contextlib
import importlib.util
import math
import os
import queue
import socket
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import linksim
from linksim.errors import InvalidInput, WorkerError, check_int
from linksim.provenance import describe_machine, software

# So many deaths in a row end the run, if workers die before they are ready, or end a job,
# if they die while they work on it
MAX_DEATHS = 3
_STARTS_OF_RAY = 3
# Variables that a worker inherits from the process that started it, because they may
# change results or speed
_ENVIRONMENT = (
    "KERAS_BACKEND",
    "TF_CPP_MIN_LOG_LEVEL",
    "TF_ENABLE_ONEDNN_OPTS",
    "TF_XLA_FLAGS",
    "XLA_FLAGS",
)
#: Variables of processes that share a GPU: none takes all of its memory when it starts
SHARED_GPU = {
    "TF_FORCE_GPU_ALLOW_GROWTH": "true",
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
}
# The smallest store that Ray accepts: results are small and never go there
_OBJECT_STORE = 75 * 2**20


class InPlace:
    """Does what a `Pool` does, but in this process: `next` does the first waiting job.

    Args:
        do: function of a job.
    """

    capacity = 1
    workers = None

    def __init__(self, do: Callable[[Any], Any]):
        self._do = do
        self._jobs: deque[Any] = deque()

    def submit(self, job: Any) -> None:
        """Queue a job."""
        self._jobs.append(job)

    def next(self) -> tuple[Any, Any]:
        """Do the first job; return it with its result, or with the exception it raised."""
        job = self._jobs.popleft()
        try:
            return job, self._do(job)
        except Exception as error:
            return job, error

    def close(self) -> None:
        """Forget the jobs."""
        self._jobs.clear()


class Worker:
    """The object that lives in a worker process; `Pool` calls it through Ray.

    Args:
        environment: environment variables to set.
        threads: how many threads TensorFlow may use, for one operation and for
            operations at the same time.
    """

    def __init__(self, environment: Mapping[str, str], threads: int):
        os.environ.update(environment)
        # TensorFlow reads them when it is loaded, which it is not yet
        os.environ["TF_NUM_INTRAOP_THREADS"] = str(threads)
        os.environ["TF_NUM_INTEROP_THREADS"] = str(threads)
        self._do: Callable[[Any], Any] | None = None

    def start(
        self, expected: Mapping[str, str], make: Callable[[], Callable[[Any], Any]]
    ) -> dict[str, Any]:
        """Check the software and get ready for jobs.

        Args:
            expected: `linksim.provenance.software()` of the process that starts the run.
            make: returns the function that does a job.

        Returns:
            `linksim.provenance.describe_machine()`, and the process number as "pid".

        Raises:
            WorkerError: the software of this worker differs from what is expected.
        """
        check_software(expected)
        self._do = make()
        return {**describe_machine(), "pid": os.getpid()}

    def do(self, job: Any) -> Any:
        """The result of a job; `start` comes first."""
        assert self._do is not None
        return self._do(job)


def check_software(expected: Mapping[str, str]) -> None:
    """Refuse to work if this process has other software than the one that starts the run.

    Args:
        expected: `linksim.provenance.software()` of that process.

    Raises:
        WorkerError: it differs; the message says in what.
    """
    found = software()
    differing = [
        f"{what} {found.get(what, 'missing')} (expected {expected.get(what, 'none')})"
        for what in {**expected, **found}
        if found.get(what) != expected.get(what)
    ]
    if differing:
        raise WorkerError(
            f"the worker on {socket.gethostname()} has {', '.join(differing)}; every "
            "node needs the same checkout and the same packages as the process that "
            "starts the run"
        )


def worker_share(
    nodes: Sequence[tuple[float, float]], workers: int | None
) -> tuple[int, int, float]:
    """How many CPUs and GPUs each worker gets, so that all of them find a place.

    If there are GPUs, every worker has one, or an equal part of one, so that all compute
    with the same rounding.

    Args:
        nodes: (CPUs, GPUs) of each node.
        workers: their number; None for one per GPU, or one per CPU if there is no GPU.

    Returns:
        The number of workers, and the CPUs and the GPUs of each; GPUs are 0, 1 or 1/n.

    Raises:
        InvalidInput: there are more workers than CPUs.
    """
    gpus = sum(int(g) for _, g in nodes)
    if gpus:
        nodes = [(c, g) for c, g in nodes if g >= 1]
    cpus = sum(int(c) for c, _ in nodes)
    if workers is None:
        workers = min(gpus or cpus, cpus)
    check_int("workers", workers)
    on_gpu = -(-workers // gpus) if gpus else math.inf  # workers that share a GPU

    def places(share):
        return sum(min(int(c) // share, int(g) * on_gpu if gpus else c) for c, g in nodes)

    if places(1) < workers:
        raise InvalidInput(
            f"workers: got {workers}, the {len(nodes)} nodes have {cpus} CPUs"
            + (f" beside their {gpus} GPUs" if gpus else "")
        )
    share = max(s for s in range(1, int(max(c for c, _ in nodes)) + 1) if places(s) >= workers)
    # Ray counts GPUs in units of 1e-4
    return workers, share, math.floor(1e4 / on_gpu) / 1e4 if gpus else 0.0


def check_reachable(address: str | None, timeout: float = 10.0) -> None:
    """Refuse an address where nobody listens; Ray would go on trying for minutes.

    Args:
        address: of a Ray cluster. One without a port ("auto", None) is left to Ray.
        timeout: in seconds.

    Raises:
        InvalidInput: no connection.
    """
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout).close()
    except OSError as error:
        raise InvalidInput(f"ray_address: cannot connect to {address!r} ({error})") from error


class _Process:
    """A worker process; one that replaces a dead one is another `_Process`."""

    def __init__(self, actor, deaths):
        self.actor = actor
        self.deaths = deaths  # how many predecessors in a row died before they were ready
        self.ready = self.dead = False
        self.tickets = []  # the jobs it was given; it works on the first


class _Ticket:
    """A job that was submitted; it is handed out again if its worker dies."""

    def __init__(self, job):
        self.job = job
        self.deaths = 0  # workers that died while they worked on it
        self.ended = False


class Pool:
    """Worker processes that do jobs. The jobs of a worker that dies go to others.

    Every worker is a Ray actor, which is a process of its own. Jobs end in any order.

    Args:
        make: picklable function without arguments that returns a function of a job; each
            worker calls it once.
        workers: their number; None for one per GPU of the cluster, or one per CPU if
            there is no GPU.
        address: of a Ray cluster, such as "10.0.0.1:6379" or "auto"; None starts Ray on
            this machine alone, unless this process is already connected to one.
        jobs_each: how many jobs a worker is given at once. With 2 it has the next one
            before it ends one.
        new_process: whether every job gets a new worker process.

    Attributes:
        workers: None until the first job is submitted; then what computes, for
            `linksim.provenance`.

    Raises:
        InvalidInput: Ray is not installed, or a value is out of range.
    """

    def __init__(
        self,
        make: Callable[[], Callable[[Any], Any]],
        workers: int | None,
        address: str | None = None,
        *,
        jobs_each: int = 2,
        new_process: bool = False,
    ):
        if importlib.util.find_spec("ray") is None:
            raise InvalidInput(
                "workers: they need Ray, which is not installed; install it with "
                'pip install -e ".[ray]"'
            )
        if workers is None and address is None:
            raise InvalidInput("workers: got None, expected a number without ray_address")
        if workers is not None:
            check_int("workers", workers)
        self._make, self._number, self._address = make, workers, address
        self._jobs_each, self._new_process = jobs_each, new_process
        self._processes: list[_Process] = []
        self._waiting: deque[_Ticket] = deque()  # tickets that no worker has
        # (process, its ticket or None, future)
        self._events: queue.SimpleQueue[tuple[_Process, _Ticket | None, Any]] = (
            queue.SimpleQueue()
        )
        self._ended: deque[tuple[Any, Any]] = deque()  # (job, outcome) that `next` returns
        self._connected = self._owned = False
        self._actor_class = None
        self.workers: dict[str, Any] | None = None

    @property
    def capacity(self) -> int:
        """How many submitted jobs keep all workers busy."""
        return 1 if self._number is None else self._number * self._jobs_each

    def submit(self, job: Any) -> None:
        """Hand out a job; the first one starts the workers.

        Raises:
            InvalidInput: there is no cluster at the address, or it is too small.
        """
        self._connect()
        self._waiting.append(_Ticket(job))
        self._give()

    def next(self) -> tuple[Any, Any]:
        """Wait until a job ends; return it with its result, or the exception it raised.

        Raises:
            WorkerError: a worker has other software, or cannot be started.
        """
        while not self._ended:
            process, ticket, future = self._events.get()
            self._handle(process, ticket, future)
        return self._ended.popleft()

    def close(self) -> None:
        """End the workers, and Ray if this pool started it."""
        if not self._connected:
            return
        import ray

        self._connected = False
        for process in self._processes:
            ray.kill(process.actor)
        self._processes.clear()
        if self._owned:
            ray.shutdown()

    # --- starting ---------------------------------------------------------------------

    def _connect(self):
        if self._connected:
            return
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # Hides the GPUs from workers that get none
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")
        import ray

        if not ray.is_initialized():
            self._owned = True
            self._start_ray()
        self._connected = True
        nodes = [
            (n["Resources"].get("CPU", 0), n["Resources"].get("GPU", 0))
            for n in ray.nodes()
            if n["Alive"]
        ]
        self._number, cpus, gpus = worker_share(nodes, self._number)
        self._actor_class = ray.remote(num_cpus=cpus, num_gpus=gpus, max_restarts=0)(Worker)
        self._threads = cpus
        self._software = software()
        self.workers = {
            "number": self._number,
            "threads": cpus,
            "gpus": gpus,
            "machines": Counter(),
            "deaths": 0,
        }
        for _ in range(self._number):
            self._start(deaths=0)

    def _start_ray(self):
        import ray

        check_reachable(self._address)
        error = None
        # Ray gives its own processes half a minute to start; a busy machine needs longer
        for _ in range(_STARTS_OF_RAY if self._address is None else 1):
            try:
                with _this_linksim():
                    ray.init(log_to_driver=False, logging_level="ERROR", **self._ray_options())
                return
            except Exception as caught:  # Ray raises a dozen kinds, plain ones too
                error = caught
                ray.shutdown()
        if self._address is None:
            raise WorkerError(f"Ray does not start on this machine: {error}") from error
        raise InvalidInput(
            f"ray_address: cannot connect to {self._address!r} ({error})"
        ) from error

    def _ray_options(self):
        if self._address is not None:
            return {"address": self._address}
        return {
            "address": "local",
            "num_cpus": max(self._number, num_cores()),
            "include_dashboard": False,
            "object_store_memory": _OBJECT_STORE,
            "_node_ip_address": "127.0.0.1",
            # Ray's default niceness is 15, which would let everything else run first
            "_system_config": {"worker_niceness": 0},
        }

    def _start(self, deaths):
        kept = {k: os.environ[k] for k in _ENVIRONMENT if k in os.environ}
        actor = self._actor_class.remote({**SHARED_GPU, **kept}, self._threads)
        process = _Process(actor, deaths)
        self._processes.append(process)
        self._watch(process, None, actor.start.remote(self._software, self._make))

    # --- jobs -------------------------------------------------------------------------

    def _watch(self, process, ticket, reference):
        # Ray calls it in a thread, so that waiting costs the same for any number of jobs
        reference.future().add_done_callback(
            lambda future: self._events.put((process, ticket, future))
        )

    def _give(self):
        """Hand waiting jobs to the ready workers that have the fewest."""
        ready = [p for p in self._processes if p.ready and len(p.tickets) < self._jobs_each]
        while self._waiting and ready:
            ticket = self._waiting.popleft()
            if ticket.ended:
                continue
            process = min(ready, key=lambda p: len(p.tickets))
            process.tickets.append(ticket)
            self._watch(process, ticket, process.actor.do.remote(ticket.job))
            if len(process.tickets) == self._jobs_each:
                ready.remove(process)

    def _handle(self, process, ticket, future):
        import ray

        error = future.exception()
        if isinstance(error, ray.exceptions.RayTaskError):
            if ticket is None:
                raise WorkerError(f"a worker could not be started: {error.cause}")
            self._end(process, ticket, error.cause)
        elif isinstance(error, _deaths()):
            self._bury(process, error)
        elif error is not None:
            raise WorkerError(f"Ray failed: {error}") from error
        elif ticket is None:
            process.ready, process.deaths = True, 0
            facts = future.result()
            self.workers["machines"][f"{facts['processor']}, {facts['platform']}"] += 1
        else:
            self._end(process, ticket, future.result())
        self._give()

    def _end(self, process, ticket, outcome):
        if ticket in process.tickets:
            process.tickets.remove(ticket)
        if not ticket.ended:
            ticket.ended = True
            self._ended.append((ticket.job, outcome))
        if self._new_process and not process.dead:
            self._remove(process)
            self._start(deaths=0)

    def _bury(self, process, error):
        """Replace a worker that died, and hand out its jobs again."""
        if process.dead:
            return  # every job that it had reports its death
        self._remove(process)
        self.workers["deaths"] += 1
        deaths = 0
        if not process.ready:
            deaths = process.deaths + 1
            if deaths == MAX_DEATHS:
                raise WorkerError(
                    f"workers died {deaths} times in a row while they started: {error}"
                )
        elif process.tickets:
            ticket = process.tickets[0]
            ticket.deaths += 1
            if ticket.deaths == MAX_DEATHS and not ticket.ended:
                ticket.ended = True
                self._ended.append(
                    (
                        ticket.job,
                        WorkerError(
                            f"{ticket.deaths} workers died one after the other while they "
                            f"worked on {ticket.job}; does it need more memory than there "
                            f"is? {error}"
                        ),
                    )
                )
        self._waiting.extendleft(reversed([t for t in process.tickets if not t.ended]))
        self._start(deaths)

    def _remove(self, process):
        import ray

        process.dead = True
        self._processes.remove(process)
        ray.kill(process.actor)  # it may be alive, and only out of reach


@contextlib.contextmanager
def _this_linksim():
    """Processes that are started inside import the same linksim as this one."""
    before = os.environ.get("PYTHONPATH")
    mine = str(Path(linksim.__file__).resolve().parents[1])
    os.environ["PYTHONPATH"] = mine if before is None else f"{mine}{os.pathsep}{before}"
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def share_gpus() -> None:
    """Leave memory on the GPUs to workers; call it before anything is computed."""
    for name, value in SHARED_GPU.items():
        os.environ.setdefault(name, value)


def num_cores() -> int:
    """How many cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        return os.cpu_count() or 1


def _deaths():
    """Ray's exceptions for a worker, or a node, that is gone."""
    from ray import exceptions

    return (
        exceptions.RayActorError,
        exceptions.WorkerCrashedError,
        exceptions.NodeDiedError,
        exceptions.OutOfMemoryError,
        exceptions.ObjectLostError,
    )
