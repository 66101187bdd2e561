#!/usr/bin/env python3
"""Train a detector or quantizer by its recipe.

A run writes its state to OUTPUT/<model>/<configuration>/ and continues from there when
it is started again. With --publish the result becomes the shipped model, in
models/<model>/<configuration>/, with its card.
"""

import argparse
import os
import sys
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

from linksim.errors import InvalidInput, ResultFileError
from linksim.files import set_aside
from linksim.training.recipe import list_recipes, load_recipe


def parse_arguments(argv):
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0],
        epilog="Example: train.py eqnet/rayleigh-2x2-qam64 --budget 0.1",
    )
    add = parser.add_argument
    add("recipe", nargs="?", metavar="RECIPE", help="a name of --list, or a TOML file")
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
        if args.recipe is None:
            raise InvalidInput("RECIPE: missing; --list shows what there is")
        return train(args, console)
    except (InvalidInput, ResultFileError, FloatingPointError) as error:
        print(f"train.py: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("train.py: interrupted; the same command continues", file=sys.stderr)
        return 130


def train(args, console):
    recipe = load_recipe(args.recipe)
    folder = Path(args.output) / recipe.name
    if args.fresh and folder.exists():
        set_aside(folder)
    folder.mkdir(parents=True, exist_ok=True)

    # Loads the backend: after everything that can be refused quickly
    import keras

    from linksim.training.build import build_layer, build_task
    from linksim.training.loop import Trainer
    from linksim.training.publish import publish, publish_codebook

    console.print(f"[bold]{recipe.name}[/]: {recipe.title}", soft_wrap=True)
    keras.utils.set_random_seed(recipe.seed)
    if recipe.task == "codebook":
        target = publish_codebook(recipe, *build_layer(recipe))
        console.print(f"published to {target}/", soft_wrap=True)
        return 0
    task, scenario = build_task(recipe)
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

    trainer = Trainer(
        recipe,
        task,
        scenario,
        folder,
        budget=args.budget,
        on_step=on_step,
        on_validation=on_validation,
        tensorboard=not args.no_tensorboard,
    )
    with bar:
        trainer.run()
    loss, step = trainer.best[:2]
    console.print(f"best validation loss {loss:.4g} at step {step}; state in {folder}/")
    if args.publish:
        target = publish(recipe, trainer, scenario)
        console.print(f"published to {target}/", soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
