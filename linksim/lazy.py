"""Packages whose public names are imported on first use, so that importing them is quick."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any

from linksim.errors import without_framework


def lazy_names(
    package: str, modules: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The `__getattr__` and `__dir__` of a package with lazy names.

    Args:
        package: its `__name__`.
        modules: {public name: the module, below the package, that defines it}.
    """

    def find(name: str) -> Any:
        if name in modules:
            try:
                module = importlib.import_module(f"{package}.{modules[name]}")
            except ModuleNotFoundError as error:
                raise without_framework(name, error) from None
            return getattr(module, name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *modules})

    return find, names
