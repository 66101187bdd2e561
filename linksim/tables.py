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
    except (ValueError, RecursionError) as error:  # of bytes that are no UTF-8, too
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


def check_table(name: str, values: Any) -> None:
    """Raise `InvalidInput` unless `values` is a table, a dictionary whose keys are texts."""
    if not isinstance(values, dict):
        raise InvalidInput(f"{name}: got {values!r}, expected a table")
    for key in values:
        if not isinstance(key, str):
            raise InvalidInput(f"{name}: got the key {key!r}, expected a string")


def check_plain_table(name: str, values: Any) -> None:
    """Raise `InvalidInput` unless `values` is a table that TOML and JSON can hold, also in
    the tables and lists inside it; the numbers may be NumPy's."""
    check_table(name, values)
    for key, value in values.items():
        _check_plain(f"{name}.{key}", plain(value))


def _check_plain(name: str, value: Any) -> None:
    if isinstance(value, dict):
        check_plain_table(name, value)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _check_plain(name, item)
    elif not isinstance(value, (str, bool, int, float)):
        raise InvalidInput(f"{name}: got {value!r}, expected a number, string, list or table")


def check_fields(kinds: dict[str, type[Any]], whole: Any) -> None:
    """Raise `InvalidInput` unless each table of a dataclass is of its kind, or None where that
    is its default."""
    defaults = {f.name: f.default for f in dataclasses.fields(whole)}
    for name, kind in kinds.items():
        value = getattr(whole, name)
        if not isinstance(value, kind) and not (value is None and defaults[name] is None):
            raise InvalidInput(
                f"{name}: got {value!r}, expected a {kind.__name__}; scenario_from_dict and "
                "Scenario.replace take dictionaries"
            )


def dataclass_from_table(name: str, kind: type[Any], values: Any) -> Any:
    """A dataclass from a dictionary of its fields.

    Raises:
        InvalidInput: not a table, an unknown key, or a missing one.
    """
    check_table(name, values)
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
