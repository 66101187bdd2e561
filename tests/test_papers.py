"""The scripts of the papers: their tables of figures, and a small run of each kind."""

import importlib
import json
import sys
from pathlib import Path

import pytest

from linksim.link.scenario import load_scenario
from linksim.registry import parse_receiver

FOLDER = Path(__file__).resolve().parent.parent / "simulations" / "papers"


@pytest.fixture
def script(monkeypatch):
    """Imports a script as running it would."""
    monkeypatch.syspath_prepend(str(FOLDER))

    def load(name):
        for module in (name, "common"):
            sys.modules.pop(module, None)
        return importlib.import_module(name)

    return load


def test_tables_of_eqnet(script):
    eqnet = script("eqnet")
    for scenario, detectors, points in eqnet.FIGURES.values():
        load_scenario(scenario)
        assert points == sorted(set(points))
        for name in detectors:
            parse_receiver(name)


def test_tables_of_remimo(script):
    remimo = script("remimo")
    assert set(remimo.CHANNELS) == set(remimo.FIGURES)
    for panels in remimo.FIGURES.values():
        for scenario, changes, detectors, points in panels.values():
            scenario = load_scenario(scenario)
            tables = {t: {**remimo._table(scenario, t), **new} for t, new in changes.items()}
            changed = scenario.replace(**tables)
            assert changed.channel["type"] == scenario.channel["type"]
            assert points == sorted(set(points))
            for name in detectors:
                parse_receiver(name)


def test_a_panel_and_its_claims(script, tmp_path, monkeypatch):
    remimo = script("remimo")
    monkeypatch.chdir(tmp_path)
    panel = ("small-16x4-qam16", {}, ["mmse", "zf", "oampnet2", "remimo@nothing"], [4, 10, 12])
    monkeypatch.setitem(remimo.FIGURES, "fig7", {"16x4": panel})
    folder = tmp_path / "out"
    arguments = ["--only", "fig7", "--only", "claims", "--output", str(folder)]
    assert remimo.main([*arguments, "--max-blocks", "300"]) == 0
    results = json.loads((folder / "fig7/16x4/results.json").read_text())
    assert {r["detector"] for r in results["records"]} == {"mmse", "zf", "oampnet2"}
    assert {r["snr_db"] for r in results["records"]} == {4, 10, 12}  # also where BLER is 0
    assert results["scenario"]["title"] == "i.i.d. Rayleigh, 16x4, 16-QAM"
    assert results["scenario"]["code"]["type"] == "802.11n"
    for name in ("ser", "ber", "bler"):
        assert (folder / f"fig7/16x4/{name}.png").read_bytes()[:4] == b"\x89PNG"
    gaps = {gap["detector"]: gap for gap in results["ser_gaps"]}
    assert gaps["zf"]["reference"] == "oampnet2" and gaps["zf"]["target_ser"] == 1e-3
    text = (folder / "claims.md").read_text()
    assert "## fig7/16x4" in text and "| `zf` |" in text


def test_gaps_at_a_symbol_error_rate(script):
    remimo = script("remimo")
    records = [
        {
            "detector": name,
            "snr_db": snr,
            "ser": 10 ** (-(snr - shift) / 2),
            "ser_low": 0.9 * 10 ** (-(snr - shift) / 2),
            "ser_high": 1.1 * 10 ** (-(snr - shift) / 2),
        }
        for name, shift in (("a", 1.5), ("b", 0.0))
        for snr in (8, 6, 4)
    ]
    (gap,) = remimo.ser_gaps({"records": records}, "b")
    assert gap["gap_db"] == pytest.approx(1.5)
    assert 0 < gap["gap_db_high"] - gap["gap_db"] < 0.2
