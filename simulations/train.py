#!/usr/bin/env python3
"""Train detectors or quantizers by their recipes.

A run writes its state to OUTPUT/<model>/<configuration>/ and continues from there when
it is started again. With --publish the result becomes the shipped model, in
models/<model>/<configuration>/, with its card. Several recipes are trained one after
the other, or by several workers, one recipe each at a time.
"""

import argparse
import contextlib
import os
import sys
import traceback
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
if __package__ in (None, ""):  # run as a script: prefer the checkout around it
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from linksim.errors import InvalidInput, ResultFileError, WorkerError
from linksim.files import set_aside
from linksim.training.recipe import list_recipes, load_recipe
from linksim.training.sweep import SweepPool, chosen_recipes, run_sweep, train_recipe
from linksim.workers import InPlace


def parse_arguments(argv):
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0],
        epilog="Example: train.py eqnet/rayleigh-2x2-qam64 --budget 0.1",
    )
    add = parser.add_argument
    add(
        "recipe",
        nargs="*",
        metavar="RECIPE",
        help="a name of --list, a pattern such as 'oampnet2/massive-*', or a file "
        "<model>/<configuration>/*.toml",
    )
    add("--list", action="store_true", help="recipes, and whether weights are shipped")
    add(
        "--budget",
        type=float,
        default=1.0,
        metavar="X",
        help="fraction of the recipe's steps; 0.001 is a smoke test",
    )
    add("--output", default="results/runs/training", metavar="DIR")
    add("--fresh", action="store_true", help="set an earlier run of this recipe aside")
    add("--publish", action="store_true", help="write the result to models/")
    add("--no-tensorboard", action="store_true")
    add("--workers", type=int, metavar="N", help="train N recipes at a time, on Ray")
    add(
        "--ray",
        metavar="ADDRESS",
        help="of a Ray cluster, such as 10.0.0.1:6379; its nodes have to share OUTPUT",
    )
    return parser.parse_args(argv)


def show_list(console):
    from linksim.models import list_models

    cards = list_models()
    for name in list_recipes():
        mark = "trained" if name in cards else "-"
        console.print(f"[bold]{name:36}[/] {mark:8} {load_recipe(name).title}", soft_wrap=True)


def main(argv=None):
    args = parse_arguments(argv)
    console = Console()
    if args.list:
        show_list(console)
        return 0
    try:
        recipes = chosen_recipes(args.recipe)
        if not recipes:
            raise InvalidInput("RECIPE: missing; --list shows what there is")
        return train_all(recipes, args, console)
    except (InvalidInput, ResultFileError, WorkerError) as error:
        print(f"train.py: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("train.py: interrupted; the same command continues", file=sys.stderr)
        return 130


def train_all(recipes, args, console):
    """Train by one or several recipes; returns the exit code."""
    for recipe in recipes:
        folder = Path(args.output) / recipe.name
        if args.fresh and folder.exists():
            set_aside(folder)
    options = {
        "budget": args.budget,
        "publish": args.publish,
        "tensorboard": not args.no_tensorboard,
    }
    if args.workers is None and args.ray is None:
        executor = InPlace(lambda recipe: train_here(recipe, args.output, options, console))
    else:
        executor = SweepPool(recipes, args.output, args.workers, args.ray, **options)
    failed = 0
    with contextlib.closing(executor):
        for recipe, outcome in run_sweep(recipes, executor, publish=args.publish):
            if isinstance(outcome, Exception):
                failed += 1
                report_failure(recipe, outcome)
                continue
            label = f"[bold]{recipe.name}[/]: " if len(recipes) > 1 else ""
            if outcome.loss is not None:
                console.print(
                    f"{label}best validation loss {outcome.loss:.4g} at step "
                    f"{outcome.step}; state in {outcome.folder}/",
                    soft_wrap=True,
                )
            if outcome.published:
                console.print(f"{label}published to {outcome.published}/", soft_wrap=True)
    if failed and len(recipes) > 1:
        print(f"train.py: {failed} of {len(recipes)} trainings failed", file=sys.stderr)
    return 2 if failed else 0


def report_failure(recipe, error):
    expected = (InvalidInput, ResultFileError, WorkerError, FloatingPointError)
    if not isinstance(error, expected):
        traceback.print_exception(error)
    print(f"train.py: {recipe.name}: {error}", file=sys.stderr)


def train_here(recipe, output, options, console):
    """Train in this process, with a progress bar."""
    import keras

    # As in a new process: of an earlier training nothing is left
    keras.utils.clear_session()
    console.print(f"[bold]{recipe.name}[/]: {recipe.title}", soft_wrap=True)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total} steps"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
    row = bar.add_task("compiling", total=None)

    def on_step(step, steps, loss):
        bar.update(row, description=f"loss {loss:.3e}", completed=step, total=steps)

    def on_validation(entry):
        shown = "  ".join(
            f"{name} {value:.4g}" for name, value in entry.items() if name != "seconds"
        )
        console.print(f"{entry['seconds']:7.0f} s  {shown}", soft_wrap=True)

    with bar:
        return train_recipe(
            recipe, output, on_step=on_step, on_validation=on_validation, **options
        )


if __name__ == "__main__":
    sys.exit(main())
