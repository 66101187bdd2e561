"""Recipes: what to train and how, as TOML files beside the models they make."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

from linksim.data import model_folder
from linksim.errors import InvalidInput, check_choice, check_int, check_real
from linksim.tables import dataclass_from_table, read_toml

TASKS = ("autoencoder", "estimator", "joint-estimator", "detector", "codebook")
SCHEDULES = ("constant", "cosine", "plateau")
BEST_BY = ("loss", "mutual_information")


@dataclass(frozen=True)
class Data:
    """Where training vectors come from; see `linksim.training.source.VectorSource`.

    Empty texts and tuples stand for its None.
    """

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

    def __post_init__(self):
        for key in ("snr_db", "streams", "rho"):
            value = getattr(self, key)
            if not isinstance(value, (list, tuple)):
                raise InvalidInput(f"data.{key}: got {value!r}, expected [low, high]")
            object.__setattr__(self, key, tuple(value))


@dataclass(frozen=True)
class Optimizer:
    """Adam and its schedule.

    "cosine" decays to `final_rate`; "plateau" multiplies by `factor` when the
    validation loss has not improved in `patience` validations.
    """

    learning_rate: float = 1e-3
    schedule: str = "constant"
    final_rate: float = 0.0
    factor: float = 0.5
    patience: int = 10
    clip_norm: float = 0.0

    def __post_init__(self):
        check_real("optimizer.learning_rate", self.learning_rate, low=0, open_low=True)
        check_choice("optimizer.schedule", self.schedule, SCHEDULES)
        check_real("optimizer.final_rate", self.final_rate, low=0)
        check_real("optimizer.factor", self.factor, low=0, high=1, open_low=True)
        check_int("optimizer.patience", self.patience)
        check_real("optimizer.clip_norm", self.clip_norm, low=0)


@dataclass(frozen=True)
class Recipe:
    """One training.

    Attributes:
        name: "<model>/<configuration>", the folder of the recipe.
        title: one line for lists and cards.
        task: one of `TASKS`.
        steps: of the full schedule; `--budget` scales it. 0 for a codebook.
        validate_every: steps between validations.
        validation_batches: fixed batches to validate on.
        best_by: "loss" or "mutual_information": which validation measure says what weights
            are kept and, with the schedule "plateau", when the rate falls.
        data, optimizer: tables.
        model: options of the layer.
        loss: {term: weight}.
        options: further options of the task.
        start: recipe whose weights training starts from.
        autoencoder: recipe of stage 1 (estimators).
        teachers: recipe of the networks of channels that "teacher-distance" pulls to.
        jit_compile: compile the step with XLA: faster for small layers, and several times
            slower on CPU for deep and wide ones (DetNet for 64 antennas, RE-MIMO there).
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
    model: dict = field(default_factory=dict)
    options: dict = field(default_factory=dict)
    start: str = ""
    autoencoder: str = ""
    teachers: str = ""
    jit_compile: bool = True
    source: str = ""

    def __post_init__(self):
        check_choice("task", self.task, TASKS)
        if (self.task == "codebook") != (self.steps == 0):
            raise InvalidInput(
                f"steps: got {self.steps}, expected 0 for a codebook, which is fitted "
                "without steps, and more for every other task"
            )
        check_int("steps", self.steps, minimum=0)
        for key in ("validate_every", "validation_batches"):
            check_int(key, getattr(self, key))
        check_choice("best_by", self.best_by, BEST_BY)
        check_int("seed", self.seed, minimum=0)

    @property
    def model_name(self):
        """Name of the detector or quantizer."""
        return self.name.split("/")[0]

    @property
    def configuration(self):
        return self.name.split("/")[1]

    def to_dict(self):
        return dataclasses.asdict(self)


_TABLES = {"data": Data, "optimizer": Optimizer}


def recipe_from_dict(data):
    """A `Recipe` from nested dictionaries; unknown keys are refused."""
    data = dict(data)
    for table, kind in _TABLES.items():
        if table in data:
            data[table] = dataclass_from_table(table, kind, data[table])
    return dataclass_from_table("recipe", Recipe, data)


def list_recipes():
    """Names of the shipped recipes, "<model>/<configuration>"."""
    files = model_folder().glob("*/*/recipe.toml")
    return sorted(f"{p.parent.parent.name}/{p.parent.name}" for p in files)


def load_recipe(name_or_path):
    """A shipped recipe by name, or one from a file `<model>/<configuration>/*.toml`.

    Raises:
        InvalidInput: unknown name, unreadable file, unknown key, invalid value.
    """
    path = Path(name_or_path)
    if path.suffix != ".toml":
        if str(name_or_path) not in list_recipes():
            raise InvalidInput(
                f"recipe: got {str(name_or_path)!r}, expected a .toml file or one of: "
                f"{', '.join(list_recipes())}"
            )
        path = model_folder() / name_or_path / "recipe.toml"
    data = read_toml(path, "recipe")
    folder = path.resolve().parent
    try:
        return recipe_from_dict({**data, "name": f"{folder.parent.name}/{folder.name}"})
    except InvalidInput as error:
        raise InvalidInput(f"{path}: {error}") from None
