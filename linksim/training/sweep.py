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
from linksim.models import list_models
from linksim.training.recipe import list_recipes, load_recipe
from linksim.workers import Pool


class Trained(NamedTuple):
    """What a training came to."""

    loss: float | None  # best validation loss; None of a codebook, which is fitted
    step: int
    folder: str  # of its state
    published: str | None  # folder of the model


def chosen_recipes(names):
    """Recipes of names, TOML files and patterns such as "oampnet2/massive-*".

    Raises:
        InvalidInput: nothing is called so, or a recipe is named twice.
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
    """Train by a recipe, from where an earlier run of it came to.

    Args:
        recipe: the `Recipe`.
        output: folder; the state is in <output>/<recipe>.
        budget: fraction of the recipe's steps.
        publish: write the result to `models/`. A codebook always is.
        tensorboard: write TensorBoard logs.
        callbacks: `on_step` and `on_validation` of `Trainer`.

    Returns:
        A `Trained`.
    """
    import keras

    from linksim.training.build import build_layer, build_task
    from linksim.training.loop import Trainer
    from linksim.training.publish import publish as publish_model
    from linksim.training.publish import publish_codebook

    folder = Path(output) / recipe.name
    folder.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(recipe.seed)
    if recipe.task == "codebook":
        target = publish_codebook(recipe, *build_layer(recipe))
        return Trained(None, 0, str(folder), str(target))
    task, scenario = build_task(recipe)
    trainer = Trainer(
        recipe, task, scenario, folder, budget=budget, tensorboard=tensorboard, **callbacks
    )
    trainer.run()
    loss, step = trainer.best[:2]
    target = str(publish_model(recipe, trainer, scenario)) if publish else None
    return Trained(loss, step, str(folder), target)


def run_sweep(recipes, executor, *, publish=False):
    """Train recipes; one that fails does not stop the others.

    Args:
        recipes: list of `Recipe`.
        executor: does `train_recipe`, such as `linksim.workers.InPlace`.
        publish: a recipe that starts from another one of the sweep, or learns from it,
            waits for it.

    Yields:
        Recipe and `Trained`, or the exception that it ended with, as they end.
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
    """Trained models that a recipe takes."""
    return {recipe.start, recipe.autoencoder, recipe.teachers} - {""}


class SweepPool(Pool):
    """The executor of a sweep on Ray: every training has a process of its own.

    A training whose process dies is continued by another one, from its last validation.

    Args:
        recipes: of the sweep.
        output: folder of the states; all nodes have to share it.
        workers, address: see `Pool`.
        publish, options: of `train_recipe`.
    """

    def __init__(self, recipes, output, workers, address, *, publish=False, **options):
        output = Path(output).resolve()
        output.mkdir(parents=True, exist_ok=True)
        # What the sweep itself makes is not there yet, or changes
        made = {recipe.name for recipe in recipes} if publish else set()
        needed = set().union(*(_needs(recipe) for recipe in recipes)) - made
        self._marks = [_mark(folder) for folder in (output, model_folder())[: 1 + publish]]
        make = functools.partial(
            make_worker,
            str(output),
            [mark.name for mark in self._marks],
            _hashes(needed),
            {"publish": publish, **options},
        )
        super().__init__(make, workers, address, jobs_each=1, new_process=True)

    def close(self):
        super().close()
        for mark in self._marks:
            mark.unlink(missing_ok=True)


def make_worker(output, marks, hashes, options):
    """In a worker: the function that trains by a `Recipe`.

    Args:
        output: folder of the states.
        marks: names of files in `output`, and in the folder of models if trainings write
            there, by which a worker knows that it is the same folder.
        hashes: {model: SHA-256} of the models that recipes take.
        options: of `train_recipe`.

    Raises:
        WorkerError: this machine has other folders or models.
    """
    host = socket.gethostname()
    for folder, mark in zip((Path(output), model_folder()), marks):
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
