"""Training: data, losses, the loop's resumption, publishing, two backends."""

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import linksim.models
import linksim.training.publish
from linksim.errors import InvalidInput, ResultFileError
from linksim.link.scenario import load_scenario
from linksim.quantization.registry import create_quantizer
from linksim.registry import create_detector
from linksim.training import losses
from linksim.training.build import build_task
from linksim.training.loop import Trainer
from linksim.training.recipe import list_recipes, load_recipe, recipe_from_dict
from linksim.training.source import TRAINING, VALIDATION, VectorSource

QPSK = load_scenario("rayleigh-2x2-qam64").replace(system={"num_bits_per_symbol": 2})
QAM16 = load_scenario("rayleigh-2x2-qam64").replace(system={"num_bits_per_symbol": 4})


def to_numpy(batch):
    return {k: np.asarray(keras.ops.convert_to_numpy(v)) for k, v in batch.items()}


# --- data ---------------------------------------------------------------------------


def test_a_batch_is_a_function_of_seed_and_index():
    source = VectorSource(QAM16, (0, 10), 64, teacher="mmse", seed=3)
    a = to_numpy(source.draw(source.keys(TRAINING, 5)))
    b = to_numpy(VectorSource(QAM16, (0, 10), 64, teacher="mmse", seed=3).draw(
        source.keys(TRAINING, 5)
    ))
    for name in a:
        np.testing.assert_array_equal(a[name], b[name])
    for other in (source.keys(TRAINING, 6), source.keys(VALIDATION, 5)):
        assert not np.array_equal(to_numpy(source.draw(other))["y"], a["y"])


def test_snr_is_uniform_in_db():
    source = VectorSource(QAM16, (3, 7), 4096, seed=1)
    snr = -10 * np.log10(to_numpy(source.draw(source.keys(TRAINING, 0)))["no"])
    assert snr.min() > 3 - 1e-4 and snr.max() < 7 + 1e-4
    assert abs(snr.mean() - 5) < 4 * (4 / 12**0.5) / 64


def test_noise_has_the_variance_handed_out():
    source = VectorSource(QPSK, (6, 6), 20000, seed=1)
    batch = to_numpy(source.draw(source.keys(TRAINING, 0)))
    from linksim.constellation import qam_points

    x = qam_points(2)[batch["symbols"]]
    noise = batch["y"] - np.einsum("bmk,bk->bm", batch["h"], x)
    assert np.mean(np.abs(noise) ** 2) == pytest.approx(10**-0.6, rel=0.03)


@pytest.mark.parametrize("scenario", [QPSK, QAM16])
def test_symmetric_copies_have_the_llrs_of_the_teacher(scenario):
    source = VectorSource(scenario, (5, 12), 240, teacher="ml", seed=2, copies=8)
    batch = to_numpy(source.draw(source.keys(TRAINING, 0)))
    m = scenario.system.num_bits_per_symbol
    detector = create_detector("ml", num_streams=2, num_bits_per_symbol=m)
    again = np.asarray(detector(batch["y"], batch["h"], batch["no"]))
    np.testing.assert_allclose(batch["llr"], again, rtol=1e-3, atol=1e-3)
    # The copies differ from the original, and what was sent follows
    assert len(np.unique(batch["h"].reshape(240, -1), axis=0)) > 120
    weights = 2 ** np.arange(m - 1, -1, -1)
    np.testing.assert_array_equal(batch["bits"] @ weights, batch["symbols"])
    signs = np.sign(2 * batch["bits"] - 1)
    assert np.mean(signs == np.sign(batch["llr"])) > 0.8


@pytest.mark.parametrize(
    "change",
    [
        {"snr_db": (5, 3)},
        {"snr_db": (5,)},
        {"batch_size": 0},
        {"batch_size": 10, "copies": 3},
        {"seed": -1},
    ],
)
def test_bad_sources_are_refused(change):
    with pytest.raises(InvalidInput):
        VectorSource(**{"scenario": QPSK, "snr_db": (0, 5), "batch_size": 8, **change})


def test_grids_are_refused():
    with pytest.raises(InvalidInput, match="grid"):
        VectorSource(load_scenario("cdl-c-8x4-qam16"), (0, 5), 8)


# --- losses -------------------------------------------------------------------------


def test_losses_are_their_formulas(rng):
    llr, target = rng.normal(size=(2, 50, 2, 4)).astype(np.float32) * 3
    weights = rng.uniform(0.5, 1.5, (2, 4)).astype(np.float32)
    t, w = np.tanh(target / 2), np.tanh(llr / 2)
    expected = np.mean(weights * (t - w) ** 2 / (np.abs(t) + 1e-6))
    got = float(losses.weighted_squared_error(llr, target, weights))
    assert got == pytest.approx(expected, rel=1e-4)

    p, q = 1 / (1 + np.exp(-target.astype(float))), 1 / (1 + np.exp(-llr.astype(float)))
    kl = np.mean(p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q)))
    assert float(losses.bit_divergence(llr, target)) == pytest.approx(kl, rel=1e-4)
    assert float(losses.bit_divergence(target, target)) == pytest.approx(0, abs=1e-6)

    bits = (rng.uniform(size=llr.shape) < 0.5).astype(np.float32)
    entropy = np.mean(-np.log(np.where(bits > 0, q, 1 - q)))
    assert float(losses.bit_cross_entropy(llr, bits)) == pytest.approx(entropy, rel=1e-4)


def test_losses_on_pam_logits(rng):
    from linksim.constellation import pam_points, qam_points

    points = pam_points(4)
    symbols = rng.integers(0, 16, (30, 2))
    x = qam_points(4)[symbols]
    levels = np.concatenate([x.real, x.imag], axis=-1)  # [30, 4]
    sure = -1e3 * np.abs(levels[..., None] - points).astype(np.float32)
    assert float(losses.pam_cross_entropy(sure, symbols, 4)) == pytest.approx(0, abs=1e-6)
    assert float(losses.pam_squared_error(sure, symbols, 4, points)) < 1e-10
    flat = np.zeros_like(sure)
    entropy = float(losses.pam_cross_entropy(flat, symbols, 4))
    assert entropy == pytest.approx(np.log(4), rel=1e-5)
    error = float(losses.pam_squared_error(flat, symbols, 4, points))
    assert error == pytest.approx(np.mean(levels**2), rel=1e-5)


# --- recipes ------------------------------------------------------------------------


def recipe(**changes):
    data = {
        "name": "eqnet/test",
        "title": "a test",
        "task": "autoencoder",
        "steps": 6,
        "validate_every": 3,
        "validation_batches": 1,
        "jit_compile": False,
        "data": {
            "scenario": "rayleigh-2x2-qam64",
            "snr_db": [3.0, 9.0],
            "batch_size": 64,
            "teacher": "mmse",
        },
        "loss": {"divergence": 1.0},
        "model": {"width": 16},
    }
    return recipe_from_dict({**data, **changes})


def test_every_shipped_recipe_is_valid():
    names = list_recipes()
    assert "eqnet-l/rayleigh-2x2-qam64" in names
    for name in names:
        assert load_recipe(name).name == name


@pytest.mark.parametrize(
    "change",
    [
        {"steps": 0},
        {"task": "nothing"},
        {"extra": 1},
        {"optimizer": {"learning_rate": 0.0}},
        {"optimizer": {"schedule": "x"}},
        {"data": {"scenario": "rayleigh-2x2-qam64"}},
    ],
)
def test_bad_recipes_are_refused(change):
    with pytest.raises(InvalidInput):
        recipe(**change)


def test_unknown_loss_terms_are_refused():
    with pytest.raises(InvalidInput, match="divergence"):
        build_task(recipe(loss={"nothing": 1.0}))


# --- the loop -----------------------------------------------------------------------


def trainer(recipe, folder=None, **options):
    keras.utils.set_random_seed(recipe.seed)
    task, scenario = build_task(recipe)
    return Trainer(recipe, task, scenario, folder, **options)


class Kill(Exception):
    pass


@pytest.mark.parametrize(
    "optimizer",
    [
        {"schedule": "cosine", "learning_rate": 1e-2},
        {"schedule": "plateau", "learning_rate": 1.0, "patience": 1, "clip_norm": 1.0},
    ],
)
def test_resumed_training_is_the_uninterrupted_one(tmp_path, optimizer):
    plan = recipe(optimizer=optimizer)
    whole = trainer(plan)
    history = whole.run()
    assert [e["step"] for e in history] == [0, 3, 6]

    def kill_at(step, steps, loss):
        if step == 5:
            raise Kill

    with pytest.raises(Kill):
        trainer(plan, tmp_path, on_step=kill_at).run()
    again = trainer(plan, tmp_path)
    resumed = again.run()
    for a, b in zip(history, resumed):
        a, b = ({k: v for k, v in e.items() if k != "seconds"} for e in (a, b))
        np.testing.assert_equal(a, b)
    for a, b in zip(whole.task.product.weights, again.task.product.weights):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
    # A finished training has nothing left to do
    assert trainer(plan, tmp_path).run() == resumed


def test_another_training_is_not_resumed(tmp_path):
    trainer(recipe(), tmp_path).run()
    with pytest.raises(ResultFileError, match="recipe"):
        trainer(recipe(loss={"weighted-squared-error": 1.0}), tmp_path).run()
    with pytest.raises(ResultFileError, match="steps"):
        trainer(recipe(), tmp_path, budget=0.5).run()


def test_a_damaged_state_is_refused(tmp_path):
    trainer(recipe(), tmp_path).run()
    file = tmp_path / "state.npz"
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(ResultFileError, match="state.npz"):
        trainer(recipe(), tmp_path).run()


def test_training_learns():
    plan = recipe(
        steps=150,
        validate_every=150,
        jit_compile=keras.backend.backend() == "tensorflow",
        optimizer={"learning_rate": 5e-3},
    )
    before, after = trainer(plan).run()
    assert after["loss"] < 0.6 * before["loss"]


# --- publishing ---------------------------------------------------------------------


@pytest.fixture
def models(tmp_path, monkeypatch):
    """An empty folder of models."""
    for module in (linksim.models, linksim.training.publish):
        monkeypatch.setattr(module, "model_folder", lambda: tmp_path)
    monkeypatch.setattr(linksim.training.publish, "_CODEBOOK_USES", 1024)
    return tmp_path


def published(plan):
    made = trainer(plan)
    made.run()
    linksim.training.publish.publish(plan, made, load_scenario(plan.data.scenario))
    return made.task.product


def test_published_models_are_found_and_checked(models, rng):
    layer = published(recipe())
    args = {"num_streams": 2, "num_bits_per_symbol": 6}
    quantizer = create_quantizer("eqnet", pretrained=True, bits=5, **args)
    llr = rng.normal(size=(9, 2, 6)).astype(np.float32) * 4
    np.testing.assert_allclose(
        np.asarray(quantizer.encode(llr)), np.asarray(layer.encode(llr)), atol=5e-3
    )
    assert quantizer.bits_per_llr == pytest.approx(5 * 6 / 12)
    assert np.isfinite(np.asarray(quantizer(llr))).all()
    mixed = create_quantizer("eqnet", pretrained=True, bits=(5, 5, 4, 4, 3, 3), **args)
    assert mixed.bits_per_use == 24
    assert (models / "eqnet/test/card.md").read_text().startswith("# eqnet, test")
    assert (models / "eqnet/test/curve.png").stat().st_size > 1000

    with pytest.raises(InvalidInput, match="num_streams=2"):
        create_quantizer("eqnet", pretrained=True, num_streams=4, num_bits_per_symbol=4)
    with pytest.raises(InvalidInput, match="bits"):
        create_quantizer("eqnet", pretrained=True, bits=11, **args)
    with pytest.raises(InvalidInput, match="width|shape"):
        create_quantizer("eqnet", pretrained=True, width=8, **args)


def test_an_edited_model_is_refused(models):
    published(recipe())
    args = {"num_streams": 2, "num_bits_per_symbol": 6, "pretrained": True}
    card = models / "eqnet/test/card.json"
    text = json.loads(card.read_text())
    card.write_text(json.dumps({**text, "sha256": "0" * 64}))
    with pytest.raises(ResultFileError, match="weights.npz"):
        create_quantizer("eqnet", **args)
    card.write_text(json.dumps(text))
    create_quantizer("eqnet", **args)
    weights = models / "eqnet/test/weights.npz"
    weights.write_bytes(weights.read_bytes()[:-300])
    with pytest.raises(ResultFileError, match="weights.npz"):
        create_quantizer("eqnet", **args)


def test_estimators_take_the_decoder_of_their_autoencoder(models, rng):
    auto = published(recipe())
    plan = recipe(
        name="eqnet-l/test",
        task="estimator",
        autoencoder="eqnet/test",
        loss={"latent": 1.0, "divergence": 0.5},
        model={"width": 24, "decoder_width": 16},
    )
    layer = published(plan)
    for a, b in zip(auto.decoder.weights, layer.decoder.weights):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), atol=2e-3)
    args = {"num_streams": 2, "num_bits_per_symbol": 6, "pretrained": True}
    y = (rng.normal(size=(5, 2)) + 1j).astype(np.complex64)
    h = (rng.normal(size=(5, 2, 2)) + 1j * rng.normal(size=(5, 2, 2))).astype(np.complex64)
    no = np.full(5, 0.1, np.float32)
    plain = np.asarray(create_detector("eqnet-l", **args)(y, h, no))
    np.testing.assert_allclose(plain, np.asarray(layer(y, h, no)), rtol=0.05, atol=0.05)
    fine = create_detector("eqnet-l", latent_bits=8, **args)(y, h, no)
    coarse = create_detector("eqnet-l", latent_bits=1, **args)(y, h, no)
    # Joint estimation and quantization: few bits cost more than many
    error = [np.mean((np.asarray(x) - plain) ** 2) for x in (fine, coarse)]
    assert 0 < error[0] < error[1]


# --- two backends -------------------------------------------------------------------

TEN_STEPS = """
import sys
import numpy as np
import keras
from tests.test_training import recipe
from linksim.training.build import build_task
keras.utils.set_random_seed(1)
task, _ = build_task(recipe(jit_compile=True))
data = np.load(sys.argv[1])
batch = {name: data[name] for name in ("llr", "bits", "key")}
task.calibrate(batch)
task(batch)
task.product.set_weights([data[f"w{i}"] for i in range(len(task.product.weights))])
task.compile(optimizer=keras.optimizers.Adam(1e-3), jit_compile=True)
for step in range(10):
    task.reset_metrics()
    print(float(task.train_on_batch(batch)))
"""


def test_tensorflow_and_jax_train_alike(tmp_path):
    pytest.importorskip("jax")
    plan = recipe()
    made = trainer(plan)
    source = made._source
    batch = to_numpy(made.task.prepare(source.draw(source.keys(TRAINING, 0))))
    weights = {f"w{i}": np.asarray(w) for i, w in enumerate(made.task.product.weights)}
    np.savez(tmp_path / "data.npz", **batch, **weights)
    printed = {}
    for backend in ("tensorflow", "jax"):
        done = subprocess.run(
            [sys.executable, "-c", TEN_STEPS, str(tmp_path / "data.npz")],
            cwd=Path(__file__).resolve().parent.parent,
            env={**os.environ, "KERAS_BACKEND": backend, "JAX_PLATFORMS": "cpu"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        printed[backend] = [float(x) for x in done.stdout.split()]
    assert printed["tensorflow"][-1] < printed["tensorflow"][0]
    # The noise on the latents is small, and drawn by each backend's own generator
    np.testing.assert_allclose(printed["tensorflow"], printed["jax"], rtol=2e-3)
