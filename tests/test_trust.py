"""Files that were cut, flipped, swapped or edited are refused by name; nothing is pickle."""

import ast
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import linksim.models
from linksim.data import model_folder
from linksim.errors import InvalidInput, ResultFileError
from linksim.files import load_arrays, load_json, save_arrays, save_json
from linksim.models import list_models, read_weights
from linksim.montecarlo.store import CountStore
from linksim.registry import create_detector
from linksim.training.recipe import recipe_from_dict
from tests.small_runs import IDENTITY, result
from tests.trainings import trainer

ROOT = Path(__file__).parent.parent


def damaged(data, flips=40):
    """A file's bytes cut at some lengths, and with one bit changed at some places."""
    for size in (0, 1, len(data) // 3, len(data) - 2):
        yield data[:size]
    for i, position in enumerate(np.linspace(0, len(data) - 1, flips).astype(int)):
        flipped = bytearray(data)
        flipped[position] ^= 1 << (i % 8)
        yield bytes(flipped)


def check_damage(file, read, same, flips=40):
    """Each damage is refused with the file's name, or harmless: what is read is the same.

    Some bytes carry nothing, such as the times in an archive.
    """
    whole = file.read_bytes()
    good, refused = read(), 0
    for data in damaged(whole, flips):
        file.write_bytes(data)
        try:
            found = read()
        except ResultFileError as error:
            assert file.name in str(error)
            refused += 1
        else:
            assert same(good, found)
    file.write_bytes(whole)
    assert refused > 4 + flips / 2
    assert same(good, read())


def same_arrays(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)


def equal(a, b):
    return a == b


# --- files ----------------------------------------------------------------------------


def test_damaged_arrays_are_refused(tmp_path, rng):
    file = tmp_path / "arrays.npz"
    save_arrays(file, {"a": rng.normal(size=(5, 7)), "b": np.arange(3)}, {"step": 3})
    check_damage(file, lambda: load_arrays(file)[0], same_arrays, flips=200)
    check_damage(file, lambda: load_arrays(file)[1:], equal, flips=200)


def rewritten(file, change):
    """Write an archive again with its stored header or arrays changed, as an editor would."""
    with np.load(file, allow_pickle=False) as archive:
        members = {name: archive[name] for name in archive.files}
    stored = json.loads(members.pop("header.json").tobytes())
    change(stored, members)
    text = np.frombuffer(json.dumps(stored).encode(), np.uint8)
    np.savez(file, **members, **{"header.json": text})
    # NumPy adds a second ending to a name that it does not know
    assert file.exists()


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda stored, arrays: stored["header"].update(step=4), "header"),
        (lambda stored, arrays: arrays.update(a=arrays["a"] + 1), "arrays"),
        (lambda stored, arrays: arrays.update(c=arrays["a"]), "arrays"),
        (lambda stored, arrays: stored.pop("sha256"), "damaged"),
    ],
)
def test_edited_arrays_are_refused(tmp_path, change, message):
    file = tmp_path / "arrays.npz"
    save_arrays(file, {"a": np.arange(3.0)}, {"step": 3})
    rewritten(file, lambda stored, arrays: None)
    assert load_arrays(file)[1] == {"step": 3}
    rewritten(file, change)
    with pytest.raises(ResultFileError, match=f"arrays.npz.*{message}"):
        load_arrays(file)


def test_pickled_arrays_are_refused(tmp_path):
    file = tmp_path / "arrays.npz"
    np.savez(file, a=np.array([{"x": 1}], dtype=object))
    with pytest.raises(ResultFileError, match="arrays.npz.*allow_pickle"):
        load_arrays(file)


RESULTS = {"records": [{"detector": "zf", "ber": 1.25e-3, "bits": 400}], "low": [0.1, None]}


def test_damaged_and_edited_json_is_refused(tmp_path):
    file = tmp_path / "results.json"
    save_json(file, RESULTS)
    assert load_json(file) == RESULTS
    # Every bit of the file
    check_damage(file, lambda: load_json(file), equal, flips=8 * file.stat().st_size)
    file.write_text(file.read_text().replace("0.00125", "0.00124"))
    with pytest.raises(ResultFileError, match="results.json: was edited"):
        load_json(file)
    file.write_text("[1, 2]")
    with pytest.raises(ResultFileError, match="results.json: holds a list"):
        load_json(file)
    with pytest.raises(ResultFileError, match="none.json: cannot be read"):
        load_json(tmp_path / "none.json")
    with pytest.raises(InvalidInput, match="checksum"):
        save_json(file, {"checksum": 1})


def test_the_published_results_are_read():
    file = ROOT / "results/cdl-c-8x4-qam16/results.json"
    assert load_json(file) == {
        k: v for k, v in json.loads(file.read_text()).items() if k != "checksum"
    }


def test_counts_of_a_damaged_store_are_refused_or_true(tmp_path):
    """Every bit of a store: refused by name, or no count is changed."""
    file = tmp_path / "counts.jsonl"
    with CountStore(file, IDENTITY) as store:
        store.append(3.0, 0, {"a": result(4), "b": result(2)})
        store.append(3.5, 0, {"a": result(1)})
    whole = file.read_bytes()
    truth = {("a", 3.0): result(4), ("b", 3.0): result(2), ("a", 3.5): result(1)}
    accepted = 0
    for position in range(len(whole)):
        for bit in range(8):
            flipped = bytearray(whole)
            flipped[position] ^= 1 << bit
            file.write_bytes(flipped)
            try:
                with CountStore(file, IDENTITY) as store:
                    found = {
                        (name, snr): store.get(name, snr, 0)
                        for name in store._results
                        for snr in store.points(name)
                    }
            except ResultFileError as error:
                assert "counts.jsonl" in str(error)
                assert file.read_bytes() == flipped  # kept as it is
                continue
            accepted += 1
            for key, value in found.items():
                assert value.counts == truth[key].counts
                np.testing.assert_array_equal(value.failed, truth[key].failed)
    # Blanks; and the last line end, without which the last line counts as torn
    assert accepted < 0.01 * 8 * len(whole)


def test_counts_written_before_the_checksum_are_read(tmp_path):
    file = tmp_path / "counts.jsonl"
    with CountStore(file, IDENTITY) as store:
        store.append(3.0, 0, {"a": result(4)})
    first, line = file.read_text().splitlines()
    file.write_text(f"{first}\n{json.dumps(json.loads(line)[:3])}\n")
    with CountStore(file, IDENTITY) as store:
        assert store.total("a", 3.0) == result(4).counts


# --- trained models -------------------------------------------------------------------


@pytest.fixture
def two_models(tmp_path, monkeypatch):
    """Copies of two small models of one detector, and a function that loads the first."""
    cards = list_models("oampnet2") or list_models("oampnet")
    paths = sorted(cards, key=lambda p: (model_folder() / p / "weights.npz").stat().st_size)[
        :2
    ]
    assert len(paths) == 2
    for path in paths:
        shutil.copytree(model_folder() / path, tmp_path / path)
    monkeypatch.setattr(linksim.models, "model_folder", lambda: tmp_path)
    card = cards[paths[0]]

    def load():
        layer = create_detector(
            card["model"],
            num_streams=card["num_streams"],
            num_bits_per_symbol=card["num_bits_per_symbol"],
            pretrained=card["configuration"],
        )
        return [np.asarray(w) for w in layer.weights]

    load()
    return [tmp_path / path for path in paths], load


def test_damaged_weights_are_refused(two_models):
    (folder, _), load = two_models
    path = "/".join(folder.parts[-2:])
    file, card = folder / "weights.npz", list_models()[path]
    check_damage(file, lambda: read_weights(path, card), same_arrays)
    file.unlink()
    with pytest.raises(InvalidInput, match="the weights of .* are not part of"):
        load()


def test_swapped_and_edited_models_are_refused(two_models):
    (folder, other), load = two_models
    kept = {f: (folder / f).read_bytes() for f in ("weights.npz", "card.json")}

    def refused(message):
        with pytest.raises(ResultFileError, match=message):
            load()
        for name, data in kept.items():
            (folder / name).write_bytes(data)
        load()

    # The weights of another model, both files of it, its card
    shutil.copy(other / "weights.npz", folder)
    refused("weights.npz: not the weights that .*card.json describes")
    for name in kept:
        shutil.copy(other / name, folder)
    refused(f"card.json: is the card of .*{other.name}")
    shutil.copy(other / "card.json", folder)
    refused("card.json: is the card of")
    # Other numbers, written as linksim writes them
    arrays, header, _ = load_arrays(folder / "weights.npz")
    save_arrays(folder / "weights.npz", {**arrays, "w0": arrays["w0"] + 1}, header)
    refused("weights.npz: not the weights")
    card = json.loads(kept["card.json"])
    (folder / "card.json").write_text(json.dumps({**card, "sha256": "0" * 64}))
    refused("weights.npz: not the weights|card.json")
    del card["sha256"]
    (folder / "card.json").write_text(json.dumps(card))
    refused("card.json: lacks sha256|card.json: was edited")
    (folder / "card.json").write_bytes(kept["card.json"][:-30])
    refused("card.json: not a JSON file, or damaged")


def test_a_missing_codebook_is_named(monkeypatch):
    """The latents of an estimator are quantized with the codebook of its autoencoder."""
    cards = {p: c for p, c in list_models().items() if p.startswith("eqnet-l/")}
    path, card = next((p, c) for p, c in cards.items() if c["autoencoder"])
    monkeypatch.setattr("linksim.registry.list_models", lambda name: {path: card})
    with pytest.raises(ResultFileError, match="eqnet/.* has no weights here"):
        create_detector(
            "eqnet-l",
            num_streams=card["num_streams"],
            latent_bits=4,
            num_bits_per_symbol=card["num_bits_per_symbol"],
            pretrained=card["configuration"],
        )


# --- checkpoints ----------------------------------------------------------------------


RECIPE = {
    "name": "mmnet-iid/test",
    "title": "a test",
    "task": "detector",
    "steps": 2,
    "validate_every": 1,
    "validation_batches": 1,
    "jit_compile": False,
    "loss": {"cross-entropy": 1.0},
    "model": {"num_layers": 2},
    "data": {"scenario": "rayleigh-4x4-qam16", "snr_db": [8, 14], "batch_size": 8},
}


def test_damaged_and_edited_checkpoints_are_refused(tmp_path):
    trainer(recipe_from_dict(RECIPE), tmp_path).run()
    file = tmp_path / "state.npz"
    again = trainer(recipe_from_dict(RECIPE), tmp_path)

    def read():
        again._resume()
        return [again.step, again.seconds, *(w.tolist() for w in again._weights())]

    check_damage(file, read, equal)
    whole = file.read_bytes()
    arrays, header, _ = load_arrays(file)
    for changed, message in (
        ({k: v for k, v in arrays.items() if k != "task_0"}, "task_0 differs"),
        ({**arrays, "task_0": arrays["task_0"][:1]}, "task_0 differs"),
        ({**arrays, "task_9": arrays["task_0"]}, "task_9 differs"),
    ):
        save_arrays(file, changed, header)
        with pytest.raises(ResultFileError, match=f"state.npz: .*{message}"):
            read()
    file.write_bytes(whole)
    rewritten(file, lambda stored, _: stored["header"].update(step=1))
    with pytest.raises(ResultFileError, match="state.npz: its header"):
        read()
    # That of another training
    file.write_bytes(whole)
    other = trainer(recipe_from_dict({**RECIPE, "model": {"num_layers": 3}}), tmp_path)
    with pytest.raises(ResultFileError, match="state.npz: belongs to another training"):
        other.run()


# --- no pickle ------------------------------------------------------------------------


_PICKLES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
SOURCES = sorted(
    p for folder in ("linksim", "simulations", "tests") for p in (ROOT / folder).rglob("*.py")
)


def calls_and_imports(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name.split(".")[0], None, node) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").split(".")[0], None, node
        elif isinstance(node, ast.Call):
            yield None, ast.unparse(node.func), node


def unsafe(text):
    """What of a source file could run code that a data file holds."""
    found = []
    for module, function, node in calls_and_imports(ast.parse(text)):
        if module in _PICKLES:
            found.append(f"import of {module}")
        if function is None:
            continue
        keywords = {k.arg: ast.unparse(k.value) for k in node.keywords}
        # The default of NumPy and of Keras is the safe one; no call may change it
        if keywords.get("allow_pickle", "False") != "False":
            found.append(f"{function} with pickle")
        if function.endswith("np.load") and "allow_pickle" not in keywords:
            found.append(f"{function} without allow_pickle=False")
        if keywords.get("safe_mode", "True") != "True" or "unsafe_deserialization" in function:
            found.append(f"{function} without safe mode")
        if function in ("eval", "exec", "torch.load", "yaml.load"):
            found.append(function)
    return found


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from joblib import load",
        "np.load(f, allow_pickle=True)",
        "np.load(f)",
        "keras.models.load_model(f, safe_mode=False)",
        "keras.config.enable_unsafe_deserialization()",
        "eval(text)",
    ],
)
def test_unsafe_reading_is_seen(text):
    assert unsafe(text)


def test_nothing_reads_code_from_data():
    for path in SOURCES:
        found = unsafe(path.read_text(encoding="utf-8"))
        assert not found, f"{path.relative_to(ROOT)}: {found}"


def test_keras_models_with_code_are_refused(tmp_path):
    """Keras's own safe mode, which nothing here turns off."""
    import keras

    inputs = keras.Input((2,))
    model = keras.Model(inputs, keras.layers.Lambda(lambda x: x + 1)(inputs))
    model.save(tmp_path / "model.keras")
    with pytest.raises((ValueError, TypeError), match="(?i)unsafe|safe_mode"):
        keras.models.load_model(tmp_path / "model.keras")
