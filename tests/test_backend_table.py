"""The comparison of backends: what it measures, keeps and writes. No time is asserted."""

import sys
from pathlib import Path

import numpy as np
import pytest

from linksim.files import load_json
from tests.conftest import load_script
from tests.systems import needs_tensorflow

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from simulations.by_backend.agreement import agreement  # noqa: E402
from simulations.by_backend.cases import case_of, compared_detectors  # noqa: E402
from simulations.by_backend.page import markdown  # noqa: E402
from simulations.by_backend.processes import BackendProcess  # noqa: E402
from simulations.by_backend.worker import REFERENCE, prepare, time_calls  # noqa: E402


@pytest.fixture(scope="module")
def script():
    return load_script(ROOT / "simulations/backends.py")


def test_differences_are_relative_and_nan_is_one():
    expected = np.array([0.0, 10.0, -10.0], np.float32)
    assert agreement(expected, expected) == {"largest": 0.0, "share_beyond": 0.0}
    found = agreement(expected + np.float32([0.0, 0.0, 1.0]), expected)
    # 1 over 10 + a tenth of 20 + 0.05
    assert found["largest"] == pytest.approx(1 / 12.05)
    assert found["share_beyond"] == pytest.approx(1 / 3)
    assert agreement(np.float32([np.nan, 10, -10]), expected)["largest"] == np.inf


def test_every_detector_has_a_case():
    names = compared_detectors()
    assert {"mmse", "pepnet", "eqnet-l"} <= set(names) and "sdr-cvxpy" not in names
    cases = {name: case_of(name) for name in names}
    assert cases["mmse"]["weights"] == "" and cases["mmse"]["num_rx"] == 8
    assert cases["pepnet"]["weights"] == "any-size"
    assert cases["eqnet-l"]["num_rx"] == 2 and cases["eqnet-l"]["num_bits_per_symbol"] == 6
    assert case_of("mmse", 7)["batch"] == 7


@needs_tensorflow
def test_the_first_process_writes_what_the_others_read(tmp_path):
    case = case_of("mmnet-iid", batch=3)
    function, row = prepare(REFERENCE, case, tmp_path)
    llrs = np.load(tmp_path / f"{REFERENCE}.npy", allow_pickle=False)
    assert llrs.shape == (3, 4, 4) and np.isfinite(llrs).all()
    assert row["first_seconds"] > 0 and row["versions"]["tensorflow"]
    assert len(np.load(tmp_path / "weights.npz", allow_pickle=False).files) > 0
    np.testing.assert_array_equal(function(), llrs)
    assert time_calls(function, 0.0) > 0
    # Another runner takes these weights, not its own
    with np.load(tmp_path / "weights.npz", allow_pickle=False) as stored:
        changed = {key: 0.5 * stored[key] for key in stored.files}
    np.savez(tmp_path / "weights.npz", **changed)
    prepare("tf-xla", case, tmp_path)
    assert (
        agreement(np.load(tmp_path / "tf-xla.npy", allow_pickle=False), llrs)["largest"] > 1e-3
    )


def test_a_process_that_ends_is_an_error_of_its_row(tmp_path):
    process = BackendProcess(REFERENCE, sys.executable, tmp_path)
    process.close()
    assert "the process ended" in process.ask({"time": 0.1}, 30.0)["error"]


def fake_rows(case, missing, pythons, args):
    good = {"us": 2.0, "ratio": 1.0, "ratio_low": 0.9, "ratio_high": 1.1}
    good |= {"first_seconds": 0.5, "versions": {"keras": "3"}}
    rows = {REFERENCE: good}
    for runner in missing:
        rows[runner] = {**good, "largest": 1e-6, "share_beyond": 0.0}
        if runner == "tf-xla":
            rows[runner] = {"error": "OpError: a `name`\nsecond line"}
        if runner == "torch-trace":
            rows[runner] |= {"breaks": 2, "reasons": ["data-dependent branch"], "graphs": 3}
    return rows


def test_what_is_there_is_not_measured_again(script, tmp_path, monkeypatch):
    asked = []

    def compare(case, missing, pythons, args):
        asked.append((case["detector"], tuple(missing)))
        return fake_rows(case, missing, pythons, args)

    monkeypatch.setattr(script, "compare", compare)
    monkeypatch.setattr(script, "interpreters", lambda given, runners: {})
    run = ["--detectors", "zf,mmse", "--output", str(tmp_path)]
    assert script.main([*run, "--runners", "tf-xla"]) == 0
    assert script.main([*run, "--runners", "tf-xla,torch-trace"]) == 0
    assert asked == [
        *[(name, ("tf-xla",)) for name in ("zf", "mmse")],
        *[(name, ("torch-trace",)) for name in ("zf", "mmse")],
    ]
    page = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert page == markdown(load_json(tmp_path / "results.json"))
    assert "| `mmse` | 2 breaks | 0.5 | fails | – |" in page
    assert "- `mmse`, tf-xla: `OpError: a 'name'`" in page and "second line" not in page
    (tmp_path / "README.md").unlink()
    assert script.main(["--only", "page", "--output", str(tmp_path)]) == 0
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == page


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--detectors", "nothing"], "nothing"),
        (["--runners", "nothing"], "nothing"),
        (["--python", "torch"], "BACKEND=PATH"),
        (["--python", "tensorflow=nowhere/python", "--runners", "tf-xla"], "--python"),
        (["--rounds", "0"], "rounds"),
        (["--only", "page"], "results.json"),
    ],
)
def test_bad_arguments(script, arguments, said, tmp_path, capsys):
    assert script.main([*arguments, "--output", str(tmp_path / "new")]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_the_committed_page_is_what_was_measured():
    folder = ROOT / "results/backends"
    page = markdown(load_json(folder / "results.json"))
    assert (folder / "README.md").read_text(encoding="utf-8") == page
