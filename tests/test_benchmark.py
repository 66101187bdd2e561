"""The rows and files of the benchmark script. No time is asserted."""

import json
from pathlib import Path

import numpy as np
import pytest

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
    data = json.loads((tmp_path / "b.json").read_text())
    (row,) = data["rows"]
    assert row["ratio_low"] <= row["ratio"] <= row["ratio_high"]
    assert row["agreement"].startswith("100.00 %")
    assert data["machine"]["cores"] >= 1
    text = (tmp_path / "b.md").read_text()
    assert "| mmse-64x16-qam16-xla | mmse (XLA)" in text and "sionna-lmmse (XLA)" in text


def test_times_are_of_one_vector(benchmark):
    seconds = {"ours": np.array([2.0, 2.0, 4.0]), "rival": np.array([3.0, 9.0, 6.0])}
    row = benchmark.row_of("x", "a", "b", seconds, {"ours": 1000, "rival": 10}, "same")
    assert row["ours_ms"] == pytest.approx(2.0)
    assert row["rival_ms"] == pytest.approx(600.0)
    # The ratios of successive calls are 150, 450 and 150
    assert row["ratio"] == pytest.approx(150) and row["ratio_high"] == pytest.approx(300)


def test_bad_arguments(benchmark, capsys):
    with pytest.raises(SystemExit):
        benchmark.main(["--only", "nothing"])
    assert benchmark.main(["--repeats", "0"]) == 2
