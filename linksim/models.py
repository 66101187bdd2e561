"""Trained models: folders of weights, each with its recipe and card.

`models/<model>/<configuration>/` holds `recipe.toml`, what was trained and how;
`weights.npz`; `card.json`, what the weights are, with their hash; `card.md`, the
same for people; `history.csv` and `curve.png`, how training went.
"""

from pathlib import Path

import numpy as np

from linksim.data import model_folder
from linksim.errors import InvalidInput, ResultFileError
from linksim.files import load_arrays, load_json, save_arrays, save_json

# What a card has to say for its weights to be found, checked and loaded
_CARD = (
    *("model", "configuration", "sha256", "scenario", "channel", "options", "autoencoder"),
    *("num_rx", "fixed_num_rx", "num_streams", "streams", "num_bits_per_symbol"),
)

# Networks of more weights than these, 16 MB in half precision, are stored in 8 bits
_HALF_PRECISION = 8_000_000
_SCALES = "_scales"

# Of `add_model_folder`
_OWN_FOLDERS = []


def add_model_folder(folder):
    """Find trained models in a folder of your own too, for this process.

    It is laid out as `models/`; `linksim.training.publish.publish` writes there.

    Args:
        folder: path of an existing folder.

    Raises:
        InvalidInput: there is no such folder.
    """
    folder = Path(folder).resolve()
    if not folder.is_dir():
        raise InvalidInput(f"folder: got {str(folder)!r}, expected an existing folder")
    if folder not in _OWN_FOLDERS:
        _OWN_FOLDERS.append(folder)


def added_model_folders():
    """Paths of those of `add_model_folder`."""
    return list(_OWN_FOLDERS)


def _folders():
    return [model_folder(), *_OWN_FOLDERS]


def list_models(name=None):
    """Cards of all trained models, or of those of one name.

    Returns:
        {"<model>/<configuration>": card}, cards as in `card.json`.

    Raises:
        ResultFileError: a card is damaged, that of another model, or in two folders.
    """
    cards = {}
    pattern = f"{name or '*'}/*/card.json"
    for path in (f for folder in _folders() for f in sorted(folder.glob(pattern))):
        card = load_json(path)
        missing = [key for key in _CARD if key not in card]
        if missing:
            raise ResultFileError(f"{path}: lacks {', '.join(missing)}; it was edited")
        model = f"{path.parent.parent.name}/{path.parent.name}"
        described = f"{card['model']}/{card['configuration']}"
        if described != model:
            raise ResultFileError(f"{path}: is the card of {described}")
        if model in cards:
            raise ResultFileError(f"{path}: there is a {model} in another folder too")
        cards[model] = card
    return cards


def find_model(name, num_streams, num_bits_per_symbol, configuration=None, scenario=None):
    """The trained model of a name that fits a system.

    Args:
        name: of the detector or quantizer.
        num_streams, num_bits_per_symbol: of the system.
        configuration: None for the first that fits, or its name. A model for a range of
            streams (card["streams"]) also fits beyond that range when it is named.
        scenario: the `Scenario` of use. Of those that fit, one trained for it is taken,
            else one trained on its channel; weights for another number of antennas do
            not fit.

    Returns:
        "<model>/<configuration>" and its card.

    Raises:
        InvalidInput: nothing fits; the message lists what exists.
    """
    cards = list_models(name)
    for path in sorted(cards, key=lambda p: _distance(p, cards[p], scenario)):
        card = cards[path]
        low, high = card["streams"] or [card["num_streams"]] * 2
        fits = low <= num_streams <= high or bool(configuration and card["streams"])
        fits &= card["num_bits_per_symbol"] == num_bits_per_symbol
        if scenario is not None and card["fixed_num_rx"]:
            fits &= card["num_rx"] == scenario.system.num_rx
        if fits and configuration in (None, path.split("/")[1]):
            return path, card
    existing = "; ".join(
        f"{path.split('/')[1]} (num_streams={streams_of(c)}, "
        f"num_bits_per_symbol={c['num_bits_per_symbol']}, num_rx={c['num_rx']})"
        for path, c in cards.items()
    )
    wanted = f" called {configuration}" if configuration else ""
    raise InvalidInput(
        f"pretrained: no weights of {name}{wanted} for num_streams={num_streams}, "
        f"num_bits_per_symbol={num_bits_per_symbol}; there are: {existing or 'none'}"
    )


def _distance(path, card, scenario):
    """For sorting: 0 for the scenario's own model, 1 for its channel, 2 for its kind of
    channel, with another correlation, 3 for others."""
    if scenario is None or path.split("/")[1] == scenario.name:
        return 0
    if card["channel"] == scenario.channel:
        return 1
    return 2 if _kind(card["channel"]) == _kind(scenario.channel) else 3


def _kind(channel):
    """A [channel] table with its correlations as yes or no."""
    return {k: bool(v) if k.startswith("rho_") else v for k, v in channel.items()}


def streams_of(card):
    """The numbers of streams that a model was trained for, as text: "4", "16 to 32", or
    "4 to 8 in steps of 2"."""
    if card["streams"]:
        step = card["streams_step"]
        return "{} to {}".format(*card["streams"]) + (
            f" in steps of {step}" if step > 1 else ""
        )
    return str(card["num_streams"])


def read_weights(path, card):
    """Arrays of a model, checked against the hash in its card."""
    file = next((f for f in _OWN_FOLDERS if (f / path).is_dir()), model_folder())
    file = file / path / "weights.npz"
    arrays, _, digest = load_arrays(file)
    if digest != card["sha256"]:
        raise ResultFileError(f"{file}: not the weights that {path}/card.json describes")
    return arrays


def assign_weights(layer, arrays, path):
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


def trained_weights(layer):
    """The weights that training makes, without codebooks that are fitted later."""
    return layer.trained_weights


def codebook_of(arrays, bits, path):
    """Thresholds and levels of each component, from the arrays of a model file.

    Args:
        bits: of each component; mixed ones take each row from its own codebook.
    """
    there = sorted(int(k.split("_")[1]) for k in arrays if k.startswith("levels_"))
    for b in bits:
        if b not in there:
            raise InvalidInput(
                f"bits: got {b}; {path} has codebooks of: {', '.join(map(str, there))} bits"
            )
    thresholds = [arrays[f"thresholds_{b}"][d] for d, b in enumerate(bits)]
    return thresholds, [arrays[f"levels_{b}"][d] for d, b in enumerate(bits)]


def write_model(folder, layer, card, extra_arrays):
    """Write `weights.npz` and `card.json` of a trained layer.

    Weights are stored as float16, where they fit; the matrices of networks of more than
    8 million weights as int8 with a float32 scale per column, `w0_scales` and so on.

    Args:
        folder: `models/<model>/<configuration>`.
        card: dictionary; the hash is added.
        extra_arrays: what else the file holds, {name: array}.
    """
    folder = Path(folder)
    values = [np.asarray(variable) for variable in trained_weights(layer)]
    large = sum(v.size for v in values) > _HALF_PRECISION
    arrays = {}
    for index, value in enumerate(values):
        name = f"w{index}"
        if large and value.ndim == 2:
            arrays[name], arrays[name + _SCALES] = _in_8_bits(value)
        else:
            fits = np.all(np.abs(value) < 6e4)
            arrays[name] = value.astype(np.float16) if fits else value
    arrays.update(extra_arrays)
    digest = save_arrays(folder / "weights.npz", arrays, {"model": card["model"]})
    save_json(folder / "card.json", {**card, "sha256": digest})
    return digest


def _in_8_bits(matrix):
    """A matrix as whole numbers from -127 to 127 and a scale for each of its columns."""
    scales = np.abs(matrix).max(axis=0, keepdims=True).astype(np.float32) / 127
    scales = np.where(scales == 0, np.float32(1), scales)
    return np.round(matrix / scales).astype(np.int8), scales
