"""The main job as a user runs it."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

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
    for name in ("bler.png", "ber.png"):
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
        "--list-quantizers": ["max-mi", "latents"],
    }.items():
        assert script.main([option]) == 0
        listed = capsys.readouterr().out
        assert all(name in listed for name in names)


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
        "['eqnet-l-qr+max-mi:3'], snr_db=20, max_blocks=100); "
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
