"""The guide of linksim/detectors agrees with the code."""

import doctest
import re
from pathlib import Path

import linksim
import linksim.registry as registry

GUIDE = Path(linksim.__file__).parent / "detectors" / "README.md"


def test_the_table_is_that_of_the_registry():
    text = GUIDE.read_text()
    found = re.search("<!-- table -->\n(.*)\n<!-- /table -->", text, re.DOTALL)
    assert found[1] == registry.detector_table(), "print(detector_table()) has the new one"


def test_the_examples_run(monkeypatch):
    # The guide registers a detector, which ends with the test
    monkeypatch.setattr(registry.DETECTORS, "_entries", dict(registry.DETECTORS._entries))
    result = doctest.testfile(str(GUIDE), module_relative=False)
    assert result.attempted > 10 and not result.failed


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", GUIDE.read_text()):
        assert (GUIDE.parent / target).exists(), target
