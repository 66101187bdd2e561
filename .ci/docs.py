#!/usr/bin/env python3
"""Write the API pages to build/docs. `make docs` runs this after the test of docstrings."""

import importlib
import logging
import os
import pkgutil
import warnings
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
logging.getLogger("tensorflow").setLevel(logging.ERROR)

import pdoc

import linksim

OUTPUT = Path("build/docs")


def module_names():
    """Names of linksim and all its public modules."""
    yield "linksim"
    for found in pkgutil.walk_packages(linksim.__path__, "linksim."):
        if not any(part.startswith("_") for part in found.name.split(".")):
            yield found.name


if __name__ == "__main__":
    names = list(module_names())
    for module in map(importlib.import_module, names):
        # pdoc does not ask a module's __getattr__, which imports these on first use
        for name in getattr(module, "__all__", ()):
            vars(module)[name] = getattr(module, name)
    # A package without __all__ brings its modules itself
    warnings.filterwarnings("ignore", "The module specification")
    # Types that are imported for type checkers only are shown as they are written
    warnings.filterwarnings("ignore", "Error parsing type annotation")
    warnings.filterwarnings("error", "Found .* does not resolve")
    pdoc.render.configure(docformat="google", show_source=False)
    pdoc.pdoc(*names, output_directory=OUTPUT)
    print(OUTPUT / "linksim.html")
