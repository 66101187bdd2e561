"""Documentation: public names have it, and its examples do what they say."""

import doctest
import importlib
import inspect
import pkgutil
from pathlib import Path

import numpy as np
import pytest

import linksim
import linksim.models
import linksim.registry
from tests.conftest import draw_system, load_script

FOLDER = Path(linksim.__file__).parent
WITH_EXAMPLES = sorted(
    path.relative_to(FOLDER.parent).with_suffix("").as_posix().replace("/", ".")
    for path in FOLDER.glob("**/*.py")
    if ">>>" in path.read_text(encoding="utf-8")
)
# Every Keras layer has these, for Keras to call; the docstring of the class says what for
HOOKS = {"build", "call", "compute_output_shape", "compute_output_spec", "get_config"}


def public_modules():
    """All modules of linksim whose names have no underscore in front."""
    yield linksim
    for found in pkgutil.walk_packages(linksim.__path__, "linksim."):
        if not any(part.startswith("_") for part in found.name.split(".")):
            yield importlib.import_module(found.name)


def public_members(owner, module):
    """(name, object) of the classes, functions, methods and properties defined there."""
    kinds = (type, staticmethod, classmethod, property)
    for name, member in vars(owner).items():
        if name.startswith("_") or not (
            isinstance(member, kinds) or inspect.isroutine(member)
        ):
            continue
        if (
            isinstance(member, property)
            or getattr(member, "__module__", "") == module.__name__
        ):
            yield name, member


def undocumented(module):
    """Dotted names of what a module leaves without a docstring.

    A method may have that of a base class; a dataclass's own text is only its signature.
    """
    if not module.__doc__:
        yield module.__name__
    for name, member in public_members(module, module):
        dotted = f"{module.__name__}.{name}"
        doc = inspect.getdoc(member)
        if not doc or (inspect.isclass(member) and doc.startswith(f"{member.__name__}(")):
            yield dotted
        if inspect.isclass(member):
            for method, _ in public_members(member, module):
                documented = method in HOOKS or inspect.getdoc(getattr(member, method))
                if not documented:
                    yield f"{dotted}.{method}"


def test_every_public_name_has_a_docstring():
    missing = [name for module in public_modules() for name in undocumented(module)]
    assert not missing


def test_missing_docstrings_are_found(tmp_path):
    file = tmp_path / "made.py"
    file.write_text(
        "from dataclasses import dataclass\n"
        "def bare(): pass\n"
        "def _private(): pass\n"
        "def told(): 'Text.'\n"
        "@dataclass\n"
        "class Point:\n"
        "    x: float\n"
        "    @property\n"
        "    def y(self): return 1\n"
        "    def told(self): 'Text.'\n"
    )
    assert set(undocumented(load_script(file))) == {
        "made",
        "made.bare",
        "made.Point",
        "made.Point.y",
    }


@pytest.fixture
def names(monkeypatch):
    """What examples may use without making it; registrations end with the test."""
    entries = dict(linksim.registry.DETECTORS._entries)
    monkeypatch.setattr(linksim.registry.DETECTORS, "_entries", entries)
    monkeypatch.setattr(linksim.models, "_OWN_FOLDERS", [])
    rng = np.random.default_rng(0)
    _, y, h, no = draw_system(rng, 3, 4, 2, 4, 0.1)
    llr = rng.normal(scale=4, size=(3, 2, 6)).astype(np.float32)
    return {"linksim": linksim, "np": np, "y": y, "h": h, "no": no, "llr_2x2_qam64": llr}


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples(name, names):
    module = importlib.import_module(name)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    for test in doctest.DocTestFinder().find(module, extraglobs=names):
        runner.run(test)
    assert runner.tries and not runner.failures
