"""The script that compares trainings of the same processor time. No time is asserted."""

import dataclasses
import sys
from pathlib import Path

import pytest

from linksim.errors import InvalidInput
from linksim.files import load_json
from linksim.training.recipe import load_recipe

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "simulations"))
import training_steps  # noqa: E402


def test_variants_change_what_they_name_and_nothing_else():
    recipe = load_recipe(training_steps.RECIPE)
    plain = recipe.to_dict()
    seen = []
    for name, changes in training_steps.VARIANTS.items():
        made = training_steps.variant_of(recipe, changes)
        for key, value in made.to_dict().items():
            if key == "loss" or not isinstance(changes.get(key), dict):
                assert value == changes.get(key, plain[key]), name
            else:
                assert value == {**plain[key], **changes[key]}, name
        variant = (made, name in training_steps.IN_BFLOAT16)
        assert variant not in seen, f"{name} is another variant too"
        seen.append(variant)
    assert seen[0] == (recipe, False)
    with pytest.raises(InvalidInput, match="optimizer"):
        training_steps.variant_of(recipe, {"optimizer": {"nme": "muon"}})


def test_unknown_variants_are_refused(capsys):
    assert training_steps.main(["--only", "nothing"]) == 2
    assert "only: got 'nothing'" in capsys.readouterr().err


@pytest.mark.slow
def test_a_variant_is_measured_once_and_stands_on_the_page(tmp_path, monkeypatch):
    small = training_steps.variant_of(
        load_recipe(training_steps.RECIPE),
        {
            "data": {"batch_size": 32, "teacher": "mmse"},
            "autoencoder": "",
            "task": "joint-estimator",
            "loss": {"divergence": 1.0},
            "model": {"width": 8, "decoder_width": 8},
            "jit_compile": False,
        },
    )
    monkeypatch.setattr("linksim.training.recipe.load_recipe", lambda name: small)
    rates = {"mmse": 0.6, "ml": 0.7}
    monkeypatch.setattr("linksim.training.publish.reference_rates", lambda *_: rates)
    monkeypatch.setattr(training_steps, "HELD_OUT_BATCHES", 2)
    monkeypatch.setattr(training_steps, "TIMED_STEPS", 2)
    monkeypatch.setattr(training_steps, "VARIANTS", {"one": {}})
    arguments = ["--seconds", "0.05", "--output", str(tmp_path)]
    assert training_steps.main(arguments) == 0
    file = tmp_path / "training.json"
    before = load_json(file)
    (row,) = before["rows"]
    assert row["variant"] == "one" and row["steps"] >= 2 and row["ms"] > 0
    assert 0 < row["divergence"] and row["mutual_information"] < 0.6
    assert before["references"] == rates
    page = (tmp_path / "README.md").read_text()
    assert f"| one | {row['steps']} |" in page and "## 0.05 seconds" in page
    # A second run, also of another seed, has nothing left to do
    small = dataclasses.replace(small, seed=2)
    assert training_steps.main(arguments) == 0
    assert load_json(file) == before


def test_the_committed_page_is_what_was_measured():
    folder = ROOT / "results/training"
    page = training_steps.markdown(load_json(folder / "training.json"))
    assert (folder / "README.md").read_text(encoding="utf-8") == page
