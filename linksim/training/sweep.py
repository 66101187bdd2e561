"""One training from recipe to result, and sweeps of many, one after the other or on Ray."""

import fnmatch
import functools
import os
import socket
import tempfile
from pathlib import Path
from typing import NamedTuple

from linksim.data import model_folder
from linksim.errors import InvalidInput, WorkerError
from linksim.files import make_folder
from linksim.models import add_model_folder, added_model_folders, list_models
from linksim.registry import DETECTORS
from linksim.training.recipe import list_recipes, load_recipe
from linksim.workers import Pool


class Trained(NamedTuple):
    """The result of a training."""

    loss: float | None  # best validation loss; None for a codebook, which is fitted
    step: int
    folder: str  # of the training's state
    published: str | None  # folder of the model


def chosen_recipes(names):
    """The recipes of names, TOML files and patterns such as "oampnet2/massive-*".

    A recipe that is named twice is trained once.

    Raises:
        InvalidInput: no recipe has such a name, or two different ones have the same.
    """
    recipes = {}
    for name in names:
        found = [name]
        if any(c in name for c in "*?["):
            found = fnmatch.filter(list_recipes(), name)
            if not found:
                raise InvalidInput(
                    f"recipe: no name fits {name!r}; --list shows what there is"
                )
        for one in found:
            recipe = load_recipe(one)
            if recipe.name in recipes and recipe != recipes[recipe.name]:
                raise InvalidInput(f"recipe: two different ones are called {recipe.name}")
            recipes[recipe.name] = recipe
    return list(recipes.values())


def train_recipe(recipe, output, *, budget=1.0, publish=False, tensorboard=True, **callbacks):
    """Train by a recipe, and continue an earlier run of it.

    Args:
        recipe: the `Recipe`.
        output: folder; the state is in <output>/<recipe>.
        budget: fraction of the recipe's steps.
        publish: True to write the result to `models/`, or the path of another folder of
            models. A codebook is always written.
        tensorboard: write TensorBoard logs.
        callbacks: `on_step`, `on_validation` and `on_resume` of `Trainer`.

    Returns:
        A `Trained`.
    """
    import keras

    from linksim.training.build import build_layer, build_task
    from linksim.training.loop import Trainer
    from linksim.training.publish import publish as publish_model
    from linksim.training.publish import publish_codebook

    models = None if isinstance(publish, bool) else publish
    folder = Path(output) / recipe.name
    make_folder(folder)
    keras.utils.set_random_seed(recipe.seed)
    if recipe.task == "codebook":
        target = publish_codebook(recipe, *build_layer(recipe), models)
        return Trained(None, 0, str(folder), str(target))
    task, scenario = build_task(recipe)
    trainer = Trainer(
        recipe, task, scenario, folder, budget=budget, tensorboard=tensorboard, **callbacks
    )
    trainer.run()
    loss, step = trainer.best[:2]
    target = None
    if publish:
        target = str(publish_model(recipe, trainer, scenario, models))
    return Trained(loss, step, str(folder), target)


def run_sweep(recipes, executor, *, publish=False):
    """Train recipes; one that fails does not stop the others.

    Args:
        recipes: list of `Recipe`.
        executor: runs `train_recipe`, such as `linksim.workers.InPlace`.
        publish: whether results are published. A recipe that needs the weights of another
            recipe of the sweep then waits for it.

    Yields:
        (recipe, `Trained` or the exception that ended it), in the order in which they end.
    """
    names = {recipe.name for recipe in recipes}
    waiting, outcomes, running = list(recipes), {}, 0
    while waiting or running:
        for recipe in list(waiting):
            needed = _needs(recipe) & names if publish else set()
            failed = [n for n in needed if isinstance(outcomes.get(n), Exception)]
            if failed:
                waiting.remove(recipe)
                outcomes[recipe.name] = InvalidInput(f"it needs {failed[0]}, which failed")
                yield recipe, outcomes[recipe.name]
            elif needed <= outcomes.keys():
                waiting.remove(recipe)
                executor.submit(recipe)
                running += 1
        if running:
            recipe, outcome = executor.next()
            running -= 1
            outcomes[recipe.name] = outcome
            yield recipe, outcome
        elif waiting and not any(_needs(r) & names <= outcomes.keys() for r in waiting):
            raise InvalidInput(
                f"recipe: {waiting[0].name} and what it needs wait for each other"
            )


def _needs(recipe):
    """Names of the trained models whose weights a recipe needs."""
    return {recipe.start, recipe.autoencoder, recipe.teachers} - {""}


class SweepPool(Pool):
    """The executor of a sweep on Ray: every training has a process of its own.

    If that process dies, another one continues from the state that it saved last.

    Args:
        recipes: of the sweep.
        output: folder of the states; all nodes have to share it.
        workers, address: see `Pool`.
        publish, options: see `train_recipe`. All nodes have to share the folder of models
            that is published to.
    """

    def __init__(self, recipes, output, workers, address, *, publish=False, **options):
        output = Path(output).resolve()
        make_folder(output)
        # Models that the sweep itself publishes are not there yet, or change
        made = {recipe.name for recipe in recipes} if publish else set()
        needed = set().union(*(_needs(recipe) for recipe in recipes)) - made
        folders = [output]
        if publish:
            models = model_folder() if publish is True else Path(publish).resolve()
            folders.append(models)
            publish = publish if publish is True else str(models)
        self._marks = [_mark(folder) for folder in folders]
        make = functools.partial(
            make_worker,
            str(output),
            [mark.name for mark in self._marks],
            _hashes(needed),
            {"publish": publish, **options},
            DETECTORS.own(),
            added_model_folders(),
        )
        super().__init__(make, workers, address, jobs_each=1, new_process=True)

    def close(self):
        super().close()
        for mark in self._marks:
            mark.unlink(missing_ok=True)


def make_worker(output, marks, hashes, options, detectors=(), folders=()):
    """In a worker: make the function that trains by a `Recipe`.

    Args:
        output: folder of the states.
        marks: names of files in `output`, and in the folder of models that trainings write
            to, which show a worker that it sees the same folders.
        hashes: {model: SHA-256} of the models whose weights the recipes need.
        options: of `train_recipe`.
        detectors: entries of the detectors that are registered in the process that starts
            the sweep.
        folders: its `added_model_folders()`.

    Raises:
        InvalidInput: one of `folders` is not on this machine.
        WorkerError: this machine has other folders or models.
    """
    host = socket.gethostname()
    for entry in detectors:
        DETECTORS.add(entry)
    for folder in folders:
        add_model_folder(folder)
    publish = options.get("publish", False)
    models = model_folder() if isinstance(publish, bool) else Path(publish)
    for folder, mark in zip((Path(output), models), marks):
        if not (folder / mark).exists():
            raise WorkerError(
                f"the worker on {host} does not see the folder {folder} of the process "
                "that started the sweep; all nodes have to share it"
            )
    for model, digest in hashes.items():
        found = _hashes([model])[model]
        if found != digest:
            raise WorkerError(
                f"the worker on {host} has other weights of {model}: {found}, expected "
                f"{digest}"
            )
    return lambda recipe: train_recipe(recipe, output, **options)


def _hashes(models):
    """{model: SHA-256 of its weights, or None where there are none}."""
    cards = list_models() if models else {}
    return {m: cards[m]["sha256"] if m in cards else None for m in sorted(models)}


def _mark(folder):
    handle, path = tempfile.mkstemp(prefix=".sweep-", dir=folder)
    os.close(handle)
    return Path(path)
