"""The front page stays short, and no link of a guide is broken."""

import functools
import re
from pathlib import Path

import numpy as np
import pytest

import linksim
from tests.conftest import load_script

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    *("README.md", "CHANGELOG.md", "CONTRIBUTING.md"),
    *("simulations/README.md", "results/README.md", "models/README.md"),
    "linksim/detectors/README.md",
    *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "results").glob("*/**/README.md")),
]


def anchors(path):
    """Anchors of the headings of a page."""
    titles = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_front_page_is_short():
    assert len((ROOT / "README.md").read_bytes()) <= 8000


def test_the_example_of_the_front_page_runs(monkeypatch, capsys, tmp_path):
    """With few blocks, which the example leaves to the scenario."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    simulate = functools.partial(linksim.simulate, max_blocks=20)
    monkeypatch.setattr(linksim, "simulate", simulate)
    (tmp_path / "example.py").write_text(code, encoding="utf-8")
    example = load_script(tmp_path / "example.py")
    lines = capsys.readouterr().out.splitlines()
    rates = [line.split() for line in lines if line.startswith(("mmse", "kbest", "ml"))]
    assert len(rates) == 6
    llr = example.detector(np.ones((3, 2), "complex64"), np.ones((3, 2, 2), "complex64"), 0.1)
    assert tuple(llr.shape) == (3, 2, 6)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    path = ROOT / page
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)
    text = re.sub(r"`[^`]*`", "", text)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if link.startswith(("http://", "https://")):
            continue
        target, _, anchor = link.partition("#")
        there = (path.parent / target).resolve() if target else path
        assert there.exists(), link
        if anchor:
            assert anchor in anchors(there), link
