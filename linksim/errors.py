"""Exceptions that a user of linksim is meant to see, and the checks that raise them."""

from __future__ import annotations

import difflib
import numbers
from collections.abc import Collection
from typing import Any


class InvalidInput(ValueError):
    """An argument, a scenario key or a tensor is not what was expected."""


class ResultFileError(RuntimeError):
    """A file is corrupted, belongs to another scenario, seed or model, or cannot be
    written."""


class WorkerError(RuntimeError):
    """A worker process differs from the one that started it, or dies again and again."""


def refuse_precision(who: str, options: Collection[str]) -> None:
    """Raise `InvalidInput` for the option `precision`, which Sionna's blocks have."""
    if "precision" in options:
        raise InvalidInput(
            f"{who}: precision: linksim computes in single precision; leave it out, and cast "
            "complex128 and float64 input to complex64 and float32"
        )


def check_choice(name: str, value: object, choices: Collection[Any], also: str = "") -> None:
    """Raise `InvalidInput` unless `value` is one of `choices`.

    The message suggests the choice that was probably meant, and can say what is `also`
    accepted, as "a .toml file or ".
    """
    try:
        found = bool(value in choices)
    except (TypeError, ValueError):  # lists cannot be keys, arrays have no truth value
        found = False
    if not found:
        known = [str(c) for c in choices]
        near = difflib.get_close_matches(str(value).strip().lower(), known, n=1)
        hint = f". Did you mean {near[0]!r}?" if near else ""
        raise InvalidInput(
            f"{name}: got {value!r}, expected {also}one of: {', '.join(known)}{hint}"
        )


def check_int(name: str, value: Any, minimum: int = 1) -> None:
    """Raise `InvalidInput` unless `value` is an integer >= `minimum`."""
    if isinstance(value, bool) or not hasattr(value, "__index__") or value < minimum:
        raise InvalidInput(f"{name}: got {value!r}, expected an integer >= {minimum}")


def check_bits_per_symbol(name: str, value: Any) -> None:
    """Raise `InvalidInput` unless `value` is 1 (BPSK) or an even number from 2 to 10
    (square QAM)."""
    check_int(name, value)
    if value != 1 and (value % 2 or value > 10):
        raise InvalidInput(
            f"{name}: got {value}, expected 1 (BPSK) or an even number up to 10 (square QAM)"
        )


def check_real(
    name: str,
    value: Any,
    low: float | None = None,
    high: float | None = None,
    open_low: bool = False,
) -> None:
    """Raise `InvalidInput` unless `value` is a finite number in `[low, high]`.

    `open_low` excludes `low` itself.
    """
    ok = isinstance(value, numbers.Real) and not isinstance(value, bool)
    ok = ok and value == value and abs(value) != float("inf")
    if ok and low is not None:
        ok = value > low if open_low else value >= low
    if ok and high is not None:
        ok = value <= high
    if not ok:
        bounds = f" {'>' if open_low else '>='} {low}" if low is not None else ""
        bounds += f"{' and' if bounds else ''} <= {high}" if high is not None else ""
        raise InvalidInput(f"{name}: got {value!r}, expected a finite number{bounds}")
