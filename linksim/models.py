"""Trained models: folders of weights, each with its recipe and card.

`models/<model>/<configuration>/` holds `recipe.toml`, which says what is trained and how;
`card.json`, which says what came of it; `card.md`, the same for people; `history.csv`, the
course of the training; and `weights.npz`. The card has a status:

- "recommended": take these weights for what they were trained for;
- "study": a result of `results/` stands on them, and something untrained is better;
- "recipe": the weights are not kept. The recipe makes them again.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from linksim.data import model_folder
from linksim.errors import InvalidInput, ResultFileError
from linksim.files import as_path, load_arrays, load_json, save_arrays, save_json
from linksim.notices import announce

STATUSES = ("recommended", "study", "recipe")

# What a card has to say so that its weights can be found, checked and loaded
_CARD = (
    *("model", "configuration", "sha256", "scenario", "channel", "options", "autoencoder"),
    *("num_rx", "fixed_num_rx", "num_streams", "streams", "num_bits_per_symbol"),
)

_SCALES = "_scales"

# Set by `add_model_folder`
_OWN_FOLDERS: list[Path] = []


def add_model_folder(folder: str | Path) -> None:
    """Find trained models in a folder of your own too, for this process.

    The folder is laid out like `models/`; `python simulations/train.py --publish FOLDER` and
    `linksim.training.publish.publish` write there.

    Args:
        folder: path of an existing folder.

    Raises:
        InvalidInput: there is no such folder.
    """
    folder = as_path("folder", folder).resolve()
    if not os.path.isdir(folder):
        raise InvalidInput(f"folder: got {str(folder)!r}, expected an existing folder")
    if folder not in model_folders():
        _OWN_FOLDERS.append(folder)


def added_model_folders() -> list[Path]:
    """Paths of the folders given to `add_model_folder`."""
    return list(_OWN_FOLDERS)


def model_folders() -> list[Path]:
    """The folder of the shipped models, and those given to `add_model_folder`."""
    return [model_folder().resolve(), *_OWN_FOLDERS]


def list_cards(name: str | None = None) -> dict[str, dict[str, Any]]:
    """Cards of all models, or of those of one name, with and without weights.

    Returns:
        {"<model>/<configuration>": card}, each card as in `card.json`.

    Where a model is in several folders, the card is that of the folder with the weights,
    so that your own folder can hold weights that are not shipped.

    Raises:
        InvalidInput: `name` cannot be that of a detector or quantizer.
        ResultFileError: a card is damaged, describes another model, or two folders have
            different weights of the same name.
    """
    if name is not None and (not isinstance(name, str) or "/" in name):
        raise InvalidInput(f"name: got {name!r}, expected that of a detector or quantizer")
    cards: dict[str, dict[str, Any]] = {}
    weights: dict[str, Any] = {}
    pattern = f"{name or '*'}/*/card.json"
    for path in (f for folder in model_folders() for f in sorted(folder.glob(pattern))):
        card = load_json(path)
        missing = [key for key in _CARD if key not in card]
        if missing:
            raise ResultFileError(f"{path}: lacks {', '.join(missing)}; it was edited")
        model = f"{path.parent.parent.name}/{path.parent.name}"
        described = f"{card['model']}/{card['configuration']}"
        if described != model:
            raise ResultFileError(f"{path}: is the card of {described}")
        if (path.parent / "weights.npz").exists():
            if weights.setdefault(model, card["sha256"]) != card["sha256"]:
                raise ResultFileError(f"{path}: there is another {model} in another folder")
        if path.parent.parent.parent == _folder_of(model):
            cards[model] = card
    return cards


def list_models(name: str | None = None) -> dict[str, dict[str, Any]]:
    """Cards of the models whose weights are here, all or those of one name.

    A checkout has the weights of recommended models and of studies; an installed wheel has
    those of recommended models, and of the studies that shipped scenarios run.

    Returns, Raises:
        As `list_cards`.
    """
    cards = list_cards(name)
    return {path: card for path, card in cards.items() if weights_file(path).exists()}


def weights_file(path: str) -> Path:
    """Path of the weights of a model, "<model>/<configuration>", which need not exist."""
    return _folder_of(path) / path / "weights.npz"


def _folder_of(path):
    """The folder that a model is in: the first with its weights, else with its card."""
    folders = [*_OWN_FOLDERS, model_folder().resolve()]
    for file in ("weights.npz", "card.json"):
        for folder in folders:
            if (folder / path / file).exists():
                return folder
    return folders[-1]


def find_model(
    name: str,
    num_streams: int,
    num_bits_per_symbol: int,
    configuration: str | None = None,
    scenario: Any = None,
    status: str | None = None,
) -> tuple[str, dict[str, Any]]:
    """The trained model of a detector or quantizer that fits a system.

    Where the weights are those of a study, or were trained on another kind of channel than
    the scenario's, one line on the console says so.

    Args:
        name: of the detector or quantizer.
        num_streams, num_bits_per_symbol: of the system.
        configuration: name of the configuration, or None for the first that fits. A model
            for a range of streams (card["streams"]) also fits beyond that range if it is
            named.
        scenario: the `Scenario` it is used on, or None. Of the models that fit, the one that
            was trained on this scenario comes first, then one trained on its channel, then
            one trained on its kind of channel. Weights for another number of antennas do
            not fit.
        status: "recommended" for recommended models and those that were published to a
            folder of your own; None for all that have weights.

    Returns:
        "<model>/<configuration>" and its card.

    Raises:
        InvalidInput: nothing fits; the message says what there is.
    """

    def fits(path, card):
        if card.get("any_system"):
            return configuration in (None, path.split("/")[1])
        low, high = card["streams"] or [card["num_streams"]] * 2
        in_range = low <= num_streams <= high or bool(configuration and card["streams"])
        antennas = scenario is None or not card["fixed_num_rx"]
        return (
            in_range
            and card["num_bits_per_symbol"] == num_bits_per_symbol
            and (antennas or card["num_rx"] == scenario.system.num_rx)
            and configuration in (None, path.split("/")[1])
        )

    cards = list_models(name)
    fitting = [path for path in cards if fits(path, cards[path])]
    for path in sorted(fitting, key=lambda p: _distance(p, cards[p], scenario)):
        card = cards[path]
        if status is None or status_of(card) == status or card.get("own_folder"):
            _announce(path, card, None if configuration else scenario)
            return path, card
    if fitting:
        names = ", ".join(f'"{path.split("/")[1]}"' for path in fitting)
        raise InvalidInput(
            f"pretrained: no weights of {name} are recommended for "
            f"num_streams={num_streams}, num_bits_per_symbol={num_bits_per_symbol}; those "
            f"of studies can be named: pretrained={names}"
        )
    for path, card in list_cards(name).items():
        if path not in cards and fits(path, card):
            raise InvalidInput(f"pretrained: {_where(path, card)}")
    existing = "; ".join(
        f"{path.split('/')[1]} (every system)"
        if c.get("any_system")
        else f"{path.split('/')[1]} (num_streams={streams_of(c)}, "
        f"num_bits_per_symbol={c['num_bits_per_symbol']}, num_rx={c['num_rx']})"
        for path, c in cards.items()
    )
    wanted = f" called {configuration}" if configuration else ""
    raise InvalidInput(
        f"pretrained: no weights of {name}{wanted} for num_streams={num_streams}, "
        f"num_bits_per_symbol={num_bits_per_symbol}; there are: {existing or 'none'}"
    )


def find_pretrained(
    name: str, num_streams: int, num_bits_per_symbol: int, pretrained: Any
) -> tuple[str, dict[str, Any]]:
    """The model that the argument `pretrained` of a constructor means.

    Args:
        name, num_streams, num_bits_per_symbol: as for `find_model`.
        pretrained: True for the first recommended model that fits, or the name of a
            configuration.

    Returns, Raises:
        As `find_model`.
    """
    args = name, num_streams, num_bits_per_symbol
    if pretrained is False or not isinstance(pretrained, (bool, str)):
        raise InvalidInput(
            f"pretrained: got {pretrained!r}, expected True, False or a configuration"
        )
    if pretrained is True:
        return find_model(*args, status="recommended")
    return find_model(*args, configuration=str(pretrained))


def status_of(card: dict[str, Any]) -> str:
    """The status of a card; cards written before there were any count as recommended."""
    return card.get("status", "recommended")


def _announce(path, card, scenario):
    notes = []
    if status_of(card) == "study":
        notes.append(f"weights of a study, not recommended: {card['status_reason']}")
    if scenario is not None and _distance(path, card, scenario) == 3:
        notes.append(
            f"trained on another kind of channel ({card['scenario']}) than that of "
            f"{scenario.name}"
        )
    if notes:
        announce(f"{path}: {'; '.join(notes)}")


def _where(path, card):
    """Where weights are that are not here, as a sentence."""
    if status_of(card) == "recipe":
        return f"the weights of {path} are not kept; `{training_command(card)}` makes them"
    return (
        f"the weights of {path} are not part of an installed linksim; they are in models/ "
        "of its repository. Clone it, and add that folder with linksim.add_model_folder or "
        "--models"
    )


def training_command(card: dict[str, Any]) -> str:
    """The command that makes weights again, with as many steps as a card's took."""
    command = f"python simulations/train.py {card['model']}/{card['configuration']}"
    steps, whole = card.get("steps"), card.get("steps_of_recipe")
    if steps and whole and steps != whole:
        texts = (f"{steps / whole:.{digits}g}" for digits in range(1, 18))
        command += " --budget " + next(t for t in texts if round(whole * float(t)) == steps)
    if card.get("own_folder"):
        return f"{command} --models FOLDER --publish FOLDER"
    return f"{command} --publish"


def _distance(path, card, scenario):
    """Sorting key: 0 for the scenario's own model, 1 for one trained on its channel, 2 for
    one trained on its kind of channel, with another correlation, or on all, 3 for others."""
    if scenario is not None and card.get("any_system"):
        return 2
    if scenario is None or path.split("/")[1] == scenario.name:
        return 0
    if card["channel"] == scenario.channel:
        return 1
    return 2 if _kind(card["channel"]) == _kind(scenario.channel) else 3


def _kind(channel):
    """A [channel] table with each correlation replaced by whether there is one."""
    return {k: bool(v) if k.startswith("rho_") else v for k, v in channel.items()}


def streams_of(card: dict[str, Any]) -> str:
    """The numbers of streams that a model was trained for, as text: "4", "16 to 32", or
    "4 to 8 in steps of 2"; "any" where weights serve every system."""
    if card.get("any_system"):
        return "any"
    if card["streams"]:
        step = card["streams_step"]
        return "{} to {}".format(*card["streams"]) + (
            f" in steps of {step}" if step > 1 else ""
        )
    return str(card["num_streams"])


def read_weights(path: str, card: dict[str, Any]) -> dict[str, np.ndarray]:
    """Arrays of a model, checked against the hash in its card.

    Raises:
        ResultFileError: the weights are not there, are damaged, or are not those that the
            card describes.
    """
    file = weights_file(path)
    if not file.exists():
        raise ResultFileError(f"{file}: {_where(path, card)}")
    arrays, _, digest = load_arrays(file)
    if digest != card["sha256"]:
        raise ResultFileError(f"{file}: not the weights that {path}/card.json describes")
    return arrays


def assign_weights(layer: Any, arrays: dict[str, np.ndarray], path: str) -> None:
    """Set a built layer's trained weights, `w0`, `w1`, ... of a model."""
    variables = trained_weights(layer)
    names = [f"w{i}" for i in range(sum(k[1:].isdigit() for k in arrays))]
    shapes = [tuple(v.shape) for v in variables]
    stored = [arrays[name].shape for name in names]
    if shapes != stored:
        raise InvalidInput(
            f"pretrained: the weights of {path} do not fit this layer's options: "
            f"{_first_difference(stored, shapes)}"
        )
    for variable, name in zip(variables, names):
        value = arrays[name].astype(np.float32)
        variable.assign(value * arrays.get(name + _SCALES, np.float32(1)))


def _first_difference(stored, shapes):
    if len(stored) != len(shapes):
        return f"they are {len(stored)} arrays, the layer has {len(shapes)}"
    index = next(i for i, (a, b) in enumerate(zip(stored, shapes)) if a != b)
    return f"array {index} has shape {stored[index]}, the layer's {shapes[index]}"


def trained_weights(layer: Any) -> list[Any]:
    """The weights that training makes, without codebooks that are fitted later."""
    return layer.trained_weights


def codebook_of(arrays, bits, path):
    """Thresholds and levels of each component, from the arrays of a model file.

    Args:
        arrays: of the model file.
        bits: number of bits of each component; components of different numbers of bits
            take their rows from different codebooks.
        path: of the model, for errors.

    Raises:
        InvalidInput: there is no codebook of that many bits.
    """
    there = sorted(int(k.split("_")[1]) for k in arrays if k.startswith("levels_"))
    for b in bits:
        if b not in there:
            raise InvalidInput(
                f"bits: got {b}; {path} has codebooks of: {', '.join(map(str, there))} bits"
            )
    thresholds = [arrays[f"thresholds_{b}"][d] for d, b in enumerate(bits)]
    return thresholds, [arrays[f"levels_{b}"][d] for d, b in enumerate(bits)]


def stored_arrays(layer, in_8_bits=False):
    """The trained weights of a layer as `weights.npz` holds them.

    Args:
        layer: built.
        in_8_bits: store matrices as int8 with a float32 scale for each column or row,
            `w0_scales` and so on; the rest as float16. False stores all as float16, and what float16
            cannot hold as float32.

    Returns:
        {"w0": array, ...}.
    """
    arrays = {}
    for index, variable in enumerate(trained_weights(layer)):
        name, value = f"w{index}", np.asarray(variable)
        if in_8_bits and value.ndim >= 2:
            arrays[name], arrays[name + _SCALES] = _in_8_bits(value)
        else:
            fits = np.all(np.abs(value) < 6e4)
            arrays[name] = value.astype(np.float16) if fits else value
    return arrays


def write_model(folder, layer, card, extra_arrays, in_8_bits=False):
    """Write `weights.npz` and `card.json` of a trained layer.

    Args:
        folder: `models/<model>/<configuration>`.
        layer: built.
        card: dictionary; the hash is added.
        extra_arrays: what else the file holds, {name: array}.
        in_8_bits: see `stored_arrays`.

    Returns:
        The hash.
    """
    folder = Path(folder)
    arrays = {**stored_arrays(layer, in_8_bits), **extra_arrays}
    digest = save_arrays(folder / "weights.npz", arrays, {"model": card["model"]})
    save_json(folder / "card.json", {**card, "sha256": digest})
    return digest


def _in_8_bits(matrix):
    """A matrix [..., m, n] as integers from -127 to 127, and a scale for each column or for
    each row, whichever rounds less."""
    choices = []
    for axis in (-2, -1):
        scales = np.abs(matrix).max(axis=axis, keepdims=True).astype(np.float32) / 127
        scales = np.where(scales == 0, np.float32(1), scales)
        integers = np.round(matrix / scales).astype(np.int8)
        error = np.mean(np.abs(integers * scales - matrix))
        choices.append((error, axis, integers, scales))
    return min(choices, key=lambda choice: choice[:2])[2:]
