"""Shipped models: each is found, is what its card says, and works on its scenario."""

import configparser
import dataclasses
import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import linksim.models
import linksim.notices
from linksim.data import import_file, model_folder
from linksim.errors import InvalidInput
from linksim.files import load_arrays, load_json
from linksim.link.receiver import create_receiver
from linksim.link.scenario import list_scenarios, load_scenario
from linksim.models import (
    STATUSES,
    assign_weights,
    find_model,
    list_cards,
    list_models,
    read_weights,
    trained_weights,
    training_command,
    write_model,
)
from linksim.montecarlo.engine import simulate
from linksim.names import parse_receiver
from linksim.quantization.registry import create_quantizer, list_quantizers
from linksim.registry import create_detector, is_learned, list_detectors
from linksim.training.cards import card_text, catalogue
from linksim.training.loop import source_of
from linksim.training.losses import mutual_information
from linksim.training.recipe import list_recipes, load_recipe, recipe_text
from linksim.training.source import VALIDATION
from tests.conftest import draw_system, slow_but

ROOT = Path(__file__).resolve().parent.parent
CARDS = list_models()
DETECTORS = [path for path in CARDS if path.split("/")[0] in list_detectors()]
QUANTIZERS = [path for path in CARDS if path.split("/")[0] in list_quantizers()]
# Far above the waterfall; the uncoded scenarios end there
HIGH_SNR_DB = {
    "rayleigh-2x2-qam64": 22.0,
    "rayleigh-4x4-qam16": 15.0,
    "gauss-markov-4x2-qpsk": 14.0,
    "small-16x8-qam16-corr-rx": 20.0,
}
# These stand for the other models of 64 antennas, which are slow
MASSIVE = ("oampnet/massive-64x16-qam16", "oampnet2/massive-64x32-qam64-corr-rx")


def first_of_each(paths, *fields, large=()):
    """Parameters of a test: one configuration of each network and, with `fields`, of each
    combination of their values on the cards. Of large systems only `large` are among them.
    All others are marked slow."""
    paths = list(paths)
    quick_ones = [p for p in paths if CARDS[p]["num_rx"] < 64 or p in large]
    kept = {
        (p.split("/")[0], *(CARDS[p][field] for field in fields)): p
        for p in reversed(quick_ones)
    }
    return slow_but(kept.values(), paths)


def quick(paths):
    return first_of_each(paths, "scenario", large=MASSIVE)


def system(card):
    return {
        "num_streams": card["num_streams"],
        "num_bits_per_symbol": card["num_bits_per_symbol"],
    }


def test_the_promised_models_are_there():
    for name in ("eqnet-mi", "max-mi"):
        for scenario in ("rayleigh-2x2-qam64", "rayleigh-4x4-qam16"):
            assert CARDS[f"{name}/{scenario}"]["status"] == "recommended"
            assert f"uniform/{scenario}" in QUANTIZERS
    for path in (
        "eqnet-l-qr/rayleigh-2x2-qam64",
        "eqnet-p-sic/rayleigh-2x2-qam64",
        "r-wesnet/wesnet-20x10-bpsk",
        "oampnet2/rayleigh-2x2-qam64",
        "eqnet-l-sic/rayleigh-4x4-qam16",
        "remimo/small-16x8-qam16",
        "remimo/small-16x8-qam16-corr-rx",
        "remimo-lmmse/massive-64x32-qam16",
        "remimo-pic/massive-64x32-qam16-corr-rx",
        "remimo-pic/massive-64x32-qam16-corr-full",
        "remimo-pic/massive-64x32-qam64",
    ):
        assert path in DETECTORS
    for name in ("oampnet", "oampnet2"):
        for streams in (16, 24, 32):
            for bits in (4, 6):
                for channel in ("", "-corr-rx", "-corr-full"):
                    assert f"{name}/massive-64x{streams}-qam{2**bits}{channel}" in DETECTORS


# Studies whose results are in no results.json: attention (R6) and mutual information
OTHER_RESULTS = ["remimo-lmmse/grouped-32x12-qam16"]


def test_statuses_are_kept():
    """Weights are recommended, or a committed result stands on them, or there are none."""
    used = set()
    for file in (ROOT / "results").glob("**/results.json"):
        # What is simulated for a page alone says nothing of its weights
        for models in load_json(file).get("provenance", {}).get("weights", {}).values():
            used |= set(models)
    for name in list_recipes():
        recipe = load_recipe(name)
        used |= {recipe.start, recipe.autoencoder, recipe.teachers}
    used |= set(OTHER_RESULTS)
    for path, card in list_cards().items():
        assert card["status"] in STATUSES and card["status_reason"], path
        assert (path in CARDS) == (card["status"] != "recipe"), path
        assert card["status"] != "study" or path in used, path
        if card["status"] == "recommended" and path in DETECTORS:
            own, rates = card["validation"]["mutual_information"], card["references"]
            assert own > max(rates["mmse"], rates["ep"]), path
        if path in DETECTORS:
            assert {"mmse", "ep"} <= set(card["references"]), path


def test_cards_and_catalogue_are_generated():
    """`python simulations/train.py --cards` writes them."""
    folder = model_folder()
    for path, card in list_cards().items():
        assert (folder / path / "card.md").read_text(encoding="utf-8") == card_text(card)
    assert (folder / "README.md").read_text(encoding="utf-8") == catalogue(folder)


def test_commands_of_cards_train_as_many_steps():
    for path, card in list_cards().items():
        words = training_command(card).split()
        assert words[2] == path and words[-1] == "--publish"
        budget = float(words[words.index("--budget") + 1]) if "--budget" in words else 1
        recipe = load_recipe(path)
        steps = max(1, round(recipe.steps * budget)) if recipe.steps else None
        assert card.get("steps") == steps
    card = {**card, "own_folder": True}
    assert training_command(card).endswith(" --models FOLDER --publish FOLDER")
    assert "`--import FILE.py`" in card_text(card)


def test_the_wheel_carries_recommended_weights():
    """setup.cfg names their folders one by one, and those that scenarios run by default."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    patterns = config["options.package_data"]["linksim._models"].split()
    needed = {path for path, card in CARDS.items() if card["status"] == "recommended"}
    for name in list_scenarios():
        scenario = load_scenario(name)
        for text in scenario.run.detectors:
            spec = parse_receiver(text)
            parts = [(spec.detector, spec.model)] if is_learned(spec.detector) else []
            parts += [spec.quantizer[:2]] if spec.quantizer else []
            for model, configuration in parts:
                system = scenario.system
                args = model, system.num_streams, system.num_bits_per_symbol
                path, card = find_model(*args, configuration, scenario)
                needed |= {path, card["autoencoder"]} - {""}
    expected = {"README.md", "*/*/recipe.toml", "*/*/card.json", "*/*/card.md"}
    expected |= {f"{path}/weights.npz" for path in needed}
    assert set(patterns) == expected
    files = {file for pattern in patterns for file in model_folder().glob(pattern)}
    assert sum(file.stat().st_size for file in files) < 18e6


@pytest.mark.parametrize("path", CARDS)
def test_cards_are_those_of_their_recipes_and_weights(path):
    card, recipe = CARDS[path], load_recipe(path)
    assert card["scenario"] == recipe.data.scenario
    assert card["options"] == recipe.model
    assert card["loss_terms"] == recipe.loss
    assert card["steps_of_recipe"] == recipe.steps if recipe.steps else "steps" not in card
    assert len(card["sha256"]) == 64
    arrays = read_weights(path, card)
    assert all(np.isfinite(a).all() for a in arrays.values())


# tests/test_any_size.py has those that serve every system
@pytest.mark.parametrize(
    "path", quick(path for path in DETECTORS if not CARDS[path].get("any_system"))
)
def test_detectors_are_as_good_as_their_cards_say(path):
    """On draws that were used neither for training nor for validation."""
    card, recipe = CARDS[path], load_recipe(path)
    scenario = load_scenario(card["scenario"])
    # Another seed would have other fixed channels
    seed = recipe.seed if card["num_channels"] else 987
    source = source_of(dataclasses.replace(recipe, seed=seed), scenario)
    # Where batches differ in their users or correlation, as many as were validated on
    varied = card["streams"] or card["rho"]
    count = recipe.validation_batches if varied else -(-4096 // card["batch_size"])
    name, configuration = path.split("/")
    detector = create_detector(name, pretrained=configuration, **system(card))
    rates = []
    for i in range(count):
        batch = source.draw(source.keys(VALIDATION, 10**6 + i))
        llr = detector(batch["y"], batch["h"], batch["no"], batch.get("prior"))
        rates.append(float(mutual_information(llr, batch["bits"], batch["present"])))
    expected = card["validation"]["mutual_information"]
    # One standard deviation of the difference, as batches differ, and what float16 may cost
    deviation = np.std(rates) * np.sqrt(1 / count + 1 / recipe.validation_batches)
    margin = 0.02 + deviation
    assert np.mean(rates) == pytest.approx(expected, abs=margin)
    assert card["references"]["mmse"] > 0.5 and recipe.data.snr_db == tuple(card["snr_db"])


def channels_of(card):
    """The scenario with the channels that a model is for."""
    if card.get("teachers"):  # a hypernetwork is for the channels of its teachers
        card = CARDS[card["teachers"]]
    scenario = load_scenario(card["scenario"])
    if card["num_channels"] == 1 and scenario.channel["type"] == "gauss-markov":
        scenario = scenario.replace(channel={"hop": 0})
    return scenario.replace(run={"batch_size": 100})


@pytest.mark.parametrize(
    "path",
    first_of_each(p for p in DETECTORS if CARDS[p]["validation"]["mutual_information"] > 0.5),
)
def test_detectors_decode_above_the_waterfall(path):
    name, configuration = path.split("/")
    card = CARDS[path]
    scenario = channels_of(card)
    snr_db = HIGH_SNR_DB.get(scenario.name, max(scenario.snr.points))
    results = simulate(scenario, [f"{name}@{configuration}"], snr_db=snr_db, max_blocks=100)
    record = results["records"][0]
    assert record["blocks"] == 100 and record["ber"] < 0.02
    weights = results["provenance"]["weights"][f"{name}@{configuration}"]
    assert weights == {path: card["sha256"]}


def test_weights_for_the_channel_of_a_scenario_come_first(monkeypatch):
    """Also where one model serves several numbers of users."""
    base = {"num_bits_per_symbol": 4, "num_streams": 32, "streams": [16, 32], "num_rx": 64}
    base["streams_step"] = 1
    cards = {
        f"remimo/{name}": {
            **base,
            "scenario": name,
            "channel": load_scenario(name).channel,
            "fixed_num_rx": True,
        }
        for name in ("massive-64x32-qam16", "massive-64x32-qam16-corr-rx")
    }
    monkeypatch.setattr(linksim.models, "list_models", lambda name: cards)
    for suffix in ("", "-corr-rx"):
        for streams in (16, 32):
            scenario = load_scenario(f"massive-64x{streams}-qam16{suffix}")
            path, _ = find_model("remimo", streams, 4, scenario=scenario)
            assert path == f"remimo/massive-64x32-qam16{suffix}"
    scenario = load_scenario("massive-64x16-qam16-corr-full")
    assert find_model("remimo", 16, 4, scenario=scenario)[0] in cards
    # Weights for 64 antennas do not fit 16
    small = load_scenario("massive-64x16-qam16").replace(system={"num_rx": 16})
    # Beyond its range a model is only taken when it is named
    assert (
        find_model("remimo", 33, 4, "massive-64x32-qam16")[0] == "remimo/massive-64x32-qam16"
    )
    with pytest.raises(InvalidInput, match="num_streams=16 to 32"):
        find_model("remimo", 33, 4)
    with pytest.raises(InvalidInput, match="num_streams=16 to 32"):
        find_model("remimo", 16, 4, scenario=small)


@pytest.mark.parametrize("path", QUANTIZERS)
def test_quantizers_store_llrs(path, rng):
    name, configuration = path.split("/")
    card = CARDS[path]
    quantizer = create_quantizer(name, pretrained=configuration, **system(card))
    _, y, h, no = draw_system(
        rng, 50, card["num_rx"], card["num_streams"], card["num_bits_per_symbol"], 0.03
    )
    llr = create_detector("ml", **system(card))(y, h, no)
    data = quantizer.store(llr)
    restored = quantizer.restore(data)
    np.testing.assert_allclose(restored, np.asarray(quantizer(llr)), atol=1e-5)
    payload = 50 * quantizer.bits_per_use / 8
    assert payload <= len(data) <= payload + 64
    sure = np.abs(np.asarray(llr)) > 3
    # Fewer latents than 3 K lose some, and so does a uniform quantizer
    if "latent_dim" not in card["options"] and name != "uniform":
        assert np.mean(np.sign(restored[sure]) == np.sign(np.asarray(llr)[sure])) > 0.97


def received(name, *args):
    """LLRs and decisions of a receiver on the 2x2 64-QAM scenario."""
    receiver = create_receiver(name, load_scenario("rayleigh-2x2-qam64"))
    llr, symbols = receiver.detector.llrs_and_symbols(*args)
    if receiver.quantizer is not None:
        llr = receiver.quantizer(llr)
    return np.asarray(llr), np.asarray(symbols), receiver


def test_receivers_chain_detector_and_quantizer(rng):
    _, y, h, no = draw_system(rng, 20, 2, 2, 6, 0.03)
    llr, symbols, receiver = received("ml+max-mi:4", y, h, no)
    args = {"num_streams": 2, "num_bits_per_symbol": 6}
    plain, decided = create_detector("ml", **args).llrs_and_symbols(y, h, no)
    quantizer = create_quantizer("max-mi", bits=4, pretrained=True, **args)
    np.testing.assert_allclose(np.asarray(llr), np.asarray(quantizer(plain)), atol=1e-5)
    np.testing.assert_array_equal(np.asarray(symbols), np.asarray(decided))
    assert set(receiver.weights) == {"max-mi/rayleigh-2x2-qam64"}
    # Without quantization only the transform is left
    whole, _, _ = received("ml+eqnet-mi:none", y, h, no)
    layer = create_quantizer("eqnet-mi", pretrained=True, **args)
    expected = layer.decode(layer.encode(plain))
    np.testing.assert_allclose(np.asarray(whole), np.asarray(expected), atol=1e-4)


def test_latents_are_quantized_in_joint_mode(rng):
    _, y, h, no = draw_system(rng, 400, 2, 2, 6, 0.03)
    plain, _, _ = received("eqnet-l-qr", y, h, no)
    fine, _, joint = received("eqnet-l-qr+latent:8", y, h, no)
    coarse, _, _ = received("eqnet-l-qr+latent:2", y, h, no)
    error = [np.mean(np.abs(x - plain)) for x in (fine, coarse)]
    assert 0 < error[0] < 0.3 * error[1]
    assert len(np.unique(np.asarray(joint.detector.codebook.levels)[0])) == 256
    assert len(joint.weights) == 2


@pytest.mark.parametrize(
    "text, fields",
    [
        ("ml", ("ml", (), None, None, None)),
        ("ml+eqnet", ("ml", (), None, None, ("eqnet", None, None))),
        ("ml+eqnet:6", ("ml", (), None, None, ("eqnet", None, 6))),
        ("ml+eqnet@x-2:6-5-4", ("ml", (), None, None, ("eqnet", "x-2", (6, 5, 4)))),
        ("eqnet-l@x+latent:none", ("eqnet-l", (), "x", None, ("latent", None, "none"))),
        (
            "r-wesnet@x:50%-20L",
            ("r-wesnet", (), "x", {"fraction": 0.5, "num_layers": 20}, None),
        ),
        (
            "r-wesnet:20L+max-mi:2",
            ("r-wesnet", (), None, {"num_layers": 20}, ("max-mi", None, 2)),
        ),
    ],
)
def test_receivers_are_parsed(text, fields):
    assert tuple(parse_receiver(text)) == (*fields, 1)
    assert parse_receiver(text).text == text


@pytest.mark.parametrize(
    "text", ["mml", "ml+nothing", "ml+eqnet:x", "ml+eqnet:", "mmse+latent:6", "ml@x", ""]
)
def test_bad_receivers_are_refused(text):
    if text == "ml+eqnet:":
        assert parse_receiver(text).quantizer.bits is None
        return
    with pytest.raises(InvalidInput):
        parse_receiver(text)


def test_what_does_not_fit_is_refused_with_what_exists():
    args = {"num_streams": 2, "num_bits_per_symbol": 6, "pretrained": True}
    with pytest.raises(InvalidInput, match="rayleigh-2x2-qam64"):
        create_detector("eqnet-l-qr", num_streams=3, num_bits_per_symbol=4, pretrained=True)
    with pytest.raises(InvalidInput, match="called nowhere"):
        find_model("eqnet-l-qr", 2, 6, configuration="nowhere")
    with pytest.raises(InvalidInput, match="codebooks of"):
        create_quantizer("max-mi", bits=9, **args)
    for name in list_detectors():
        if not is_learned(name):
            with pytest.raises(InvalidInput, match="classical"):
                create_detector(name, **args)
    # Weights that are not kept
    with pytest.raises(InvalidInput, match="train.py detnet/massive-64x32-qam16 --budget 0.0"):
        find_model("detnet", 32, 4)


def test_weights_of_studies_are_had_by_name(caplog, monkeypatch):
    """One line says what they are; `pretrained=True` refuses them and names them."""

    def said():
        messages = [record.getMessage() for record in caplog.records]
        caplog.clear()
        return messages

    monkeypatch.setattr(linksim.notices, "_SAID", set())
    args = {"num_streams": 2, "num_bits_per_symbol": 6}
    with pytest.raises(InvalidInput, match='pretrained="rayleigh-2x2-qam64"'):
        create_detector("eqnet-l", pretrained=True, **args)
    assert not said()
    for _ in range(2):
        create_detector("eqnet-l", pretrained="rayleigh-2x2-qam64", **args)
    (line,) = said()
    assert line.startswith("linksim: eqnet-l/rayleigh-2x2-qam64: weights of a study")
    # Recommended weights are silent where they belong, but not on other channels
    for _ in range(2):
        find_model("eqnet-mi", 4, 4, scenario=load_scenario("rayleigh-4x4-qam16"))
    assert not said()
    find_model("eqnet-mi", 4, 4, scenario=load_scenario("cdl-c-8x4-qam16"))
    (line,) = said()
    assert "another kind of channel (rayleigh-4x4-qam16)" in line
    linksim.notices._SAID.clear()
    with caplog.at_level(logging.ERROR, logger="linksim"):
        find_model("eqnet-l", 2, 6)
    assert not said()


def test_a_wheel_says_where_the_weights_of_studies_are(monkeypatch, tmp_path):
    path = "eqnet-l/rayleigh-2x2-qam64"
    (tmp_path / path).mkdir(parents=True)
    text = (model_folder() / path / "card.json").read_text(encoding="utf-8")
    (tmp_path / path / "card.json").write_text(text, encoding="utf-8")
    monkeypatch.setattr(linksim.models, "model_folder", lambda: tmp_path)
    assert path in list_cards() and path not in list_models()
    with pytest.raises(InvalidInput, match="models/ of its repository"):
        find_model("eqnet-l", 2, 6)


def test_own_weights_stand_in_for_those_that_are_not_shipped(monkeypatch, tmp_path):
    monkeypatch.setattr(linksim.models, "_OWN_FOLDERS", [])
    kept, gone = "eqnet-mi/rayleigh-2x2-qam64", "detnet/wesnet-16x16-qam4"
    for name in (kept, gone):
        (tmp_path / name).mkdir(parents=True)
    card = load_json(model_folder() / gone / "card.json")
    (tmp_path / gone / "card.json").write_text(json.dumps({**card, "title": "Mine"}))
    linksim.models.add_model_folder(tmp_path)
    # A folder without weights, such as that of a training that goes on, hides nothing
    assert kept in list_models()
    assert linksim.models.weights_file(kept).is_relative_to(model_folder())
    assert gone not in list_models()
    (tmp_path / gone / "weights.npz").touch()
    assert list_models("detnet")[gone]["title"] == "Mine"
    assert linksim.models.weights_file(gone).is_relative_to(tmp_path)


def test_a_wheel_takes_the_models_of_a_clone(monkeypatch, tmp_path):
    """It has some of the same weights, and studies stay studies."""
    name = "eqnet-l-sic/rayleigh-4x4-qam16"
    shutil.copytree(model_folder() / name, tmp_path / name)
    monkeypatch.setattr(linksim.models, "model_folder", lambda: tmp_path)
    monkeypatch.setattr(linksim.models, "_OWN_FOLDERS", [])
    linksim.models.add_model_folder(model_folder())
    assert {name, "eqnet-l/rayleigh-2x2-qam64"} <= set(list_models())
    with pytest.raises(InvalidInput, match="no weights of eqnet-l-sic are recommended"):
        create_detector("eqnet-l-sic", pretrained=True, num_streams=4, num_bits_per_symbol=4)


def test_a_file_of_the_user_is_imported(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("VALUE = 3\nclass Mine:\n    pass\n")
    module = import_file(file)
    assert module.VALUE == 3 and module.Mine.__module__ not in sys.modules
    for wrong in (tmp_path / "other.py", tmp_path):
        with pytest.raises(InvalidInput, match="existing .py file"):
            import_file(wrong)
    file.write_text("1 / 0")
    with pytest.raises(ZeroDivisionError):
        import_file(file)


def test_recipes_are_written_as_they_are_read(tmp_path):
    for name in list_recipes():
        recipe = load_recipe(name)
        file = tmp_path / name / "recipe.toml"
        file.parent.mkdir(parents=True)
        file.write_text(recipe_text(recipe), encoding="utf-8")
        assert load_recipe(file) == recipe


LOAD = """
import sys
from pathlib import Path
import numpy as np
import tensorflow as tf
assert "linksim" not in sys.modules and "sionna" not in sys.modules
data = np.load(sys.argv[1] + ".npz", allow_pickle=False)
model = tf.saved_model.load(sys.argv[1])
inputs = tuple(data[k] for k in ("y", "h", "no") if k in data) or data["llr"]
got = model.serve(inputs).numpy()
np.testing.assert_allclose(got, data["out"], rtol=1e-3, atol=1e-3)
print("equal")
"""


@pytest.mark.parametrize("mode", ["estimate", "estimate and quantize", "quantize"])
def test_the_three_modes_are_exported(mode, rng, tmp_path):
    weights = "rayleigh-2x2-qam64"
    args = {"num_streams": 2, "num_bits_per_symbol": 6, "pretrained": weights}
    _, y, h, no = draw_system(rng, 9, 2, 2, 6, 0.03)
    path = tmp_path / "saved"
    if mode == "quantize":
        llr = np.asarray(create_detector("ml", **{**args, "pretrained": False})(y, h, no))
        layer = create_quantizer("eqnet-mi", **args)
        inputs = keras.Input((2, 6), name="llr")
        model, arrays = keras.Model(inputs, layer(inputs)), {"llr": llr}
        out = layer(llr)
    else:
        bits = {"latent_bits": 6} if mode != "estimate" else {}
        layer = create_detector("eqnet-l-qr", **args, **bits)
        inputs = (
            keras.Input((2,), dtype="complex64", name="y"),
            keras.Input((2, 2), dtype="complex64", name="h"),
            keras.Input((), dtype="float32", name="no"),
        )
        model, arrays = keras.Model(inputs, layer(*inputs)), {"y": y, "h": h, "no": no}
        out = layer(y, h, no)
    model.export(path, verbose=False)
    np.savez(f"{path}.npz", out=np.asarray(out), **arrays)
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == "equal", done.stderr[-2000:]


def test_weights_are_stored_small():
    """In half precision, or in 8 bits where that is measured to cost nothing."""
    for path, card in CARDS.items():
        arrays = read_weights(path, card)
        trained = [v for k, v in arrays.items() if k.startswith("w")]
        short = (np.float16, np.int8)
        assert all(v.dtype in short or v.size < 10000 for v in trained), path
        assert sum(v.nbytes for v in arrays.values()) < 16e6, path
        assert any(v.dtype == np.int8 for v in trained) == ("stored_in_8_bits" in card), path
        if "stored_in_8_bits" in card:
            rates = card["stored_in_8_bits"]
            assert rates["before"] - rates["after"] < 1e-3, path
    kept = [f for f in model_folder().glob("**/*") if f.name != "curve.png" and f.is_file()]
    assert sum(f.stat().st_size for f in kept) < 64e6


@pytest.mark.parametrize("in_8_bits", [False, True])
def test_networks_are_stored_in_8_bits(in_8_bits, tmp_path):
    """Matrices to half a step of their column's or row's scale, all else in half precision."""
    args = {"num_streams": 2, "num_bits_per_symbol": 4, "num_layers": 2}
    layer, loaded = create_detector("detnet", **args), create_detector("detnet", **args)
    first = np.asarray(layer.weights[0]).copy()
    first[:, 0] = 0.0  # a column without a scale
    layer.weights[0].assign(first)
    write_model(tmp_path, layer, {"model": "detnet"}, {}, in_8_bits)
    arrays, _, digest = load_arrays(tmp_path / "weights.npz")
    assert digest == load_json(tmp_path / "card.json")["sha256"]
    assign_weights(loaded, arrays, "detnet/x")
    for index, (new, old) in enumerate(zip(loaded.weights, layer.weights)):
        new, old = np.asarray(new), np.asarray(old)
        if in_8_bits and old.ndim >= 2:
            assert arrays[f"w{index}"].dtype == np.int8
            steps = [np.abs(old).max(axis=axis, keepdims=True) / 127 for axis in (-2, -1)]
            assert any(np.all(np.abs(new - old) <= 0.5001 * step) for step in steps)
        else:
            np.testing.assert_array_equal(new, old.astype(np.float16))


def test_layers_say_which_weights_are_trained():
    args = {"num_streams": 2, "num_bits_per_symbol": 6, "pretrained": "rayleigh-2x2-qam64"}
    layer = create_detector("eqnet-l-qr", latent_bits=4, **args)
    card = find_model("eqnet-l-qr", 2, 6)[1]
    count = sum(int(np.prod(w.shape)) for w in trained_weights(layer))
    assert count == card["num_parameters"]
    assert len(layer.weights) > len(trained_weights(layer))
    json.dumps(layer.get_config())


def test_receivers_share_a_detection():
    """The detector works once for all quantizers behind it, with equal results."""
    from linksim.link.simulator import LinkSimulator

    scenario = load_scenario("rayleigh-2x2-qam64").replace(run={"batch_size": 20})
    names = ["mmse", "mmse+max-mi:2", "mmse+max-mi:4"]
    together = LinkSimulator(scenario)
    for name in names:
        together.add_detector(name)
    assert list(together._detect) == ["mmse"]
    calls = []
    original = together._detect["mmse"]
    together._detect["mmse"] = lambda *args: calls.append(1) or original(*args)
    warm_up, *draws = [together.draw(0, 15.0, b) for b in range(3)]
    for name in names:  # the compiling calls
        together.errors(name, warm_up)
    calls.clear()
    for draw in draws:
        shared = {}
        for name in names:
            alone = LinkSimulator(scenario)
            alone.add_detector(name)
            found = together.errors(name, draw, shared)
            for a, b in zip(found[:2], alone.errors(name, draw)[:2]):
                np.testing.assert_array_equal(a, b)
    assert len(calls) == 2


def test_every_package_is_installed():
    """setup.cfg names the packages one by one."""
    listed = configparser.ConfigParser()
    listed.read(ROOT / "setup.cfg")
    listed = listed["options"]["packages"].split()
    for file in (ROOT / "linksim").rglob("__init__.py"):
        assert ".".join(file.parent.relative_to(ROOT).parts) in listed
