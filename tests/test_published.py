"""Published error rates, held by the whole link: each file in `published/` is a test.

`simulations/published.py` reads the files, and says what "held" means.
"""

import json
import re

import pytest

from linksim.link.link import Link
from linksim.montecarlo.statistics import binomial_interval
from simulations import published
from simulations.published import MOST, compare, deviations, holds, widened

FILES = published.published_files()
ROOT = published.ROOT
RESULTS = ROOT / "results" / "published"


@pytest.mark.parametrize("name", FILES)
def test_the_scenario_of_a_file_exists(name):
    data = FILES[name]
    assert data["source"] and data["setting"]
    link = Link(published.scenario_of(data))
    sizes = re.fullmatch(r"(?:aff3ct|sionna)-(?:wifi|5g)-(\d+)-(\d+)", name)
    if sizes:
        n, k = map(int, sizes.groups())
        assert (link.code.num_coded_bits, link.code.num_info_bits) == (n, k)
    for points in published.receivers_of(data).values():
        for point in points:
            counts = point.get("block_errors"), point.get("blocks")
            assert 0 < point["ser"] < 1 if "ser" in point else 0 < counts[0] < counts[1]


def test_the_snr_of_the_mimo_tutorial():
    """Its notebook multiplies N0 by the root of the number of antennas."""
    data = FILES["sionna-mimo-16x4-iid"]
    link, (first, *_) = Link(published.scenario_of(data)), data["receivers"]["mmse"]
    no = 4 * 10 ** (-first["ebno_db"] / 10) / (4 * 0.5)
    assert link.no(first["snr_db"]) == pytest.approx(no, rel=1e-4)


def test_few_errors_say_little(monkeypatch):
    ours = {"rate": "bler", "ours": 0.0, "low": 0.0, "high": 0.004}
    point = {"ebno_db": 1.0, "block_errors": 13, "blocks": 32768}

    def row(errors, low):
        counts = {**ours, "low": low, "errors": errors, "blocks": 1500, "wide": 1.0}
        monkeypatch.setattr(published, "_scenario_rates", lambda data: lambda *_: counts)
        return published.compare({"receivers": {"ml": [point]}})[0]

    assert row(0, 0.0)["deviations"] is None and holds(row(0, 0.0))
    assert not holds(row(9, 0.003))
    assert row(30, 0.014)["deviations"] > MOST


def test_codewords_that_fail_together_count_less(monkeypatch):
    low, high = binomial_interval(50, 250)  # of the 1000 blocks every fourth counts
    record = {"bler": 0.2, "blocks": 1000, "bler_low": low, "bler_high": high}
    assert widened(record) == pytest.approx(4.0, rel=0.1)
    assert widened({**record, "blocks": 10}) == 1.0 == widened({**record, "bler": 0.0})
    point = {"ebno_db": 1.0, "block_errors": 3000, "blocks": 10000}
    ours = {"rate": "bler", "ours": 0.2, "low": low, "high": high}
    ours |= {"errors": 200, "blocks": 1000}
    apart = []
    for wide in (1.0, 4.0):
        counts = {**ours, "wide": wide}
        monkeypatch.setattr(
            published, "_scenario_rates", lambda data, found=counts: lambda *_: dict(found)
        )
        apart.append(compare({"receivers": {"ml": [point]}})[0]["deviations"])
    assert apart[0] == pytest.approx(2 * apart[1]) and apart[1] < -MOST / 2


def test_a_ser_of_many_vectors_is_more_certain(monkeypatch):
    ours = {"rate": "ser", "ours": 0.11, "low": 0.1, "high": 0.12}
    monkeypatch.setattr(published, "_scenario_rates", lambda data: lambda *_: dict(ours))
    data = {"receivers": {"ml": [{"snr_db": 1.0, "ser": 0.1}]}}
    (row,) = compare(data)
    (known,) = compare({**data, "vectors": 100 * published.USES})
    assert known["deviations"] == pytest.approx(row["deviations"] * (2 / 1.01) ** 0.5)


def test_deviations():
    assert deviations(50, 100, 500, 1000) == 0
    assert abs(deviations(60, 100, 500, 1000)) < MOST < deviations(70, 100, 500, 1000)


def test_what_holds():
    row = {"receiver": "mmse", "theirs": 0.1, "high": 0.09, "deviations": 3.6}
    assert holds(row) and holds({**row, "deviations": -3.6})
    assert not holds({**row, "deviations": 3.8}) and not holds({**row, "deviations": -3.8})
    # `amp` may be a quarter better, and no more
    assert holds({**row, "receiver": "amp", "deviations": -9.0})
    assert not holds({**row, "receiver": "amp", "deviations": -9.0, "high": 0.07})
    assert not holds({**row, "receiver": "amp", "deviations": 3.8})


@pytest.mark.parametrize("users, snr_db", [(16, 9), (32, 11), (32, 13)])
def test_published_mmse(users, snr_db, monkeypatch):
    """`mmse-biased`, with half of the noise, has the published SER."""
    monkeypatch.setattr(published, "USES", 3000)
    data = FILES[f"remimo-64x{users}"]
    points = [p for p in data["receivers"]["mmse-biased"] if p["snr_db"] == snr_db]
    (row,) = compare({**data, "receivers": {"mmse-biased": points}})
    assert holds(row) and row["low"] < row["ours"] < row["high"]


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_published_rates(name):
    rows = compare(FILES[name])
    assert rows and not [row for row in rows if not holds(row)]


def test_the_committed_page_is_what_was_simulated():
    results = published.load_json(RESULTS / "results.json")
    text = (RESULTS / "README.md").read_text(encoding="utf-8")
    assert text == published.page_text(results)
    for name, found in results.items():
        assert found["file"] == published.json_hash(FILES[name]), f"{name} has changed"
        assert all(holds(row) for row in found["rows"])


def test_a_run_keeps_what_is_there(tmp_path, monkeypatch, capsys):
    row = {"receiver": "ml", "snr_db": 1.0, "rate": "bler", "theirs": 0.1, "ours": 0.11}
    row |= {"low": 0.1, "high": 0.12, "deviations": 0.5}
    calls = []
    monkeypatch.setattr(published, "compare", lambda data: calls.append(data) or [row])
    only = ["--output", str(tmp_path), "--only", "sionna-5g-128-64"]
    assert published.main(only) == published.main(only) == 0 and len(calls) == 1
    assert published.main([*only, "--fresh"]) == 0 and len(calls) == 2
    assert "0 of 1 are apart" in capsys.readouterr().out
    assert list(json.loads((tmp_path / "results.json").read_text())) == [
        *("sionna-5g-128-64", "checksum")
    ]
    text = (tmp_path / "README.md").read_text()
    assert "| `ml` | 1 dB | BLER | 0.1 | 0.11 | [0.1, 0.12] | +0.5 |" in text
