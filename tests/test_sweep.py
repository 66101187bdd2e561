"""Sweeps of trainings: which are chosen, what waits for what, what a failure stops."""

import pytest

import linksim.training.sweep as sweep
from linksim.errors import InvalidInput, WorkerError
from linksim.training.recipe import Data, Recipe, list_recipes
from linksim.training.sweep import Trained, chosen_recipes, make_worker, run_sweep
from linksim.workers import InPlace

DATA = Data("rayleigh-2x2-qam64", (9.0, 18.0), 32)


def recipe(name, **options):
    return Recipe(name=name, title=name, task="detector", data=DATA, steps=5, **options)


def trained(recipe):
    return Trained(1.0, 5, recipe.name, None)


class LastFirst:
    """An executor that does the job handed out last."""

    def __init__(self, do):
        self._do, self._jobs, self.order = do, [], []

    def submit(self, job):
        self._jobs.append(job)

    def next(self):
        job = self._jobs.pop()
        self.order.append(job.name)
        return job, self._do(job)


def outcomes(recipes, executor, **options):
    return {r.name: outcome for r, outcome in run_sweep(recipes, executor, **options)}


def test_patterns_choose_recipes():
    chosen = [
        r.name for r in chosen_recipes(["oampnet2/massive-*", "eqnet/rayleigh-2x2-qam64"])
    ]
    expected = [n for n in list_recipes() if n.startswith("oampnet2/massive-")]
    assert len(expected) > 1 and chosen == [*expected, "eqnet/rayleigh-2x2-qam64"]
    # Named twice, it is trained once
    assert len(chosen_recipes(["eqnet/rayleigh-2x2-qam64", "eqnet/rayleigh-2x2-*"])) == len(
        chosen_recipes(["eqnet/rayleigh-2x2-*"])
    )
    with pytest.raises(InvalidInput, match="no name fits 'oampnet2/x-\\*'"):
        chosen_recipes(["oampnet2/x-*"])
    assert chosen_recipes([]) == []


def test_one_that_fails_does_not_stop_the_others():
    recipes = [recipe("a/x"), recipe("b/x"), recipe("c/x")]

    def do(job):
        if job.name == "a/x":
            raise FloatingPointError("the loss is nan")
        return trained(job)

    found = outcomes(recipes, InPlace(do))
    assert isinstance(found["a/x"], FloatingPointError)
    assert found["b/x"] == trained(recipes[1]) and found["c/x"] == trained(recipes[2])


def test_what_starts_from_another_waits_for_it():
    recipes = [recipe("b/x", start="a/x"), recipe("c/x", teachers="b/x"), recipe("a/x")]
    executor = LastFirst(trained)
    assert set(outcomes(recipes, executor, publish=True)) == {"a/x", "b/x", "c/x"}
    assert executor.order == ["a/x", "b/x", "c/x"]
    # Nothing is published: they start from what is shipped, and nothing waits
    executor = LastFirst(trained)
    outcomes(recipes, executor)
    assert executor.order == ["a/x", "c/x", "b/x"]


def test_what_needs_a_failed_one_is_not_trained():
    recipes = [recipe("a/x"), recipe("b/x", start="a/x"), recipe("c/x", start="other/x")]
    executor = LastFirst(lambda job: ValueError("no") if job.name == "a/x" else trained(job))
    found = outcomes(recipes, executor, publish=True)
    assert executor.order == ["c/x", "a/x"]
    assert "it needs a/x, which failed" in str(found["b/x"])
    circle = [recipe("a/x", start="b/x"), recipe("b/x", start="a/x")]
    with pytest.raises(InvalidInput, match="wait for each other"):
        outcomes(circle, LastFirst(trained), publish=True)


def test_workers_with_other_folders_or_models_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(sweep, "model_folder", lambda: tmp_path / "models")
    monkeypatch.setattr(sweep, "list_models", lambda: {"a/x": {"sha256": "00"}})
    (tmp_path / ".mark").touch()
    hashes = {"a/x": "00", "b/x": None}
    assert callable(make_worker(str(tmp_path), [".mark"], hashes, {}))
    with pytest.raises(WorkerError, match="does not see the folder .*models"):
        make_worker(str(tmp_path), [".mark", ".mark"], hashes, {})
    with pytest.raises(WorkerError, match="does not see the folder"):
        make_worker(str(tmp_path / "elsewhere"), [".mark"], hashes, {})
    with pytest.raises(WorkerError, match="other weights of a/x: 00, expected 01"):
        make_worker(str(tmp_path), [".mark"], {"a/x": "01"}, {})


def test_two_recipes_of_one_name_are_refused(tmp_path):
    name = "eqnet/rayleigh-2x2-qam64"
    file = tmp_path / name / "recipe.toml"
    file.parent.mkdir(parents=True)
    file.write_text((sweep.model_folder() / name / "recipe.toml").read_text())
    assert len(chosen_recipes([str(file), name])) == 1
    file.write_text("seed = 12345\n" + file.read_text())
    with pytest.raises(InvalidInput, match=f"two different ones are called {name}"):
        chosen_recipes([str(file), name])
