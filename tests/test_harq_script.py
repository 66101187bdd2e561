"""The script that draws throughput over MCS, and its committed page."""

import re
import sys
from pathlib import Path

import pytest

from linksim.files import load_json, save_json
from linksim.link.scenario import load_scenario

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "simulations"))
import harq  # noqa: E402

FOLDER = ROOT / "results/harq"


def test_the_committed_page_is_what_was_simulated():
    data = load_json(FOLDER / "results.json")
    assert (FOLDER / "README.md").read_text(encoding="utf-8") == harq.page(data)
    shipped = load_scenario(harq.SCENARIO)
    for curve in data["curves"]:
        args = harq.parse_arguments([])
        assert (
            harq.scenario_of(args, curve["mcs"]).fingerprint()
            == (curve["provenance"]["fingerprint"])
        )
        assert curve["scenario"]["harq"]["max_transmissions"] == shipped.harq.max_transmissions


def test_retransmissions_never_deliver_less():
    """What is sent again is decoded with all that was received before it."""
    for curve in load_json(FOLDER / "results.json")["curves"]:
        one, several = (harq.efficiencies(curve, again) for again in (False, True))
        assert (several[1] >= one[1] - 1e-9).all()
        for _, value, low, high in (one, several):
            assert (low <= value + 1e-9).all() and (value <= high + 1e-9).all()
        assert harq.reaches(curve, True) < harq.reaches(curve, False)


def test_where_a_share_is_reached():
    records = [
        {"snr_db": snr, "bler_1": bler, "bler_1_low": bler, "bler_1_high": bler}
        for snr, bler in ((0, 1.0), (2, 0.5), (4, 0.1), (6, 0.0))
    ]
    curve = {"most": 2.0, "records": records}
    assert harq.reaches(curve, False) == pytest.approx(3.0)  # 70 % is between 50 and 90
    assert harq.reaches({**curve, "records": records[:2]}, False) is None
    assert harq.reaches({**curve, "records": records[3:]}, False) is None


def test_a_scenario_without_harq_is_refused(capsys):
    assert harq.main(["--scenario", "pusch-cdl-c-4x2-mcs14"]) == 2
    assert "does not send transport blocks again" in capsys.readouterr().err


def test_what_cannot_be_simulated_is_refused_before_it_is(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(harq, "curve_of", None)
    (tmp_path / "file").write_text("x")
    for args, message in (
        (["--output", str(tmp_path / "file")], "--output: .* is a file, expected a folder"),
        (["--counts", str(tmp_path / "file")], "--counts: .* is a file, expected a folder"),
        (["--max-blocks", "0"], "--max-blocks: got 0, expected an integer >= 1"),
    ):
        assert harq.main(["--output", str(tmp_path), *args]) == 2
        assert re.search(message, capsys.readouterr().err)


@pytest.mark.parametrize(
    "content, message",
    [
        ({}, "not a result file of linksim: no detector"),
        ({"detector": "mmse", "curves": 3}, "not a result file of linksim: no curves"),
        ({"detector": "mmse", "curves": []}, "has no curves"),
        ({"detector": "mmse", "curves": [{"mcs": 3}]}, "row 0, counted from 0, .* modulation"),
        ({"detector": "mmse", "curves": [3]}, "row 0, counted from 0"),
    ],
)
def test_files_of_something_else_are_refused(tmp_path, capsys, content, message):
    save_json(tmp_path / "results.json", content)
    assert harq.main(["--redraw", "--output", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert re.search(f"^harq.py: .*results.json: {message}", error) and error.count("\n") == 1


def test_figures_are_redrawn_from_the_numbers(tmp_path, capsys):
    save_json(tmp_path / "results.json", load_json(FOLDER / "results.json"))
    assert harq.main(["--redraw", "--output", str(tmp_path)]) == 0
    assert (tmp_path / "throughput.png").stat().st_size > 20000
    assert (tmp_path / "README.md").read_text() == (FOLDER / "README.md").read_text()
