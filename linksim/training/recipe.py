"""Recipes: what to train and how, as TOML files in the folders of the models they make."""

import dataclasses
import json
import os
from dataclasses import dataclass, field

from linksim.errors import InvalidInput, check_choice, check_int, check_line, check_real
from linksim.files import as_path
from linksim.models import model_folders
from linksim.tables import dataclass_from_table, read_toml

TASKS = (
    *("autoencoder", "estimator", "joint-estimator", "detector", "any-size-detector"),
    "codebook",
)
OPTIMIZERS = ("adam", "adamw", "muon")
SCHEDULES = ("constant", "cosine", "plateau")
BEST_BY = ("loss", "mutual_information")


@dataclass(frozen=True)
class Data:
    """Where training vectors come from: arguments of
    `linksim.training.source.VectorSource`, with empty texts and tuples for its None."""

    scenario: str
    snr_db: tuple
    batch_size: int
    teacher: str = ""
    copies: int = 1
    num_channels: int = 0
    streams: tuple = ()
    streams_step: int = 1
    snr_db_per_stream: float = 0.0
    rho: tuple = ()
    prior_information: tuple = ()
    prior_share: float = 1.0

    def __post_init__(self):
        _make_tuples("data", self, "snr_db", "streams", "rho", "prior_information")
        if self.prior_share != 1.0 and not self.prior_information:
            raise InvalidInput(
                f"data.prior_share: got {self.prior_share} without prior_information"
            )


@dataclass(frozen=True)
class Part:
    """One of the kinds of systems that a detector of any size is trained on, in turn.

    Attributes:
        snr_db, rho: as in `Data`, whose own are not used.
        batch_size: 0 takes that of `Data`.
        system, channel, csi: tables of the scenario; known channels if there is no csi.
    """

    snr_db: tuple
    system: dict
    channel: dict
    csi: dict = field(default_factory=lambda: {"type": "perfect"})
    batch_size: int = 0
    rho: tuple = ()

    def __post_init__(self):
        _make_tuples("parts", self, "snr_db", "rho")
        check_int("parts.batch_size", self.batch_size, minimum=0)


@dataclass(frozen=True)
class Optimizer:
    """The optimizer, one of Keras, and the schedule of its learning rate.

    Attributes:
        name: "adam", "adamw" or "muon". Muon orthogonalizes the steps of matrices, and
            takes those of Adam for all else.
        learning_rate: the highest rate.
        schedule: "constant"; "cosine", which lets the rate decay to `final_rate`; or
            "plateau", which multiplies it by `factor` when the validation loss has not
            improved for `patience` validations.
        warmup_steps: steps in which the rate rises to `learning_rate`, in proportion to the
            step. "cosine" decays after them.
        clip_norm: the largest global norm of a gradient; 0 clips nothing.
        weight_decay: what AdamW and Muon take off the weights in each step, as a share of
            them and times the rate. Vectors, such as biases, keep what they have.
        ema: momentum of the moving average of the weights, such as 0.99, which looks back on
            the last hundreds of steps. Validations measure the average, and it is the result
            of the training. 0 averages nothing.
    """

    name: str = "adam"
    learning_rate: float = 1e-3
    schedule: str = "constant"
    final_rate: float = 0.0
    factor: float = 0.5
    patience: int = 10
    clip_norm: float = 0.0
    weight_decay: float = 0.0
    warmup_steps: int = 0
    ema: float = 0.0

    def __post_init__(self):
        check_choice("optimizer.name", self.name, OPTIMIZERS)
        check_real("optimizer.learning_rate", self.learning_rate, low=0, open_low=True)
        check_choice("optimizer.schedule", self.schedule, SCHEDULES)
        check_real("optimizer.final_rate", self.final_rate, low=0)
        check_real("optimizer.factor", self.factor, low=0, high=1, open_low=True)
        check_int("optimizer.patience", self.patience)
        check_real("optimizer.clip_norm", self.clip_norm, low=0)
        check_real("optimizer.weight_decay", self.weight_decay, low=0)
        if self.weight_decay and self.name == "adam":
            raise InvalidInput(
                f"optimizer.weight_decay: got {self.weight_decay} with adam, expected 0, or "
                'another optimizer: name = "adamw"'
            )
        check_int("optimizer.warmup_steps", self.warmup_steps, minimum=0)
        check_real("optimizer.ema", self.ema, low=0, high=0.99999)


@dataclass(frozen=True)
class Recipe:
    """One training.

    Attributes:
        name: "<model>/<configuration>", the folder of the recipe.
        title: one line for lists and cards.
        task: one of `TASKS`.
        data: table `Data`.
        parts: tables `Part`, of an "any-size-detector". Batch i is drawn from part i
            modulo their number, and `data` has the scenario that they change.
        steps: of the full schedule; `--budget` scales it. 0 for a codebook.
        loss: {term: weight}.
        optimizer: table `Optimizer`.
        validate_every: steps between validations.
        validation_batches: number of batches of each validation, always the same ones.
        best_by: "loss" or "mutual_information": the validation measure that decides which
            weights are kept and, with the schedule "plateau", when the rate falls.
        seed: of the draws and the initial weights.
        model: options of the layer.
        options: further options of the task.
        start: recipe whose weights training starts from.
        autoencoder: recipe of stage 1 (for estimators).
        teachers: recipe of the networks of single channels that the loss term
            "teacher-distance" pulls a hypernetwork to.
        jit_compile: compile the training step with XLA. This is faster for small layers and
            several times slower on CPU for deep and wide ones (DetNet and RE-MIMO for 64
            antennas).
        source: where the settings come from.
    """

    name: str
    title: str
    task: str
    data: Data
    steps: int = 0
    loss: dict = field(default_factory=dict)
    optimizer: Optimizer = field(default_factory=Optimizer)
    validate_every: int = 500
    validation_batches: int = 16
    best_by: str = "loss"
    seed: int = 1
    parts: tuple = ()
    model: dict = field(default_factory=dict)
    options: dict = field(default_factory=dict)
    start: str = ""
    autoencoder: str = ""
    teachers: str = ""
    jit_compile: bool = True
    source: str = ""

    def __post_init__(self):
        check_line("title", self.title)
        check_choice("task", self.task, TASKS)
        if (self.task == "codebook") != (self.steps == 0):
            raise InvalidInput(
                f"steps: got {self.steps}, expected 0 for a codebook, which is fitted "
                "without steps, and more for every other task"
            )
        if (self.task == "any-size-detector") != bool(self.parts):
            raise InvalidInput(
                f"parts: got {len(self.parts)}, expected some for an any-size-detector and "
                "none for every other task"
            )
        if self.parts:
            self._check_parts()
        check_int("steps", self.steps, minimum=0)
        for key in ("validate_every", "validation_batches"):
            check_int(key, getattr(self, key))
        check_choice("best_by", self.best_by, BEST_BY)
        check_int("seed", self.seed, minimum=0)

    def _check_parts(self):
        data = self.data
        if self.validation_batches % len(self.parts):
            raise InvalidInput(
                f"validation_batches: got {self.validation_batches}, expected a multiple of "
                f"the {len(self.parts)} parts"
            )
        unused = ("teacher", "num_channels", "streams", "snr_db_per_stream", "rho")
        given = [key for key in unused if getattr(data, key)]
        given += ["copies"] * (data.copies > 1) + ["streams_step"] * (data.streams_step > 1)
        if given:
            raise InvalidInput(f"data: parts do not go together with {', '.join(given)}")

    @property
    def model_name(self):
        """Name of the detector or quantizer."""
        return self.name.split("/")[0]

    @property
    def configuration(self):
        """The second part of the name."""
        return self.name.split("/")[1]

    def to_dict(self):
        """The recipe as nested dictionaries."""
        return dataclasses.asdict(self)


def _make_tuples(table, settings, *keys):
    """Make ranges [low, high] of a frozen dataclass tuples; refuse what is no list."""
    for key in keys:
        value = getattr(settings, key)
        if not isinstance(value, (list, tuple)):
            raise InvalidInput(f"{table}.{key}: got {value!r}, expected [low, high]")
        object.__setattr__(settings, key, tuple(value))


_TABLES = {"data": Data, "optimizer": Optimizer}


def recipe_from_dict(data):
    """A `Recipe` from nested dictionaries; unknown keys are refused."""
    data = dict(data)
    for table, kind in _TABLES.items():
        if table in data:
            data[table] = dataclass_from_table(table, kind, data[table])
    if "parts" in data:
        if not isinstance(data["parts"], (list, tuple)):
            raise InvalidInput(
                f"parts: got {data['parts']!r}, expected a list of tables, [[parts]]"
            )
        data["parts"] = tuple(dataclass_from_table("parts", Part, p) for p in data["parts"])
    return dataclass_from_table("recipe", Recipe, data)


def list_recipes():
    """Names of all recipes, "<model>/<configuration>": the shipped ones, and those in the
    folders of `linksim.add_model_folder`."""
    files = (f for folder in model_folders() for f in folder.glob("*/*/recipe.toml"))
    return sorted({f"{p.parent.parent.name}/{p.parent.name}" for p in files})


def load_recipe(name_or_path):
    """Load a recipe by name, or from a file `<model>/<configuration>/*.toml`.

    Raises:
        InvalidInput: unknown name, unreadable file, unknown or missing key, bad value.
    """
    path = as_path("recipe", name_or_path)
    if path.suffix != ".toml":
        files = [folder / name_or_path / "recipe.toml" for folder in model_folders()]
        found = [file for file in files if os.path.isfile(file)]
        if not found:
            check_choice("recipe", str(name_or_path), list_recipes(), "a .toml file or ")
        path = found[0]
    data = read_toml(path, "recipe")
    folder = path.resolve().parent
    try:
        return recipe_from_dict({**data, "name": f"{folder.parent.name}/{folder.name}"})
    except InvalidInput as error:
        raise InvalidInput(f"{path}: {error}") from None


def recipe_text(recipe):
    """A recipe as TOML, without what has its default; the file's folder gives the name."""
    data = {key: value for key, value in recipe.to_dict().items() if key != "name"}
    default = Recipe(recipe.name, recipe.title, "detector", recipe.data, 1)
    tables = {k: v for k, v in data.items() if isinstance(v, dict)}
    parts = data.pop("parts")
    defaults = {**default.to_dict(), "data": {}, "steps": None, "title": None, "task": None}
    lines = [
        f"{key} = {_toml(value)}"
        for key, value in data.items()
        if key not in tables and value != defaults[key]
    ]
    for name, table in tables.items():
        changed = {k: v for k, v in table.items() if v != defaults[name].get(k)}
        if name == "data":
            plain = dataclasses.asdict(Data(recipe.data.scenario, (), 1))
            required = ("scenario", "snr_db", "batch_size")
            changed = {k: v for k, v in table.items() if k in required or v != plain[k]}
        if changed:
            lines += ["", f"[{name}]", *(f"{k} = {_toml(v)}" for k, v in changed.items())]
    for part in parts:
        kept = {k: v for k, v in part.items() if v and v != {"type": "perfect"}}
        lines += ["", "[[parts]]", *(f"{k} = {_toml(v)}" for k, v in kept.items())]
    return "\n".join(lines) + "\n"


def _toml(value):
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{k} = {_toml(v)}" for k, v in value.items()) + " }"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_toml(v) for v in value) + "]"
    # Texts, numbers and booleans are the same in JSON and in TOML
    return json.dumps(value, ensure_ascii=False)
