"""The rows and files of the benchmark of speed. No time is asserted."""

import sys
import types
from pathlib import Path

import numpy as np
import pytest

from linksim.files import load_json
from linksim.names import parse_receiver
from simulations.speed import rows, sionna2
from simulations.speed.page import page_text
from simulations.speed.process import AskedProcess
from tests.conftest import load_script

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def benchmark():
    return load_script(ROOT / "simulations/benchmark.py")


def test_a_row_is_measured_and_written(benchmark, tmp_path, capsys):
    files = ["--json", str(tmp_path / "b.json"), "--markdown", str(tmp_path / "b.md")]
    assert "mmse-64x16-qam16-xla" in benchmark.QUICK and set(benchmark.QUICK) <= set(
        benchmark.ROWS
    )
    assert benchmark.main(["--quick", "--only", "mmse-64x16-qam16-xla", *files]) == 0
    data = load_json(tmp_path / "b.json")
    (row,) = data["rows"]
    assert row["ratio_low"] <= row["ratio"] <= row["ratio_high"]
    assert row["agreement"].startswith("100.00 %")
    assert data["machine"]["cores"] >= 1
    text = (tmp_path / "b.md").read_text()
    assert "| mmse-64x16-qam16-xla | mmse (XLA)" in text and "sionna-lmmse (XLA)" in text


@pytest.fixture
def measured(benchmark, monkeypatch):
    """The script with rows that are made up, and the names of those that were measured."""
    names = []

    def measure(name, args):
        if name == "fails":
            raise KeyboardInterrupt
        names.append(name)
        return rows.absent_row(name, "none", f"number {len(names)}")

    monkeypatch.setattr(benchmark, "ROWS", ("a", "fails", "b"))
    monkeypatch.setattr(benchmark, "row_maker", lambda name: measure)
    monkeypatch.setattr(benchmark, "made_by", lambda: "0123abcd")
    return names


def test_a_run_that_is_killed_keeps_its_rows_and_goes_on(
    benchmark, measured, tmp_path, capsys
):
    files = ["--json", str(tmp_path / "b.json"), "--markdown", str(tmp_path / "b.md")]
    for _ in range(2):
        assert benchmark.main(files) != 0
        assert measured == ["a"]  # the second run did not measure it again
        assert "The run did not get to fails, b." in (tmp_path / "b.md").read_text()
    benchmark.ROWS = ("a", "b")
    assert benchmark.main(files) == 0 and measured == ["a", "b"]
    data = load_json(tmp_path / "b.json")
    assert [row["row"] for row in data["rows"]] == ["a", "b"] and not data["missing"]
    assert (tmp_path / "b.md").read_text() == page_text(data)
    # A run that came to its end is made again as a whole
    assert benchmark.main(files) == 0 and measured == ["a", "b", "a", "b"]


@pytest.mark.parametrize("version", ["4567", None])
def test_rows_of_another_version_are_not_mixed_with_these(
    benchmark, measured, version, tmp_path, monkeypatch, capsys
):
    files = ["--json", str(tmp_path / "b.json")]
    assert benchmark.main(files) != 0 and measured == ["a"]
    monkeypatch.setattr(benchmark, "made_by", lambda: version)
    assert benchmark.main(files) != 0 and measured == ["a", "a"]


@pytest.mark.skipif(
    not (ROOT / "results/benchmark/speed.json").exists(), reason="it was not run yet"
)
def test_the_committed_page_is_what_was_measured(benchmark):
    results = ROOT / "results/benchmark"
    data = load_json(results / "speed.json")
    assert (results / "speed.md").read_text(encoding="utf-8") == page_text(data)
    assert not data["missing"] and {row["row"] for row in data["rows"]} == set(benchmark.ROWS)
    assert data["made"]["version"] and not data["made"]["quick"]


def test_detectors_of_whole_runs_are_called_as_their_records(benchmark):
    names = list(benchmark.RUN_DETECTORS)
    assert [parse_receiver(name).text for name in names] == names


# --- Sionna 2.x -------------------------------------------------------------------------


def test_without_sionna_2_its_rows_say_so(benchmark, tmp_path, capsys):
    files = ["--json", str(tmp_path / "b.json"), "--markdown", str(tmp_path / "b.md")]
    only = [
        x
        for name in ("sionna2-ep-64x16-qam16", "torch-ep-64x16-qam16")
        for x in ("--only", name)
    ]
    assert benchmark.main([*only, *files, "--sionna2", ""]) == 0
    for row in load_json(tmp_path / "b.json")["rows"]:
        assert row["agreement"].startswith("not installed") and "ours_ms" not in row
    assert "| torch-ep-64x16-qam16 |  |  | Sionna 2.x |" in (tmp_path / "b.md").read_text()


def test_every_row_has_a_function(benchmark):
    assert len(set(benchmark.ROWS)) == len(benchmark.ROWS)
    assert {benchmark.row_maker(name) for name in sionna2.ROWS} == {sionna2.sionna2_row}
    assert {benchmark.row_maker(name).__name__ for name in benchmark.ROWS} == {
        *("detector_row", "relaxation_row", "decoding_row", "receiver_row"),
        *("sionna2_row", "run_row", "default_run_row"),
    }


# A stand-in for `torch_side.py`: it loads nothing, and what it compiles takes forever
STAND_IN = """
import json, os, sys, time, numpy as np
for line in sys.stdin:
    request, answer = json.loads(line), {}
    if "load" in request:
        spec, folder = request["load"], request["folder"]
        answer = {"versions": {"sionna": "2.2.0", "torch": "2.9"}}
    elif request.get("mode") == "compiled" and spec["compiles"] != "yes":
        if spec["compiles"] == "never":
            time.sleep(60)
        answer = {"error": "no kernel"}
    elif "mode" in request:
        seconds = {"eager": 2.0, "compiled": 1.0}[request["mode"]]
        np.save(f"{folder}/{spec['side']}.npy", np.array([seconds], np.float32))
        answer = {"seconds": seconds}
    else:
        answer = {"seconds": {"eager": 2.0, "compiled": 1.0}[request["time"]]}
    print(json.dumps(answer), flush=True)
"""


@pytest.mark.parametrize("compiles", ["yes", "no", "never"])
def test_the_faster_of_eager_and_compiled_counts(compiles, tmp_path, monkeypatch):
    script = tmp_path / "side.py"
    script.write_text(STAND_IN)
    monkeypatch.setattr(sionna2, "SIDE", script)
    monkeypatch.setattr(sionna2, "LIMITS", {"eager": 60.0, "compiled": 60.0})
    if compiles == "never":
        monkeypatch.setitem(sionna2.LIMITS, "compiled", 0.5)
    spec = {"side": "rival", "compiles": compiles}
    side = sionna2.TorchSide(sys.executable, spec, tmp_path)
    try:
        assert side.mode == ("compiled" if compiles == "yes" else "eager")
        assert side.seconds() == side.result[0] == {"eager": 2.0, "compiled": 1.0}[side.mode]
        assert (
            sionna2.by_turns({"ours": lambda: 1.0, "rival": side.seconds}, 2)["rival"].size
            == 2
        )
    finally:
        side.close()


def test_an_environment_that_cannot_run_it_is_named(tmp_path):
    for python in (
        "/does/not/exist",
        sys.executable,
    ):  # this one has no PyTorch, or no Sionna 2
        args = types.SimpleNamespace(sionna2=python, quick=True, repeats=1)
        row = sionna2.sionna2_row("torch-mmse-64x16-qam16", args)
        assert row["agreement"].startswith("cannot run: ") and "ours_ms" not in row


def test_a_process_is_asked_and_ends(tmp_path):
    echo = "import sys\nfor line in sys.stdin: print(line, flush=True, end='')"
    process = AskedProcess([sys.executable, "-c", echo], {})
    assert process.ask({"a": 1}, 60.0) == {"a": 1} and not process.has_ended
    process.close()
    assert process.has_ended and "the process ended" in process.ask({}, 60.0)["error"]
    failing = AskedProcess([sys.executable, "-c", "raise SystemExit('out of luck')"], {})
    assert failing.ask({}, 60.0) == {"error": "the process ended: out of luck"}


def test_times_are_of_one_vector():
    seconds = {"ours": np.array([2.0, 2.0, 4.0]), "rival": np.array([3.0, 9.0, 6.0])}
    row = rows.row_of("x", "a", "b", seconds, {"ours": 1000, "rival": 10}, "same")
    assert row["ours_ms"] == pytest.approx(2.0)
    assert row["rival_ms"] == pytest.approx(600.0)
    # The ratios of successive calls are 150, 450 and 150
    assert row["ratio"] == pytest.approx(150) and row["ratio_high"] == pytest.approx(300)


def test_what_a_row_says_is_not_read_as_markup(benchmark, measured, monkeypatch, capsys):
    monkeypatch.setattr(benchmark, "ROWS", ("a",))
    told = rows.absent_row("a", "none", 'pip install "[ray]"')
    monkeypatch.setattr(benchmark, "row_maker", lambda name: lambda *args: told)
    monkeypatch.setenv("COLUMNS", "200")
    assert benchmark.main([]) == 0
    assert 'pip install "[ray]"' in capsys.readouterr().out


def test_bad_arguments(benchmark, capsys):
    with pytest.raises(SystemExit):
        benchmark.main(["--only", "nothing"])
    assert benchmark.main(["--repeats", "0"]) == 2
