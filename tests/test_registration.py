"""Detectors and trained models from outside of the library."""

import keras
import numpy as np
import pytest

import linksim.models
import linksim.registry as registry
from linksim import InvalidInput, ResultFileError
from linksim.detectors import Detector, MMSEDetector
from linksim.detectors.linear import LinearDetector
from linksim.names import parse_receiver
from linksim.training.publish import publish
from linksim.training.recipe import load_recipe, recipe_from_dict
from tests.conftest import draw_system
from tests.trainings import trainer

SYSTEM = {"num_streams": 2, "num_bits_per_symbol": 2}


@pytest.fixture(autouse=True)
def own(monkeypatch):
    """Registrations end with the test."""
    entries = dict(registry.DETECTORS._entries)
    monkeypatch.setattr(registry.DETECTORS, "_entries", entries)
    monkeypatch.setattr(linksim.models, "_OWN_FOLDERS", [])


class Scaled(MMSEDetector):
    """Linear MMSE with a factor on the variance."""

    def __init__(self, *args, factor=1.0, **kwargs):
        super().__init__(*args, **kwargs)
        self.factor = factor

    def estimate(self, y, h, no):
        z, variance = super().estimate(y, h, no)
        return z, self.factor * variance


class Learned(LinearDetector):
    """Linear MMSE with a learned factor on the variance."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.mmse = MMSEDetector(*args, **kwargs)
        self.factor = self.add_weight(name="factor", shape=(1,), initializer="ones")
        self.built = True

    def estimate(self, y, h, no):
        z, variance = self.mmse.estimate(y, h, no)
        return z, keras.ops.exp(self.factor) * variance


def test_a_registered_detector_is_created_by_name(rng):
    linksim.register_detector("mine", Scaled)
    assert linksim.list_detectors()[-1] == "mine"
    _, y, h, no = draw_system(rng, 20, 3, 2, 2, 0.1)
    expected = np.asarray(linksim.create_detector("mmse", **SYSTEM)(y, h, no))
    llr = linksim.create_detector("mine", factor=2.0, **SYSTEM)(y, h, no)
    np.testing.assert_allclose(np.asarray(llr), expected / 2, rtol=1e-4, atol=1e-4)
    assert registry.describe_detector("mine").startswith("Linear MMSE with a factor")
    assert parse_receiver("mine+max-mi:3").detector == "mine"
    with pytest.raises(InvalidInput, match="unknown option colour; expected.* factor"):
        linksim.create_detector("mine", colour="red", **SYSTEM)
    with pytest.raises(InvalidInput, match="without weights"):
        linksim.create_detector("mine", pretrained=True, **SYSTEM)


@pytest.mark.parametrize(
    "name, cls, message",
    [
        ("mmse", Scaled, "of linksim itself"),
        ("max-mi", Scaled, "of a quantizer"),
        ("latent", Scaled, "of a quantizer"),
        ("taken", Scaled, "registered already"),
        ("My detector", Scaled, "lower-case"),
        ("a+b", Scaled, "lower-case"),
        ("", Scaled, "lower-case"),
        (3, Scaled, "lower-case"),
        ("mine", dict, "subclass of Detector"),
        ("mine", Scaled(2, 2), "subclass of Detector"),
    ],
)
def test_bad_registrations_are_refused(name, cls, message):
    linksim.register_detector("taken", Scaled)
    before = list(registry.DETECTORS)
    with pytest.raises(InvalidInput, match=message):
        linksim.register_detector(name, cls)
    with pytest.raises(InvalidInput, match="learned"):
        linksim.register_detector("mine", Scaled, learned="yes")
    if name in ("mmse", "max-mi"):
        with pytest.raises(InvalidInput, match=message):
            linksim.register_detector(name, cls, replace=True)
    assert list(registry.DETECTORS) == before


def test_a_registration_is_replaced_when_asked():
    linksim.register_detector("mine", Scaled)
    linksim.register_detector("mine", Learned, learned=True, replace=True)
    assert isinstance(linksim.create_detector("mine", **SYSTEM), Learned)
    assert registry.is_learned("mine")
    assert linksim.list_detectors().count("mine") == 1


def test_detectors_of_ones_own_are_trained_published_and_simulated(tmp_path):
    linksim.register_detector("scaled", Scaled)
    linksim.register_detector("mine", Learned, learned=True)
    scenario = linksim.load_scenario("rayleigh-2x2-qam64").replace(
        code={"type": "none", "uses_per_block": 54}
    )
    with pytest.raises(InvalidInput, match="no weights of mine"):
        linksim.simulate(scenario, ["mine"], snr_db=13, max_blocks=100)
    recipe = recipe_from_dict(
        {
            "name": "mine/rayleigh-2x2-qam64",
            "title": "A test",
            "task": "detector",
            "steps": 2,
            "validation_batches": 1,
            "jit_compile": False,
            "loss": {"cross-entropy": 1.0},
            "data": {
                "scenario": "rayleigh-2x2-qam64",
                "snr_db": [10, 16],
                "batch_size": 64,
            },
        }
    )
    made = trainer(recipe)
    made.run()
    shipped = linksim.list_models()
    folder = publish(recipe, made, scenario, tmp_path / "models")
    assert folder == tmp_path / "models/mine/rayleigh-2x2-qam64"
    # The folder has all that it takes to make them again
    text = (folder / "card.md").read_text(encoding="utf-8")
    assert "train.py mine/rayleigh-2x2-qam64 --models FOLDER --publish FOLDER" in text
    assert load_recipe(folder / "recipe.toml") == recipe
    assert linksim.list_models() == shipped
    for _ in range(2):
        linksim.add_model_folder(tmp_path / "models")
    (path,) = set(linksim.list_models()) - set(shipped)
    assert path == "mine/rayleigh-2x2-qam64"
    layer = linksim.create_detector(
        "mine", pretrained=True, num_streams=2, num_bits_per_symbol=6
    )
    trained = np.asarray(made.task.product.factor)
    assert trained != 1.0
    np.testing.assert_allclose(np.asarray(layer.factor), trained, rtol=1e-3)
    results = linksim.simulate(scenario, ["mmse", "scaled", "mine"], snr_db=13, max_blocks=100)
    mmse, scaled, mine = (r["symbol_errors"] for r in results["records"])
    assert mmse == scaled == mine > 100  # factors on the variance change no decision
    sha = linksim.list_models("mine")[path]["sha256"]
    assert results["provenance"]["weights"] == {"mine": {path: sha}}

    publish(recipe, made, scenario, tmp_path / "copy")
    linksim.add_model_folder(tmp_path / "copy")
    assert linksim.list_models("mine")[path]["sha256"] == sha
    made.task.product.factor.assign(2 * trained)
    publish(recipe, made, scenario, tmp_path / "other")
    linksim.add_model_folder(tmp_path / "other")
    with pytest.raises(ResultFileError, match="other.*another mine.*in another folder"):
        linksim.list_models()


def test_a_folder_of_models_has_to_exist(tmp_path):
    with pytest.raises(InvalidInput, match="nothing.*existing folder"):
        linksim.add_model_folder(tmp_path / "nothing")


def test_the_base_class_itself_has_no_detection():
    linksim.register_detector("mine", Detector)
    with pytest.raises(InvalidInput, match="has no `detect`"):
        linksim.create_detector("mine", **SYSTEM)(
            np.ones((1, 2), np.complex64),
            np.ones((1, 2, 2), np.complex64),
            np.ones(1, np.float32),
        )
