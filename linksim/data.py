"""Where the shipped files are, in a checkout and in a wheel, and files of the user."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

from linksim.errors import InvalidInput
from linksim.files import as_path

_PACKAGE = Path(__file__).resolve().parent


def _folder(checkout_path: str, installed_name: str) -> Path:
    installed = _PACKAGE / installed_name
    if installed.is_dir():
        return installed
    return _PACKAGE.parent / checkout_path


def scenario_folder() -> Path:
    """Folder of the shipped scenario files."""
    return _folder("simulations/scenarios", "_scenarios")


def model_folder() -> Path:
    """Folder of the shipped models: recipes, cards and weights."""
    return _folder("models", "_models")


def import_file(path: str | Path) -> ModuleType:
    """Run a Python file of the user, which may register detectors.

    What the file imports has to be installed, or on PYTHONPATH.

    Args:
        path: of the file, "*.py".

    Returns:
        The module.

    Raises:
        InvalidInput: there is no such file. What the file itself raises is passed on.
    """
    path = as_path("import", path).resolve()
    if path.suffix != ".py" or not os.path.isfile(path):
        raise InvalidInput(f"import: got {str(path)!r}, expected an existing .py file")
    name = f"linksim_import_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InvalidInput(f"import: {str(path)!r} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    finally:
        # Workers cannot import it by name; without an entry here, pickle sends them
        # its classes themselves
        del sys.modules[name]
    return module
