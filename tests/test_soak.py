"""The soak test of the engine: its checks find what they look for; a short soak."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from linksim.errors import ResultFileError
from linksim.files import load_json, write_atomically
from linksim.montecarlo.store import CountStore
from tests.small_runs import IDENTITY, result

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "simulations"))
import soak  # noqa: E402

KILL = {"kind": "kill"}


@pytest.fixture
def stored(tmp_path):
    """The bytes of a store before and after one more batch."""
    file = tmp_path / "counts.jsonl"
    with CountStore(file, IDENTITY) as store:
        store.append(3.0, 0, {"a": result(4)})
        before = file.read_bytes()
        store.append(3.0, 1, {"a": result(1)})
    return before, file.read_bytes()


def test_lost_changed_and_repeated_batches_are_seen(stored):
    before, after = stored
    soak.check_store(b"", before, KILL)
    soak.check_store(before, after, KILL)
    soak.check_store(before[:-9], after, KILL)  # a torn line may go
    soak.check_store(before, after[:-9], KILL)
    line = after.splitlines(keepends=True)[-1]
    for was, now, message in (
        (after, before, "missing or changed"),
        (before, after.replace(b"[10, 4,", b"[10, 5,"), "missing or changed"),
        (before, after + line, "stands twice"),
    ):
        with pytest.raises(soak.SoakError, match=message):
            soak.check_store(was, now, KILL)
    with pytest.raises(soak.SoakError, match="part of a line"):
        soak.check_store(before, after[:-9], {"kind": "full disk"})


def test_other_counts_are_seen():
    record = dict.fromkeys(soak._COUNTS, 1)
    good = {"records": [record], "gaps": []}
    soak.compare(good, {"records": [{**record, "seconds": 2}], "gaps": []})
    for other in (
        {"records": [], "gaps": []},
        {"records": [{**record, "bit_errors": 2}], "gaps": []},
        {"records": [record], "gaps": [{"gap_db": 1.0}]},
    ):
        with pytest.raises(soak.SoakError, match="differ"):
            soak.compare(good, other)


FULL = """
import sys
from pathlib import Path
sys.path.insert(0, "simulations")
import soak
from linksim.errors import ResultFileError
from linksim.files import write_atomically
from linksim.montecarlo.store import CountStore
from tests.small_runs import IDENTITY, result

folder = Path(sys.argv[1])
with CountStore(folder / "counts.jsonl", IDENTITY) as store:
    store.append(3.0, 0, {"a": result(4)})
    soak.disturb({"kind": "full disk", "bytes": 20}, folder)
    for write in (
        lambda: store.append(3.0, 1, {"a": result(1)}),
        lambda: write_atomically(folder / "results.json", "x" * 4000),
    ):
        try:
            write()
        except ResultFileError as error:
            print(error)
"""


def test_a_full_disk_is_said_and_leaves_whole_files(tmp_path):
    """The kernel itself writes too little and reports the error; nothing is mocked."""
    (tmp_path / "results.json").write_text("whole")
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert "counts.jsonl: cannot write (20 of" in first
    assert "results.json: cannot write (File too large)" in second
    assert sorted(p.name for p in tmp_path.iterdir()) == ["counts.jsonl", "results.json"]
    assert (tmp_path / "results.json").read_text() == "whole"
    with CountStore(tmp_path / "counts.jsonl", IDENTITY) as store:
        assert store.total("a", 3.0) == result(4).counts


def test_a_run_that_comes_second_touches_nothing(tmp_path):
    """A second run is refused before it cuts off the line that the first one is writing."""
    file = tmp_path / "counts.jsonl"
    with CountStore(file, IDENTITY) as store:
        store.append(3.0, 0, {"a": result(4)})
        with file.open("ab") as other:
            other.write(b"[3.0, 1, {")  # half of a line, as seen during a write
        data = file.read_bytes()
        with pytest.raises(ResultFileError, match="another run"):
            CountStore(file, IDENTITY)
        assert file.read_bytes() == data
    # A refused file is not left locked
    with pytest.raises(ResultFileError, match="seed"):
        CountStore(file, {**IDENTITY, "seed": 7})
    with CountStore(file, IDENTITY) as store:
        assert store.total("a", 3.0) == result(4).counts


def test_a_folder_without_access_is_named(tmp_path):
    with pytest.raises(ResultFileError, match="none/results.json: cannot write"):
        write_atomically(tmp_path / "none/results.json", "text")


@pytest.mark.slow
def test_a_short_soak(tmp_path):
    output = tmp_path / "soak"
    done = subprocess.run(
        [
            *(sys.executable, "simulations/soak.py", "--minutes", "1.5", "--seed", "3"),
            *("--max-blocks", "1500", "--output", str(output)),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    assert "every count is as without disturbance" in done.stdout
    summary = load_json(output / "soak.json")
    assert summary["runs"] >= 1 and summary["runs"] == summary["complete"]
    assert sum(summary["faults"].values()) >= 2
    lines = (output / "run-0/counts.jsonl").read_text().splitlines()
    assert len(lines) > 20 and all(len(json.loads(line)) == 4 for line in lines[1:])
