"""TOML files and their tables, read into dataclasses; unknown keys are refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

import numpy as np

from linksim.errors import InvalidInput


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """The nested dictionary of a TOML file.

    Raises:
        InvalidInput: unreadable file or invalid TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidInput(f"{what}: cannot read {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{what}: {path} is not valid TOML: {error}") from None


def plain(value: Any) -> Any:
    """A value in Python's own types, as JSON and TOML have them: NumPy's numbers become
    Python's, arrays become lists, also inside dictionaries, lists and tuples."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(plain(item) for item in value)
    if isinstance(value, np.ndarray):
        return value.tolist()
    return value.item() if isinstance(value, np.generic) else value


def dataclass_from_table(name: str, kind: type[Any], values: Any) -> Any:
    """A dataclass from a dictionary of its fields.

    Raises:
        InvalidInput: not a table, an unknown key, or a missing one.
    """
    if not isinstance(values, dict):
        raise InvalidInput(f"{name}: got {values!r}, expected a table")
    fields = {f.name: f for f in dataclasses.fields(kind)}
    unknown = sorted(set(values) - set(fields))
    if unknown:
        raise InvalidInput(
            f"[{name}]: unknown key {', '.join(unknown)}; expected some of: "
            f"{', '.join(fields)}"
        )
    required = {
        n
        for n, f in fields.items()
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    }
    missing = sorted(required - set(values))
    if missing:
        raise InvalidInput(f"[{name}]: missing key {', '.join(missing)}")
    return kind(**plain(values))
