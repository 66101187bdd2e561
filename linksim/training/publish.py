"""From a finished training to a model folder: weights, card, recipe, curve, catalogue."""

import dataclasses
import platform
from pathlib import Path

import keras
import numpy as np
from keras import ops

import linksim
from linksim.backend import compiled, num_weights
from linksim.data import model_folder
from linksim.detectors.base import Detector
from linksim.errors import check_choice
from linksim.files import write_atomically
from linksim.models import (
    assign_weights,
    stored_arrays,
    trained_weights,
    write_model,
)
from linksim.registry import create_detector
from linksim.training.cards import card_text, write_catalogue
from linksim.training.loop import batch_maker, mean_of_rows, source_of
from linksim.training.losses import mutual_information
from linksim.training.recipe import recipe_text
from linksim.training.source import VALIDATION

CODEBOOK_BITS = tuple(range(1, 9))
# With more bits than these a scalar quantizer loses nothing that can be measured
_SCALAR_BITS = tuple(range(1, 7))
# Channel uses that codebooks are fitted to
_CODEBOOK_USES = 2**15
# Exact ML is a reference where it sums over no more hypotheses of the other streams
_MAX_HYPOTHESES = 4096
# Networks of more weights, half a megabyte in float16, are stored in 8 bits if that costs
# less mutual information than this
_MANY_WEIGHTS = 250_000
_MAX_LOSS = 1e-3
# What an autoencoder may lose to the LLRs it was given, to be recommended
_MAX_AUTOENCODER_LOSS = 5e-3
_NOT_MEASURED = ("step", "seconds", "learning_rate", "train_loss")


def publish(recipe, trainer, scenario, models=None, status=None):
    """Write `models/<model>/<configuration>/` from a finished training.

    Args:
        recipe: the `Recipe`.
        trainer: its `Trainer`, which has run.
        scenario: the `Scenario` that data were drawn from.
        models: folder of models; default that of the shipped ones. `simulate` and
            `pretrained=True` look in another folder after `linksim.add_model_folder`.
        status: "recommended" or "study"; default what `measured_status` says.

    Returns:
        The folder of the model.
    """
    layer = trainer.task.product
    extra = {}
    if recipe.task == "autoencoder":
        extra = _codebooks(recipe, layer, scenario)
    entry = trainer.best_entry
    training = {
        "steps": trainer.step,
        "steps_of_recipe": recipe.steps,
        "seconds": round(trainer.seconds),
        "best_step": entry["step"],
        "validation": {k: v for k, v in entry.items() if k not in _NOT_MEASURED},
        "references": reference_rates(recipe, scenario),
    }
    card = make_card(recipe, scenario, layer, training)
    in_8_bits, measured = _storage(recipe, scenario, layer)
    card.update(measured)
    return _write(recipe, layer, card, extra, in_8_bits, models, status, trainer)


def publish_codebook(recipe, layer, scenario, models=None, status=None):
    """Fit a quantizer without networks and write `models/<model>/<configuration>/`.

    Args and returns as for `publish`; `layer` is the quantizer.
    """
    card = make_card(recipe, scenario, layer, {})
    extra = _codebooks(recipe, layer, scenario)
    return _write(recipe, layer, card, extra, False, models, status)


def _write(recipe, layer, card, extra, in_8_bits, models, status, trainer=None):
    root = model_folder() if models is None else Path(models)
    folder = root / recipe.name
    card["own_folder"] = root.resolve() != model_folder().resolve()
    if status is not None:
        check_choice("status", status, ("recommended", "study"))
        card.update(status=status, status_reason="said by who published it")
    else:
        card["status"], card["status_reason"] = measured_status(card)
    write_model(folder, layer, card, extra, in_8_bits)
    if not (folder / "recipe.toml").exists():
        write_atomically(folder / "recipe.toml", recipe_text(recipe))
    if trainer is not None:
        write_atomically(folder / "history.csv", trainer.history_csv())
        plot_curve(trainer.history, card, folder / "curve.png")
    write_atomically(folder / "card.md", card_text(card))
    write_catalogue(root)
    return folder


def measured_status(card):
    """Status of a new model by what was measured on the draws that it was validated on.

    A detector is recommended if it has more mutual information than `mmse` and `ep`, which
    cost little and need no training; an autoencoder if it loses at most 0.005 bit; a codebook
    always.

    Returns:
        The status and the reason for it, as `card["status_reason"]`.
    """
    if "validation" not in card:
        return "recommended", "the codebooks are the best of their kind for these LLRs"
    own, rates = card["validation"]["mutual_information"], card["references"]
    if card["task"] == "autoencoder":
        teacher = rates[card["teacher"]]
        good = teacher - own <= _MAX_AUTOENCODER_LOSS
        rivals = {card["teacher"]: teacher}
    else:
        rivals = {name: rates[name] for name in ("mmse", "ep")}
        good = own > max(rivals.values())
    best = max(rivals, key=rivals.get)
    reason = f"{own:.3f} bit of mutual information, `{best}` has {rivals[best]:.3f}"
    return "recommended" if good else "study", reason


def _codebooks(recipe, layer, scenario):
    """Codebooks of several sizes, as arrays for `linksim.models.codebook_of`."""
    data = recipe.data
    # Copies of a draw that differ by a symmetry tell a codebook nothing new
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
    """Mutual information of untrained detectors on the draws that a recipe is validated on.

    Returns:
        {detector: bits per coded bit} of `mmse`, `ep`, the teacher, and `ml` where exact
        ML is cheap.
    """
    system, teacher = scenario.system, recipe.data.teacher
    names = ["mmse", "ep"]
    hypotheses = 2 ** (system.num_bits_per_symbol * (system.num_streams - 1))
    if hypotheses <= _MAX_HYPOTHESES and not recipe.parts:
        names.append("ml")

    def functions(part):
        made = {
            name: _detection(
                create_detector(
                    name,
                    num_streams=part.num_streams,
                    num_bits_per_symbol=part.num_bits_per_symbol,
                )
            )
            for name in names
        }
        if teacher:
            made[teacher] = lambda batch: batch["llr"]
        return made

    return _held_out_rates(recipe, scenario, functions)


def _held_out_rates(recipe, scenario, functions):
    """{name: mean mutual information} on the draws that a recipe is validated on.

    Args:
        functions: function of a `VectorSource` that returns {name: function that makes
            LLRs of one of its batches}.
    """
    parts = source_of(recipe, scenario).parts
    rates = batch_maker(parts, [_rates(part, functions(part)) for part in parts])
    return mean_of_rows([rates(VALIDATION, i) for i in range(recipe.validation_batches)])


def _rates(source, functions):
    def rates(keys):
        batch = source.draw(keys)
        return {
            name: mutual_information(function(batch), batch["bits"], batch["present"])
            for name, function in functions.items()
        }

    return compiled(rates)


def _detection(detector):
    """A function of a batch that makes a-posteriori LLRs."""

    def llrs(batch):
        system, prior = (batch["y"], batch["h"], batch["no"]), batch.get("prior")
        if prior is None:
            return detector(*system)
        # A prior that a detector cannot use is only added to its LLRs
        return (
            detector(*system, prior) if detector.accepts_prior else detector(*system) + prior
        )

    return llrs


def _storage(recipe, scenario, layer):
    """Whether to store a layer in 8 bits, and what that cost, for its card."""
    few = num_weights(trained_weights(layer)) <= _MANY_WEIGHTS
    if few or recipe.parts:  # one layer is for one of their systems
        return False, {}
    function = _detection(layer)
    if recipe.task == "autoencoder":
        function = lambda batch: layer.decode(layer.encode(batch["llr"]))  # noqa: E731
    rates = []
    exact = [ops.convert_to_numpy(w) for w in trained_weights(layer)]
    for in_8_bits in (False, True):
        assign_weights(layer, stored_arrays(layer, in_8_bits), recipe.name)
        rates.append(_held_out_rates(recipe, scenario, lambda _: {"rate": function})["rate"])
        for variable, value in zip(trained_weights(layer), exact):
            variable.assign(value)
    if rates[0] - rates[1] >= _MAX_LOSS:
        return False, {}
    return True, {"stored_in_8_bits": {"before": rates[0], "after": rates[1]}}


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
        # Whether the weights serve every system and channel
        "any_system": bool(recipe.parts),
        # (low, high) where one model serves several numbers of users
        "streams": list(data.streams),
        "streams_step": data.streams_step,
        "num_bits_per_symbol": system.num_bits_per_symbol,
        "options": recipe.model,
        "autoencoder": recipe.autoencoder,
        "teachers": recipe.teachers,
        # An EQ-Net estimator's include those of the decoder that it shares with a quantizer
        "num_parameters": num_weights(trained_weights(layer)),
        "task": recipe.task,
        "loss_terms": recipe.loss,
        "snr_db": list(data.snr_db),
        "snr_db_per_stream": data.snr_db_per_stream,
        "snr_definition": scenario.snr.definition,
        "rho": list(data.rho),
        "prior_information": list(data.prior_information),
        "prior_share": data.prior_share,
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


def plot_curve(history, card, path):
    """Validation loss against steps, as a PNG file."""
    from linksim.figures import literal, new_figure, save_figure

    figure, axes = new_figure(6.0, 3.6)
    rows = [r for r in history if r["step"]]
    axes.plot([r["step"] for r in rows], [r["train_loss"] for r in rows], label="training")
    axes.plot([r["step"] for r in rows], [r["loss"] for r in rows], label="validation")
    axes.set_yscale("log")
    axes.set_xlabel(f"Step of {card['batch_size']} channel uses")
    axes.set_ylabel("Loss")
    axes.set_title(literal(f"{card['model']}, {card['configuration']}"), fontsize=10)
    axes.legend(frameon=False)
    save_figure(figure, path)
