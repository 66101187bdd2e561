"""The committed notebooks are complete and clean; the slow tests run them."""

import base64
import json
import re
from pathlib import Path

import pytest

from tests.conftest import load_script

FOLDER = Path(__file__).resolve().parents[1] / "simulations/notebooks"
NAMES = [
    *("1_swap_detectors", "1_swap_detectors_sionna2", "2_harq_relay", "3_own_detector"),
    "4_failing_block",
    *("5_turbo_receiver", "6_pusch"),
]
LARGEST = 300_000
# Paths of a machine, and addresses of objects
_MACHINE = re.compile(
    r"/(home|Users|root|tmp|usr|opt|var|work|mnt)/|site-packages|0x[0-9a-f]{6}"
)


@pytest.fixture(scope="module")
def runner():
    return load_script(FOLDER / "run.py")


def text(piece):
    return piece if isinstance(piece, str) else "".join(piece)


def printed(cell):
    """All text among the outputs of a cell."""
    parts = []
    for output in cell.get("outputs", []):
        parts.append(text(output.get("text", "")))
        data = output.get("data", {})
        parts += [text(v) for k, v in data.items() if k.startswith("text/")]
    return "\n".join(parts)


def check(path):
    """Assert that a notebook was executed in order, without errors, and kept clean."""
    assert path.stat().st_size < LARGEST
    notebook = json.loads(path.read_text(encoding="utf-8"))
    cells = notebook["cells"]
    assert set(notebook["metadata"]) == {"kernelspec", "language_info"}
    assert set(notebook["metadata"]["language_info"]) == {"name"}
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert cells[0]["cell_type"] == cells[-1]["cell_type"] == "markdown"
    pictures = 0
    for cell in cells:
        source = text(cell["source"])
        assert source.strip() and cell["metadata"] == {}
        assert not _MACHINE.search(source) and not _MACHINE.search(printed(cell))
        assert "\r" not in printed(cell) and "\x1b" not in printed(cell)
        for output in cell.get("outputs", []):
            assert output["output_type"] in ("stream", "display_data", "execute_result")
            assert output.get("name") != "stderr", text(output["text"])[:500]
            data = output.get("data", {})
            assert set(data) <= {"text/plain", "image/png"}
            if "image/png" in data:
                assert base64.b64decode(text(data["image/png"]))[1:4] == b"PNG"
                pictures += 1
    assert pictures and any(printed(cell).strip() for cell in code)


def check_prose(path):
    """Assert that the decimals in the last cell, the conclusions, appear in the outputs."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    outputs = "\n".join(printed(cell) for cell in cells)
    shown = set(re.findall(r"\d+\.\d+", outputs))
    told = set(re.findall(r"\d+\.\d+", text(cells[-1]["source"])))
    assert len(told) >= 3
    assert told <= shown


def test_these_are_all():
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_committed_notebooks_are_executed_and_clean(name):
    check(FOLDER / f"{name}.ipynb")
    check_prose(FOLDER / f"{name}.ipynb")


def test_the_detector_of_the_third_takes_sixty_lines():
    cells = json.loads((FOLDER / "3_own_detector.ipynb").read_text(encoding="utf-8"))["cells"]
    sources = [text(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    (source,) = [s for s in sources if "(Detector):" in s]
    assert len(source.strip().splitlines()) <= 60


def test_unclean_notebooks_are_found(tmp_path):
    """`check` finds what it is there for."""
    whole = json.loads((FOLDER / f"{NAMES[-1]}.ipynb").read_text(encoding="utf-8"))
    path = tmp_path / "n.ipynb"

    def spoiled(change):
        notebook = json.loads(json.dumps(whole))
        code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
        change(notebook, code)
        path.write_text(json.dumps(notebook), encoding="utf-8")
        return path

    def stream(said, name="stdout"):
        return [{"output_type": "stream", "name": name, "text": said}]

    check(spoiled(lambda n, code: None))
    for change in (
        lambda n, code: code[0].update(execution_count=7),
        lambda n, code: code[0].update(metadata={"execution": {}}),
        lambda n, code: code[0].update(source=[" \n"]),
        lambda n, code: code[0].update(outputs=stream("read /home/me/x.npz")),
        lambda n, code: code[0].update(outputs=stream("50%\r100%")),
        lambda n, code: code[0].update(outputs=stream("a warning", "stderr")),
        lambda n, code: code[0].update(outputs=[{"output_type": "error", "ename": "E"}]),
        lambda n, code: n["metadata"]["language_info"].update(version="3.11"),
        lambda n, code: [cell.update(outputs=[]) for cell in code],
    ):
        with pytest.raises(AssertionError):
            check(spoiled(change))
    last = spoiled(lambda n, code: n["cells"][-1]["source"].append(" 98765.4321 dB"))
    with pytest.raises(AssertionError):
        check_prose(last)


def test_unknown_notebooks_are_refused(runner, capsys):
    assert runner.notebook_names() == NAMES
    assert runner.main(["5_nothing"]) == 2
    assert "5_nothing" in capsys.readouterr().err


def test_notebooks_for_another_sionna_are_refused(runner, capsys, monkeypatch):
    for installed, name in (("1.2.2", "1_swap_detectors_sionna2"), ("2.2.0", "6_pusch")):
        monkeypatch.setattr(runner.importlib.metadata, "version", lambda _, v=installed: v)
        assert runner.main([name]) == 2
        assert f"{name}: for another version of Sionna" in capsys.readouterr().err
        others = [other for other in NAMES if runner.runs_here(other)]
        assert name not in others and others


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_notebooks_run_from_top_to_bottom(runner, name, tmp_path):
    pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    if not runner.runs_here(name):
        pytest.skip("is for another version of Sionna")
    runner.execute(name, tmp_path)
    check(tmp_path / f"{name}.ipynb")


@pytest.mark.slow
def test_what_dates_a_notebook_is_left_out(runner):
    nbformat = pytest.importorskip("nbformat")
    new = nbformat.v4
    pieces = [new.new_output("stream", name="stdout", text=t) for t in ("a", "b\n")]
    pieces.insert(1, new.new_output("stream", name="stdout", text="-"))
    pieces.append(new.new_output("stream", name="stderr", text="c"))
    cell = new.new_code_cell("x", metadata={"execution": {"iopub.status.busy": "now"}})
    cell.outputs = pieces
    notebook = new.new_notebook(cells=[cell], metadata={"language_info": {"version": "3"}})
    runner.tidy(notebook)
    assert [o["text"] for o in notebook.cells[0].outputs] == ["a-b\n", "c"]
    assert notebook.cells[0].metadata == {}
    assert notebook.metadata["language_info"] == {"name": "python"}
    nbformat.validate(notebook)
