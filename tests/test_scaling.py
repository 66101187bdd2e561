"""The script that measures scaling. No time is asserted."""

import subprocess
import sys
from pathlib import Path

import pytest

from linksim.files import load_json
from linksim.montecarlo.schedule import StopRule

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "simulations"))
import scaling  # noqa: E402


def test_virtual_workers_share_a_run():
    results = load_json(ROOT / scaling.RATES)
    rule = StopRule(30, 10**4)
    one, ten = (scaling.run_virtually(n, results, rule) for n in (1, 10))
    # One worker computes a batch a second, give or take its variation
    assert one["virtual_seconds"] > 100 and one["in_vain"] < 0.1
    speed_up = one["virtual_seconds"] / ten["virtual_seconds"]
    assert 5 < speed_up <= 11


def test_a_page_of_what_was_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(scaling, "VIRTUAL_RULE", StopRule(10, 1000))
    monkeypatch.setattr(scaling, "VIRTUAL_WORKERS", (1, 10))
    monkeypatch.chdir(ROOT)
    assert (
        scaling.main(["--only", "virtual", "--workers", "1", "--output", str(tmp_path)]) == 0
    )
    page = (tmp_path / "README.md").read_text()
    data = load_json(tmp_path / "scaling.json")
    row = data["virtual"][-1]
    assert f"| {row['workers']} | {row['virtual_seconds']:.0f} |" in page
    assert "## Workers" not in page and "machine" in data


@pytest.mark.slow
def test_workers_and_the_process_that_hands_out_are_timed(tmp_path):
    pytest.importorskip("ray", reason='needs Ray: pip install -e ".[ray]"')
    done = subprocess.run(
        [
            *(sys.executable, "simulations/scaling.py", "--only", "workers", "--only", "driver"),
            *("--workers", "1", "--batch-size", "10", "--batches", "4", "--repeats", "2"),
            *("--output", str(tmp_path)),
        ],
        cwd=ROOT, capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    data = load_json(tmp_path / "scaling.json")
    assert [row["what"] for row in data["workers"]] == ["one process", "1 worker"]
    assert data["workers"][0]["efficiency"] == 1.0
    assert len(data["driver"]) == 3 and data["driver"][1]["bytes_per_batch"] > 100
    assert "## The process that hands out" in (tmp_path / "README.md").read_text()


def test_the_committed_page_is_what_was_measured():
    folder = ROOT / "results/scaling"
    page = scaling.markdown(load_json(folder / "scaling.json"))
    assert (folder / "README.md").read_text(encoding="utf-8") == page
