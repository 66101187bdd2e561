"""The main job as a user runs it."""

import builtins
import configparser
import csv
import importlib.metadata
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

import linksim.models
from linksim.cli.coded_ber import (
    chosen_detectors,
    chosen_scenario,
    parse_arguments,
    parse_replay,
    parse_snr,
)
from linksim.cli.common import make_parser, print_entry
from linksim.cli.live import LiveView
from linksim.cli.main import COMMANDS, main
from linksim.errors import InvalidInput
from linksim.montecarlo.statistics import Counts
from linksim.provenance import package_versions
from tests.conftest import load_script

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "simulations" / "coded_ber.py"
FAST = ["--scenario", "gauss-markov-4x2-qpsk", "--detectors", "mmse,zf", "--snr", "0:8:4"]


def run(*args, **options):
    return subprocess.run(
        [sys.executable, SCRIPT, *map(str, args)], capture_output=True, text=True, **options
    )


def test_results_of_a_run(tmp_path):
    done = run(*FAST, "--max-blocks", 500, "--output", tmp_path)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "gauss-markov-4x2-qpsk"
    results = json.loads((folder / "results.json").read_text())
    assert results["provenance"]["complete"]
    assert {r["snr_db"] for r in results["records"]} == {0, 4, 8}
    rows = list(csv.DictReader((folder / "results.csv").open()))
    assert [float(r["bler"]) for r in rows] == [r["bler"] for r in results["records"]]
    # This scenario has no code, so symbols stand in for blocks
    for name in ("ser.png", "ber.png"):
        assert (folder / name).read_bytes()[:4] == b"\x89PNG"
    page = (folder / "report.html").read_text(encoding="utf-8")
    record = results["records"][0]
    assert f"{record['block_errors']:,} errors in {record['blocks']:,} blocks" in page
    assert "mmse" in done.stdout and "gap (dB)" in done.stdout
    # A second run resumes: nothing is appended
    before = (folder / "counts.jsonl").read_bytes()
    assert run(*FAST, "--max-blocks", 500, "--output", tmp_path).returncode == 0
    assert (folder / "counts.jsonl").read_bytes() == before
    replay = run(*FAST, "--replay", "zf:0:3", "--output", tmp_path)
    assert replay.returncode == 0 and (folder / "replay-zf-0dB-3.npz").exists()


def test_results_show_all_counts_of_the_folder(tmp_path, capsys):
    """Those of earlier commands too, unless less is asked for."""
    script = load_script(SCRIPT)
    base = ["--scenario", "gauss-markov-4x2-qpsk", "--max-blocks", "500"]
    base += ["--output", str(tmp_path), "--detectors"]
    folder = tmp_path / "gauss-markov-4x2-qpsk"

    def shown(*args):
        assert script.main([*base, *args]) == 0
        results = json.loads((folder / "results.json").read_text())
        records = {(r["detector"], r["snr_db"]) for r in results["records"]}
        rows = csv.DictReader((folder / "results.csv").open())
        assert {(r["detector"], float(r["snr_db"])) for r in rows} == records
        page = (folder / "report.html").read_text(encoding="utf-8")
        assert {d for d, _ in records} == set(re.findall('<tr data-detector="(.*?)">', page))
        return records

    assert shown("mmse,kbest(k=2)", "--snr", "0,4") == {
        (d, p) for d in ("mmse", "kbest(k=2)") for p in (0, 4)
    }
    capsys.readouterr()
    both = shown("zf", "--snr", "4,8")
    assert both == {
        *((d, p) for d in ("mmse", "kbest(k=2)") for p in (0, 4)),
        ("zf", 4),
        ("zf", 8),
    }
    out = capsys.readouterr().out
    # The line of a point has what was simulated now, the table has everything
    assert "4 dB  SER  zf" in out and "kbest(k=2)" in out
    assert "Symbol error rate, 95 %" in out and "Bit error rate, 95 %" in out
    assert "Block error rate" not in out
    assert shown("zf", "--snr", "4,8", "--only-these") == {("zf", 4), ("zf", 8)}
    assert shown("zf", "--snr", "4") == both


def test_control_c_leaves_a_valid_result(tmp_path):
    process = subprocess.Popen(
        [
            sys.executable,
            SCRIPT,
            *FAST,
            "--max-blocks",
            "100000000",
            "--target-block-errors",
            "100000000",
            "--output",
            tmp_path,
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    counts = tmp_path / "gauss-markov-4x2-qpsk" / "counts.jsonl"
    try:
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline:
            if counts.exists() and counts.read_text().count("\n") > 2:
                break
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=180)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "run the same command again" in out
    results = json.loads((counts.parent / "results.json").read_text())
    assert not results["provenance"]["complete"]
    assert results["records"][0]["blocks"] >= 500


@pytest.mark.parametrize("rate, unit", [("ser", "symbols"), ("bler", "blocks")])
def test_the_live_view_shows_the_rate_that_says_something(rate, unit):
    console = Console(file=io.StringIO(), force_terminal=True, width=100, height=20)
    with LiveView(console, [4.0], rate) as view:
        c = Counts(10, 9, 1000, 80, 640, 500, 40, 320, 0.1)
        view.batch(4.0, {"mmse": c, "zf": Counts()}, ["mmse"])
    shown = console.file.getvalue()
    value, total = {"ser": ("0.080 ", " 500 "), "bler": ("0.90 ", " 10 ")}[rate]
    assert rate.upper() in shown and unit in shown and value in shown and total in shown


SWALLOWED = """
import sys, types
sys.modules["keras"] = types.SimpleNamespace(backend=types.SimpleNamespace(backend=str))
sys.path.insert(0, sys.argv[1])
from linksim.cli.common import run_command, start_keras
def command():
    start_keras("swallowing")
    print("went on")
    return 0
sys.exit(run_command("prog", command, "interrupted here"))
"""


def test_control_c_during_an_import_ends_the_program(tmp_path):
    """Some imports swallow the exception that Ctrl-C raises, and the run went on."""
    (tmp_path / "swallowing.py").write_text(
        "import os, signal, time\n"
        "try:\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    time.sleep(1)\n"
        "except KeyboardInterrupt:\n"
        "    pass\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", SWALLOWED, tmp_path], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "prog: interrupted here\n")


@pytest.mark.parametrize("name", ["coded_ber", "train", "export", "report"])
def test_control_c_while_a_script_starts(name, monkeypatch):
    monkeypatch.setattr("builtins.__import__", _raising(name, builtins.__import__))
    with pytest.raises(SystemExit) as end:
        load_script(ROOT / "simulations" / f"{name}.py")
    assert end.value.code == 130


def _raising(name, real):
    def import_(module, *args, **kwargs):
        if module == f"linksim.cli.{name}":
            raise KeyboardInterrupt
        return real(module, *args, **kwargs)

    return import_


def test_snr_points_may_be_negative():
    for args in (["--snr", "-4:4:4"], ["--snr=-4:4:4"], ["--snr", "-4,0,4"]):
        parsed = parse_arguments([*args, "--fresh"], "coded_ber.py")
        assert parse_snr(parsed.snr) == [-4, 0, 4] and parsed.fresh
    assert parse_arguments(["--csi-error", "-3"], "coded_ber.py").csi_error == -3
    with pytest.raises(SystemExit):
        parse_arguments(["-4:4:2"], "coded_ber.py")


def test_replay_text():
    assert parse_replay("zf-sic:-2.5:7") == ("zf-sic", -2.5, 7)
    assert parse_replay("ml+max-mi:3:12:0") == ("ml+max-mi:3", 12.0, 0)
    for bad in ("zf", "zf:3", "zf:a:3", "zf:3:x", "3:4"):
        with pytest.raises(InvalidInput, match="DETECTOR:SNR:BLOCK"):
            parse_replay(bad)


def test_the_quantizer_goes_behind_detectors_without_one():
    args = parse_arguments(
        ["--detectors", "ml+uniform:3,ep(damping=5e+0),mmse", "--quantizer", "max-mi:3"], ""
    )
    assert chosen_detectors(args, chosen_scenario(args)) == [
        "ml+uniform:3",
        "ep(damping=5.0)+max-mi:3",
        "mmse+max-mi:3",
    ]


def refused(capsys, *args):
    """What a run in this process that ends with status 2 writes to stderr."""
    script = load_script(SCRIPT)
    try:
        code = script.main([str(a) for a in args])
    except SystemExit as refusal:  # argparse's own
        code = refusal.code
    assert code == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return error


@pytest.mark.parametrize(
    "args, message",
    [
        (["--scenario", "nosuch"], "scenario: got 'nosuch'"),
        (["--scenario", "nosuch.toml"], "cannot read nosuch.toml"),
        (["--detectors", "mmse,best"], "detector: got 'best'"),
        (["--snr", "3:1:1"], "--snr: got '3:1:1'"),
        (["--snr", "1:2:0"], "--snr"),
        (["--snr", "a,b"], "--snr: got 'a,b'"),
        (["--snr", "nan"], "snr_db: got nan"),
        (["--max-blocks", "0"], "max_blocks: got 0"),
        (["--seed", "-1"], "seed: got -1"),
        (["--replay", "zf:1"], "--replay"),
        (["--replay", "zzz:1:1"], "detector: got 'zzz'"),
        (["--csi-error", "nan"], "csi.error_snr_db"),
        (["--xla", "perhaps"], "invalid choice"),
    ],
)
def test_bad_input_exits_with_2_and_a_message(args, message, tmp_path, capsys):
    assert message in refused(capsys, *args, "--output", tmp_path)


def test_unknown_key_in_a_file_and_foreign_results(tmp_path, capsys):
    path = tmp_path / "mine.toml"
    text = (ROOT / "simulations/scenarios/gauss-markov-4x2-qpsk.toml").read_text()
    path.write_text(text.replace("rho_k", "rho_q"))
    error = refused(capsys, "--scenario", path, "--output", tmp_path)
    assert "unknown key rho_q" in error
    foreign = tmp_path / "gauss-markov-4x2-qpsk" / "counts.jsonl"
    foreign.parent.mkdir()
    foreign.write_text("my notes\n")
    assert "not a result file" in refused(capsys, *FAST, "--output", tmp_path)
    assert foreign.read_text() == "my notes\n"


def test_variants_have_their_own_folders(tmp_path):
    done = run(
        "--scenario",
        "rayleigh-2x2-qam64",
        "--detectors",
        "mmse",
        "--snr",
        "14",
        "--max-blocks",
        100,
        "--csi-error",
        20,
        "--code",
        "none",
        "--seed",
        3,
        "--output",
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "rayleigh-2x2-qam64+csi20db+uncoded-seed3"
    scenario = json.loads((folder / "results.json").read_text())["scenario"]
    assert scenario["csi"]["error_snr_db"] == 20 and scenario["code"]["type"] == "none"


def test_lists(capsys):
    script = load_script(SCRIPT)
    for option, names in {
        "--list-scenarios": ["cdl-c-8x4-qam16"],
        "--list-detectors": ["vblast-mmse", "sionna-ep"],
        "--list-quantizers": ["max-mi", "trained for mutual information"],
        "--list-models": ["oampnet2/rayleigh-4x4-qam16", "4x4, 16-QAM"],
    }.items():
        assert script.main([option]) == 0
        listed = capsys.readouterr().out
        assert all(name in listed for name in names)


LIGHT = """
import contextlib, io, sys
from linksim.cli.main import COMMANDS, main

lists = [f"--list-{what}" for what in ("scenarios", "detectors", "quantizers", "models")]
lines = [["--help"], *([name, "--help"] for name in COMMANDS), ["models"], ["train", "--list"]]
for line in lines + [["coded-ber", option] for option in lists]:
    printed = io.StringIO()
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(printed):
        main(line)
    heavy = {"tensorflow", "keras", "sionna", "matplotlib", "scipy", "jax"} & set(sys.modules)
    assert printed.getvalue() and not heavy, (line, heavy)
"""


def test_help_and_lists_load_no_framework():
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_command_and_its_commands(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in COMMANDS)
    for line in ([], ["nosuch"], ["nosuch", "--help"]):
        with pytest.raises(SystemExit) as end:
            main(line)
        assert end.value.code == 2
        assert "linksim: " in (err := capsys.readouterr().err) and "--help shows" in err
    # Errors name the command, as they name the script
    assert main(["coded-ber", "--scenario", "nosuch"]) == 2
    assert capsys.readouterr().err.startswith("linksim coded-ber: scenario: got 'nosuch'")
    assert main(["train", "nosuch"]) == 2
    assert capsys.readouterr().err.startswith("linksim train: ")
    assert main(["train", "--publish", "eqnet/rayleigh-2x2-qam64"]) == 2
    assert "put the recipe before --publish" in capsys.readouterr().err


def test_a_shipped_model_is_not_published_under_the_same_name(tmp_path, monkeypatch, capsys):
    """Two of one name could not be told apart once both are there."""
    monkeypatch.setattr(linksim.models, "_OWN_FOLDERS", [])
    line = ["train", "eqnet-mi/rayleigh-2x2-qam64", "--publish", str(tmp_path / "own")]
    assert main(line) == 2
    assert "copy its recipe.toml to" in capsys.readouterr().err
    (tmp_path / "file").touch()
    assert main([*line[:-1], str(tmp_path / "file")]) == 2
    assert "is a file, expected a folder" in capsys.readouterr().err


def test_help_shows_defaults():
    parser = make_parser("linksim", "What it does.", "--seed 1")
    parser.add_argument("--seed", default=0, help="a number")
    parser.add_argument("--fresh", action="store_true", help="set aside")
    parser.add_argument("--memory", help="in GiB")
    text = parser.format_help()
    assert "a number (default: 0)" in text and "linksim --seed 1" in text
    assert text.count("(default:") == 1


def test_models(capsys):
    assert main(["models", "oampnet2"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert listed[0].split()[0] == "model" and len(listed) > 5
    assert all(line.startswith("oampnet2/") for line in listed[1:-1])
    assert main(["models", "oampnet2/rayleigh-4x4-qam16"]) == 0
    card = ROOT / "models/oampnet2/rayleigh-4x4-qam16/card.md"
    assert capsys.readouterr().out == card.read_text(encoding="utf-8")
    assert main(["models", "nosuch"]) == 2
    assert "no model has such a name" in capsys.readouterr().err
    assert main(["models", "--models", "nosuch"]) == 2
    assert "expected an existing folder" in capsys.readouterr().err


def test_own_detectors(tmp_path):
    """Those of a file have names on the command line."""
    path = tmp_path / "mine.py"
    path.write_text(
        "import linksim\n"
        "from linksim.detectors import MMSEDetector\n"
        "class Mine(MMSEDetector):\n"
        "    'My own detector.'\n"
        "linksim.register_detector('mine', Mine)\n"
    )
    done = run("--import", path, "--list-detectors")
    assert done.returncode == 0, done.stderr
    assert "My own detector." in done.stdout.splitlines()[-1]
    done = run("--import", tmp_path / "nosuch.py", "--list-detectors")
    assert done.returncode == 2 and "expected an existing .py file" in done.stderr


def test_versions_are_those_of_the_build_that_is_installed(monkeypatch):
    """requirements.txt has lighter builds of TensorFlow and Sionna, of other names."""
    there = {"tensorflow-cpu": "2.21.0", "sionna-no-rt": "1.2.2", "numpy": "2.4.6"}

    def version(name):
        if name not in there:
            raise importlib.metadata.PackageNotFoundError(name)
        return there[name]

    monkeypatch.setattr(importlib.metadata, "version", version)
    expected = {"tensorflow": "2.21.0", "sionna": "1.2.2", "numpy": "2.4.6"}
    assert package_versions() == expected


def test_texts_are_printed_as_they_are(capsys):
    console = Console(width=200)
    print_entry(console, "a[b]", "[red]text[/] of a user", 6)
    assert capsys.readouterr().out == "a[b]   [red]text[/] of a user\n"


def test_every_package_is_in_the_wheel():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    listed = config["options"]["packages"].split()
    folders = [path.parent for path in (ROOT / "linksim").glob("**/__init__.py")]
    found = {".".join(folder.relative_to(ROOT).parts) for folder in folders}
    assert found | {"linksim._scenarios", "linksim._models"} == set(listed)


@pytest.mark.slow
def test_wheel_works_elsewhere(tmp_path):
    """Built, installed without the checkout, scenarios and trained models found."""
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", tmp_path, ROOT],
        check=True,
    )
    wheel = next(tmp_path.glob("linksim-*.whl"))
    target = tmp_path / "site"
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "install",
            "-q",
            "--no-deps",
            "--target",
            target,
            wheel,
        ],
        check=True,
    )
    code = (
        "import linksim; r = linksim.simulate('rayleigh-2x2-qam64', "
        "['ml+eqnet-mi:6'], snr_db=20, max_blocks=100); "
        "from linksim.cli.main import main; main(['models']); "
        "print(linksim.__file__, len(r['records']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(target)},
        capture_output=True,
        text=True,
    )
    assert done.stdout.split()[-1] == "1", done.stderr
    assert str(target) in done.stdout


def test_quantizers_stand_behind_detectors(tmp_path, capsys):
    done = run(
        "--scenario", "rayleigh-2x2-qam64", "--detectors", "mmse,ml+max-mi:2,eqnet-l-qr",
        "--quantizer", "max-mi:3", "--snr", "20", "--max-blocks", 100, "--output", tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "rayleigh-2x2-qam64"
    results = json.loads((folder / "results.json").read_text())
    names = [r["detector"] for r in results["records"]]
    assert names == ["mmse+max-mi:3", "ml+max-mi:2", "eqnet-l-qr+max-mi:3"]
    # Trained weights are part of what counts stand under
    digest = results["provenance"]["weights"]["ml+max-mi:2"]
    assert list(digest) == ["max-mi/rayleigh-2x2-qam64"]
    counts = (folder / "counts.jsonl").read_text()
    assert '"ml+max-mi:2@' in counts
    for option, message in (
        ("nothing:3", "quantizer: got 'nothing'"),
        ("max-mi:x", "expected bits"),
        ("max-mi:20", "bits"),
    ):
        error = refused(capsys, *FAST, "--quantizer", option, "--output", tmp_path)
        assert message in error
