"""From a finished training to a shipped model: weights, card, curve."""

import dataclasses
import platform
from pathlib import Path

import keras
import numpy as np
from keras import ops

import linksim
from linksim.backend import compiled
from linksim.data import model_folder
from linksim.detectors.base import Detector
from linksim.files import write_atomically
from linksim.models import streams_of, trained_weights, write_model
from linksim.registry import create_detector
from linksim.training.loop import source_of
from linksim.training.losses import mutual_information
from linksim.training.source import VALIDATION

CODEBOOK_BITS = tuple(range(1, 9))
# A scalar quantizer of more bits than this loses nothing that can be measured
_SCALAR_BITS = tuple(range(1, 7))
# Channel uses that codebooks are fitted to
_CODEBOOK_USES = 2**15


def publish(recipe, trainer, scenario, models=None):
    """Write `models/<model>/<configuration>/` from a finished training.

    Args:
        recipe: the `Recipe`.
        trainer: its `Trainer`, which has run.
        scenario: the `Scenario` that data were drawn from.
        models: folder of models; default that of the shipped ones. `simulate` and
            `pretrained=True` look in another one after `linksim.add_model_folder`.

    Returns:
        The folder of the model.
    """
    layer = trainer.task.product
    extra = {}
    if recipe.task == "autoencoder":
        extra = _codebooks(recipe, layer, scenario)
    entry = trainer.best_entry
    training = {
        "steps": trainer.steps,
        "steps_of_recipe": recipe.steps,
        "seconds": round(trainer.seconds),
        "best_step": entry["step"],
        "validation": {k: v for k, v in entry.items() if k not in _NOT_MEASURED},
        "references": reference_rates(recipe, scenario),
    }
    card = make_card(recipe, scenario, layer, training)
    folder = (model_folder() if models is None else Path(models)) / recipe.name
    write_model(folder, layer, card, extra)
    write_atomically(folder / "history.csv", trainer.history_csv())
    again = _AGAIN if models is None else ""
    write_atomically(folder / "card.md", card_text(card) + again.format(name=recipe.name))
    plot_curve(trainer.history, card, folder / "curve.png")
    return folder


def publish_codebook(recipe, layer, scenario):
    """Fit a quantizer without networks and write `models/<model>/<configuration>/`."""
    card = make_card(recipe, scenario, layer, {})
    folder = model_folder() / recipe.name
    write_model(folder, layer, card, _codebooks(recipe, layer, scenario))
    text = card_text(card) + _AGAIN.format(name=recipe.name)
    write_atomically(folder / "card.md", text)
    return folder


def _codebooks(recipe, layer, scenario):
    """Codebooks of several sizes, as arrays for `linksim.models.codebook_of`."""
    data = recipe.data
    # Of copies that differ by a symmetry, scalar codebooks have nothing
    plain = dataclasses.replace(recipe, data=dataclasses.replace(data, copies=1))
    source = source_of(plain, scenario)
    batches = -(-_CODEBOOK_USES // data.batch_size)
    draw = compiled(lambda keys: source.draw(keys)["llr"])
    # Validation draws beyond those that training was validated on
    first = recipe.validation_batches
    llrs = [
        ops.convert_to_numpy(draw(source.keys(VALIDATION, first + i))) for i in range(batches)
    ]

    llrs = np.concatenate(llrs)
    arrays = {}
    for bits in CODEBOOK_BITS if layer.trained_weights else _SCALAR_BITS:
        copy = type(layer).from_config({**layer.get_config(), "bits": bits})
        for target, weight in zip(copy.trained_weights, layer.trained_weights):
            target.assign(weight)
        copy.fit(llrs)
        arrays[f"thresholds_{bits}"] = ops.convert_to_numpy(copy.thresholds)
        arrays[f"levels_{bits}"] = ops.convert_to_numpy(copy.levels)
    return arrays


def reference_rates(recipe, scenario):
    """Mutual information of `mmse` and of the teacher on the draws that a recipe is
    validated on, in bits per coded bit: {detector: value}."""
    source = source_of(recipe, scenario)
    teacher = recipe.data.teacher
    mmse = create_detector(
        "mmse",
        num_streams=source.num_streams,
        num_bits_per_symbol=source.num_bits_per_symbol,
    )

    def rates(keys):
        batch = source.draw(keys)
        llrs = {"mmse": mmse(batch["y"], batch["h"], batch["no"])}
        if teacher:
            llrs[teacher] = batch["llr"]
        return {
            name: mutual_information(llr, batch["bits"], batch["present"])
            for name, llr in llrs.items()
        }

    draw = compiled(rates)
    rows = [draw(source.keys(VALIDATION, i)) for i in range(recipe.validation_batches)]
    return {
        name: float(np.mean([float(ops.convert_to_numpy(row[name])) for row in rows]))
        for name in rows[0]
    }


def make_card(recipe, scenario, layer, training):
    """What there is to know about a trained model, as a dictionary."""
    system, data = scenario.system, recipe.data
    return {
        "model": recipe.model_name,
        "configuration": recipe.configuration,
        "title": recipe.title,
        "scenario": scenario.name,
        "channel": scenario.channel,
        "num_rx": system.num_rx,
        # Whether the weights fit that number of antennas only
        "fixed_num_rx": isinstance(layer, Detector) and layer.built_for_num_rx is not None,
        "num_streams": system.num_streams,
        # (low, high) where one model serves several numbers of users
        "streams": list(data.streams),
        "streams_step": data.streams_step,
        "num_bits_per_symbol": system.num_bits_per_symbol,
        "options": recipe.model,
        "autoencoder": recipe.autoencoder,
        "teachers": recipe.teachers,
        "num_parameters": int(sum(np.prod(w.shape) for w in trained_weights(layer))),
        "task": recipe.task,
        "loss_terms": recipe.loss,
        "snr_db": list(data.snr_db),
        "snr_db_per_stream": data.snr_db_per_stream,
        "snr_definition": scenario.snr.definition,
        "rho": list(data.rho),
        "num_channels": data.num_channels,
        "teacher": data.teacher,
        "start": recipe.start,
        "batch_size": data.batch_size,
        **training,
        "made_with": {
            "linksim": linksim.__version__,
            "keras": keras.__version__,
            "backend": keras.backend.backend(),
            "python": platform.python_version(),
            "machine": platform.machine(),
        },
    }


_NOT_MEASURED = ("step", "seconds", "learning_rate", "train_loss")


def card_text(card):
    """The card as Markdown."""
    low, high = card["snr_db"]
    more = ""
    if card["snr_db_per_stream"]:
        more += f" {card['snr_db_per_stream']:g} dB more for each stream."
    beyond = ""
    if card["streams"]:
        beyond = "; other numbers of streams only when this configuration is named"
    if card["rho"]:
        more += " Correlation of a batch in [{:g}, {:g}].".format(*card["rho"])
    if card["num_channels"]:
        more += f" For {card['num_channels']} fixed channels, kept with the weights."
    if card["teacher"]:
        more += f" LLRs to learn from: `{card['teacher']}`."
    return f"""# {card["model"]}, {card["configuration"]}

{card["title"].rstrip(".")}. {card["num_parameters"]} trained parameters, {streams_of(card)} streams
of {card["num_bits_per_symbol"]} bits, {card["num_rx"]} receive antennas.

**Data.** Drawn on the fly from `{card["scenario"]}`, SNR uniform in [{low:g}, {high:g}] dB
({card["snr_definition"]}).{more}

{_training_text(card) if "steps" in card else _CODEBOOK_TEXT}
**Not for** other numbers of streams or bits (refused{beyond}), and not without checking for other
channels or SNR than these: compare it with `mmse` on the link in question.
"""


_AGAIN = """
`python simulations/train.py {name}` makes it again.
"""


_CODEBOOK_TEXT = """**Fitting.** One codebook per LLR position and number of bits.
"""


def _training_text(card):
    budget = card["steps"] / card["steps_of_recipe"]
    rows = "\n".join(f"| {k} | {v:.4g} |" for k, v in card["validation"].items())
    rates = card["references"]
    for name, value in rates.items():
        rows += f"\n| mutual_information of `{name}` | {value:.4g} |"
    warning = ""
    if card["task"] != "autoencoder" and (
        card["validation"]["mutual_information"] < rates["mmse"]
    ):
        warning = "\n**Worse than linear MMSE** on the data that it was trained for.\n"
    terms = ", ".join(f"{w:g} x {name}" for name, w in card["loss_terms"].items())
    start = f" Started from `{card['start']}`." if card["start"] else ""
    stage = f" Decoder of `{card['autoencoder']}`." if card["autoencoder"] else ""
    return f"""**Training.** Loss: {terms}. {card["steps"]} steps of {card["batch_size"]}
channel uses, {budget:.3g} of the recipe's {card["steps_of_recipe"]}, in
{card["seconds"] / 60:.0f} minutes; best at step {card["best_step"]}.{start}{stage}

| held-out | value |
|---|---|
{rows}

Losses are in nats or squared error per LLR; mutual information is in bits per coded bit.
{warning}"""


def plot_curve(history, card, path):
    """Validation loss against steps, as a PNG file."""
    from linksim.figures import new_figure, save_figure

    figure, axes = new_figure(6.0, 3.6)
    rows = [r for r in history if r["step"]]
    axes.plot([r["step"] for r in rows], [r["train_loss"] for r in rows], label="training")
    axes.plot([r["step"] for r in rows], [r["loss"] for r in rows], label="validation")
    axes.set_yscale("log")
    axes.set_xlabel(f"Step of {card['batch_size']} channel uses")
    axes.set_ylabel("Loss")
    axes.set_title(f"{card['model']}, {card['configuration']}", fontsize=10)
    axes.legend(frameon=False)
    save_figure(figure, path)
