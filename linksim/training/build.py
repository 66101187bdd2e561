"""Make the layers and the task that a recipe describes."""

from linksim.errors import InvalidInput
from linksim.link.scenario import load_scenario
from linksim.models import assign_weights, list_models, read_weights
from linksim.quantization.registry import create_quantizer, list_quantizers
from linksim.registry import build_detector, create_detector
from linksim.training.tasks import (
    AnySizeDetectorTask,
    AutoencoderTask,
    DetectorTask,
    EstimatorTask,
)


def build_layer(recipe):
    """A new layer by a recipe, and the scenario that its data come from."""
    scenario = load_scenario(recipe.data.scenario)
    return _layer(recipe.model_name, scenario, recipe.model), scenario


def build_task(recipe):
    """The task of a recipe, built, with the weights that it starts from.

    Returns:
        The task and the scenario that its data come from.

    Raises:
        InvalidInput: unknown names or options, or weights that are missing.
    """
    layer, scenario = build_layer(recipe)
    if recipe.task == "autoencoder":
        task = AutoencoderTask(layer, recipe.loss, **recipe.options)
    elif recipe.task in ("estimator", "joint-estimator"):
        quantizer = None
        if recipe.task == "estimator":
            quantizer = load_layer(recipe.autoencoder, "autoencoder")
        task = EstimatorTask(
            layer,
            quantizer,
            recipe.loss,
            joint=recipe.task == "joint-estimator",
            **recipe.options,
        )
    elif recipe.task == "any-size-detector":
        task = AnySizeDetectorTask(layer, recipe.loss, **recipe.options)
    else:
        teachers = load_layer(recipe.teachers, "teachers") if recipe.teachers else None
        task = DetectorTask(layer, recipe.loss, teachers=teachers, **recipe.options)
    if recipe.start:
        _, arrays = _trained(recipe.start, "start")
        assign_weights(layer, arrays, recipe.start)
    return task, scenario


def load_layer(path, what):
    """The layer of a trained model, "<model>/<configuration>", with its weights."""
    card, arrays = _trained(path, what)
    layer = _layer(card["model"], load_scenario(card["scenario"]), card["options"])
    assign_weights(layer, arrays, path)
    return layer


def _trained(path, what):
    """Card and arrays of a trained model."""
    cards = list_models()
    if path not in cards:
        raise InvalidInput(
            f"{what}: {path!r} has no weights yet; train its recipe first. There are: "
            f"{', '.join(cards) or 'none'}"
        )
    return cards[path], read_weights(path, cards[path])


def _layer(name, scenario, options):
    system = scenario.system
    args = {
        "num_streams": system.num_streams,
        "num_bits_per_symbol": system.num_bits_per_symbol,
        **options,
    }
    if name in list_quantizers():
        return create_quantizer(name, **args)
    layer = create_detector(name, **args)
    build_detector(layer, system.num_rx)
    return layer
