"""Weights that serve systems of every size: training on several kinds, and finding them."""

import numpy as np
import pytest

import linksim
from linksim import create_detector, load_scenario
from linksim.errors import InvalidInput
from linksim.models import find_model, list_models
from linksim.registry import build_detector
from linksim.training.build import build_task
from linksim.training.loop import source_of
from linksim.training.losses import bit_divergence, mutual_information
from linksim.training.recipe import load_recipe, recipe_from_dict
from linksim.training.source import TRAINING, VALIDATION
from tests.systems import needs_tensorflow
from tests.trainings import check_resumption, published, trainer

PARTS = [
    {
        "snr_db": [4, 14],
        "system": {"num_rx": 4, "num_streams": 3, "num_bits_per_symbol": 2},
        "channel": {"type": "rayleigh"},
    },
    {
        "snr_db": [6, 20],
        "system": {"num_rx": 3, "num_streams": 2, "num_bits_per_symbol": 4},
        "channel": {"type": "kronecker", "rho_rx": 0.5, "rho_tx": 0.5},
        "rho": [0.2, 0.9],
        "csi": {"type": "noisy", "error_snr_db": 25.0},
        "batch_size": 200,
    },
    {
        "snr_db": [0, 8],
        "system": {"num_rx": 3, "num_streams": 2, "num_bits_per_symbol": 1},
        "channel": {"type": "rayleigh"},
    },
]


def recipe(**changes):
    plan = {
        "name": "pepnet/test",
        "title": "A test",
        "task": "any-size-detector",
        "steps": 60,
        "validate_every": 30,
        "validation_batches": 6,
        "jit_compile": False,
        "loss": {"cross-entropy": 1.0},
        "optimizer": {"learning_rate": 1e-2, "schedule": "cosine"},
        "model": {"width": 8, "pair_width": 8},
        "data": {"scenario": "small-16x4-qam16", "snr_db": [0, 20], "batch_size": 300},
        "parts": PARTS,
    }
    return recipe_from_dict({**plan, **changes})


def test_batches_come_from_the_parts_in_turn():
    plan = recipe()
    source = source_of(plan, load_scenario(plan.data.scenario))
    shapes = []
    for part in source.parts:
        batch = part.draw(part.keys(TRAINING, 0))
        shapes.append((tuple(batch["y"].shape), tuple(batch["bits"].shape)))
    wanted = [((300, 4), (300, 3, 2)), ((200, 3), (200, 2, 4)), ((300, 3), (300, 2, 1))]
    assert shapes == wanted


PRIOR = {"prior_information": [0.5, 0.5], "prior_share": 0.5}


@pytest.mark.parametrize("prior", [{}, PRIOR])
def test_the_prepared_loss_is_that_of_the_detector(prior):
    """The task shares its evidence, masks and bits with nothing in the layer."""
    plan = recipe()
    plan = recipe(data={**plan.to_dict()["data"], **prior})
    task, scenario = build_task(plan)
    rng = np.random.default_rng(1)
    for weight in task.product.weights:
        weight.assign(rng.normal(size=weight.shape) * 0.3)
    source = source_of(plan, scenario)
    for part in source.parts:
        batch = part.draw(part.keys(VALIDATION, 0))
        measured = task.measures(task.prepare(batch))
        detector = create_detector(
            "pepnet",
            num_streams=part.num_streams,
            num_bits_per_symbol=part.num_bits_per_symbol,
            **plan.model,
        )
        build_detector(detector, part.num_rx)
        detector.set_weights(task.product.get_weights())
        llr = detector(batch["y"], batch["h"], batch["no"], batch.get("prior"))
        wanted = mutual_information(llr, batch["bits"])
        assert float(measured["mutual_information"]) == pytest.approx(float(wanted), abs=1e-4)


def test_priors_have_the_information_asked_for_and_change_no_other_draw():
    plan = recipe()
    scenario = load_scenario(plan.data.scenario)
    data = {**plan.to_dict()["data"], **PRIOR, "batch_size": 4000}
    plans = (
        recipe(data=data),
        recipe(data={**data, "prior_information": [], "prior_share": 1.0}),
    )
    with_prior, without = (source_of(p, scenario).parts[0] for p in plans)
    batch, plain = (s.draw(s.keys(TRAINING, 3)) for s in (with_prior, without))
    for name, value in plain.items():
        np.testing.assert_array_equal(value, batch[name])
    prior, bits = np.asarray(batch["prior"]), np.asarray(batch["bits"])
    known = np.any(prior != 0, axis=(1, 2))
    assert np.mean(known) == pytest.approx(0.5, abs=0.03)
    assert not np.any(prior[~known])
    information = float(mutual_information(prior[known], bits[known]))
    assert information == pytest.approx(0.5, abs=0.03)


@needs_tensorflow
@pytest.mark.parametrize("name", ["oampnet2", "wes-oampnet"])
def test_other_detectors_are_trained_with_priors_too(name):
    """At full knowledge of the bits nothing is left to lose; without, there is."""
    data = {"scenario": "rayleigh-2x2-qam64", "snr_db": [4, 5], "batch_size": 40}
    plan = {"title": "A test", "task": "detector", "steps": 2, "validate_every": 2}
    plan = {**plan, "name": f"{name}/test", "loss": {"squared-error": 1.0}}
    plan = {**plan, "model": {"num_iterations": 2}, "jit_compile": False}
    losses = []
    for prior in ({}, {"prior_information": [0.99, 0.99]}):
        made = trainer(recipe_from_dict({**plan, "data": {**data, **prior}}))
        losses.append(made.run()[-1]["loss"])
    assert losses[1] < 0.05 * losses[0]


@needs_tensorflow
def test_estimators_learn_what_the_channel_adds_to_a_prior():
    data = {"scenario": "rayleigh-2x2-qam64", "snr_db": [9, 18], "batch_size": 120}
    data = {**data, **PRIOR, "teacher": "ml", "copies": 4}
    plan = {"title": "A test", "task": "joint-estimator", "steps": 2, "data": data}
    plan = {**plan, "name": "eqnet-l-prior/test", "loss": {"divergence": 1.0}}
    plan = recipe_from_dict({**plan, "model": {"width": 12, "latent_dim": 8}})
    task, scenario = build_task(plan)
    (source,) = source_of(plan, scenario).parts
    batch = source.draw(source.keys(VALIDATION, 0))
    system = batch["y"], batch["h"], batch["no"], batch["prior"]
    # The teacher is told the prior, and the copies' priors are turned with their bits
    teacher = create_detector("ml", num_streams=2, num_bits_per_symbol=6)
    np.testing.assert_allclose(batch["llr"], teacher(*system), rtol=1e-2, atol=2e-2)
    told = float(mutual_information(batch["prior"], batch["bits"]))
    assert told == pytest.approx(0.25, abs=0.1)
    prepared = task.prepare(batch)
    task.calibrate(prepared)
    llr = task.product(*system)
    measured = task.measures(prepared)
    wanted = float(mutual_information(llr, batch["bits"]))
    assert float(measured["mutual_information"]) == pytest.approx(wanted, abs=1e-3)
    added = [x - batch["prior"] for x in (llr, batch["llr"])]
    assert float(measured["loss"]) == pytest.approx(float(bit_divergence(*added)), rel=1e-3)


def test_a_task_that_can_use_no_prior_refuses_one():
    data = {"scenario": "rayleigh-2x2-qam64", "snr_db": [9, 18], "batch_size": 8}
    plan = {"title": "A test", "task": "detector", "steps": 4, "loss": {"cross-entropy": 1.0}}
    plan = {**plan, "name": "mmnet-iid/test", "data": {**data, **PRIOR}}
    message = "data.prior_information: MMNetIIDDetector is not trained with a prior"
    with pytest.raises(InvalidInput, match=message):
        trainer(recipe_from_dict(plan))
    with pytest.raises(InvalidInput, match="prior_share: got 0.5 without"):
        recipe(data={**data, "prior_share": 0.5})
    with pytest.raises(InvalidInput, match="prior_information"):
        trainer(recipe(data={**data, "prior_information": [0.2, 1.0]}))


@needs_tensorflow
def test_a_short_training_is_ahead_of_expectation_propagation(models):
    made = published(recipe())
    card = list_models()["pepnet/test"]
    rates = card["references"]
    assert card["validation"]["mutual_information"] > rates["ep"] + 0.002
    assert card["validation"]["mutual_information"] > rates["mmse"] + 0.01
    assert card["any_system"] and "ml" not in rates
    assert made.history[-1]["loss"] < made.history[0]["loss"]
    # The weights fit whatever there is, and no line says that the channel is another
    for name in ("rayleigh-2x2-qam64", "wesnet-20x10-bpsk", "cdl-c-16x8-qam16"):
        scenario = load_scenario(name)
        system = scenario.system
        sizes = system.num_streams, system.num_bits_per_symbol
        assert find_model("pepnet", *sizes, scenario=scenario)[0] == "pepnet/test"
        detector = create_detector(
            "pepnet",
            num_streams=system.num_streams,
            num_bits_per_symbol=system.num_bits_per_symbol,
            pretrained=True,
        )
        for weight, trained in zip(detector.weights, made.task.product.weights):
            np.testing.assert_allclose(weight, trained, atol=2e-3)
    with pytest.raises(InvalidInput, match="no weights of pepnet called other"):
        find_model("pepnet", 2, 4, configuration="other")
    results = linksim.simulate("gauss-markov-4x2-qpsk", ["pepnet"], snr_db=[4], max_blocks=40)
    assert results["records"][0]["blocks"] >= 40


@needs_tensorflow
def test_a_training_on_parts_resumes(tmp_path):
    check_resumption(recipe(steps=8, validate_every=4), tmp_path, [3, 6], save_seconds=0.0)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"parts": []}, "parts: got 0"),
        ({"task": "detector"}, "parts: got 3, expected .* none"),
        ({"parts": [{**PARTS[0], "sytem": {}}]}, r"\[parts\]: unknown key sytem"),
        ({"parts": [{**PARTS[0], "snr_db": 3}]}, "parts.snr_db: got 3"),
    ],
)
def test_parts_are_checked(changes, message):
    with pytest.raises(InvalidInput, match=message):
        recipe(**changes)


@pytest.mark.parametrize(
    "part, message",
    [
        ({"system": {"num_rx": 0, "num_streams": 1, "num_bits_per_symbol": 2}}, "num_rx"),
        ({"channel": {"type": "rayleig"}}, "rayleigh"),
        ({"rho": [0.1, 0.5]}, "rho"),
    ],
)
def test_a_part_that_cannot_be_drawn_is_refused(part, message):
    with pytest.raises(InvalidInput, match=message):
        trainer(recipe(parts=[{**PARTS[0], **part}]))


def test_the_shipped_recipe_repeats_no_scenario():
    """Results on shipped scenarios show transfer: no part has a system and channel of one."""
    parts = load_recipe("pepnet/any-size").parts
    for name in linksim.list_scenarios():
        scenario = load_scenario(name)
        system = vars(scenario.system)
        for part in parts:
            same = part.system == system and part.channel["type"] == scenario.channel["type"]
            if same:
                assert part.channel != scenario.channel, name
                assert part.csi["type"] == "noisy" or part.channel["type"] != "rayleigh", name


def test_a_recipe_of_parts_is_written_and_read_again(tmp_path):
    from linksim.training.recipe import recipe_text

    plan = recipe()
    file = tmp_path / "pepnet" / "test" / "recipe.toml"
    file.parent.mkdir(parents=True)
    file.write_text(recipe_text(plan), encoding="utf-8")
    assert load_recipe(file) == plan


@needs_tensorflow
def test_the_shipped_weights_are_ahead_on_other_draws():
    """Of the kinds of systems that it was trained on, a few that are quick to draw."""
    plan = load_recipe("pepnet/any-size")
    source = source_of(plan, load_scenario(plan.data.scenario))
    quick = [p for p in source.parts if type(p.channel).__name__ == "RayleighChannel"]
    for part in [p for p in quick if p.num_streams in (2, 4, 7)][:4]:
        sizes = {
            "num_streams": part.num_streams,
            "num_bits_per_symbol": part.num_bits_per_symbol,
        }
        batch = part.draw(part.keys(VALIDATION, 10**6))
        rates = {}
        for name in ("mmse", "ep", "pepnet"):
            detector = create_detector(name, pretrained=name == "pepnet", **sizes)
            llr = detector(batch["y"], batch["h"], batch["no"])
            rates[name] = float(mutual_information(llr, batch["bits"]))
        assert rates["pepnet"] > max(rates["mmse"], rates["ep"]), sizes
