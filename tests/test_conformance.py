"""Requirements of TS 38.104 on PUSCH: the script, its committed page, and a one-sided check."""

import copy
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import linksim
from linksim.files import load_json, save_json
from linksim.montecarlo.engine import simulate
from tests.conftest import draw_system, load_script

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "simulations"))
conformance = load_script(ROOT / "simulations/conformance.py")
FOLDER = ROOT / "results/conformance"


@pytest.fixture(scope="module")
def committed():
    return load_json(FOLDER / "conformance.json")


def test_the_committed_page_is_what_was_measured(committed):
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert page == conformance.page_text(committed)


def test_receivers_are_within_the_requirements(committed):
    for row in committed["rows"]:
        if row["csi"] == "ls":
            continue
        required = conformance.REQUIREMENTS[row["channel"], row["profile"]][row["num_rx"]]
        for detector, reached in row["reached"].items():
            assert reached["snr_db_high"] < required, (row["channel"], row["csi"], detector)
            # A margin of many dB would be that of a link that is none
            assert required - reached["snr_db"] < 7.0


def test_rows_are_those_of_the_script(committed):
    """What a row says it simulated is what its requirement asks for."""
    assert len(committed["rows"]) >= 12
    for row in committed["rows"]:
        place = row["channel"], row["profile"], row["num_rx"], row["csi"], row["num_prbs"]
        expected = conformance.scenario_of(*place, row.get("harq", False)).to_dict()
        assert row["scenario"] == json.loads(json.dumps(expected))


def test_smaller_carriers_have_lower_requirements():
    """By what the page says of the standard's own two sizes."""
    by_size = {}
    for (channel, _), requirements in conformance.REQUIREMENTS.items():
        mcs, _, layers, spacing, _ = conformance.CHANNELS[channel]
        by_size.setdefault((mcs, layers), {})[spacing] = requirements
    apart = [
        sizes[30][num_rx] - sizes[15][num_rx]
        for sizes in by_size.values()
        for num_rx in (2, 4, 8)
    ]
    assert len(apart) == 9
    assert (round(min(apart), 1), round(max(apart), 1)) == (0.2, 0.9)


@pytest.mark.parametrize("channel, profile", conformance.REQUIREMENTS)
def test_slots_are_those_of_the_reference_channels(channel, profile):
    """[TS38104], A.4 and A.5: data resources of a whole carrier, DMRS in symbols 2 and 11."""
    from linksim.link.pusch_config import num_data_resources, pusch_configs

    prbs = conformance.CHANNELS[channel][-1]
    scenario = conformance.scenario_of(channel, profile, 4, "perfect", prbs)
    (config,) = pusch_configs(scenario.pusch)
    assert list(config.dmrs_symbol_indices) == [2, 11]
    assert num_data_resources(scenario.pusch) == prbs * 12 * 12
    rate = {"A4": 658, "A5": 567}[channel[6:8]] / 1024
    assert float(config.tb.target_coderate) == pytest.approx(rate)
    assert int(config.tb.num_bits_per_symbol) == scenario.system.num_bits_per_symbol


def test_with_one_stream_detectors_are_nearly_the_same(rng):
    """Why one layer is simulated with one detector."""
    _, y, h, no = draw_system(rng, 50, 4, 1, 4, 0.3)
    system = {"num_streams": 1, "num_bits_per_symbol": 4}
    llrs = []
    for name in ("mmse", "ep", "pepnet"):
        options = {"pretrained": True} if name == "pepnet" else {}
        detector = linksim.create_detector(name, **options, **system)
        llrs.append(np.asarray(detector(y, h, no)))
    mmse, ep, pepnet = llrs
    np.testing.assert_allclose(ep, mmse, rtol=1e-2, atol=1e-2)
    np.testing.assert_allclose(pepnet, mmse, rtol=0.15, atol=1e-2)


def records_of(row, lost, width=0.0):
    """Records of `mmse` where at {SNR: share} so much of the throughput is lost."""
    most = conformance.most_of(row["channel"], row["info_bits"])
    records = []
    for snr, share in lost.items():
        keys = {"throughput": 0.0, "throughput_low": width, "throughput_high": -width}
        delivered = {key: most * (1 - share - apart) for key, apart in keys.items()}
        records.append({"detector": "mmse", "snr_db": snr, **delivered})
    return records


def test_the_search_encloses_what_it_seeks(committed):
    """From any curve that falls, and from the ends of the points."""
    row, points = committed["rows"][0], [float(x) for x in range(10)]
    most = conformance.most_of(row["channel"], row["info_bits"])
    for middle in (-9.0, 2.5, 4.4, 7.0, 99.0):
        chosen = conformance.next_point(points, 5.0, ["mmse"], most)
        seen, way = {}, []
        while (point := chosen(records_of(row, seen, 0.05))) is not None:
            way.append(point)
            seen[point] = 1 / (1 + np.exp(2 * (point - middle)))
        assert way[0] == 5.0 and len(set(way)) == len(way)
        target = middle + np.log((1 - 0.3) / 0.3) / 2
        if 0 < target < 9:
            assert min(way) < target < max(way) and len(way) <= 5
        else:
            assert way[-1] == (0.0 if target < 0 else 9.0)


def test_retransmissions_deliver_more(committed):
    """At the same SNR, with the same first transmissions."""
    rows = {conformance._key(row): row for row in committed["rows"]}
    again = [key for key in rows if key[-1]]
    assert len(again) >= 8
    for key in again:
        once, several = rows[(*key[:-1], False)], rows[key]
        assert several["reached"]["mmse"]["snr_db"] < once["reached"]["mmse"]["snr_db"]
        for record in several["records"]:
            assert record["bler"] <= record["bler_1"]


def test_margins_are_told_with_their_intervals(committed):
    row = copy.deepcopy(committed["rows"][0])
    row["required_db"] = 10.0
    row["reached"] = {"mmse": {"snr_db": 8.0, "snr_db_low": 7.5, "snr_db_high": 8.25}}
    assert conformance.margin_text(row, "mmse") == "+2.00 dB [+1.75, +2.50]"
    row["reached"]["mmse"] = dict.fromkeys(row["reached"]["mmse"])
    row["records"] = records_of(row, {3.0: 0.9, 4.0: 0.8})
    assert conformance.margin_text(row, "mmse") == "below +6.0 dB"
    row["records"] = records_of(row, {3.0: 0.1, 4.0: 0.1})
    assert conformance.margin_text(row, "mmse") == "over +7.0 dB"
    assert conformance.margin_text(None, "mmse") == "-"


def test_a_run_goes_on_where_it_was(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(conformance, "OFFSETS", (-4, 0))
    wanted = ["--only", "G-FR1-A4-14", "--num-rx", "2", "--csi", "perfect", "--output", "out"]
    few = ["--prbs", "1", "--max-blocks", "50", "--target-block-errors", "5"]
    assert conformance.main([*wanted, *few]) == 0
    (row,) = load_json(tmp_path / "out/conformance.json")["rows"]
    assert (row["codewords"], row["num_prbs"]) == (1, 1)
    assert row["whole"] == {"info_bits": 100392, "codewords": 12}
    assert "With other numbers of PRBs" in (tmp_path / "out/README.md").read_text()
    monkeypatch.setattr(conformance, "measure", None)
    assert conformance.main([*wanted, *few]) == 0  # nothing is left to measure


@pytest.mark.slow
@pytest.mark.parametrize("channel, profile", list(conformance.REQUIREMENTS)[:3])
def test_requirements_are_met(channel, profile):
    """One-sided, at the SNR of the requirement, with 24 PRBs and estimated channels."""
    for num_rx, required in conformance.REQUIREMENTS[channel, profile].items():
        scenario = conformance.scenario_of(channel, profile, num_rx, "lmmse", conformance.PRBS)
        results = simulate(scenario, snr_db=required, target_block_errors=50, max_blocks=100)
        for record in results["records"]:
            assert record["bler_low"] < 1 - conformance.FRACTION, record["detector"]
            assert record["bler"] < 0.25, record["detector"]


@pytest.mark.parametrize(
    "content", [{}, {"rows": 3}, {"rows": [{}]}, {"rows": [{"csi": "ls"}]}]
)
def test_files_of_something_else_are_refused(tmp_path, capsys, content):
    save_json(tmp_path / "conformance.json", content)
    assert conformance.main(["--output", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert re.search("conformance.json: (not a result file|row 0, counted from 0)", error)
