"""What is there for GPUs, without one. No time is asserted."""

import json
import types
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from linksim.backend import wait_for
from linksim.errors import InvalidInput
from linksim.files import load_json
from linksim.link import devices, simulator
from linksim.link.draw import symbols_of_bits
from linksim.link.scenario import load_scenario
from linksim.link.simulator import LinkSimulator
from simulations.by_backend.cases import case_of
from simulations.speed import device, gpu, gpu_side
from simulations.speed.gpu_page import gpu_page_text
from simulations.speed.rows import absent_row, row_of
from simulations.speed.vectors import random_vectors
from tests.conftest import load_script

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results/benchmark/gpu"


@pytest.fixture(autouse=True)
def default_products():
    """Tests that follow in this process have TensorFlow's default again."""
    yield
    tf.config.experimental.enable_tensor_float_32_execution(True)


# --- linksim ----------------------------------------------------------------------------


@pytest.fixture
def with_gpu(monkeypatch):
    """TensorFlow says that there is a GPU, and remembers what was set for it."""
    found = types.SimpleNamespace(name="/physical_device:GPU:0")
    allowed = []
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: [found])
    experimental = tf.config.experimental
    monkeypatch.setattr(
        experimental, "get_device_details", lambda gpu: {"device_name": "A [GPU]"}
    )
    monkeypatch.setattr(experimental, "enable_tensor_float_32_execution", allowed.append)
    return allowed


def test_the_simulator_computes_in_float32_on_a_gpu(with_gpu):
    made = LinkSimulator(load_scenario("rayleigh-2x2-qam64").replace(run={"batch_size": 1}))
    assert with_gpu == [False]
    assert made.gpus == ["A [GPU]"]  # what results name


def test_without_a_gpu_nothing_is_set(with_gpu, monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: [])
    assert devices.gpus_in_float32() == [] and with_gpu == []


@pytest.mark.parametrize("bits", [1, 2, 6, 10])
def test_symbols_of_bits_stay_on_a_gpu(bits, rng):
    sent = rng.integers(0, 2, (50, 3, bits)).astype(np.float32)
    expected = sent.astype(int) @ (2 ** np.arange(bits)[::-1])
    for given in (sent, sent.astype(np.int32)):
        found = symbols_of_bits(tf.constant(given))
        assert found.dtype == tf.int32
        np.testing.assert_array_equal(found, expected)
    # TensorFlow has these kernels for the host's memory alone
    traced = tf.function(symbols_of_bits, autograph=False).get_concrete_function(
        tf.TensorSpec([50, 3, bits], tf.float32)
    )
    assert not [
        op.type
        for op in traced.graph.get_operations()
        if op.type in ("Mul", "Sum", "AddV2") and op.outputs[0].dtype == tf.int32
    ]


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 1j * np.inf, 1j * np.nan])
@pytest.mark.parametrize("name", ["y", "h_hat"])
def test_a_draw_that_is_not_finite_is_refused(name, value, monkeypatch):
    made = LinkSimulator(load_scenario("rayleigh-2x2-qam64").replace(run={"batch_size": 2}))
    drawn = made.draw(0, 12.0, 0)
    array = getattr(drawn, name).numpy()
    array.flat[-1] = value
    spoilt = drawn._replace(**{name: tf.constant(array)})
    monkeypatch.setattr(made, "_draw", lambda *args: spoilt)
    with pytest.raises(InvalidInput, match=f"{name} contains NaN or inf at 12.0 dB"):
        made.draw(0, 12.0, 0)


def test_a_draw_does_not_leave_the_device(monkeypatch):
    made = LinkSimulator(load_scenario("rayleigh-2x2-qam64").replace(run={"batch_size": 2}))
    given = []
    monkeypatch.setattr(
        simulator, "_all_finite", lambda x: given.append(x) or tf.constant(True)
    )
    made.draw(0, 12.0, 0)
    assert all(tf.is_tensor(x) for x in given) and len(given) == 2


def test_waiting_for_each_backend(monkeypatch):
    waited = []
    monkeypatch.setattr(tf.test.experimental, "sync_devices", lambda: waited.append("tf"))
    jax = types.SimpleNamespace(block_until_ready=lambda: waited.append("jax"))
    on_gpu = types.SimpleNamespace(device="/job:localhost/replica:0/device:GPU:0")
    wait_for((jax, on_gpu, tf.constant(1.0), np.ones(3)))
    assert waited == ["jax", "tf"]


# --- one side ---------------------------------------------------------------------------


def test_a_detector_is_the_same_in_all_modes(tmp_path):
    case = {**case_of("nndet-l", batch=6), "weights": ""}
    sizes = (case[key] for key in ("num_rx", "num_streams", "num_bits_per_symbol"))
    arrays = random_vectors(*sizes, 6, case["no"])
    np.savez(tmp_path / "inputs.npz", **dict(zip(("y", "h", "no"), arrays)))
    spec = {"make": "detector", "case": case, "tf32": False, "watched": True}
    rival = {**spec, "side": "rival", "vectors": 4, "writes": True}
    answer = gpu_side.Loaded(rival, tmp_path).prepare("graph")
    assert answer["on"] == "cpu" and answer["seconds"] > 0
    assert answer["peak"] is None and answer["kept"] is None
    ours = {**spec, "side": "ours", "vectors": 6, "writes": False}
    loaded = gpu_side.Loaded(ours, tmp_path)
    loaded.prepare("graph")
    assert loaded.seconds("graph") > 0
    expected, found = (
        np.load(tmp_path / f"{name}.npy", allow_pickle=False)
        for name in ("rival", "ours-graph")
    )
    assert found.shape == (6, *expected.shape[1:])
    # With weights of its own the difference would be large
    np.testing.assert_allclose(found[:4], expected, atol=1e-3)


@pytest.mark.parametrize(
    "row, blocks",
    [
        ("draw-rayleigh-2x2-qam64", 2),
        pytest.param("decoder-802.11n", 40, marks=pytest.mark.slow),
        pytest.param("counts-rayleigh-2x2-qam64", 3, marks=pytest.mark.slow),
    ],
)
def test_a_part_of_the_link_repeats_itself(row, blocks, tmp_path):
    mode, spec = gpu.LINK[row]
    spec = {**spec, "blocks": blocks, "tf32": False, "watched": True, "side": "a"}
    results = []
    for _ in range(2):
        gpu_side.Loaded(spec, tmp_path).prepare(mode)
        results.append(np.load(tmp_path / "a.npy", allow_pickle=False))
    text, agrees = gpu.AGREEMENTS[spec["make"]](*results)
    assert agrees and text
    if spec["make"] == "decoder":  # codewords of zeros, most of which are found
        assert results[0].shape[0] == blocks and results[0].any(1).mean() < 0.7
    if spec["make"] == "counts":
        assert results[0].shape == (len(spec["receivers"]), blocks)


@pytest.mark.parametrize("held", [[10, 10], [10, 10 + 40 * gpu_side.CALLS]])
def test_memory_that_calls_keep_is_found(held, tmp_path, monkeypatch):
    made, answers = [], iter([(0, 0), (held[0], 99), (held[1], 99)] * 2)
    monkeypatch.setattr(device, "memory", lambda new_peak=False: next(answers))
    monkeypatch.setitem(
        gpu_side.MAKERS,
        "test",
        lambda spec, folder: lambda mode: made.append(mode) or (lambda: tf.ones(2)),
    )
    spec = {"side": "a", "make": "test", "tf32": True, "watched": True}
    loaded = gpu_side.Loaded(spec, tmp_path)
    for _ in range(2):
        answer = loaded.prepare("graph")
        assert answer["peak"] == 99 and answer["kept"] == (held[1] - held[0]) / gpu_side.CALLS
    assert made == ["graph"]  # it was compiled once


def test_memory_is_that_of_the_gpu(monkeypatch):
    assert device.memory() is None  # there is none
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: ["GPU:0"])
    asked, experimental = [], tf.config.experimental
    monkeypatch.setattr(experimental, "reset_memory_stats", asked.append)
    monkeypatch.setattr(
        experimental, "get_memory_info", lambda name: {"current": 10, "peak": 30}
    )
    assert device.memory() == (10, 30) and not asked
    assert device.memory(new_peak=True) == (10, 30) and asked == ["GPU:0"]


def test_where_a_result_is():
    assert device.kind_of(tf.constant(1.0)) == "cpu"
    assert device.kind_of(np.ones(2)) == ""
    assert device.kind_of(types.SimpleNamespace(device="/device:GPU:0")) == "gpu"
    assert device.kind_of(types.SimpleNamespace(device="cuda:0", is_cuda=True)) == "gpu"
    assert device.kind_of(types.SimpleNamespace(device="cpu", is_cuda=False)) == "cpu"
    found = types.SimpleNamespace(devices=lambda: [types.SimpleNamespace(platform="gpu")])
    assert device.kind_of(found) == "gpu"


def test_a_row_of_the_benchmark_of_speed():
    options = {"quick": False, "repeats": 1, "sionna2": "", "scale": 1}
    seen = []

    def measured(name, args):
        seen.append((name, args.scale))
        return absent_row(name, "", "")

    from simulations import benchmark

    before = benchmark.row_maker
    try:
        benchmark.row_maker = lambda name: measured
        gpu_side.row_of_benchmark("ml-2x2-qam64-app", **options)
    finally:
        benchmark.row_maker = before
    assert seen == [("ml-2x2-qam64-app", 1)]


# --- both sides -------------------------------------------------------------------------


@pytest.fixture
def described(monkeypatch):
    """A backend that says what the test wants of its device."""
    found = {"name": "", "backend": "tensorflow", "software": "tensorflow 2"}
    monkeypatch.setattr(gpu.GpuBenchmark, "_ask", lambda self, *args: dict(found))
    return found


@pytest.mark.parametrize(
    "backend, package", [("tensorflow", "[gpu]"), ("torch", "PyTorch"), ("jax", "jax[cuda")]
)
def test_without_a_gpu_one_line_says_so(backend, package, described, monkeypatch, capsys):
    script = load_script(ROOT / "simulations/benchmark.py")
    monkeypatch.setenv("KERAS_BACKEND", backend)
    described["lacks"] = "this build has no code for GPUs"
    assert script.main(["--gpu"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and f"Keras runs on {backend}" in said
    assert "sees no GPU: this build has no code" in said and package in said
    assert "--device cpu" in said


def test_detectors_alone_without_tensorflow(described):
    described |= {"name": "NVIDIA H100 80GB"}
    whole = gpu.GpuBenchmark("tensorflow", "gpu", ["kbest-4x4-qam16"])
    assert not whole.left_out and {"kbest-4x4-qam16", *gpu.ROWS} == set(whole.rows)
    alone = gpu.GpuBenchmark("torch", "gpu", ["kbest-4x4-qam16"])
    assert set(alone.rows) == {*gpu.LLRS, *gpu.TF32} and "TensorFlow" in alone.left_out
    assert alone.file_name == "nvidia-h100-80gb-torch"


def test_processes_of_a_gpu_share_its_memory_and_others_see_none(described):
    described |= {"name": "NVIDIA"}
    made = gpu.GpuBenchmark("tensorflow", "gpu", [])
    assert made._environment("gpu")["TF_FORCE_GPU_ALLOW_GROWTH"] == "true"
    assert "CUDA_VISIBLE_DEVICES" not in made._environment("gpu")
    assert made._environment("cpu")["CUDA_VISIBLE_DEVICES"] == ""
    assert made._environment("cpu")["JAX_PLATFORMS"] == "cpu"


def test_what_the_cpu_computed_is_not_taken_for_a_gpu(described, monkeypatch):
    described |= {"name": "NVIDIA"}

    class OnCpu:
        mode, answers = "graph", {"graph": {"on": "cpu"}}

        def __init__(self, *args):
            pass

        def close(self):
            pass

    monkeypatch.setattr(gpu, "Side", OnCpu)
    args = types.SimpleNamespace(quick=True, repeats=1)
    for name in ("llrs-mmse", "draw-rayleigh-2x2-qam64", "workers-2"):
        row = gpu.GpuBenchmark("tensorflow", "gpu", []).measure(name, args)
        assert "computed on the cpu, not on the gpu" in row["agreement"]
        assert "ours_ms" not in row


def test_tolerances_are_kept():
    y = np.ones((4, 10), np.complex64)
    assert gpu.draws_agree(y + 1e-5, y)[1] and not gpu.draws_agree(y + 1e-3, y)[1]
    bits = np.zeros((200, 5))
    unlike = bits.copy()
    unlike[:2, 0] = 1
    assert gpu.words_agree(unlike, bits)[1] and gpu.counts_agree(unlike.T, bits.T)[1]
    unlike[:5, 0] = 1
    assert not gpu.words_agree(unlike, bits)[1]
    assert not gpu.counts_agree(unlike[:, :1].T, bits[:, :1].T)[1]


# --- files ------------------------------------------------------------------------------


@pytest.fixture
def script(described, monkeypatch):
    """The script on a made-up GPU, with rows that are made up."""
    described |= {"name": "NVIDIA H100", "driver": "570.1"}
    measured = []

    def measure(self, name, args):
        if name == "llrs-ep" and len(measured) == 1:
            measured.append(None)
            raise KeyboardInterrupt
        measured.append(name)
        seconds = {"ours": np.ones(2), "rival": np.ones(2)}
        row = row_of(name, "a", "b", seconds, {"ours": 1, "rival": 1}, "fine")
        return {**row, "agrees": name != "llrs-zf"}

    monkeypatch.setattr(gpu.GpuBenchmark, "measure", measure)
    made = load_script(ROOT / "simulations/benchmark.py")
    monkeypatch.setattr(made, "made_by", lambda: "0123abcd")
    made.measured = measured
    return made


def test_a_run_on_a_gpu_goes_on_and_names_its_files(script, tmp_path, capsys):
    run = ["--gpu", "--output", str(tmp_path)]
    run += ["--only", "llrs-mmse", "--only", "llrs-ep", "--only", "llrs-zf"]
    assert script.main(run) == 130
    file = tmp_path / "nvidia-h100-tensorflow.json"
    assert load_json(file)["missing"] == ["llrs-ep", "llrs-zf"]
    assert script.main(run) == 0
    assert [name for name in script.measured if name] == ["llrs-mmse", "llrs-ep", "llrs-zf"]
    data = load_json(file)
    assert data["machine"]["driver"] == "570.1" and data["made"]["version"] == "0123abcd"
    page = file.with_suffix(".md").read_text()
    assert page == gpu_page_text(data) and page.startswith("# Benchmark: NVIDIA H100\n")
    assert "2 of 3 comparisons agree within the tolerances; not: llrs-zf." in page
    assert "driver: 570.1" in page and "trial" not in page


def test_a_trial_never_says_that_a_gpu_computed(script, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run = ["--gpu", "--device", "cpu", "--only", "llrs-mmse"]
    assert script.main(run) == 0
    (page,) = (tmp_path / script.TRIAL_OUTPUT).glob("*.md")
    assert "No GPU computed here" in page.read_text() and "H100" not in page.read_text()
    assert script.main([*run, "--output", str(script.GPU_OUTPUT)]) == 2
    assert "expected another folder for a trial" in capsys.readouterr().err
    assert not script.GPU_OUTPUT.exists()


def test_rows_are_listed_and_belong_to_their_benchmark(script, capsys):
    assert script.main(["--gpu", "--list"]) == 0
    listed = capsys.readouterr().out.split()
    assert {"llrs-pepnet", "tf32-mmse", "workers-2", "run-default"} <= set(listed)
    assert script.main(["--gpu", "--only", "sdr-64x16-qam16"]) == 2
    assert script.main(["--only", "llrs-mmse"]) == 2
    said = capsys.readouterr().err
    assert "'sdr-64x16-qam16'" in said and "'llrs-mmse'" in said


@pytest.mark.parametrize("file", sorted(RESULTS.glob("*.json")), ids=lambda f: f.stem)
def test_committed_results_are_of_a_gpu(file):
    data = load_json(file)
    assert not data["machine"].get("trial") and data["machine"]["device"]
    assert not data["made"]["quick"] and data["made"]["version"]
    assert file.with_suffix(".md").read_text(encoding="utf-8") == gpu_page_text(data)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_a_trial_agrees_with_itself(backend, tmp_path, monkeypatch, capsys):
    """Processes, both devices of which are the CPU."""
    if backend == "jax":
        pytest.importorskip("jax")
    monkeypatch.setenv("KERAS_BACKEND", backend)
    script = load_script(ROOT / "simulations/benchmark.py")
    names = ["llrs-ep", "tf32-mmse"]
    if backend == "tensorflow":
        names = [*gpu.QUICK, "tf32-mmse", "mmse-64x16-qam16-graph"]
    run = ["--gpu", "--device", "cpu", "--quick", "--output", str(tmp_path)]
    assert script.main([*run, *(x for name in names for x in ("--only", name))]) == 0
    (file,) = tmp_path.glob("*.json")
    data = json.loads(file.read_text())
    assert [row["row"] for row in data["rows"]] == names and not data["missing"]
    assert all("ours_ms" in row for row in data["rows"])
    assert all(row.get("agrees", True) for row in data["rows"])
    assert data["machine"]["trial"] and data["machine"]["backend"] == backend
