"""Train detectors or quantizers by their recipes.

A run writes its state to OUTPUT/<model>/<configuration>/ and continues from there when
it is started again. With --publish the result becomes a model with a card, in
models/<model>/<configuration>/ or in a folder of your own. Several recipes are trained one
after the other, or by several workers, one recipe each at a time.
"""

from __future__ import annotations

import argparse
import contextlib
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from linksim.cli.common import (
    complain,
    interrupted_line,
    load_user_code,
    make_console,
    make_parser,
    print_entry,
    run_command,
    start_keras,
)
from linksim.cli.stop import GracefulStop, exit_at_once
from linksim.errors import InvalidInput, ResultFileError, WorkerError
from linksim.files import check_folder, make_folder, set_aside
from linksim.models import add_model_folder, model_folders, weights_file
from linksim.training.cards import write_cards
from linksim.training.recipe import Recipe, list_recipes, load_recipe
from linksim.training.sweep import (
    SweepPool,
    Trained,
    chosen_recipes,
    run_sweep,
    train_recipe,
)
from linksim.workers import InPlace

if TYPE_CHECKING:
    from rich.console import Console


def parse_arguments(argv: Sequence[str] | None, prog: str) -> argparse.Namespace:
    """The options of a command line; exits for `--help` and wrong ones."""
    parser = make_parser(prog, __doc__, "eqnet/rayleigh-2x2-qam64 --budget 0.1")
    parser.set_defaults(prog=prog)
    add = parser.add_argument
    add(
        "recipe",
        nargs="*",
        metavar="RECIPE",
        help="a name of --list, a pattern such as 'oampnet2/massive-*', or a file "
        "<model>/<configuration>/*.toml",
    )
    add("--list", action="store_true", help="list the recipes and exit")
    add(
        "--budget",
        type=float,
        default=1.0,
        metavar="X",
        help="fraction of the recipe's steps; 0.001 is a smoke test",
    )
    add(
        "--output",
        default="results/runs/training",
        metavar="DIR",
        help="folder of the trainings' states",
    )
    add("--fresh", action="store_true", help="set an earlier run of this recipe aside")
    add(
        "--publish",
        nargs="?",
        const=True,
        default=False,
        metavar="DIR",
        help="write the result to this folder of models (without DIR: to models/)",
    )
    add("--cards", action="store_true", help="write cards and catalogue anew and exit")
    add("--no-tensorboard", action="store_true", help="write no logs for TensorBoard")
    add("--workers", type=int, metavar="N", help="train N recipes at a time, on Ray")
    add(
        "--ray",
        metavar="ADDRESS",
        help="use the Ray cluster at this address, such as 10.0.0.1:6379; its nodes have to "
        "share OUTPUT",
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None, prog: str = "train.py") -> int:
    """Run the command line and return the exit code."""
    return run_command(
        prog,
        lambda: _run(parse_arguments(argv, prog)),
        "interrupted; the same command continues",
    )


def _run(args: argparse.Namespace) -> int:
    load_user_code(args)
    console = make_console()
    if args.list:
        show_list(console)
        return 0
    if args.cards:
        for folder in model_folders():
            write_cards(folder)
        return 0
    if isinstance(args.publish, str):
        if args.publish.endswith(".toml") or args.publish in list_recipes():
            raise InvalidInput(
                f"--publish: got the recipe {args.publish!r}, expected a folder; put the "
                "recipe before --publish"
            )
        # Recipes that start from others find what these published
        check_folder(args.publish, "--publish")
        make_folder(args.publish)
        add_model_folder(args.publish)
    recipes = chosen_recipes(args.recipe)
    if not recipes:
        raise InvalidInput("RECIPE: missing; --list shows what there is")
    if isinstance(args.publish, str):
        check_published(args.publish, recipes)
    check_folder(args.output, "--output")
    return train_all(recipes, args, console)


def check_published(folder: str, recipes: Sequence[Recipe]) -> None:
    """Check that recipes can be published to a folder of models.

    Raises:
        InvalidInput: a recipe has weights in another folder.
    """
    for recipe in recipes:
        there = weights_file(recipe.name)
        if there.exists() and not there.is_relative_to(Path(folder).resolve()):
            raise InvalidInput(
                f"--publish: {recipe.name} has weights in {there.parent} already; copy its "
                f"recipe.toml to {folder}/{recipe.model_name}/NAME/ and train by that"
            )


def show_list(console: Console) -> None:
    """Print the recipes, and the status of their weights where these are here."""
    from linksim.models import list_models, status_of

    cards = list_models()
    for name in list_recipes():
        mark = status_of(cards[name]) if name in cards else "-"
        print_entry(console, name, f"{mark:11} {load_recipe(name).title}", 45)


def train_all(recipes: Sequence[Recipe], args: argparse.Namespace, console: Console) -> int:
    """Train by one or several recipes and return the exit code."""
    for recipe in recipes:
        folder = Path(args.output) / recipe.name
        if args.fresh and folder.exists():
            set_aside(folder)
    options = {
        "budget": args.budget,
        "publish": args.publish,
        "tensorboard": not args.no_tensorboard,
    }
    executor: InPlace | SweepPool
    if args.workers is None and args.ray is None:
        executor = InPlace(lambda recipe: train_here(recipe, args.output, options, console))
    else:
        executor = SweepPool(recipes, args.output, args.workers, args.ray, **options)
    failed = 0
    with contextlib.closing(executor):
        for recipe, outcome in run_sweep(recipes, executor, publish=args.publish):
            if isinstance(outcome, Exception):
                failed += 1
                report_failure(args.prog, recipe, outcome)
            else:
                label = f"{recipe.name}:" if len(recipes) > 1 else ""
                _report_success(label, outcome, console)
    if failed and len(recipes) > 1:
        complain(args.prog, f"{failed} of {len(recipes)} trainings failed")
    return 2 if failed else 0


def _report_success(label: str, outcome: Trained, console: Console) -> None:
    if outcome.loss is not None:
        text = f"best validation loss {outcome.loss:.4g} at step {outcome.step}; "
        print_entry(console, label, f"{text}state in {outcome.folder}/")
    if outcome.published:
        print_entry(console, label, f"published to {outcome.published}/")


def report_failure(prog: str, recipe: Recipe, error: Exception) -> None:
    """Print why a training failed, with a traceback where that is a surprise."""
    expected = (InvalidInput, ResultFileError, WorkerError, FloatingPointError)
    if not isinstance(error, expected):
        traceback.print_exception(error)
    complain(prog, f"{recipe.name}: {error}")


def train_here(
    recipe: Recipe, output: str, options: dict[str, Any], console: Console
) -> Trained:
    """Train in this process, with a progress bar."""
    start_keras("linksim.training.build", "linksim.training.loop", "linksim.training.publish")
    import keras
    from rich.progress import (
        BarColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    # Nothing is left of an earlier training, as in a new process
    keras.utils.clear_session()
    print_entry(console, f"{recipe.name}:", recipe.title)
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

    stop: GracefulStop | None = None

    def on_step(step: int, steps: int, loss: float) -> None:
        nonlocal stop
        bar.update(row, description=f"loss {loss:.3e}", completed=step, total=steps)
        if stop is None:
            # Building and compiling, which take long, end at once
            stop = stops.enter_context(GracefulStop("step"))
        stop.check()

    def on_resume(step: int, steps: int) -> None:
        bar.update(row, completed=step, total=steps)
        console.print(f"continuing at step {step} of {steps}")

    def on_validation(entry: dict[str, float]) -> None:
        shown = "  ".join(
            f"{name} {value:.4g}" for name, value in entry.items() if name != "seconds"
        )
        console.print(f"{entry['seconds']:7.0f} s  {shown}", soft_wrap=True)

    with exit_at_once(interrupted_line()), contextlib.ExitStack() as stops, bar:
        return train_recipe(
            recipe,
            output,
            on_step=on_step,
            on_validation=on_validation,
            on_resume=on_resume,
            **options,
        )
