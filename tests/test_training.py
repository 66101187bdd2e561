"""Training: losses, recipes, resuming and publishing."""

import copy
import csv
import itertools
import json

import keras
import numpy as np
import pytest

import linksim.training.loop
from linksim.constellation import pam_points, qam_points
from linksim.errors import InvalidInput, ResultFileError
from linksim.files import load_arrays
from linksim.quantization.registry import create_quantizer
from linksim.registry import create_detector
from linksim.training import losses
from linksim.training.build import build_task
from linksim.training.optimizer import make_optimizer, rate_of_step
from linksim.training.recipe import Optimizer, list_recipes, load_recipe, recipe_from_dict
from tests.trainings import check_resumption, published, trainer

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


def test_losses_on_logits(rng):
    points = pam_points(4)
    symbols = rng.integers(0, 16, (30, 2))
    x = qam_points(4)[symbols]
    levels = np.concatenate([x.real, x.imag], axis=-1)  # [30, 4]
    np.testing.assert_allclose(losses.sent_levels(symbols, 4, points), levels, rtol=1e-6)
    sure = -1e3 * np.abs(levels[..., None] - points).astype(np.float32)
    assert float(losses.cross_entropy(sure, symbols, 4)) == pytest.approx(0, abs=1e-6)
    np.testing.assert_allclose(losses.pam_means(sure, points), levels, rtol=1e-5)
    flat = np.zeros_like(sure)
    entropy = float(losses.cross_entropy(flat, symbols, 4))
    assert entropy == pytest.approx(np.log(4), rel=1e-5)
    np.testing.assert_allclose(losses.pam_means(flat, points), 0 * levels, atol=1e-6)
    # Symbol logits
    whole = np.log(rng.dirichlet(np.ones(16), (30, 2))).astype(np.float32)
    expected = -np.take_along_axis(whole, symbols[..., None], -1).mean()
    got = float(losses.cross_entropy(whole, symbols, 4))
    assert got == pytest.approx(expected, rel=1e-5)


def test_absent_users_do_not_count(rng):
    """Means are over the present users, whatever the others hold."""
    symbols = rng.integers(0, 16, (6, 3))
    weights = np.array([[1, 1, 0]] * 4 + [[1, 0, 0]] * 2, np.float32)
    kept = weights > 0
    logits = rng.normal(size=(6, 6, 4)).astype(np.float32)
    both = np.concatenate([weights, weights], -1) > 0
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    sent = np.asarray(losses.pam_targets(symbols, 4))
    entropy = -np.take_along_axis(log_p, sent[..., None], -1)[..., 0]
    got = losses.cross_entropy(logits, symbols, 4, weights)
    assert float(got) == pytest.approx(entropy[both].mean(), rel=1e-5)
    estimate = rng.normal(size=(6, 6)).astype(np.float32)
    got = losses.squared_error(estimate, 0 * estimate, weights)
    assert float(got) == pytest.approx((estimate[both] ** 2).mean(), rel=1e-5)
    llr, bits = rng.normal(size=(6, 3, 4)).astype(np.float32), np.ones((6, 3, 4), np.float32)
    got = losses.bit_cross_entropy(llr, bits, weights)
    assert float(got) == pytest.approx(np.log1p(np.exp(-llr[kept])).mean(), rel=1e-5)


def test_detnet_loss_is_its_equation(rng):
    """[Mohammad20], eq. 20."""
    sent, zf = rng.normal(size=(2, 5, 4)).astype(np.float32)
    layers = list(rng.normal(size=(3, 5, 4)).astype(np.float32))
    ratio = [((sent - x) ** 2).sum(-1) / ((sent - zf) ** 2).sum(-1) for x in layers]
    expected = sum(np.log(r + 1) * ratio[r].mean() for r in range(3))
    assert float(losses.detnet_loss(layers, sent, zf)) == pytest.approx(expected, rel=1e-5)
    # A perfect zero-forcing estimate does not divide by zero
    assert np.isfinite(float(losses.detnet_loss(layers, sent, sent)))


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
        {"optimizer": {"name": "sgd"}},
        {"optimizer": {"name": "adam", "weight_decay": 0.1}},
        {"optimizer": {"name": "adamw", "weight_decay": -0.1}},
        {"optimizer": {"warmup_steps": -1}},
        {"optimizer": {"ema": 1.0}},
        {"best_by": "x"},
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


@pytest.mark.parametrize(
    "optimizer",
    [
        {"schedule": "cosine", "learning_rate": 1e-2},
        {"schedule": "plateau", "learning_rate": 1.0, "patience": 1, "clip_norm": 1.0},
        {"name": "muon", "weight_decay": 0.1, "warmup_steps": 4, "ema": 0.9},
    ],
)
def test_resumed_training_is_the_uninterrupted_one(tmp_path, optimizer):
    plan = recipe(optimizer=optimizer)
    resumed, continued = check_resumption(plan, tmp_path, stop_at=5)
    assert [e["step"] for e in resumed] == [0, 3, 6] and continued == [3]
    # A finished training does nothing more
    assert trainer(plan, tmp_path).run() == resumed


def test_a_training_is_saved_between_validations(tmp_path, monkeypatch):
    """Two kills between validations end as no kill at all, the means of losses included."""
    # By this clock nothing takes time, so a state is due after every step
    monkeypatch.setattr(linksim.training.loop.time, "perf_counter", lambda: 0.0)
    resumed, continued = check_resumption(recipe(), tmp_path, [2, 5], save_seconds=0)
    assert continued == [2, 5]
    assert [e["step"] for e in resumed] == [0, 3, 6]


def test_saving_keeps_to_half_a_minute_and_to_a_tenth_of_the_time(tmp_path, monkeypatch):
    """By a clock on which every look takes ten seconds."""
    clock = itertools.count(0.0, 10.0)
    monkeypatch.setattr(linksim.training.loop.time, "perf_counter", lambda: next(clock))
    plan = recipe(steps=40, validate_every=40)
    saved = []
    made = trainer(plan, tmp_path, on_step=lambda step, *_: saved.append(made._save_at))
    made.run()
    changes = [step for step, (a, b) in enumerate(zip(saved, saved[1:]), 2) if a != b]
    # Two looks a step: 30 seconds pass at step 2; saving takes 10, so 90 pass before the next
    assert changes[0] == 2 and 90 <= 20 * (changes[1] - changes[0]) <= 120
    assert len(changes) > 5


def test_an_interrupt_between_steps_loses_no_step(tmp_path):
    def stop(step, steps, loss):
        if step == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trainer(recipe(), tmp_path, on_step=stop).run()
    continued = []
    trainer(recipe(), tmp_path, on_resume=lambda *at: continued.append(at)).run()
    assert continued == [(4, 6)]


def test_states_and_recipes_from_before_the_choice_of_optimizer_go_on(tmp_path):
    plan = recipe(optimizer={"schedule": "cosine"})
    whole = trainer(plan)
    history = whole.run()

    def stop(step, steps, loss):
        if step == 4:
            raise KeyboardInterrupt

    made = trainer(plan, tmp_path, on_step=stop)
    with pytest.raises(KeyboardInterrupt):
        made.run()
    settings = load_arrays(tmp_path / "state.npz")[1]["recipe"]["optimizer"]
    assert set(settings) == {
        *("learning_rate", "schedule", "final_rate", "factor", "patience", "clip_norm")
    }
    # They held the rate of the step, which cosine had lowered
    made._rate = made._rate_now
    made.save()
    resumed = trainer(plan, tmp_path).run()
    for a, b in zip(history, resumed, strict=True):
        assert {**a, "seconds": 0} == {**b, "seconds": 0}


def test_rates_rise_before_they_follow_their_schedule():
    settings = {"warmup_steps": 2, "learning_rate": 1e-2}
    falling = 1e-3 + 9e-3 * (0.5 + 0.5 * np.cos(np.pi * np.arange(8) / 8))
    for schedule, after in (("constant", 8 * [1e-2]), ("cosine", falling)):
        table = Optimizer(schedule=schedule, final_rate=1e-3, **settings)
        rates = [rate_of_step(table, 1e-2, step, 10) for step in range(10)]
        np.testing.assert_allclose(rates, [5e-3, 1e-2, *after])
        # A training that is shorter than its warm-up rises to its end
        assert rate_of_step(table, 1e-2, 0, 1) == 5e-3
    plan = recipe(
        steps=10,
        validate_every=1,
        optimizer={**settings, "schedule": "plateau", "patience": 1, "factor": 0.5},
    )
    made = trainer(plan)
    losses = itertools.count(1.0)  # every validation is worse than the first
    made._measures = lambda batch: {"loss": np.float32(next(losses))}
    rates = [entry["learning_rate"] for entry in made.run()]
    expected = [0.5, 0.5, 0.5, *0.5 ** np.arange(2, 10)]
    np.testing.assert_allclose(rates, 1e-2 * np.array(expected))
    assert float(made._optimizer.learning_rate) == pytest.approx(rates[-1], rel=1e-6)


def test_averages_are_what_is_measured_and_kept(tmp_path):
    """The steps are those without averages, and the result is their moving average."""
    settings = {"learning_rate": 1e-2}
    plain = trainer(recipe(optimizer=settings)).run()
    seen = []
    made = trainer(
        recipe(optimizer={**settings, "ema": 0.75}),
        tmp_path,
        on_step=lambda *_: seen.append(weights(made)),
    )
    history = made.run()
    assert [e.get("train_loss") for e in history] == [e.get("train_loss") for e in plain]
    assert history[0]["loss"] == plain[0]["loss"]
    assert made.best[1] == 6 and history[-1]["loss"] != plain[-1]["loss"]
    averages = seen[0]
    for step in seen[1:]:
        averages = [0.75 * a + 0.25 * w for a, w in zip(averages, step)]
    for kept, average in zip(weights(made), averages, strict=True):
        np.testing.assert_allclose(kept, average, rtol=1e-5, atol=1e-7)
    assert float(made._measures(made._validation[0])["loss"]) == history[-1]["loss"]


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_decay_takes_a_share_of_matrices_alone(rng, name):
    """After one step from the same weights, decay has taken rate x decay x weight."""
    start = [rng.normal(size=shape).astype(np.float32) for shape in ((5, 4), (4,), (2, 3, 4))]
    gradients = [rng.normal(size=w.shape).astype(np.float32) for w in start]
    after = []
    for decay in (0.0, 0.5):
        variables = [keras.Variable(w) for w in start]
        table = Optimizer(name=name, learning_rate=1e-2, weight_decay=decay)
        make_optimizer(table, variables).apply(
            [keras.ops.convert_to_tensor(g) for g in gradients], variables
        )
        after.append([keras.ops.convert_to_numpy(v) for v in variables])
    for before, without, decayed in zip(start, *after, strict=True):
        assert np.abs(without - before).max() > 1e-3
        taken = 5e-3 * before * (before.ndim > 1)
        np.testing.assert_allclose(without - decayed, taken, rtol=1e-3, atol=1e-6)


def weights(made):
    """The trainable weights of a `Trainer`, in NumPy."""
    return [np.array(keras.ops.convert_to_numpy(v)) for v in made.task.trainable_variables]


def test_histories_have_no_nan(tmp_path):
    made = trainer(recipe(), tmp_path)
    history = copy.deepcopy(made.run())
    assert all(np.isfinite(v) for entry in history for v in entry.values())
    rows = list(csv.DictReader((tmp_path / "history.csv").open()))
    assert rows[0]["train_loss"] == "" and float(rows[1]["train_loss"]) > 0
    # States of earlier versions begin with one
    made.history[0]["train_loss"] = float("nan")
    made.save()
    assert trainer(recipe(), tmp_path).run() == history


@pytest.mark.parametrize("best_by, step", [("loss", 0), ("mutual_information", 3)])
def test_the_weights_kept_are_those_of_the_best_measure(tmp_path, best_by, step):
    made = trainer(recipe(best_by=best_by), tmp_path)
    # There is one batch. The loss grows, and the information has its peak at step 3.
    measured = iter([(1.0, 0.1), (2.0, 0.5), (3.0, 0.4)])
    made._validation = made._validation[:1]
    made._measures = lambda batch: dict(
        zip(("loss", "mutual_information"), map(np.float32, next(measured)))
    )
    seen = {}
    made._on_validation = lambda entry: seen.update({entry["step"]: made._weights()})
    made.run()
    assert made.best_entry["step"] == made.best[1] == step
    for kept, expected in zip(made.task.variables, seen[step], strict=True):
        np.testing.assert_array_equal(np.asarray(kept), expected)
    # A state knows the measure by which its weights are best
    other = {"loss": "mutual_information", "mutual_information": "loss"}[best_by]
    with pytest.raises(ResultFileError, match="recipe"):
        trainer(recipe(best_by=other), tmp_path).run()
    again = trainer(recipe(best_by=best_by), tmp_path)
    again.run()
    assert again.best[:2] == made.best[:2]


def test_a_measure_that_a_task_does_not_have_is_refused():
    made = trainer(recipe(best_by="mutual_information"))
    made._measures = lambda batch: {"loss": np.float32(1.0)}
    with pytest.raises(InvalidInput, match="best_by.*autoencoder"):
        made.run()


def test_a_training_with_a_constant_rate_goes_on_after_its_end(tmp_path):
    plan = recipe(optimizer={"ema": 0.9, "warmup_steps": 4})
    whole = trainer(plan)
    history = whole.run()
    trainer(plan, tmp_path, budget=0.5).run()
    longer = trainer(plan, tmp_path)
    for a, b in zip(history, longer.run(), strict=True):
        assert {**a, "seconds": 0} == {**b, "seconds": 0}
    for a, b in zip(weights(whole), weights(longer), strict=True):
        np.testing.assert_array_equal(a, b)


def test_another_training_is_not_resumed(tmp_path):
    cosine = {"optimizer": {"schedule": "cosine"}}
    trainer(recipe(**cosine), tmp_path).run()
    for changes, options, message in (
        ({"data": {**recipe().to_dict()["data"], "batch_size": 32}}, {},
         "recipe.data.batch_size 64, now 32; use --fresh"),
        ({"loss": {"weighted-squared-error": 1.0}}, {},
         "recipe.loss.divergence 1.0, now missing; "
         "recipe.loss.weighted-squared-error missing, now 1.0"),
        ({"best_by": "mutual_information"}, {},
         'recipe.best_by missing, now "mutual_information"'),
        ({}, {"budget": 0.5}, "steps 6, now 3"),
    ):  # fmt: skip
        with pytest.raises(ResultFileError, match=message):
            trainer(recipe(**cosine, **changes), tmp_path, **options).run()


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


def test_published_models_are_found_and_checked(models, rng):
    layer = published(recipe()).task.product
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
    with pytest.raises(ResultFileError, match="card.json: was edited"):
        create_quantizer("eqnet", **args)
    # Older cards have no checksum of their own
    del text["checksum"]
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
    auto = published(recipe()).task.product
    plan = recipe(
        name="eqnet-l/test",
        task="estimator",
        autoencoder="eqnet/test",
        loss={"latent": 1.0, "divergence": 0.5},
        model={"width": 24, "decoder_width": 16},
    )
    layer = published(plan).task.product
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
    # In joint estimation and quantization, few bits lose more than many
    error = [np.mean((np.asarray(x) - plain) ** 2) for x in (fine, coarse)]
    assert 0 < error[0] < error[1]
