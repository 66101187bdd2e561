"""simulations/train.py: what a user of it sees."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import linksim.models
from linksim.files import load_arrays
from linksim.models import list_cards
from linksim.registry import DETECTORS, create_detector
from tests.conftest import load_script

SCRIPT = Path(__file__).resolve().parent.parent / "simulations" / "train.py"

RECIPE = """
title = "tiny"
task = "autoencoder"
steps = 1000
validate_every = 5
validation_batches = 1
jit_compile = false

[data]
scenario = "rayleigh-2x2-qam64"
snr_db = [9.0, 18.0]
batch_size = 32
teacher = "mmse"

[loss]
weighted-squared-error = 1.0

[model]
width = 8
"""


@pytest.fixture
def main():
    return load_script(SCRIPT).main


@pytest.fixture
def recipe(tmp_path):
    folder = tmp_path / "eqnet" / "tiny"
    folder.mkdir(parents=True)
    (folder / "recipe.toml").write_text(RECIPE)
    return folder / "recipe.toml"


def test_a_run_leaves_state_history_and_logs(main, recipe, tmp_path, capsys):
    arguments = [str(recipe), "--budget", "0.01", "--output", str(tmp_path / "out")]
    assert main(arguments) == 0
    folder = tmp_path / "out" / "eqnet" / "tiny"
    assert (folder / "history.csv").read_text().count("\n") == 4  # header, 0, 5, 10
    assert list((folder / "tensorboard").glob("events*"))
    first = capsys.readouterr().out
    assert (
        "step 10" in first
        and "nan" not in first
        and "continuing" not in first
        and "best validation loss" in first
    )
    # A finished run has nothing left to do; a fresh one sets it aside
    assert main(arguments) == 0
    told = capsys.readouterr().out
    assert "train_loss" not in told and "continuing at step 10 of 10" in told
    assert main([*arguments, "--fresh", "--no-tensorboard"]) == 0
    assert (tmp_path / "out" / "eqnet" / "tiny.1.old" / "state.npz").exists()
    # A constant rate does not depend on the budget, so that a larger one goes on
    capsys.readouterr()
    assert main([*arguments[:2], "0.02", *arguments[3:]]) == 0
    assert "continuing at step 10 of 20" in capsys.readouterr().out


def test_list_and_bad_arguments(main, recipe, capsys):
    assert main(["--list"]) == 0
    assert "eqnet-l/rayleigh-2x2-qam64" in capsys.readouterr().out
    for arguments, message in (
        ([], "RECIPE: missing"),
        (["nothing/here"], "expected a .toml file or one of"),
        ([str(recipe), "--budget", "-1"], "budget: got -1.0"),
        (["eqnet-l/rayleigh-2x2-qam64.toml"], "cannot read"),
    ):
        assert main(arguments) == 2
        assert message in capsys.readouterr().err


MINE = """
import keras
import linksim
from linksim.detectors.linear import LinearDetector, MMSEDetector


class Mine(LinearDetector):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.mmse = MMSEDetector(*args, **kwargs)
        self.factor = self.add_weight(name="factor", shape=(1,), initializer="ones")
        self.built = True

    def estimate(self, y, h, no):
        z, variance = self.mmse.estimate(y, h, no)
        return z, keras.ops.exp(self.factor) * variance


linksim.register_detector("mine", Mine, learned=True)
"""

MINE_RECIPE = """
title = "a factor for linear MMSE"
task = "detector"
steps = 4
validate_every = 2
validation_batches = 1
jit_compile = false

[data]
scenario = "rayleigh-2x2-qam64"
snr_db = [9.0, 18.0]
batch_size = 32

[loss]
cross-entropy = 1.0
"""


def test_own_detectors_are_trained_into_an_own_folder(main, tmp_path, monkeypatch, capsys):
    """A second recipe starts from what the first one published."""
    monkeypatch.setattr(DETECTORS, "_entries", dict(DETECTORS._entries))
    monkeypatch.setattr(linksim.models, "_OWN_FOLDERS", [])
    (tmp_path / "mine.py").write_text(MINE)
    files = []
    for name, more in (("second", 'start = "mine/first"\n'), ("first", "")):
        files.append(tmp_path / "recipes/mine" / name / "recipe.toml")
        files[-1].parent.mkdir(parents=True)
        files[-1].write_text(more + MINE_RECIPE)
    models = tmp_path / "models"
    options = ["--import", str(tmp_path / "mine.py"), "--no-tensorboard"]
    options += ["--output", str(tmp_path / "out"), "--publish", str(models)]
    assert main([*map(str, files), "--budget", "0.5", *options]) == 0
    assert f"published to {models}/mine/second/" in capsys.readouterr().out
    cards = list_cards("mine")
    assert set(cards) == {"mine/first", "mine/second"}
    assert cards["mine/second"]["start"] == "mine/first"
    text = (models / "mine/first/card.md").read_text()
    assert "train.py mine/first --budget 0.5 --models FOLDER --publish FOLDER" in text
    # That command finds the recipe, which the folder has too
    options = ["--output", str(tmp_path / "again"), "--models", str(models)]
    assert main(["mine/first", "--budget", "0.5", "--no-tensorboard", *options]) == 0
    assert "step 2" in capsys.readouterr().out
    args = {"num_streams": 2, "num_bits_per_symbol": 6, "pretrained": True}
    assert float(create_detector("mine", **args).factor[0]) != 1.0
    before = (models / "mine/first/card.md").read_text()
    (models / "mine/first/card.md").unlink()
    monkeypatch.setattr("linksim.cli.train.model_folders", lambda: [models])
    assert main(["--cards"]) == 0
    assert (models / "mine/first/card.md").read_text() == before


def test_a_killed_run_continues(recipe, tmp_path):
    """SIGKILL in the middle, and the histories of whole and resumed run are equal."""

    def start(output):
        return subprocess.Popen(
            [sys.executable, str(SCRIPT), str(recipe), "--budget", "0.2"]
            + ["--output", str(output), "--no-tensorboard"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "KERAS_BACKEND": "tensorflow"},
        )

    killed, whole = tmp_path / "killed", tmp_path / "whole"
    process = start(killed)
    state = killed / "eqnet/tiny/state.npz"
    deadline = time.time() + 120
    while not state.exists() and time.time() < deadline:
        time.sleep(0.02)
    time.sleep(0.3)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert state.exists()
    assert start(killed).wait(timeout=240) == 0
    assert start(whole).wait(timeout=240) == 0
    killed, whole = history(killed / "eqnet/tiny"), history(whole / "eqnet/tiny")
    assert killed == whole and len(whole) == 42


def test_control_c_stops_after_a_step_and_the_same_command_continues(recipe, tmp_path):
    line = [sys.executable, str(SCRIPT), str(recipe), "--output", str(tmp_path)]
    line += ["--no-tensorboard", "--budget"]
    process = subprocess.Popen(
        [*line, "100"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while "step 5 " not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130 and "Traceback" not in err
    assert "stopping after this step; Ctrl-C again" in err
    assert "train.py: interrupted; the same command continues" in err
    header = load_arrays(tmp_path / "eqnet/tiny/state.npz")[1]
    assert header["step"] >= 5
    # Every line that was printed is of a step that is saved
    shown = [int(step) for step in re.findall(r"step (\d+) ", out)]
    assert max(shown, default=5) <= header["step"] < max(shown, default=5) + 10


def history(folder):
    """The rows of a history, without the times."""
    lines = (folder / "history.csv").read_text().splitlines()
    keep = [i for i, name in enumerate(lines[0].split(",")) if name != "seconds"]
    return [[row.split(",")[i] for i in keep] for row in lines]


def tiny(tmp_path, name, text=RECIPE):
    file = tmp_path / "eqnet" / name / "recipe.toml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return str(file)


def test_several_recipes_are_trained_as_if_alone(main, tmp_path, capsys):
    good = tiny(tmp_path, "good", RECIPE.replace("width = 8", "width = 6"))
    bad = tiny(tmp_path, "bad", RECIPE.replace("width = 8", "height = 8"))
    other = tiny(tmp_path, "other")
    options = ["--budget", "0.005", "--no-tensorboard", "--output"]
    assert main([good, bad, other, *options, str(tmp_path / "sweep")]) == 2
    told = capsys.readouterr()
    assert "eqnet/bad: " in told.err and "1 of 3 trainings failed" in told.err
    assert "eqnet/good: best validation loss" in told.out
    assert main([other, *options, str(tmp_path / "alone")]) == 0
    assert history(tmp_path / "sweep/eqnet/other") == history(tmp_path / "alone/eqnet/other")


@pytest.mark.slow
def test_a_sweep_by_workers(tmp_path):
    """Two recipes and one that fails, by two workers; one of them is killed."""
    pytest.importorskip("ray", reason='needs Ray: pip install -e ".[ray]"')
    psutil = pytest.importorskip("psutil")
    recipes = [
        tiny(tmp_path, "a"),
        tiny(tmp_path, "bad", RECIPE.replace("width = 8", "height = 8")),
        tiny(tmp_path, "b", RECIPE.replace("width = 8", "width = 6")),
    ]

    def start(output, *options):
        return subprocess.Popen(
            [
                *(sys.executable, str(SCRIPT), *recipes, "--budget", "0.2"),
                *("--output", str(output), "--no-tensorboard", *options),
            ],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    process = start(tmp_path / "workers", "--workers", "2")
    state = tmp_path / "workers/eqnet/a/state.npz"
    deadline = time.time() + 300
    while not state.exists() and time.time() < deadline:
        time.sleep(0.02)
    for child in psutil.Process(process.pid).children(recursive=True):
        if "ray::Worker.do" in " ".join(child.cmdline()):
            child.kill()
            break
    else:
        raise AssertionError("no worker found")
    out, err = process.communicate(timeout=600)
    assert process.returncode == 2, err
    assert "eqnet/a: best validation loss" in out and "eqnet/b: best validation loss" in out
    assert "eqnet/bad: " in err and "1 of 3 trainings failed" in err
    start(tmp_path / "here").communicate(timeout=600)
    for name in ("eqnet/a", "eqnet/b"):
        assert history(tmp_path / "workers" / name) == history(tmp_path / "here" / name)
        assert len(history(tmp_path / "here" / name)) == 42
    assert not list((tmp_path / "workers").glob(".sweep-*"))
