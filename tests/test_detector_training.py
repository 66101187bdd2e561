"""Training of every learned detector, and of the autoencoder, by small recipes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

from linksim.errors import InvalidInput
from linksim.link.scenario import load_scenario
from linksim.registry import create_detector
from linksim.training.build import build_task
from linksim.training.recipe import recipe_from_dict
from linksim.training.source import TRAINING, VectorSource
from tests.conftest import slow_but
from tests.trainings import check_resumption, published, trainer

DATA = {"scenario": "rayleigh-4x4-qam16", "snr_db": [8.0, 14.0], "batch_size": 120}
SQUARED, ENTROPY = {"squared-error": 1.0}, {"cross-entropy": 1.0}
SMALL_REMIMO = {"num_blocks": 2, "state_size": 12, "num_heads": 2}
ALL = {"options": {"all_layers": True}}
RECIPES = {
    "eqnet": {
        "task": "autoencoder",
        "loss": {"divergence": 1.0},
        "model": {"width": 16},
        "data": {**DATA, "teacher": "mmse"},
    },
    "oampnet": {"loss": SQUARED, "model": {"num_iterations": 2}},
    "oampnet2": {"loss": SQUARED, "model": {"num_iterations": 2}},
    "nndet-p": {
        "loss": ENTROPY,
        "model": {"num_blocks": 2, "hidden_sizes": [24, 12], "dropout": 0.0},
    },
    "detnet": {"loss": ENTROPY, "model": {"num_layers": 3}, **ALL},
    "detnet/sign": {
        "loss": {"detnet": 1.0, "cross-entropy": 0.1},
        "model": {"num_layers": 3, "head": "soft-sign"},
        **ALL,
    },
    "r-wesnet": {
        "loss": {"detnet": 1.0, "cross-entropy": 0.1, "log-l1": 1e-3},
        "model": {"num_layers": 3},
        "options": {"all_layers": True, "penalized_from": 2},
    },
    "l-wesnet": {
        "loss": {"detnet": 1.0, "cross-entropy": 0.1},
        "model": {"num_layers": 3, "fraction": 0.5},
        **ALL,
    },
    "rwes-oampnet": {
        "loss": {"detnet": 1.0, "log-l1": 1e-3},
        "model": {"num_iterations": 2, "hidden_size": 16},
        **ALL,
    },
    "nndet-p/scaled": {
        "loss": {"cross-entropy": 1.0, "log-l1": 1e-4},
        "model": {"num_blocks": 2, "hidden_sizes": [24, 12], "profile": "linear"},
    },
    "mmnet": {
        "loss": SQUARED,
        "model": {"num_layers": 3, "num_channels": 4},
        "options": {"all_layers": True, "by_channel": True},
        "data": {**DATA, "num_channels": 4},
    },
    "hypermimo": {
        "loss": SQUARED,
        "model": {"num_layers": 2, "hidden_size": 16, "num_drops": 10},
        "options": {"by_drop": True},
        "data": {**DATA, "scenario": "local-scattering-12x6-qpsk"},
    },
    "hypermimo-lr": {"loss": SQUARED, "model": {"network_options": {"num_layers": 3}}},
    "detnet-fc": {
        "loss": ENTROPY,
        "model": {"network_options": {"num_layers": 2}, "num_channels": 2},
        "options": {"all_layers": True, "by_channel": True},
        "data": {**DATA, "num_channels": 2},
    },
    "mmnet-iid": {"loss": SQUARED, "model": {"num_layers": 3}, **ALL},
    "remimo": {
        "loss": ENTROPY,
        "model": SMALL_REMIMO,
        "data": {**DATA, "streams": [2, 4], "snr_db_per_stream": 0.5},
        **ALL,
    },
}
OURS = ("remimo-mf", "remimo-lmmse", "remimo-pic")
RECIPES.update({name: RECIPES["remimo"] for name in OURS})
# These have more to resume than trained weights: moving averages, channels, drops, and data
# with any number of users. The others are in the slow tests.
RESUMED = ["nndet-p", "mmnet", "remimo", "hypermimo"]


def recipe(name, **changes):
    data = {
        "name": f"{name.split('/')[0]}/test",
        "title": "a test",
        "task": "detector",
        "steps": 4,
        "validate_every": 2,
        "validation_batches": 1,
        "jit_compile": False,
        "data": DATA,
        **RECIPES[name],
    }
    return recipe_from_dict({**data, **changes})


@pytest.mark.parametrize("name", slow_but(RESUMED, RECIPES))
def test_resumed_training_is_the_uninterrupted_one(tmp_path, name):
    check_resumption(recipe(name), tmp_path, stop_at=3)


@pytest.mark.parametrize(
    "name, rate, steps",
    [
        ("detnet", 5e-3, 120),
        # As l-wesnet, without the scaling
        pytest.param("detnet/sign", 1e-2, 120, marks=pytest.mark.slow),
        ("l-wesnet", 1e-2, 120),
        ("mmnet", 5e-3, 120),
        ("mmnet-iid", 5e-2, 400),
        ("remimo", 5e-3, 120),
        ("hypermimo", 1e-2, 120),
        ("hypermimo-lr", 1e-2, 250),
        # The layers of detnet and the data of mmnet
        pytest.param("detnet-fc", 5e-3, 120, marks=pytest.mark.slow),
    ],
)
def test_every_detector_learns(name, rate, steps):
    jit_compile = keras.backend.backend() == "tensorflow"
    plan = recipe(
        name,
        steps=steps,
        validate_every=steps,
        validation_batches=4,
        jit_compile=jit_compile,
        optimizer={"learning_rate": rate},
    )
    before, after = trainer(plan).run()
    assert after["loss"] < 0.85 * before["loss"]
    # The LLRs carry more information too
    assert after["mutual_information"] > before["mutual_information"] + 0.05


# --- shipped and found --------------------------------------------------------------


def draw(made, **changes):
    data = made.recipe.data
    scenario = load_scenario(data.scenario)
    source = VectorSource(scenario, data.snr_db, 8, seed=99, **changes)
    batch = source.draw(source.keys(TRAINING, 0))
    return [np.asarray(ops.convert_to_numpy(batch[k])) for k in ("y", "h", "no")]


def test_one_remimo_is_found_for_every_number_of_users(models):
    made = published(recipe("remimo"))
    y, h, no = draw(made)
    for count in (2, 3, 4):
        detector = create_detector(
            "remimo", num_streams=count, num_bits_per_symbol=4, pretrained=True
        )
        padded = np.concatenate([h[..., :count], 0 * h[..., count:]], -1)
        expected = np.asarray(made.task.product(y, padded, no))[:, :count]
        got = np.asarray(detector(y, h[..., :count], no))
        np.testing.assert_allclose(got, expected, rtol=0.02, atol=0.02)  # float16
    for args in ({"num_streams": 5}, {"num_streams": 1}, {"num_bits_per_symbol": 6}):
        args = {"num_streams": 4, "num_bits_per_symbol": 4, **args}
        with pytest.raises(InvalidInput, match="num_streams=2 to 4"):
            create_detector("remimo", pretrained=True, **args)
    with pytest.raises(InvalidInput, match="3 receive antennas; these weights are for 4"):
        detector(y[:, :3], h[:, :3], no)
    assert "2 to 4 streams" in (models / "remimo/test/card.md").read_text()


def test_mmnet_is_shipped_with_its_channels(models):
    made = published(recipe("mmnet"))
    y, h, no = draw(made, num_channels=4)
    detector = create_detector("mmnet", num_streams=4, num_bits_per_symbol=4, pretrained=True)
    np.testing.assert_allclose(detector.channels, made.task.product.channels, atol=2e-3)
    assert np.abs(np.asarray(detector.channels)).max() > 0.5
    expected = np.asarray(made.task.product(y, h, no))
    np.testing.assert_allclose(np.asarray(detector(y, h, no)), expected, rtol=0.1, atol=0.1)


TAUGHT = {
    "mmnet": ("mmnet", {"num_layers": 2}),
    "detnet": ("detnet-fc", {"num_layers": 2, "hidden_size": 12}),
}


@pytest.mark.parametrize("network", slow_but(["mmnet"], TAUGHT))
def test_teachers_pull_the_weights_that_are_made(models, network):
    """Whatever the network is. Without the pull its weights go elsewhere."""
    name, options = TAUGHT[network]
    model = {"num_channels": 3}
    model.update(options if network == "mmnet" else {"network_options": options})
    teachers = published(
        recipe(
            name,
            model=model,
            data={**DATA, "num_channels": 3},
            steps=30,
            validate_every=30,
            optimizer={"learning_rate": 1e-2},
        )
    ).task.product
    ends = {}
    for beta in (0.0, 1.0):
        loss = {**SQUARED, "teacher-distance": beta} if beta else SQUARED
        plan = recipe(
            "hypermimo-lr",
            model={"network": network, "network_options": options, "hidden_sizes": [16]},
            loss=loss,
            teachers=f"{name}/test" if beta else "",
            steps=150,
            validate_every=150,
            jit_compile=network == "mmnet" and keras.backend.backend() == "tensorflow",
            optimizer={"learning_rate": 1e-2},
        )
        made = trainer(plan)
        detector = made.task.product
        targets = np.asarray(detector.weights_of_teachers(teachers))
        no = np.ones(3, np.float32)

        def distance():
            weights = np.asarray(
                detector.made_weights(ops.convert_to_tensor(teachers.channels), no)
            )
            return np.abs(weights - targets).sum(-1).mean()

        start = distance()
        before, after = made.run()
        ends[beta] = distance() / start
        if beta:
            # The loss is beta times that distance plus the squared error
            assert after["loss"] < 0.5 * before["loss"]
            assert before["loss"] > start
    assert ends[1.0] < 0.5 < ends[0.0]


@pytest.mark.parametrize(
    "name, change, message",
    [
        ("oampnet2", ALL, "all_layers: OAMPNet2Detector has no unfolded layers"),
        (
            "detnet",
            {"options": {"by_channel": True}},
            "by_channel: DetNetDetector has no networks per",
        ),
        ("oampnet2", {"loss": {"detnet": 1.0}}, "detnet gives the first layer no weight"),
        ("remimo", {"loss": SQUARED}, "squared-error needs the logits of PAMs"),
        (
            "detnet/sign",
            {"model": {"num_layers": 1, "head": "soft-sign"}},
            "detnet gives the first layer no weight",
        ),
        ("remimo", {"loss": {"detnet": 1.0}}, "loss: REMIMODetector has no estimates of its"),
        ("hypermimo-lr", {"loss": {"teacher-distance": 1.0}}, "teachers: needed for the loss"),
        ("hypermimo-lr", {"teachers": "mmnet/nothing"}, "teachers: 'mmnet/nothing' has no"),
        (
            "detnet",
            {"options": {"by_drop": True}},
            "by_drop: DetNetDetector has no networks per",
        ),
        (
            "mmnet-iid",
            {"loss": {"log-l1": 1.0}},
            "loss: MMNetIIDDetector has no weight-scaled",
        ),
        (
            "r-wesnet",
            {"options": {"penalized_from": 4}},
            "penalized_from: got 4, there are 3 layers",
        ),
        ("r-wesnet", {"options": {"penalized_from": 0}}, "penalized_from: got 0"),
    ],
)
def test_what_a_detector_lacks_is_named(name, change, message):
    with pytest.raises(InvalidInput, match=message):
        build_task(recipe(name, **change))


@pytest.mark.parametrize(
    "name, data, message",
    [
        ("detnet", {"streams": [2, 4]}, "data.streams: DetNetDetector has weights for one"),
        ("mmnet", {}, "data.num_channels: missing, MMNetDetector has weights per channel"),
        ("hypermimo", {}, "model.num_drops: got 10, expected the number of user drops"),
    ],
)
def test_data_that_a_layer_cannot_use_is_refused(name, data, message):
    with pytest.raises(InvalidInput, match=message):
        trainer(recipe(name, data={**DATA, **data}))


def test_the_penalty_makes_weights_smaller():
    """The trained profile of an L-WeSNet moves and stays monotone."""
    norms = {}
    for weight in (0.0, 1.0):
        loss = {"detnet": 1.0, "log-l1": weight}
        plan = recipe("r-wesnet", loss=loss, steps=30, validate_every=30)
        made = trainer(plan)
        made.run()
        norms[weight] = [float(norm) for norm in made.task.product.layer_norms()]
    # The first layer has no penalty
    assert all(a < 0.8 * b for a, b in zip(norms[1.0][1:], norms[0.0][1:]))
    made = trainer(recipe("l-wesnet", steps=30, validate_every=30))
    scaling = made.task.product.unfolded[0].scaling
    before = ops.convert_to_numpy(scaling.coefficients())
    made.run()
    after = ops.convert_to_numpy(scaling.coefficients())
    # The shape has to change, because the weights can take a common factor
    assert np.abs(after / after[0] - before / before[0]).max() > 1e-3
    assert np.all(np.diff(after) <= 0)


def test_one_trained_model_serves_operating_points(models):
    from linksim.link.receiver import create_receiver

    made = published(recipe("r-wesnet"))
    y, h, no = draw(made)
    scenario = load_scenario("rayleigh-4x4-qam16")
    full = create_receiver("r-wesnet", scenario).detector
    slim = create_receiver("r-wesnet@test:50%-2L", scenario).detector
    assert (slim.fraction, slim.num_layers) == (0.5, 2)
    expected = np.asarray(full.slim(0.5, 2)(y, h, no))
    np.testing.assert_array_equal(np.asarray(slim(y, h, no)), expected)
    with pytest.raises(InvalidInput, match="num_layers: got 4, there are 3"):
        create_receiver("r-wesnet:4L", scenario)
    published(recipe("mmnet-iid"))
    with pytest.raises(InvalidInput, match="mmnet-iid has no operating points"):
        create_receiver("mmnet-iid:2L", scenario)


def test_a_network_for_fixed_channels_needs_no_layer_of_its_own():
    made = trainer(recipe("detnet", data={**DATA, "num_channels": 2}))
    assert len(made.run()) == 3


@pytest.mark.parametrize("change", [{"streams": 8}, {"rho": 0.5}, {"snr_db": 3}])
def test_ranges_are_lists(change):
    with pytest.raises(InvalidInput, match=r"expected \[low, high\]"):
        recipe("remimo", data={**DATA, **change})


def test_channels_must_fit_the_layer():
    plan = recipe("mmnet", model={"num_layers": 3, "num_channels": 2})
    with pytest.raises(InvalidInput, match=r"h: got shape \(4, 4, 4\), expected \(2, 4, 4\)"):
        trainer(plan)


# --- two backends -------------------------------------------------------------------


def ten_steps(folder, name):
    """The losses of ten steps, on the batch and from the weights in a file."""
    keras.utils.set_random_seed(1)
    task, _ = build_task(recipe(name, jit_compile=True))
    data = np.load(file_of(folder, name), allow_pickle=False)
    batch = {key: data[key] for key in data.files if not key.startswith(("weight_", "losses"))}
    task.calibrate(batch)
    task(batch)
    weights = [data[f"weight_{i}"] for i in range(len(task.product.weights))]
    task.product.set_weights(weights)
    # PyTorch takes a minute to compile what it runs eagerly in a second
    compiled = keras.backend.backend() != "torch"
    task.compile(optimizer=keras.optimizers.Adam(1e-3), jit_compile=compiled)
    printed = []
    for _ in range(10):
        task.reset_metrics()
        printed.append(float(task.train_on_batch(batch)))
    return printed


def batch_and_weights(name):
    """What `ten_steps` reads: a batch, and the weights before the first step."""
    made = trainer(recipe(name))
    batch = made.task.prepare(made._source.draw(made._source.keys(TRAINING, 0)))
    arrays = {k: np.asarray(ops.convert_to_numpy(v)) for k, v in batch.items()}
    for i, weight in enumerate(made.task.product.weights):
        arrays[f"weight_{i}"] = np.asarray(ops.convert_to_numpy(weight))
    return arrays


def file_of(folder, name):
    return Path(folder) / f"{name.replace('/', '-')}.npz"


ON_JAX = """
import json, sys
from tests.test_detector_training import ten_steps
print(json.dumps([ten_steps(sys.argv[1], name) for name in sys.argv[2:]]))
"""


# Each is compiled twice, which takes ten seconds or more
ON_BOTH = ["detnet", "remimo"]


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="starts JAX itself")
@pytest.mark.parametrize(
    "names",
    [
        ON_BOTH,
        pytest.param([n for n in RECIPES if n not in ON_BOTH], marks=pytest.mark.slow),
    ],
)
def test_tensorflow_and_jax_train_alike(tmp_path, names):
    pytest.importorskip("jax")
    for name in names:
        np.savez(file_of(tmp_path, name), **batch_and_weights(name))
    done = subprocess.run(
        [sys.executable, "-c", ON_JAX, str(tmp_path), *names],
        cwd=Path(__file__).resolve().parent.parent,
        env={**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for name, theirs in zip(names, json.loads(done.stdout.splitlines()[-1])):
        ours = ten_steps(tmp_path, name)
        assert ours[-1] < ours[0], name
        # Each backend has a generator of its own for the autoencoder's noise, which is small
        np.testing.assert_allclose(ours, theirs, rtol=2e-3, err_msg=name)
