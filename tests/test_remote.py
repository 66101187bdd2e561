"""Simulations and trainings on Ray, on this machine: counts are those of one process."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from linksim.errors import InvalidInput, WorkerError
from linksim.files import load_json
from linksim.link.scenario import load_scenario
from linksim.montecarlo.engine import simulate
from tests.small_runs import SMALL, counts

pytestmark = pytest.mark.slow
ray = pytest.importorskip("ray", reason='needs Ray: pip install -e ".[ray]"')
psutil = pytest.importorskip("psutil")

ROOT = Path(__file__).parent.parent
EQNET = load_scenario("rayleigh-2x2-qam64").replace(run={"batch_size": 20})
# Classical and learned, quantized, compiled with XLA and in graph mode
DETECTORS = ["mmse", "ml", "eqnet-l-qr+max-mi:3", "ep"]


def lines(path):
    """A store without the times that batches took."""
    found = []
    for line in path.read_text().splitlines()[1:]:
        snr_db, batch, packed, _ = json.loads(line)
        for name in packed:
            *rest, _, failed = packed[name]
            packed[name] = [*rest, failed]
        found.append((snr_db, batch, packed))
    return found


def long_run(path, **options):
    """Many short batches."""
    return simulate(
        SMALL,
        ["mmse", "zf"],
        **{
            "snr_db": [0, 2, 4],
            "target_block_errors": 1500,
            "max_blocks": 4000,
            "store_path": path,
            **options,
        },
    )


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The store and the results of `long_run` in one process."""
    path = tmp_path_factory.mktemp("embedded") / "counts.jsonl"
    results = long_run(path)
    return lines(path), results


def test_one_and_two_workers_have_the_counts_of_one_process(tmp_path):
    options = {"snr_db": [11, 13, 15], "target_block_errors": 30, "max_blocks": 200}
    embedded = simulate(EQNET, DETECTORS, **options, store_path=tmp_path / "0.jsonl")
    assert embedded["provenance"]["workers"] is None
    for workers in (1, 2):
        path = tmp_path / f"{workers}.jsonl"
        results = simulate(EQNET, DETECTORS, **options, workers=workers, store_path=path)
        assert counts(results) == counts(embedded)
        assert results["gaps"] == embedded["gaps"]
        # The same batches in the same order
        assert lines(path) == lines(tmp_path / "0.jsonl")
        made = results["provenance"]["workers"]
        assert made["number"] == workers == sum(made["machines"].values())
        assert made["deaths"] == 0
    # What is there is reused, by workers and without them
    size = path.stat().st_size
    simulate(EQNET, DETECTORS, **options, workers=2, store_path=path)
    simulate(EQNET, DETECTORS, **options, store_path=path)
    assert path.stat().st_size == size
    assert not ray.is_initialized()


def workers_below(process):
    """Processes of Ray's workers that do the jobs of a process."""
    found = []
    for child in psutil.Process(process).children(recursive=True):
        try:
            if "ray::Worker" in " ".join(child.cmdline()):
                found.append(child)
        except psutil.NoSuchProcess:
            pass
    return found


def test_killed_workers_lose_and_repeat_nothing(tmp_path, expected):
    path = tmp_path / "counts.jsonl"
    killed, num_calls = [], 0

    def on_progress(*state):
        nonlocal num_calls
        num_calls += 1
        if num_calls in (20, 100, 101, 200):
            (worker, *_) = workers_below(os.getpid())
            worker.send_signal(signal.SIGKILL)
            killed.append(worker.pid)

    results = long_run(path, workers=2, on_progress=on_progress)
    assert len(set(killed)) >= 3
    assert lines(path) == expected[0] and counts(results) == counts(expected[1])
    assert results["provenance"]["workers"]["deaths"] == len(set(killed))


KILLED = """
import sys
from tests.test_remote import long_run
long_run(sys.argv[1], workers=2)
"""


def test_a_killed_driver_loses_and_repeats_nothing(tmp_path, expected):
    """SIGKILL of the process that started the run, twice; then the run goes on."""
    path = tmp_path / "counts.jsonl"
    for wanted in (30, 150):
        process = subprocess.Popen([sys.executable, "-c", KILLED, str(path)], cwd=ROOT)
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline and process.poll() is None:
            if path.exists() and path.read_text().count("\n") > wanted:
                break
            time.sleep(0.01)
        assert process.poll() is None
        workers = workers_below(process.pid)
        process.send_signal(signal.SIGKILL)
        process.wait()
        # Its workers end with it
        assert workers and not psutil.wait_procs(workers, timeout=120)[1]
    assert path.read_text().count("\n") < len(expected[0])
    long_run(path, workers=2)
    assert lines(path) == expected[0]


def test_control_c_ends_workers_and_leaves_a_valid_result(tmp_path):
    """As from a terminal: the signal goes to every process of the group."""
    script = ROOT / "simulations/coded_ber.py"
    process = subprocess.Popen(
        [
            *(sys.executable, script, "--scenario", "gauss-markov-4x2-qpsk"),
            *("--detectors", "mmse,zf", "--max-blocks", "100000000", "--workers", "2"),
            *("--target-block-errors", "100000000", "--output", tmp_path),
        ],
        stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    store = tmp_path / "gauss-markov-4x2-qpsk/counts.jsonl"
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and process.poll() is None:
        if store.exists() and store.read_text().count("\n") > 20:
            break
        time.sleep(0.1)
    workers = workers_below(process.pid)
    os.killpg(process.pid, signal.SIGINT)
    out, _ = process.communicate(timeout=180)
    assert process.returncode == 130 and "run the same command again" in out
    results = load_json(store.parent / "results.json")
    assert not results["provenance"]["complete"]
    assert results["records"][0]["blocks"] >= 20 * 500
    assert workers and not psutil.wait_procs(workers, timeout=120)[1]


OWN = """
import linksim
from linksim.detectors import MMSEDetector

class Biased(MMSEDetector):
    def estimate(self, y, h, no):
        z, variance = super().estimate(y, h, no)
        return z + 0.2, variance

linksim.register_detector("biased", Biased)
for workers in (None, 1):
    results = linksim.simulate(
        "gauss-markov-4x2-qpsk", ["mmse", "biased"], snr_db=2, max_blocks=500, workers=workers
    )
    print(*(record["block_errors"] for record in results["records"]))
"""


def test_workers_know_a_detector_of_the_script():
    done = subprocess.run(
        [sys.executable, "-c", OWN], cwd=ROOT, capture_output=True, text=True, check=True
    )
    embedded, worker = done.stdout.splitlines()
    assert embedded == worker and len(set(embedded.split())) == 2


def test_other_software_and_no_cluster_are_said(monkeypatch):
    monkeypatch.setattr(
        "linksim.workers.software", lambda: {"linksim": "0.0.1", "source": "0" * 12}
    )
    with pytest.raises(WorkerError, match=r"has linksim .* \(expected 0.0.1\)"):
        simulate(SMALL, ["zf"], snr_db=0, max_blocks=20, workers=1)
    assert not ray.is_initialized()
    with pytest.raises(InvalidInput, match="ray_address: cannot connect to '127.0.0.1:1'"):
        simulate(SMALL, ["zf"], snr_db=0, max_blocks=20, ray_address="127.0.0.1:1")


ON_CLUSTER = """
import sys
import linksim
try:
    results = linksim.simulate(
        "gauss-markov-4x2-qpsk", ["zf"], snr_db=0, max_blocks=500, ray_address=sys.argv[1]
    )
    print(results["provenance"]["workers"]["number"], results["records"][0]["block_errors"])
except linksim.WorkerError as error:
    print(error)
"""


def test_a_cluster_and_a_node_with_another_checkout(tmp_path):
    """A Ray that was started before; then one whose linksim differs by a comment."""
    other = tmp_path / "other"
    shutil.copytree(ROOT / "linksim", other / "linksim")
    shutil.copytree(ROOT / "simulations/scenarios", other / "simulations/scenarios")
    with (other / "linksim/snr.py").open("a") as file:
        file.write("# another checkout\n")
    told = []
    for checkout in (ROOT, other):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        head = subprocess.Popen(
            [
                *(Path(sys.executable).with_name("ray"), "start", "--head", "--block"),
                *("--port", str(port), "--node-ip-address", "127.0.0.1", "--num-cpus", "1"),
                *("--include-dashboard", "false", "--disable-usage-stats"),
                *("--object-store-memory", str(75 * 2**20)),
            ],
            env={**os.environ, "PYTHONPATH": str(checkout), "RAY_worker_niceness": "0"},
            cwd=tmp_path,
            stdout=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        try:
            deadline = time.monotonic() + 120
            while time.monotonic() < deadline:
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.5)
            done = subprocess.run(
                [sys.executable, "-c", ON_CLUSTER, f"127.0.0.1:{port}"],
                cwd=tmp_path, capture_output=True, text=True, timeout=600,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
            told.append(done.stdout)
        finally:
            head.terminate()
            head.wait(timeout=60)
    embedded = simulate("gauss-markov-4x2-qpsk", ["zf"], snr_db=0, max_blocks=500)
    assert told[0].split() == ["1", str(embedded["records"][0]["block_errors"])]
    assert "has source" in told[1] and "the same checkout" in told[1]
