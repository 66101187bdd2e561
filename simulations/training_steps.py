#!/usr/bin/env python3
"""Measure what makes the steps of a training count.

Each variant of a recipe, `VARIANTS`, trains for the same processor time on one thread, with
its schedule over as many steps as that time has. What the variants have learned is compared
on the same held-out draws. A variant that was measured for that time is not measured again.
"""

import argparse
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
# Processor time of several threads would count what they wait
for pool in ("INTRA", "INTER"):
    os.environ.setdefault(f"TF_NUM_{pool}OP_THREADS", "1")
if __package__ in (None, ""):  # run as a script: prefer the checkout around it
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmark import timed_on

from linksim.cli.common import make_console, run_command
from linksim.errors import check_choice, check_real
from linksim.files import load_json, make_folder, save_json, write_atomically

RECIPE = "eqnet-l/rayleigh-2x2-qam64"
# Of every measurement
HELD_OUT_BATCHES = 32
# Steps that are timed to know how many a time has
TIMED_STEPS = 60

MUON = {"name": "muon"}
THROUGH_DECODER = {"latent": 0.1, "divergence": 1.0}
MI = "eqnet-mi/rayleigh-2x2-qam64"

# {name: changes of the recipe}; those of a table leave its other keys as they are, except
# those of the loss
VARIANTS = {
    "the recipe": {},
    "rate 1e-3": {"optimizer": {"learning_rate": 1e-3}},
    "rate 1e-2, warm-up": {"optimizer": {"learning_rate": 1e-2, "warmup_steps": 200}},
    "average 0.99": {"optimizer": {"ema": 0.99}},
    "constant rate, average 0.99": {"optimizer": {"schedule": "constant", "ema": 0.99}},
    "AdamW 0.01": {"optimizer": {"name": "adamw", "weight_decay": 0.01}},
    "Muon": {"optimizer": MUON},
    "Muon, rate 1e-2": {"optimizer": {**MUON, "learning_rate": 1e-2}},
    "batch 256": {"data": {"batch_size": 256}},
    "batch 4096": {"data": {"batch_size": 4096}},
    "batch 16384": {"data": {"batch_size": 16384}},
    "32 copies": {"data": {"copies": 32}},
    "scaled inputs": {"model": {"features": "scaled"}},
    "without XLA": {"jit_compile": False},
    "without XLA, products in bfloat16": {"jit_compile": False},
    "autoencoder of divergence": {"autoencoder": MI},
    "loss: weighted squared error": {
        "loss": {"weighted-squared-error": 1.0},
        "optimizer": {"clip_norm": 0.1},
    },
    "loss: divergence": {"loss": {"divergence": 1.0}},
    "loss: 0.1 latent + divergence": {"loss": THROUGH_DECODER},
    "Muon, rate 3e-2": {"optimizer": {**MUON, "learning_rate": 3e-2}},
    "Muon, constant rate 1e-2, average 0.99": {
        "optimizer": {**MUON, "learning_rate": 1e-2, "schedule": "constant", "ema": 0.99}
    },
    "Muon, batch 4096": {"optimizer": MUON, "data": {"batch_size": 4096}},
    "Muon, scaled inputs": {"optimizer": MUON, "model": {"features": "scaled"}},
    "Muon, autoencoder of divergence": {"optimizer": MUON, "autoencoder": MI},
    "Muon, loss: 0.1 latent + divergence": {"optimizer": MUON, "loss": THROUGH_DECODER},
}

# Variants whose matrix products oneDNN computes in bfloat16, which it does in graphs without XLA
IN_BFLOAT16 = ("without XLA, products in bfloat16",)


def parse_arguments(argv):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    add = parser.add_argument
    add("--only", action="append", metavar="NAME", help="a variant; may be repeated")
    add("--seconds", type=float, default=60.0, metavar="S", help="processor time of each")
    add("--output", type=Path, default=Path("results/training"), metavar="DIR")
    return parser.parse_args(argv)


def variant_of(recipe, changes):
    """A recipe with the changes of a variant."""
    from linksim.training.recipe import recipe_from_dict

    data = recipe.to_dict()
    for key, value in changes.items():
        whole = key == "loss" or not isinstance(value, dict)
        data[key] = value if whole else {**data[key], **value}
    return recipe_from_dict(data)


def measure(recipe, seconds, held_out):
    """Train for a processor time, and measure what was learned.

    Args:
        recipe: the `Recipe`.
        seconds: processor time of the steps.
        held_out: the `Recipe` whose validation draws measure it.

    Returns:
        {steps, ms of a step, mutual_information, divergence}.
    """
    import keras

    from linksim.backend import compiled
    from linksim.training.build import build_task
    from linksim.training.loop import Trainer, batch_maker, mean_of_rows, source_of
    from linksim.training.source import VALIDATION

    def trainer(steps):
        keras.utils.set_random_seed(recipe.seed)
        changes = {"steps": steps, "validate_every": steps, "validation_batches": 1}
        plan = variant_of(recipe, changes)
        task, scenario = build_task(plan)
        return Trainer(plan, task, scenario, on_step=lambda *_: times.append(now())), scenario

    now, times = time.process_time, []
    trainer(TIMED_STEPS + 2)[0].run()
    # The first steps compile
    step_seconds = (times[-1] - times[1]) / (len(times) - 2)
    times = []
    made, scenario = trainer(max(2, round(seconds / step_seconds)))
    made.run()
    task = made.task
    source = source_of(held_out, scenario)
    draw = batch_maker(source.parts, [compiled(source.draw)])
    measures = compiled(lambda batch: task.measures(task.prepare(batch)), task.variables)
    rows = [measures(draw(VALIDATION, i)) for i in range(held_out.validation_batches)]
    values = mean_of_rows(rows)
    return {
        "steps": made.steps,
        "ms": 1e3 * (times[-1] - times[0]) / (len(times) - 1),
        "mutual_information": values["mutual_information"],
        "divergence": values["divergence"],
    }


def compute_in_bfloat16(chosen):
    """Have TensorFlow's graphs, from now on, compute products in bfloat16, or in float32."""
    import tensorflow as tf

    tf.config.optimizer.set_experimental_options(
        {"auto_mixed_precision_onednn_bfloat16": chosen}
    )


def run(args, console):
    """Measure the variants and write the table."""
    from linksim.link.scenario import load_scenario
    from linksim.training.publish import reference_rates
    from linksim.training.recipe import load_recipe

    recipe = variant_of(load_recipe(RECIPE), {"validation_batches": HELD_OUT_BATCHES})
    make_folder(args.output)
    file = args.output / "training.json"
    data = load_json(file, rows=list) if file.exists() else {"recipe": RECIPE, "rows": []}
    if "references" not in data:
        scenario = load_scenario(recipe.data.scenario)
        data["references"] = reference_rates(recipe, scenario)
    data["machine"] = timed_on()
    for name in args.only or VARIANTS:
        key = {"variant": name, "seconds": args.seconds, "changes": VARIANTS[name]}
        if any(row.items() >= key.items() for row in data["rows"]):
            continue
        compute_in_bfloat16(name in IN_BFLOAT16)
        with console.status(name):
            found = measure(variant_of(recipe, VARIANTS[name]), args.seconds, recipe)
        data["rows"].append({**key, **found})
        save_json(file, data)
        console.print(f"{name}: {found}", markup=False)
    write_atomically(args.output / "README.md", markdown(data))


def markdown(data):
    """The page of all rows, as Markdown."""
    recipe, facts = data["recipe"], data["machine"]
    rates = ", ".join(f"`{name}` has {rate:.4f}" for name, rate in data["references"].items())
    lines = [
        *("# What makes training steps count", ""),
        *("Made by `python simulations/training_steps.py`.", ""),
        *(", ".join(f"{key}: {value}" for key, value in facts.items() if value), ""),
        f"Each row is a training by the recipe `{recipe}` with one change, or with several",
        "that are named. The schedule ends when its steps, draws included, have taken the same",
        "processor time on one thread, by the time of a step measured before. Mutual information, in bits per coded",
        "bit, and the divergence from the teacher, in nats, are means over the same",
        f"{HELD_OUT_BATCHES} held-out batches. On these {rates}.",
        "Each row is one training, so small differences may be chance.",
    ]
    order = {name: number for number, name in enumerate(VARIANTS)}
    for seconds in sorted({row["seconds"] for row in data["rows"]}):
        rows = [row for row in data["rows"] if row["seconds"] == seconds]
        rows.sort(key=lambda row: order.get(row["variant"], len(order)))
        lines += ["", f"## {seconds:g} seconds", ""]
        lines += ["| change | steps | ms a step | seconds taken | information | divergence |"]
        lines += ["|---|---|---|---|---|---|"]
        lines += [
            f"| {row['variant']} | {row['steps']} | {row['ms']:.1f} "
            f"| {row['steps'] * row['ms'] / 1e3:.0f} "
            f"| {row['mutual_information']:.4f} | {row['divergence']:.4f} |"
            for row in rows
        ]
    return "\n".join(lines) + "\n"


def main(argv=None):
    args = parse_arguments(argv)

    def work():
        for name in args.only or ():
            check_choice("only", name, list(VARIANTS))
        check_real("seconds", args.seconds, low=0, open_low=True)
        run(args, make_console())
        return 0

    return run_command("training_steps.py", work)


if __name__ == "__main__":
    sys.exit(main())
