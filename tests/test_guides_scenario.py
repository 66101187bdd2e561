"""The guide of simulations names every key of a scenario, with its default, and every option
of the command lines."""

import dataclasses
import inspect
import re
from pathlib import Path

import pytest

from linksim.channels.base import CHANNELS, create_channel, list_channels
from linksim.cli import coded_ber, exit, export, report, train
from linksim.link import scenario
from linksim.link.scenario import list_scenarios
from linksim.snr import SNR_DEFINITIONS

GUIDE = Path(__file__).resolve().parents[1] / "simulations" / "README.md"
TABLES = {
    "system": scenario.System,
    "code": scenario.Code,
    "ofdm": scenario.Ofdm,
    "loop": scenario.Loop,
    "pusch": scenario.Pusch,
    "harq": scenario.Harq,
    "csi": scenario.Csi,
    "interference": scenario.Interference,
    "snr": scenario.Snr,
    "run": scenario.Run,
}


def text_of(default):
    """A default as TOML writes it, or "required"."""
    if default in (dataclasses.MISSING, inspect.Parameter.empty):
        return "required"
    if default is None:
        return "`{}`"  # the only key without a value of its own is a table
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if isinstance(default, str):
        return f'`"{default}"`'
    return f"`{list(default) if isinstance(default, tuple) else default!r}`"


def keys_below(heading):
    """{key: default} of the table that follows a heading in bold."""
    text = GUIDE.read_text(encoding="utf-8")
    assert text.count(heading) == 1, heading
    section = re.split(r"\n\*\*`|\n##", text.split(heading)[1])[0]
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \| .*\S.* \|$", section, re.MULTILINE)
    assert len(rows) == len(dict(rows))
    return dict(rows)


@pytest.mark.parametrize("table", TABLES)
def test_keys_of_tables(table):
    expected = {f.name: text_of(f.default) for f in dataclasses.fields(TABLES[table])}
    assert keys_below(f"**`[{table}]`**") == expected


@pytest.mark.parametrize("name", list_channels())
def test_keys_of_channels(name):
    channel = CHANNELS.entry(name).load()
    options = list(inspect.signature(channel).parameters.values())[2:]
    expected = {option.name: text_of(option.default) for option in options}
    assert keys_below(f'**`type = "{name}"`**') == expected


@pytest.mark.parametrize("model", "ABCDE")
def test_spreads_of_cdl_channels(model):
    row = re.search(rf"^\| CDL-{model} \| (.*) \|$", GUIDE.read_text(encoding="utf-8"), re.M)
    assert row is not None
    usual = create_channel("cdl", 8, 4, model=model).profile
    omni = create_channel("cdl", 8, 4, model=model, rx_pattern="omni").profile
    delays = [f"{1e9 * p.delay_spread:.1f}" for p in (usual, omni)]
    angles = [f"{p.spreads_deg['azimuth of arrival']:.1f}" for p in (usual, omni)]
    cells = [f"{usual.gain:.2f}", *("{} ({})".format(*pair) for pair in (delays, angles))]
    assert row[1].split(" | ") == cells


def test_these_are_all_tables_and_channels():
    text = GUIDE.read_text(encoding="utf-8")
    assert set(re.findall(r"^\*\*`\[(\w+)\]`\*\*", text, re.MULTILINE)) == {*TABLES, "channel"}
    types = re.findall(r'^\*\*`type = "([\w-]+)"`\*\*', text, re.MULTILINE)
    assert sorted(types) == sorted(list_channels())


def test_definitions_and_scenarios_are_named():
    text = GUIDE.read_text(encoding="utf-8")
    definitions = text.split("### SNR definitions")[1].split("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", definitions, re.MULTILINE) == list(SNR_DEFINITIONS)
    shipped = text.split("### Shipped scenarios")[1].split("\n### ")[0]
    for name in list_scenarios():
        family = re.sub(r"-(\d+x\d+|siso).*", "", name)
        assert re.search(rf"`{re.escape(family)}-", shipped), name


@pytest.mark.parametrize(
    "command, pages",
    [
        (coded_ber, ["simulations/README.md"]),
        (train, ["simulations/README.md"]),
        (exit, ["simulations/README.md"]),
        (export, ["simulations/README.md"]),
        (report, ["simulations/README.md", "results/README.md"]),
    ],
)
def test_options_of_command_lines(command, pages, capsys):
    with pytest.raises(SystemExit):
        command.parse_arguments(["--help"], "prog")
    options = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", capsys.readouterr().out))
    text = "\n".join((GUIDE.parents[1] / page).read_text(encoding="utf-8") for page in pages)
    assert "--models" in options
    missing = {o for o in options - {"--help"} if not re.search(rf"{o}(?![\w-])", text)}
    assert not missing
