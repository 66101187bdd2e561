"""The script that compares error rates with costs, and shows how costs grow."""

import importlib
import itertools
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from linksim.figures import front
from linksim.registry import list_detectors

FOLDER = Path(__file__).resolve().parents[1] / "simulations"


@pytest.fixture
def cost(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    sys.modules.pop("cost", None)
    return importlib.import_module("cost")


def test_the_front_is_what_nothing_beats():
    rows = [
        {"detector": "a", "bler": 0.5, "us": 1.0},
        {"detector": "b", "bler": 0.6, "us": 2.0},
        {"detector": "c", "bler": 0.1, "us": 3.0},
        {"detector": "d", "bler": 0.1, "us": 4.0},
        {"detector": "e", "bler": 0.01, "us": None},
    ]
    assert [r["detector"] for r in front(rows, "us")] == ["a", "c"]


def test_slopes_are_those_of_power_laws(cost):
    rows = [
        {
            "detector": "a",
            "axis": axis,
            "system": {**cost.BASE, axis: value},
            "seconds": 1e-3
            * float(2**value if axis == "num_bits_per_symbol" else value) ** 1.5,
        }
        for axis, values in cost.GROWTH.items()
        for value in values
    ]
    assert cost.slopes(rows)["a"] == pytest.approx(dict.fromkeys(cost.GROWTH, 1.5))


def test_growth_has_a_row_for_each_family(cost):
    names = list_detectors()
    found = cost.families(names)
    assert sorted(itertools.chain(*found.values())) == sorted(names)
    assert cost.OTHERS not in found
    # More curves than colours could not be told apart
    assert all(len(members) <= 10 for members in found.values())


def test_figures_are_redrawn_from_the_numbers(cost, tmp_path):
    for name in ("pareto", "growth"):
        text = (FOLDER.parent / f"results/cost/{name}.json").read_text()
        (tmp_path / f"{name}.json").write_text(text)
    assert cost.main(["--redraw", "--output", str(tmp_path)]) == 0
    for name in ("pareto", "growth"):
        assert (tmp_path / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
        text = (FOLDER.parent / f"results/cost/{name}.json").read_text()
        assert (tmp_path / f"{name}.json").read_text() == text


@pytest.mark.slow
def test_both_parts_of_a_small_run(cost, tmp_path, monkeypatch):
    monkeypatch.setattr(cost, "GROWTH", {"num_streams": (1, 2), "batch": (2, 4)})
    monkeypatch.setattr(cost, "PARETO_BATCH", 8)
    arguments = ["--repeats", "1", "--output", str(tmp_path)]
    arguments += ["--detectors", "mmse", "sdr-cvxpy"]
    assert cost.main(arguments) == 0
    pareto = json.loads((tmp_path / "pareto.json").read_text())
    assert pareto["snr_db"] == 8 and len(pareto["rows"]) > 5
    found = {r["detector"]: r for r in pareto["rows"]}
    assert found["mmse"]["flops"] > 1000 and found["mmse"]["us"] > 0
    rows = json.loads((tmp_path / "growth.json").read_text())["rows"]
    assert {r["axis"] for r in rows if r["detector"] == "mmse"} == {"num_streams", "batch"}
    assert all(np.isfinite(r["seconds"]) and r["seconds"] > 0 for r in rows)
    text = (tmp_path / "README.md").read_text()
    assert "| `mmse` |" in text and "## Growth" in text
    for name in ("pareto", "growth"):
        assert (tmp_path / f"{name}.png").read_bytes()[:4] == b"\x89PNG"


def test_a_point_without_results_is_named(cost, tmp_path, capsys):
    assert cost.main(["--only", "pareto", "--snr-db", "99", "--output", str(tmp_path)]) == 2
    assert "snr-db: got 99.0, all detectors have" in capsys.readouterr().err


def test_times_of_other_detectors_stay_if_they_are_of_this_machine(
    cost, tmp_path, monkeypatch
):
    monkeypatch.setattr(cost, "GROWTH", {"batch": (1, 2)})
    times = {"mmse": 1.0, "zf": 2.0, "ep": 3.0}
    monkeypatch.setattr(cost, "seconds_of", lambda name, system, args: times[name])
    monkeypatch.setattr(cost, "_plot_growth", lambda data, path: None)
    run = ["--only", "growth", "--output", str(tmp_path), "--detectors"]

    def known():
        rows = json.loads((tmp_path / "growth.json").read_text())["rows"]
        return [(r["detector"], r["seconds"]) for r in rows[::2]]

    assert cost.main([*run, "zf"]) == 0
    assert cost.main([*run, "ep", "mmse"]) == 0
    assert known() == [("zf", 2.0), ("mmse", 1.0), ("ep", 3.0)]  # the registry's order
    times["zf"] = 4.0
    assert cost.main([*run, "zf"]) == 0
    assert dict(known())["zf"] == 4.0 and len(known()) == 3
    monkeypatch.setattr(cost, "timed_on", lambda: {"cores": 99})
    assert cost.main([*run, "zf"]) == 2
    assert dict(known())["mmse"] == 1.0
    assert cost.main([*run, "mmse", "zf", "ep"]) == 0


def test_the_committed_page_is_what_was_measured(cost):
    folder = FOLDER.parent / "results/cost"
    text = cost.report(folder)
    assert (folder / "README.md").read_text(encoding="utf-8") == text
    rows = json.loads((folder / "pareto.json").read_text())["rows"]
    assert {r["detector"] for r in rows} <= cost.ASSUMPTIONS.keys()


def test_the_table_of_the_front_page_is_what_was_measured():
    root = FOLDER.parent
    rows = json.loads((root / "results/cost/pareto.json").read_text())["rows"]
    measured = {r["detector"]: r for r in rows}
    text = (root / "README.md").read_text(encoding="utf-8").split("## Which detector")[1]
    lines = [x for x in text.split("\n## ")[0].splitlines() if x.startswith("| `")]
    for line in lines:
        name, bler, us, flops, _ = (x.strip("|` ") for x in line.split(" | "))
        row = measured[name]
        assert float(bler) == pytest.approx(row["bler"], rel=0.05)
        assert float(us) == pytest.approx(row["us"], rel=0.01)
        assert int(flops.replace(",", "")) == row["flops"]
    assert len(lines) >= 5


def test_the_snr_of_the_front_page_is_that_of_the_scenario():
    """8 dB of 1/N0, the axis of the default scenario, is another Eb/N0."""
    from linksim.link.link import Link
    from linksim.link.scenario import load_scenario
    from linksim.snr import no_to_snr_db, snr_db_to_no

    link = Link(load_scenario("cdl-c-8x4-qam16"))
    assert link.scenario.snr.definition == "esno"
    ebno_db = no_to_snr_db("ebno", snr_db_to_no("esno", 8.0, link.budget), link.budget)
    text = (FOLDER.parent / "README.md").read_text(encoding="utf-8")
    assert f"SNR of 1/N0 = 8 dB, which is an Eb/N0 of {ebno_db:.2f} dB" in text
