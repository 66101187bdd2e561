"""Scenario files: all are valid and run; unknown keys are refused."""

import dataclasses
import json

import numpy as np
import pytest

from linksim.channels.base import CHANNELS, GRID_CHANNELS, Channel
from linksim.errors import InvalidInput
from linksim.link.link import Link
from linksim.link.scenario import (
    Scenario,
    list_scenarios,
    load_scenario,
    scenario_from_dict,
)
from linksim.montecarlo.engine import simulate
from linksim.names import parse_receiver
from tests.conftest import slow_but

# Members of these families that differ from a quick one only in size, modulation or
# correlation run with the slow tests
FAMILIES = ("massive-", "small-", "wesnet-", "local-scattering-", "cdl-c-")
FAMILIES += ("pusch-umi-", "pusch-cdl-c-16x4")
QUICK = [
    "massive-64x16-qam16",
    "massive-64x24-qam64-corr-full",
    "massive-64x32-qam16-corr-rx",
]
QUICK += ["small-16x8-qam16-corr-rx", "wesnet-8x8-qam4", "wesnet-60x30-bpsk"]
QUICK += ["local-scattering-12x6-qpsk-2d", "cdl-c-8x4-qam16", "cdl-c-4x4-qam16-ls"]
QUICK += [name for name in list_scenarios() if not name.startswith(FAMILIES)]
MINIMAL = {
    "system": {"num_rx": 2, "num_streams": 2, "num_bits_per_symbol": 2},
    "channel": {"type": "rayleigh"},
    "snr": {"definition": "esno", "points": [10]},
    "run": {"detectors": ["zf"]},
}


def test_every_scenario_names_detectors_that_exist():
    for name in list_scenarios():
        scenario = load_scenario(name)
        assert scenario.run.detectors and scenario.snr.points
        for receiver in scenario.run.detectors:
            parse_receiver(receiver)


@pytest.mark.parametrize("name", slow_but(QUICK, list_scenarios()))
def test_every_scenario_runs_with_its_detectors(name):
    scenario = load_scenario(name).replace(run={"batch_size": 2})
    # One small batch in the middle of the curve, with all detectors of the scenario
    point = scenario.snr.points[len(scenario.snr.points) // 2]
    results = simulate(scenario, snr_db=point, max_blocks=2, xla="off")
    assert [r["detector"] for r in results["records"]] == list(scenario.run.detectors)
    for record in results["records"]:
        # Two slots, in which each user of a PUSCH has a block, or each stream
        users = scenario.channel["num_users"] if scenario.pusch is not None else 1
        if scenario.code.per_stream:
            users = scenario.system.num_streams
        assert record["blocks"] == 2 * users
        assert 0 <= record["ber_low"] <= record["ber"] <= record["ber_high"] <= 1
        assert np.isfinite(record["no"])


def test_names_of_the_issue_are_there():
    assert {
        "rayleigh-2x2-qam64",
        "rayleigh-4x4-qam16",
        "cdl-a-2x2-qam64",
        "cdl-c-4x4-qam16",
        "cdl-c-4x4-qam16-ls",
        "wesnet-60x30-bpsk",
        "local-scattering-12x6-qpsk",
        "gauss-markov-4x2-qpsk",
    } <= set(list_scenarios())


@pytest.mark.parametrize("wrong", [None, 3, "x", [1], {"type": "perfect"}])
def test_parts_that_are_no_tables_are_refused_by_name(wrong):
    """In Python, where nobody has read them from a file."""
    scenario = load_scenario("pusch-umi-16x4-mcs14-interferer")
    parts = {f.name: getattr(scenario, f.name) for f in dataclasses.fields(scenario)}
    assert Scenario(**parts) == scenario
    none = {"ofdm", "pusch", "interference"} if wrong is None else set()
    for name in set(parts) - {"name", "title", "channel"} - none:
        with pytest.raises(InvalidInput, match=f"^{name}: got .*, expected a [A-Z]"):
            Scenario(**{**parts, name: wrong})
    if not isinstance(wrong, dict):
        with pytest.raises(InvalidInput, match="^channel: got .*, expected a table"):
            Scenario(**{**parts, "channel": wrong})
        with pytest.raises(InvalidInput, match="^scenario: got .*, expected a table"):
            scenario_from_dict(wrong)


def test_description_says_code_and_csi():
    scenario = load_scenario("rayleigh-2x2-qam64")
    assert scenario.description.endswith("802.11n LDPC (648, 324), rate 0.5")
    noisy = scenario.replace(code={"type": "none"}, csi={"type": "noisy", "error_snr_db": 20})
    assert noisy.description.endswith("uncoded, CSI error 20 dB")
    third = scenario.replace(code={"type": "5g", "num_coded_bits": 960, "num_info_bits": 320})
    assert third.description.endswith("5G LDPC (960, 320), rate 0.333")


def changed(path, value):
    data = {k: dict(v) for k, v in MINIMAL.items()}
    table, _, key = path.partition(".")
    if key:
        data.setdefault(table, {})[key] = value
    else:
        data[table] = value
    return data


@pytest.mark.parametrize(
    "path, value, message",
    [
        ("systen", {}, "unknown key systen"),
        ("system.antennas", 3, "\\[system\\]: unknown key antennas"),
        ("system.num_rx", 0, "system.num_rx"),
        ("system.num_bits_per_symbol", 3, "num_bits_per_symbol: got 3"),
        ("channel.type", "magic", "channel.type: got 'magic'"),
        ("channel", {}, "channel.type: missing"),
        ("channel", 3, "channel: got 3"),
        ("code.type", "turbo", "code.type: got 'turbo'"),
        ("code", {"type": "5g"}, "code.num_info_bits: missing"),
        ("code", {"type": "802.11n", "num_info_bits": 5}, "\\(648, 5\\), expected one of"),
        ("code", {"type": "5g", "rate": 1.5}, "code.rate: got 1.5"),
        ("code", {"type": "5g", "rate": float("nan")}, "code.rate: got nan"),
        (
            "code",
            {"type": "5g", "rate": 0.5, "num_info_bits": 40},
            "expected only one of them",
        ),
        ("code", {"type": "802.11n", "rate": 0.6}, "code.rate: got 0.6, expected one of"),
        ("code.rate", 0.5, "whose rate can be chosen"),
        ("csi.type", "ls", "needs an \\[ofdm\\] table"),
        ("csi.error_snr_db", 3.0, 'only csi.type = "noisy"'),
        ("ofdm", {}, "needs channel.type = cdl"),
        ("snr.definition", "snr", "snr.definition: got 'snr'"),
        ("snr.points", [], "snr.points"),
        ("snr.points", [float("nan")], "snr.points"),
        ("snr.points", ["3"], "snr.points"),
        ("run.detectors", ["zff"], "run.detectors: got 'zff'"),
        ("run.detectors", [], "run.detectors: empty"),
        ("run.batch_size", 2.5, "run.batch_size"),
        ("run.min_bler", 2, "run.min_bler"),
        ("title", 3, "title: got 3"),
        ("run", [], "run: got \\[\\]"),
    ],
)
def test_what_is_wrong_is_named(path, value, message):
    with pytest.raises(InvalidInput, match=message):
        scenario_from_dict(changed(path, value))


def test_missing_tables_and_keys_are_named():
    with pytest.raises(InvalidInput, match="\\[snr\\] is missing"):
        scenario_from_dict({k: v for k, v in MINIMAL.items() if k != "snr"})
    with pytest.raises(InvalidInput, match="missing key num_rx"):
        scenario_from_dict({**MINIMAL, "system": {"num_streams": 2, "num_bits_per_symbol": 2}})


def test_files(tmp_path):
    with pytest.raises(InvalidInput, match="'nosuch'.*rayleigh-2x2-qam64"):
        load_scenario("nosuch")
    with pytest.raises(InvalidInput, match="cannot read"):
        load_scenario(tmp_path / "nosuch.toml")
    path = tmp_path / "mine.toml"
    path.write_text("[system\n")
    with pytest.raises(InvalidInput, match="mine.toml is not valid TOML"):
        load_scenario(path)
    path.write_text('name = "other"\n')
    with pytest.raises(InvalidInput, match="the file's name is the name"):
        load_scenario(path)


def test_replace_and_fingerprint():
    scenario = scenario_from_dict(MINIMAL)
    assert scenario.replace().fingerprint() == scenario.fingerprint()
    same = scenario.replace(run={"max_blocks": 7}, snr={"points": [1, 2]}, title="x")
    assert same.fingerprint() == scenario.fingerprint()
    for changes in (
        {"run": {"batch_size": 7}},
        {"snr": {"definition": "rx"}},
        {"channel": {"power": 0.5}},
        {"system": {"num_rx": 3}},
        {"csi": {"type": "noisy", "error_snr_db": 20}},
    ):
        assert scenario.replace(**changes).fingerprint() != scenario.fingerprint()
    with pytest.raises(InvalidInput, match="unknown key speed"):
        scenario.replace(system={"speed": 3})


def test_a_rate_is_a_number_of_information_bits():
    for name in ("cdl-c-8x4-qam16", "cdl-c-64x16-qam16"):
        scenario = load_scenario(name)
        by_rate = scenario.replace(code={"num_info_bits": 0, "rate": 0.5})
        assert by_rate.num_info_bits == scenario.code.num_info_bits == scenario.num_info_bits
        assert by_rate.description == scenario.description
        # The same draws go by the same name, and a rate in a file comes back from results
        assert by_rate.fingerprint() == scenario.fingerprint()
        assert scenario_from_dict(by_rate.to_dict()) == by_rate
        assert "rate" not in scenario.to_dict()["code"]
        other = by_rate.replace(code={"rate": 0.6})
        assert other.fingerprint() != scenario.fingerprint()
    code = {"type": "5g", "rate": 0.3333, "num_coded_bits": 648}
    coded = scenario_from_dict({**MINIMAL, "code": code})
    link = Link(coded)
    assert link.num_info_bits == coded.num_info_bits == 216
    assert link.code.coderate == pytest.approx(1 / 3)
    for name in ("rayleigh-2x2-qam64", "wesnet-8x8-qam4"):
        scenario = load_scenario(name)
        assert scenario.num_info_bits == Link(scenario).num_info_bits


def test_grids_are_for_the_channels_that_have_them():
    classes = {name: CHANNELS.entry(name).load() for name in CHANNELS.names()}
    with_grids = [n for n, c in classes.items() if c.sample_grid is not Channel.sample_grid]
    assert sorted(with_grids) == sorted(GRID_CHANNELS)


def test_a_definition_by_channel_use_needs_a_link_without_grid():
    with pytest.raises(InvalidInput, match='snr.definition: got "detnet", whose noise'):
        load_scenario("cdl-c-8x4-qam16").replace(snr={"definition": "detnet"})


def test_fingerprints_of_before_hold_where_the_noise_is_the_same():
    """Without `normalize` "rx" was of another N0 once: those counts are not continued."""
    scenario = load_scenario("cdl-c-8x4-qam16")
    rx = {"snr": {"definition": "rx"}}
    noisy = {"csi": {"type": "noisy", "error_snr_db": 20.0}}
    unnormalized = {"channel": {"normalize": False}}
    for changes, before, same in (
        ({}, "bfa81d49f30f5c1f", True),
        (rx, "a04b489908f03c87", True),
        (unnormalized, "f19aff30f9d0dd08", True),
        ({**unnormalized, **rx}, "40f4a30d4c7e0dff", False),
        ({**unnormalized, **noisy}, "01d3a449fefc16c7", False),
    ):
        assert (scenario.replace(**changes).fingerprint() == before) == same


def test_numbers_of_numpy_become_pythons():
    scenario = scenario_from_dict(
        {
            **MINIMAL,
            "system": {
                "num_rx": np.int64(3),
                "num_streams": np.int32(2),
                "num_bits_per_symbol": np.uint8(2),
            },
            "channel": {"type": "rayleigh", "power": np.float32(0.5)},
            "snr": {"definition": "esno", "points": np.array([10, 12])},
        }
    )
    noisy = scenario.replace(
        csi={"type": "noisy", "error_snr_db": np.float64(20)},
        run={"detectors": ["zf"], "batch_size": np.int16(4), "max_blocks": np.int64(4)},
    )
    assert noisy.system.num_rx == 3 and type(noisy.system.num_rx) is int
    results = simulate(
        noisy, snr_db=np.float32(10), seed=np.int64(1), max_blocks=np.int64(4), xla="off"
    )
    assert json.loads(json.dumps(results))["records"][0]["blocks"] == 4
    for bad in (np.float64("nan"), np.bool_(True), np.array([1.0, 2.0]), "3"):
        with pytest.raises(InvalidInput, match="channel.power"):
            simulate(scenario.replace(channel={"power": bad}))


def test_what_was_meant_is_suggested():
    for name, meant in (("MMSE", "mmse"), ("kbset", "kbest"), ("mmse-bias", "mmse-biased")):
        with pytest.raises(InvalidInput, match=f"Did you mean '{meant}'"):
            simulate(load_scenario("rayleigh-2x2-qam64"), [name])
    with pytest.raises(InvalidInput, match="Did you mean 'rayleigh-2x2-qam64'"):
        load_scenario("rayleigh-2x2-qam46")
    with pytest.raises(InvalidInput, match="expected a list of names"):
        simulate(load_scenario("rayleigh-2x2-qam64"), "mmse")


def test_the_length_of_a_codeword_is_that_of_the_link():
    for name in ("cdl-c-8x4-qam16", "cdl-c-4x4-qam16-ls", "rayleigh-2x2-qam64"):
        scenario = load_scenario(name)
        assert scenario.num_coded_bits == Link(scenario).code.num_coded_bits
        assert f"({scenario.num_coded_bits}, " in scenario.description
    uncoded = load_scenario("massive-64x16-qam16").replace(code={"type": "none"})
    assert uncoded.num_coded_bits == Link(uncoded).code.num_coded_bits
