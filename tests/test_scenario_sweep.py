"""Whatever a scenario file or `Scenario.replace` can say works, or is refused by its key."""

import copy
import itertools
import json

import numpy as np
import pytest
import tensorflow as tf

from linksim.channels import channel_of
from linksim.channels.base import CHANNELS, GRID_CHANNELS
from linksim.errors import InvalidInput
from linksim.factories import keyword_names
from linksim.link.fronts import create_front
from linksim.link.link import Link
from linksim.link.scenario import list_scenarios, load_scenario, scenario_from_dict
from linksim.montecarlo.engine import simulate
from linksim.training.source import VectorSource
from tests.mutations import PLAIN, other_than
from tests.small_runs import SMALL

TABLES = ("system", "channel", "code", "csi", "ofdm", "pusch", "interference", "snr", "run")
KEYS = {  # of tables that a scenario may leave out
    "code": (
        *("type", "num_info_bits", "num_coded_bits", "interleaver_seed", "file"),
        *("per_stream", "interleaver"),
    ),
    "csi": ("type", "error_snr_db", "covariance", "spatial", "error"),
    "interference": ("num_streams", "sir_db", "covariance", "num_samples", "channel"),
    "ofdm": ("num_symbols", "num_subcarriers", "pilot_symbols", "cyclic_prefix_ratio"),
}


def built(data):
    """Build a scenario, and read back what results would keep of it."""
    scenario = scenario_from_dict(copy.deepcopy(data))
    again = scenario_from_dict(json.loads(json.dumps(scenario.to_dict())))
    assert again.fingerprint() == scenario.fingerprint()
    assert scenario.description and scenario.num_coded_bits >= 1
    return scenario


def mutations(data):
    """(what was changed, the changed dictionary) for every table and key."""
    for table in (*TABLES, "title", "name", "nosuch"):
        without = {k: v for k, v in data.items() if k != table}
        yield f"no {table}", without
        for value in PLAIN:
            yield f"{table} = {value!r}", {**without, table: value}
    for table in TABLES:
        keys = data.get(table, {})
        for key in (*{**keys, **dict.fromkeys(KEYS.get(table, ()))}, "nosuch"):
            without = {k: v for k, v in keys.items() if k != key}
            yield f"no {table}.{key}", {**data, table: without}
            for value in PLAIN:
                yield f"{table}.{key} = {value!r}", {**data, table: {**without, key: value}}
        yield f"{table}: key 3", {**data, table: {**keys, 3: 1}}


def test_every_key_of_every_scenario_is_refused_by_name_or_works():
    wrong, seen = set(), set()
    for name in list_scenarios():
        data = load_scenario(name).to_dict()
        # Scenarios that differ in their titles and sizes have the same keys
        kind = [sorted(v) for v in data.values() if isinstance(v, dict)]
        if str((kind, data["channel"]["type"])) in seen:
            continue
        seen.add(str((kind, data["channel"]["type"])))
        for what, changed in mutations(data):
            found = other_than(InvalidInput, lambda: built(changed))
            if found:
                wrong.add(f"{name}: {what}: {found}")
    assert len(seen) > 8
    assert not wrong, "\n".join(sorted(wrong)[:20])


def test_replace_refuses_by_name_or_works():
    scenario = load_scenario("cdl-c-4x4-qam16-ls")
    wrong = []
    for table, value in itertools.product((*TABLES, "title", "name", "nosuch"), PLAIN):
        for given in (value, {"type": value}, {"points": value}, {"pilot_symbols": value}):
            found = other_than(InvalidInput, lambda: scenario.replace(**{table: given}))
            wrong += [f"{table} = {given!r}: {found}"] if found else []
    assert not wrong, "\n".join(wrong[:20])


# A value of the kind, where the others refuse everything else
NEEDED = {"displacement": {"mobility": "2d", "num_displacements": 2}}


@pytest.mark.parametrize("name", CHANNELS.names())
def test_every_key_of_a_channel_is_refused_by_name_or_draws(name):
    system = {"num_rx": 4, "num_streams": 4, "num_bits_per_symbol": 2}
    base = SMALL.to_dict() | {"system": system}
    keys = keyword_names(CHANNELS.entry(name).load()) - {"num_rx", "num_streams"}
    assert keys or name == "awgn"
    wrong = []

    def drawn(channel):
        scenario = built({**base, "channel": channel})
        front = create_front(scenario, channel_of(scenario))
        if name in GRID_CHANNELS[:-1]:  # their draws take long; other tests make some
            return
        key = np.array([1, 2], np.int32)
        assert np.isfinite(np.asarray(front.channel.sample(key, 2, 3))).all()

    for key, value in itertools.product((*sorted(keys), "nosuch"), PLAIN):
        few = {"num_drops": 2} if name == "local-scattering" else {}
        channel = {"type": name, **few, **NEEDED.get(key, {}), key: value}
        found = other_than(InvalidInput, lambda: drawn(channel))
        wrong += [f"{key} = {value!r}: {found}"] if found else []
    assert not wrong, "\n".join(wrong[:20])


GRIDS = [
    *itertools.product((1, 2, 4), (1, 3), (1, 4, 8), ([], [0], [1], [0, 2]), ("lin",)),
    *itertools.product((2,), (3,), (6,), ([0, 1], [1, 1]), ("nn", "lin_time_avg")),
]


def test_every_grid_is_refused_by_name_or_draws():
    base = load_scenario("cdl-c-4x4-qam16-ls").replace(
        code={"type": "none", "num_info_bits": 0}
    )
    base = base.replace(channel={"rx_polarization": "single", "tx_polarization": "single"})
    drawn = 0
    for streams, symbols, subcarriers, pilots, interpolation in GRIDS:
        grid = {"num_symbols": symbols, "num_subcarriers": subcarriers}
        grid |= {"pilot_symbols": pilots, "interpolation": interpolation}
        csi = {"type": "ls" if pilots else "perfect"}
        try:
            link = Link(base.replace(system={"num_streams": streams}, ofdm=grid, csi=csi))
        except InvalidInput as refusal:
            assert "ofdm." in str(refusal)
            continue
        no = tf.constant(link.no(10.0), tf.float32)
        batch = link.draw(link.keys(0, 10.0, 0), no, tf.constant(0), 1)
        assert all(np.isfinite(np.asarray(part)).all() for part in batch)
        drawn += 1
    assert drawn > 20


@pytest.mark.parametrize(
    "ofdm, message",
    [
        ({"num_subcarriers": 14}, "num_subcarriers: got 14, expected a multiple of .* = 4"),
        ({"pilot_symbols": list(range(14))}, "pilot_symbols: got all 14 symbols"),
        ({"pilot_symbols": 2}, "pilot_symbols: got 2, expected a list"),
        ({"pilot_symbols": [2, 2]}, "pilot_symbols: .* each symbol once"),
        ({"pilot_symbols": "2"}, "pilot_symbols: got '2', expected a list"),
        ({"num_subcarriers": 10**9}, "num_subcarriers: .* from 1 to"),
    ],
)
def test_grids_that_sionna_refuses_are_refused_by_key(ofdm, message):
    with pytest.raises(InvalidInput, match=f"ofdm.{message}"):
        load_scenario("cdl-c-4x4-qam16").replace(ofdm=ofdm)


@pytest.mark.parametrize(
    "name, tables, message",
    [
        ("rayleigh-4x4-qam16", {"code": {"type": "none"}, "loop": {"scale": 0.5}}, "loop: "),
        ("cdl-c-4x4-qam16", {"ofdm": {"interpolation": "nn"}}, "ofdm.interpolation: only "),
        ("pusch-cdl-c-4x2-mcs14", {"pusch": {"interpolation": "nn"}}, "pusch.interpolation"),
        (
            "pusch-cdl-c-4x2-mcs14",
            {"pusch": {"mapping_type": "B", "dmrs_type_a_position": 3}},
            'pusch.dmrs_type_a_position: got 3 with mapping_type = "B"',
        ),
    ],
)
def test_keys_without_effect_are_refused(name, tables, message):
    with pytest.raises(InvalidInput, match=message):
        load_scenario(name).replace(**tables)


@pytest.mark.parametrize("k, n", [(11, 100), (9000, 9400), (100, 90), (5, 0)])
def test_codes_that_do_not_exist_name_their_table_and_scenario(k, n):
    code = {"type": "5g", "num_info_bits": k, "num_coded_bits": n, "interleaver_seed": -1}
    with pytest.raises(InvalidInput, match="scenario tried: code"):
        Link(load_scenario("rayleigh-2x2-qam64").replace(name="tried", code=code))


@pytest.mark.parametrize(
    "name, key, value, unit",
    [
        ("cdl", "delay_spread_ns", 1e-7, "ns"),  # seconds
        ("cdl", "delay_spread_ns", 0.1, "ns"),  # microseconds
        ("cdl", "delay_spread_ns", 100e3, "ns"),  # picoseconds
        ("cdl", "subcarrier_spacing_khz", 30000, "kHz"),  # hertz
        ("cdl", "subcarrier_spacing_khz", 0.03, "kHz"),  # megahertz
        ("cdl", "carrier_frequency_ghz", 3500, "GHz"),  # megahertz
        ("cdl", "carrier_frequency_ghz", 3.5e9, "GHz"),  # hertz
        ("cdl", "speed", 30000, "m/s"),  # millimetres a second
        ("tdl", "delay_spread_ns", 1e-7, "ns"),  # seconds
        ("tdl", "max_doppler_hz", 1e9, "Hz"),
        ("umi", "min_distance", 1e6, "m"),
        ("uma", "speed", 3000, "m/s"),
        ("local-scattering", "angular_std_deg", 600, "degrees"),  # minutes of arc
        ("local-scattering", "spacing", 500, "wavelengths"),
        ("local-scattering", "distance", 2.5e8, "m"),
        ("local-scattering", "displacement", 2e8, "m"),
    ],
)
def test_other_units_are_refused_with_the_right_one(name, key, value, unit):
    data = load_scenario("cdl-c-8x4-qam16").to_dict()
    del data["ofdm"]
    channel = {"type": name, **NEEDED.get(key, {}), key: value}
    with pytest.raises(InvalidInput, match=f"channel.{key}: got .* in {unit}$"):
        channel_of(scenario_from_dict({**data, "channel": channel}))


def test_a_mistake_names_the_file_also_when_its_part_is_made_later(tmp_path):
    path = tmp_path / "mine.toml"
    text = "[system]\nnum_rx = 2\nnum_streams = 2\nnum_bits_per_symbol = 2\n"
    text += '[channel]\ntype = "rayleigh"\nFIRST\n[snr]\ndefinition = "rx"\npoints = [3]\n'
    text += '[run]\ndetectors = ["mmse"]\n'
    for line, key in (("power = -1", "channel.power"), ("rho = 1", "unknown key rho")):
        path.write_text(text.replace("FIRST", line))
        for make in (simulate, lambda p: VectorSource(load_scenario(p), (0, 9), 8)):
            with pytest.raises(InvalidInput, match=f"mine: .*{key}"):
                make(path)
    path.write_text(text.replace("FIRST", "[csi]\ntype = 3"))
    with pytest.raises(InvalidInput, match="mine.toml: csi.type: got 3"):
        load_scenario(path)
    path.write_text("a = " + "[" * 10000)
    with pytest.raises(InvalidInput, match="mine.toml is not valid TOML"):
        load_scenario(path)


@pytest.mark.parametrize("text", ["a\nb", "\x1b[31mred", "\x9b", "a\udce9b", 3])
def test_titles_and_names_are_one_line_without_control_characters(text):
    for key in ("title", "name"):
        with pytest.raises(InvalidInput, match=f"{key}: got"):
            SMALL.replace(**{key: text})
    assert SMALL.replace(title="Größe 4×4, 例 [x] $\\foo$ 😀").title.startswith("Größe")
