"""The training loop of all tasks. A resumed training ends as one without a break."""

import csv
import io
import json
import time
from pathlib import Path

import numpy as np
from keras import ops

from linksim.backend import compiled
from linksim.errors import InvalidInput, ResultFileError, check_real
from linksim.files import differences, load_arrays, save_arrays, write_atomically
from linksim.link.scenario import scenario_from_dict
from linksim.notices import announce
from linksim.training.optimizer import averaged_weights, make_optimizer, rate_of_step
from linksim.training.source import TRAINING, VALIDATION, MixtureSource, VectorSource


def source_of(recipe, scenario):
    """The `VectorSource` of a recipe's data, or the `MixtureSource` of its parts."""
    data = recipe.data
    if recipe.parts:
        return MixtureSource(
            _source_of_part(i, part, recipe, scenario) for i, part in enumerate(recipe.parts)
        )
    return VectorSource(
        scenario,
        data.snr_db,
        data.batch_size,
        teacher=data.teacher or None,
        seed=recipe.seed,
        copies=data.copies,
        num_channels=data.num_channels,
        streams=data.streams or None,
        streams_step=data.streams_step,
        snr_db_per_stream=data.snr_db_per_stream,
        rho=data.rho or None,
        **_prior(data),
    )


def _source_of_part(number, part, recipe, scenario):
    tables = {"system": part.system, "channel": part.channel, "csi": part.csi}
    try:
        return VectorSource(
            scenario_from_dict({**scenario.to_dict(), "name": scenario.name, **tables}),
            part.snr_db,
            part.batch_size or recipe.data.batch_size,
            seed=recipe.seed,
            rho=part.rho or None,
            **_prior(recipe.data),
        )
    except InvalidInput as error:
        raise InvalidInput(f"parts[{number}]: {error}") from None


def _prior(data):
    """The arguments of a `VectorSource` for the prior of its vectors."""
    information = data.prior_information or None
    return {"prior_information": information, "prior_share": data.prior_share}


class Trainer:
    """Trains a task on the data of a recipe.

    The state after step n depends on the recipe and n alone. It is saved at every
    validation and every half minute between them, and a later `run` continues from there.

    Args:
        recipe: the `Recipe`.
        task: the `Task`, whose layers are built.
        scenario: the `Scenario` that data are drawn from.
        folder: folder for the checkpoint, history and logs. None writes nothing.
        budget: fraction of the recipe's steps to run. A training with a constant rate that
            has ended goes on with a larger one.
        on_step: called as `f(step, steps, loss)` after every step. A `KeyboardInterrupt`
            that it raises ends the training with its state saved.
        on_validation: called as `f(entry)` with every new entry of the history.
        on_resume: called as `f(step, steps)` if an earlier run is continued after a step.
        tensorboard: write TensorBoard logs to `folder`/tensorboard.
        save_seconds: a state is saved at the latest this many seconds after the one
            before. Where saving is slow, it waits longer, so that saving takes at most a
            tenth of the time.

    Raises:
        InvalidInput: a value out of range, or data that the layer cannot be trained on.
        ResultFileError: the folder holds another training.
    """

    def __init__(
        self,
        recipe,
        task,
        scenario,
        folder=None,
        *,
        budget=1.0,
        on_step=None,
        on_validation=None,
        on_resume=None,
        tensorboard=False,
        save_seconds=30.0,
    ):
        check_real("budget", budget, low=0, open_low=True)
        check_real("save_seconds", save_seconds, low=0)
        self.recipe, self.task = recipe, task
        self.steps = max(1, round(recipe.steps * budget))
        self.folder = None if folder is None else Path(folder)
        self._on_step = on_step
        self._on_validation = on_validation
        self._on_resume = on_resume
        self._save_seconds, self._save_at = save_seconds, 0.0
        self._tensorboard = tensorboard and self.folder is not None
        self._writer = None  # of TensorBoard
        data = recipe.data
        self._source = source_of(recipe, scenario)
        if task.needs_teacher and not data.teacher:
            raise InvalidInput(f"data.teacher: missing, the task {recipe.task} needs one")
        task.take_data_from(self._source, data)
        parts = self._source.parts
        self._batch = batch_maker(parts, [_drawing(part, task) for part in parts])
        self.step = 0
        self.seconds = 0.0
        self.history = []  # one dictionary per validation
        self.best = None  # (loss, step, weights)
        # A plateau lowers the first; the second is that of the step
        self._rate = recipe.optimizer.learning_rate
        self._rate_now = rate_of_step(recipe.optimizer, self._rate, 0, self.steps)
        self._stale = 0  # validations since the last improvement
        self._losses = []  # of the steps since the last validation
        self._validation = [
            self._batch(VALIDATION, i) for i in range(recipe.validation_batches)
        ]
        task.calibrate(self._validation[0])
        task(self._validation[0])  # builds the layers that are not built yet
        self._optimizer = make_optimizer(recipe.optimizer, task.trainable_variables)
        task.compile(
            optimizer=self._optimizer,
            jit_compile=recipe.jit_compile,
        )
        self._measures = compiled(task.measures, task.variables)
        self._identity = {"recipe": _settings(json.loads(json.dumps(recipe.to_dict())))}
        # With a constant rate a longer training begins as a shorter one
        if recipe.optimizer.schedule != "constant":
            self._identity["steps"] = self.steps

    # --- running ------------------------------------------------------------------

    def run(self):
        """Train to the end of the budget, from the state that was saved last if there is one.

        The task then holds the best weights that a validation has seen, which are averages
        if the recipe's optimizer has an `ema`.

        Returns:
            The history, a list of {step, seconds, learning_rate, train_loss, and the
            validation measures of the task}. At step 0 there is no train_loss, which is
            the mean over the steps since the entry before.

        Raises:
            FloatingPointError: the loss is not finite.
            ResultFileError: the folder holds another training.
        """
        self._resume()
        started = time.perf_counter() - self.seconds
        self._save_at = time.perf_counter() + self._save_seconds
        if self.step == 0:
            self._validate()
        while self.step < self.steps:
            self._set_rate()
            batch = self._batch(TRAINING, self.step)
            self.task.reset_metrics()
            loss = float(self.task.train_on_batch(batch))
            self._losses.append(loss)
            self.step += 1
            self.seconds = time.perf_counter() - started
            if not np.isfinite(loss):
                raise FloatingPointError(
                    f"{self.recipe.name}: the loss is {loss} at step {self.step}"
                )
            if self.step == self.steps or self.step % self.recipe.validate_every == 0:
                self._validate(train_loss=float(np.mean(self._losses)))
                self._losses = []
                self.save()
            elif time.perf_counter() >= self._save_at:
                self.save()
            if self._on_step is not None:
                self._report_step(loss)
        self._load_weights(self.best[2])
        return self.history

    def _report_step(self, loss):
        try:
            self._on_step(self.step, self.steps, loss)
        except KeyboardInterrupt:
            # Between two steps; anywhere else a state could be half of one step's
            self.save()
            raise

    def _set_rate(self):
        settings = self.recipe.optimizer
        self._rate_now = rate_of_step(settings, self._rate, self.step, self.steps)
        self._optimizer.learning_rate.assign(self._rate_now)

    def _validate(self, **measured):
        with averaged_weights(self._optimizer, self.task.trainable_variables):
            rows = [self._measures(batch) for batch in self._validation]
            measured_weights = self._weights()
        values = mean_of_rows(rows)
        entry = {
            "step": self.step,
            "seconds": round(self.seconds, 1),
            "learning_rate": float(self._rate_now),
            **measured,
            **values,
        }
        improved = self.best is None or self._rank(entry) < self._rank(self.best_entry)
        self.history.append(entry)
        if improved:
            self.best = (values["loss"], self.step, measured_weights)
            self._stale = 0
        else:
            self._stale += 1
            settings = self.recipe.optimizer
            if settings.schedule == "plateau" and self._stale >= settings.patience:
                self._rate *= settings.factor
                self._stale = 0
        self._log(entry)
        if self._on_validation is not None:
            self._on_validation(entry)

    @property
    def best_entry(self):
        """The entry of the history with the best weights."""
        return next(e for e in self.history if e["step"] == self.best[1])

    def _rank(self, entry):
        """The measure by which weights are compared; the smallest is best."""
        measure = self.recipe.best_by
        if measure not in entry:
            raise InvalidInput(
                f"best_by: got {measure!r}, which the task {self.recipe.task} does not measure"
            )
        return -entry[measure] if measure == "mutual_information" else entry[measure]

    # --- state --------------------------------------------------------------------

    def _weights(self):
        return [np.array(ops.convert_to_numpy(w)) for w in self.task.variables]

    def _load_weights(self, weights):
        for variable, value in zip(self.task.variables, weights):
            variable.assign(value)

    @property
    def _state_file(self):
        return self.folder / "state.npz"

    def save(self):
        """Write the state, so that `run` can continue from here."""
        if self.folder is None:
            return
        began = time.perf_counter()
        arrays = {f"task_{i}": w for i, w in enumerate(self._weights())}
        arrays.update({f"best_{i}": w for i, w in enumerate(self.best[2])})
        for i, variable in enumerate(self._optimizer.variables):
            arrays[f"optimizer_{i}"] = np.array(ops.convert_to_numpy(variable))
        header = {
            **self._identity,
            "step": self.step,
            "seconds": self.seconds,
            "rate": self._rate,
            "stale": self._stale,
            "losses": self._losses,
            "best": self.best[:2],
            "history": self.history,
        }
        save_arrays(self._state_file, arrays, header)
        write_atomically(self.folder / "history.csv", self.history_csv())
        ended = time.perf_counter()
        self._save_at = ended + max(self._save_seconds, 9 * (ended - began))

    def _resume(self):
        if self.folder is None or not self._state_file.exists():
            return
        arrays, header, _ = load_arrays(self._state_file)
        before = {key: header.get(key) for key in self._identity}
        if before != self._identity:
            raise ResultFileError(
                f"{self._state_file}: belongs to another training: "
                f"{differences(before, self._identity)}; use --fresh or another output folder"
            )
        self._check_state(arrays)
        count = len(self.task.variables)
        self._load_weights([arrays[f"task_{i}"] for i in range(count)])
        best = [arrays[f"best_{i}"] for i in range(count)]
        for i, variable in enumerate(self._optimizer.variables):
            variable.assign(arrays[f"optimizer_{i}"])
        self.step, self.seconds = header["step"], header["seconds"]
        self._rate, self._stale = header["rate"], header["stale"]
        # Earlier versions saved at validations only, and began histories with a nan
        self._losses = header.get("losses", [])
        self.best = (*header["best"], best)
        self.history = header["history"]
        if np.isnan(self.history[0].get("train_loss", 0.0)):
            del self.history[0]["train_loss"]
        if self._on_resume is not None:
            self._on_resume(self.step, self.steps)

    def _check_state(self, arrays):
        """Refuse a state with other arrays than this training has."""
        count = len(self.task.variables)
        expected = {f"task_{i}": tuple(w.shape) for i, w in enumerate(self.task.variables)}
        expected.update({f"best_{i}": expected[f"task_{i}"] for i in range(count)})
        for i, variable in enumerate(self._optimizer.variables):
            expected[f"optimizer_{i}"] = tuple(variable.shape)
        found = {name: array.shape for name, array in arrays.items()}
        if found != expected:
            different = sorted(
                name for name in {*found, *expected} if found.get(name) != expected.get(name)
            )
            raise ResultFileError(
                f"{self._state_file}: is not the state of this training; "
                f"{', '.join(different[:3])} {'differ' if len(different) > 1 else 'differs'}"
            )

    # --- logs ---------------------------------------------------------------------

    def history_csv(self):
        """The history as CSV text."""
        text = io.StringIO()
        # The first entry has no train_loss
        writer = csv.DictWriter(text, list(self.history[-1]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.history)
        return text.getvalue()

    def _log(self, entry):
        if not self._tensorboard:
            return
        try:
            from tensorboard.summary import Writer
        except ImportError as error:  # it needs TensorFlow
            self._tensorboard = False
            announce(f"no logs for TensorBoard, which cannot be loaded here ({error})")
            return
        if self._writer is None:
            self._writer = Writer(str(self.folder / "tensorboard"))
        for name, value in entry.items():
            if name not in ("step", "seconds") and np.isfinite(value):
                self._writer.add_scalar(name, value, entry["step"])
        self._writer.flush()


def batch_maker(parts, functions):
    """A function of a purpose and a number n, which makes batch n.

    Args:
        parts: sources, as a source's `parts`. Batch n is of part n modulo their number.
        functions: for each part, the function of the keys of a batch that makes it.
    """

    def batch(purpose, index):
        part = index % len(parts)
        return functions[part](parts[part].keys(purpose, index))

    return batch


def mean_of_rows(rows):
    """{name: mean} of dictionaries {name: scalar tensor}."""
    return {
        name: float(np.mean([float(ops.convert_to_numpy(row[name])) for row in rows]))
        for name in rows[0]
    }


def _drawing(source, task):
    return compiled(lambda keys: task.prepare(source.draw(keys)))


def _settings(recipe):
    """The part of a recipe that shapes its training, which excludes texts.

    Keys that recipes did not have from the start count only if they are set, so that a
    training which began before them can go on.
    """
    kept = {k: v for k, v in recipe.items() if k not in ("title", "source")}
    for key in ("teachers", "parts"):  # newer than some states
        if not kept.get(key):
            kept.pop(key, None)
    optimizer = kept["optimizer"] = dict(kept["optimizer"])
    if optimizer.get("name") == "adam":
        optimizer.pop("name")
    for key in ("weight_decay", "warmup_steps", "ema"):
        if not optimizer.get(key):
            optimizer.pop(key, None)
    data = kept["data"] = dict(kept["data"])
    if not data.get("prior_information"):
        data.pop("prior_information", None)
        data.pop("prior_share", None)
    if kept.get("best_by") == "loss":
        kept.pop("best_by")
    return kept
