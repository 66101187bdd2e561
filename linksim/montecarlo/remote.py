"""Batches that worker processes compute, each with compiled functions of its own."""

import functools
import socket

from linksim.errors import InvalidInput, ResultFileError, WorkerError
from linksim.link.simulator import LinkSimulator
from linksim.models import add_model_folder, added_model_folders
from linksim.montecarlo.jobs import run_job
from linksim.registry import DETECTORS
from linksim.workers import Pool

# Exceptions that can be made again, in another process, from their text
_PORTABLE = (InvalidInput, ResultFileError, WorkerError, RuntimeError)


class RemoteBatches:
    """The executor on Ray (see `linksim.montecarlo.schedule`).

    Args:
        simulator: the `LinkSimulator` with the detectors. It computes nothing here;
            workers whose weights differ from its own are refused.
        seed: of the draws.
        workers, address: see `linksim.workers.Pool`.
    """

    def __init__(self, simulator, seed, workers, address):
        make = functools.partial(
            make_worker,
            simulator.scenario,
            simulator.scenario.fingerprint(),
            simulator.xla,
            dict(simulator.weights),
            seed,
            DETECTORS.own(),
            added_model_folders(),
        )
        self._pool = Pool(make, workers, address)
        self.submit, self.close = self._pool.submit, self._pool.close

    @property
    def capacity(self):
        """How many submitted jobs keep all workers busy."""
        return self._pool.capacity

    @property
    def workers(self):
        """What computes the batches, for the provenance of results."""
        return self._pool.workers

    def next(self):
        """The next finished job, and {detector: `BatchResult` or exception}."""
        job, outcome = self._pool.next()
        if isinstance(outcome, Exception):
            outcome = dict.fromkeys(job.detectors, outcome)
        return job, outcome


def make_worker(scenario, fingerprint, xla, weights, seed, detectors, model_folders):
    """In a worker: the function that computes a `Job`.

    Args:
        scenario, xla: of the `LinkSimulator`.
        fingerprint: of the scenario there, with what its files hold.
        weights: {receiver: {model: SHA-256}} of the process that starts the run.
        seed: of the draws.
        detectors: entries of the detectors that are registered there.
        model_folders: folders of models that were added there.

    Raises:
        InvalidInput: one of the folders is not on this machine.
        WorkerError: this machine holds other weights, or other files of the scenario.
    """
    if scenario.fingerprint() != fingerprint:
        raise WorkerError(
            f"{scenario.name}: the files that the scenario names differ on "
            f"{socket.gethostname()}; every node needs the same"
        )
    for entry in detectors:
        DETECTORS.add(entry)
    for folder in model_folders:
        add_model_folder(folder)
    simulator = LinkSimulator(scenario, xla)
    for name in weights:
        simulator.add_detector(name)
    check_weights(simulator.weights, weights)

    def do(job):
        outcome = run_job(simulator, seed, job)
        return {name: _portable(result) for name, result in outcome.items()}

    return do


def check_weights(found, expected):
    """Refuse weights that differ from those of the process that starts the run.

    Args:
        found, expected: {receiver: {model: SHA-256}}.

    Raises:
        WorkerError: naming the first that differ.
    """
    for name, models in expected.items():
        if found[name] != models:
            raise WorkerError(
                f"{name}: the worker on {socket.gethostname()} has the weights "
                f"{found[name]}, expected {models}; every node needs the same models/"
            )


def _portable(result):
    """A result, or an exception that can be made again in another process."""
    if not isinstance(result, Exception) or type(result) in _PORTABLE:
        return result
    return RuntimeError(f"{type(result).__name__}: {result}")
