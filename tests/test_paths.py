"""Folders and files that cannot be written, and locks on file systems that have none."""

import errno
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import linksim
import linksim.locks
from linksim.cli.main import main
from linksim.errors import InvalidInput, ResultFileError
from linksim.files import check_folder, make_folder, save_arrays
from linksim.montecarlo.replay import save_replay
from linksim.montecarlo.store import CountStore
from linksim.training.recipe import load_recipe
from linksim.training.sweep import train_recipe
from tests.small_runs import IDENTITY, run

RUN = "coded-ber --scenario gauss-markov-4x2-qpsk --detectors zf --snr 8 --max-blocks 10"
COMMANDS = [
    *(RUN, f"{RUN} --replay zf:8:0", "train oampnet2/rayleigh-4x4-qam16 --budget 1e-9"),
    *("export zf --scenario rayleigh-4x4-qam16", "report results"),
]


@pytest.fixture(params=["a file", "below a file", "long name", "not writable"])
def unusable(request, tmp_path):
    """A folder that cannot be made."""
    file = tmp_path / "file"
    file.touch()
    if request.param == "not writable":
        folder = tmp_path / "closed"
        folder.mkdir(mode=0o500)
        if os.access(folder, os.W_OK):  # root may write everywhere
            folder = "/proc/self"
        return f"{folder}/new"
    return {"a file": file, "below a file": file / "x", "long name": tmp_path / ("x" * 300)}[
        request.param
    ]


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_end_with_one_line(command, unusable, capsys):
    name = "/page.html" if command.startswith("report") else ""
    assert main([*command.split(), "--output", f"{unusable}{name}"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and (
        "--output: " in error or "cannot create this folder" in error
    )


def test_functions_refuse(unusable):
    for call in (
        make_folder,
        lambda folder: run(store_path=folder / "counts.jsonl"),
        lambda folder: linksim.write_results(run(max_blocks=10), folder),
        lambda folder: linksim.write_report([folder], folder / "page.html"),
        lambda folder: save_arrays(folder / "a.npz", {}, {}),
        lambda folder: save_replay({}, folder / "a.npz"),
        lambda folder: train_recipe(load_recipe("max-mi/rayleigh-4x4-qam16"), folder),
    ):
        with pytest.raises((ResultFileError, InvalidInput), match="cannot|folder|damaged"):
            call(Path(unusable))


def test_a_check_leaves_nothing_behind(tmp_path):
    check_folder(tmp_path / "a" / "b", "--output")
    assert not list(tmp_path.iterdir())


@pytest.fixture(params=["ENOSYS", "EOPNOTSUPP", "ENOLCK", "Windows"])
def no_locks(request, monkeypatch):
    """A file system or an operating system without locks."""

    def flock(descriptor, operation):
        raise OSError(getattr(errno, request.param), "no locks here")

    if request.param == "Windows":
        monkeypatch.setattr(linksim.locks, "fcntl", None)
    else:
        monkeypatch.setattr(linksim.locks.fcntl, "flock", flock)


def test_a_lock_file_keeps_others_out(tmp_path, no_locks):
    path, lock = tmp_path / "counts.jsonl", tmp_path / "counts.jsonl.lock"
    with CountStore(path, IDENTITY):
        before = path.read_bytes()
        with pytest.raises(ResultFileError, match=f"process {os.getpid()} on .* is writing"):
            CountStore(path, IDENTITY)
        assert lock.exists() and path.read_bytes() == before
    assert not lock.exists()
    with CountStore(path, IDENTITY):
        pass
    assert [file.name for file in tmp_path.iterdir()] == ["counts.jsonl"]


def test_a_store_that_is_refused_gives_its_lock_back(tmp_path, no_locks):
    path = tmp_path / "counts.jsonl"
    path.write_text("my notes\n")
    with pytest.raises(ResultFileError, match="not a result file"):
        CountStore(path, IDENTITY)
    assert [file.name for file in tmp_path.iterdir()] == ["counts.jsonl"]


def test_the_lock_of_a_process_that_ended_is_taken_over(tmp_path, no_locks):
    path, lock = tmp_path / "counts.jsonl", tmp_path / "counts.jsonl.lock"
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    host = socket.gethostname()
    lock.write_text(f"{ended.pid} {host} abc\n")
    with CountStore(path, IDENTITY):
        assert lock.read_text().startswith(f"{os.getpid()} {host} ")
    # Of another machine nobody here can say whether it runs; nor of a text that is no lock
    for text in (f"{ended.pid} another-{host} abc\n", "", f"x {host} abc\n"):
        lock.write_text(text)
        with pytest.raises(
            ResultFileError, match="delete it if that process no longer exists"
        ):
            CountStore(path, IDENTITY)
        assert lock.read_text() == text


@pytest.mark.parametrize("no_locks", ["ENOSYS"], indirect=True)
def test_runs_resume_without_locks(tmp_path, no_locks):
    path = tmp_path / "counts.jsonl"
    first = run(store_path=path)
    size = path.stat().st_size
    assert run(store_path=path)["records"] == first["records"]
    assert path.stat().st_size == size
