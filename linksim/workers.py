"""Worker processes on Ray, on this machine or on a cluster.

Ray is imported when the first job is handed out, and this module loads neither
TensorFlow nor Keras: a worker sets what it may use of its machine before it does.
"""

import contextlib
import importlib.util
import math
import os
import queue
import socket
from collections import Counter, deque
from pathlib import Path

import linksim
from linksim.errors import InvalidInput, WorkerError, check_int
from linksim.provenance import machine, software

# A worker that died as often before it was ready, or a job that as many workers died
# of, is not tried again
MAX_DEATHS = 3
_STARTS_OF_RAY = 3
# What a worker has from the process that started it: each may change results or speed
_ENVIRONMENT = (
    "KERAS_BACKEND",
    "TF_CPP_MIN_LOG_LEVEL",
    "TF_ENABLE_ONEDNN_OPTS",
    "TF_XLA_FLAGS",
    "XLA_FLAGS",
)
# Several processes share a GPU: none may take all of its memory
_GROW = {"TF_FORCE_GPU_ALLOW_GROWTH": "true", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
# The least that Ray takes; results are small and never lie there
_OBJECT_STORE = 75 * 2**20


class InPlace:
    """What `Pool` is, embedded: a job is done here, when it is waited for.

    Args:
        do: function of a job.
    """

    capacity = 1
    workers = None

    def __init__(self, do):
        self._do, self._jobs = do, deque()

    def submit(self, job):
        """Hand out a job."""
        self._jobs.append(job)

    def next(self):
        """Do the first job; returns it with its result or the exception it ended with."""
        job = self._jobs.popleft()
        try:
            return job, self._do(job)
        except Exception as error:
            return job, error

    def close(self):
        """Forget the jobs."""
        self._jobs.clear()


class Worker:
    """What runs in a worker process; `Pool` calls it through Ray.

    Args:
        environment: variables to set.
        threads: that TensorFlow may use for one operation.
    """

    def __init__(self, environment, threads):
        os.environ.update(environment)
        self._threads = threads
        self._do = None

    def start(self, expected, make):
        """Check the software, limit the threads, and get ready for jobs.

        Returns:
            Texts that describe this worker's machine, and its process number.

        Raises:
            WorkerError: this worker has other software than expected.
        """
        check_software(expected)
        if os.environ.get("KERAS_BACKEND", "tensorflow") == "tensorflow":
            import tensorflow as tf

            tf.config.threading.set_intra_op_parallelism_threads(self._threads)
            tf.config.threading.set_inter_op_parallelism_threads(self._threads)
        self._do = make()
        return {**machine(), "pid": os.getpid()}

    def do(self, job):
        """The result of a job."""
        return self._do(job)


def check_software(expected):
    """Refuse software other than `linksim.provenance.software()` of another process.

    Raises:
        WorkerError: naming what differs.
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


def worker_share(nodes, workers):
    """CPUs and GPUs of each worker, so that all of them find a place.

    Where there are GPUs, every worker has one or an equal part of one: all then compute
    with the same rounding.

    Args:
        nodes: [(CPUs, GPUs)] of the nodes.
        workers: their number, or None for one on each CPU, or each GPU if there are any.

    Returns:
        Number of workers, CPUs of each, and GPUs of each, 0 or 1 or 1/n.

    Raises:
        InvalidInput: more workers than CPUs.
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


def check_reachable(address, timeout=10.0):
    """Refuse an address where nobody listens, which Ray would try for many minutes.

    Args:
        address: of a Ray cluster; without a port ("auto", None) it is left to Ray.
        timeout: seconds.

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
    """One life of a worker."""

    def __init__(self, actor, deaths):
        self.actor = actor
        self.deaths = deaths  # of its predecessors in a row, before they were ready
        self.ready = self.dead = False
        self.tickets = []  # jobs it has, the one in work first


class _Ticket:
    """A job on its way; it may be handed out more than once."""

    def __init__(self, job):
        self.job = job
        self.deaths = 0  # workers that died while they worked on it
        self.ended = False


class Pool:
    """Workers that do jobs; what a worker had when it died, another one does.

    Every worker is an actor of Ray, a process of its own. Jobs may end in any order.

    Args:
        make: picklable function without arguments; each worker calls it once, and it
            returns a function of a job.
        workers: their number; None for all CPUs, or GPUs, of the cluster.
        address: of a Ray cluster, such as "10.0.0.1:6379" or "auto"; None starts Ray on
            this machine alone. A Ray that this process is connected to already is used.
        jobs_each: jobs that a worker has at once. With 2 the next one is there when it
            ends one.
        new_process: every job has a worker process of its own.

    Raises:
        InvalidInput: Ray is not installed, or a value is out of range.
    """

    def __init__(self, make, workers, address=None, *, jobs_each=2, new_process=False):
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
        self._processes = []
        self._waiting = deque()  # tickets that no worker has
        self._events = queue.SimpleQueue()  # (process, its ticket or None, future)
        self._ended = deque()  # (job, outcome) to be fetched
        self._connected = self._owned = False
        self._actor_class = None
        self.workers = None  # once started: what computes, for the provenance

    @property
    def capacity(self):
        """Jobs worth having out at once."""
        return 1 if self._number is None else self._number * self._jobs_each

    def submit(self, job):
        """Hand out a job; the first one starts the workers.

        Raises:
            InvalidInput: no cluster at the address, or it is too small.
        """
        self._connect()
        self._waiting.append(_Ticket(job))
        self._give()

    def next(self):
        """Wait for any job; returns it with its result or the exception it ended with.

        Raises:
            WorkerError: a worker has other software, or cannot be started.
        """
        while not self._ended:
            process, ticket, future = self._events.get()
            self._handle(process, ticket, future)
        return self._ended.popleft()

    def close(self):
        """End the workers, and Ray if it was started here."""
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
        # A worker without a GPU sees none
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
        # Ray gives its own processes half a minute to start; a busy machine takes longer
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
            # Otherwise 15 below this process: what else runs here would come first
            "_system_config": {"worker_niceness": 0},
        }

    def _start(self, deaths):
        kept = {k: os.environ[k] for k in _ENVIRONMENT if k in os.environ}
        actor = self._actor_class.remote({**_GROW, **kept}, self._threads)
        process = _Process(actor, deaths)
        self._processes.append(process)
        self._watch(process, None, actor.start.remote(self._software, self._make))

    # --- jobs -------------------------------------------------------------------------

    def _watch(self, process, ticket, reference):
        # Called in a thread of Ray's: waiting costs the same for any number of jobs
        reference.future().add_done_callback(
            lambda future: self._events.put((process, ticket, future))
        )

    def _give(self):
        """Hand waiting jobs to the ready workers that have least to do."""
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
        """Replace a worker that died, and hand out again what it had."""
        if process.dead:
            return  # told once for every job it had
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
        ray.kill(process.actor)  # it may only have been out of reach


@contextlib.contextmanager
def _this_linksim():
    """Processes started inside import the linksim that this one has, wherever it lies."""
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


def share_gpus():
    """Leave room on the GPUs for workers; to be called before anything computes."""
    for name, value in _GROW.items():
        os.environ.setdefault(name, value)


def num_cores():
    """Cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        return os.cpu_count() or 1


def _deaths():
    """Ray's exceptions that mean: the worker, or its node, is gone."""
    from ray import exceptions

    return (
        exceptions.RayActorError,
        exceptions.WorkerCrashedError,
        exceptions.NodeDiedError,
        exceptions.OutOfMemoryError,
        exceptions.ObjectLostError,
    )
