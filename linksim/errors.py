"""Exceptions that a user of linksim is meant to see, and the checks that raise them."""

from __future__ import annotations

import contextlib
import difflib
import math
import numbers
import re
import unicodedata
from collections.abc import Collection, Mapping
from typing import Any


class InvalidInput(ValueError):
    """An argument, a scenario key or a tensor is not what was expected."""


class ResultFileError(RuntimeError):
    """A file is corrupted, belongs to another scenario, seed or model, or cannot be
    written."""


class WorkerError(RuntimeError):
    """A worker process differs from the one that started it, or dies again and again."""


def without_framework(name: str, error: ModuleNotFoundError) -> Exception:
    """What to raise where an import failed, in place of the error.

    Args:
        name: of what was to be imported, with which the message begins.
        error: the error. One about another package than TensorFlow and Sionna is returned as
            it is.
    """
    missing = (error.name or "").partition(".")[0]
    if missing not in ("tensorflow", "sionna"):
        return error
    return InvalidInput(
        f"{name}: the simulator needs TensorFlow and Sionna 1.2 (KERAS_BACKEND=tensorflow), "
        f"and {missing} is not installed here; detectors, quantizers and training run without"
    )


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
        known = ", ".join(str(c) for c in choices)
        hint = did_you_mean(value, choices)
        # In front of a list that may be long
        start = f"{hint} Expected" if hint else ", expected"
        raise InvalidInput(f"{name}: got {value!r}{start} {also}one of: {known}")


def did_you_mean(value: object, choices: Collection[Any]) -> str:
    """ ". Did you mean 'kbest'?", or "" if no choice is near.

    Capitals, spaces and punctuation count for nothing.
    """
    by_letters = {_letters(choice): choice for choice in reversed(list(choices))}
    near = difflib.get_close_matches(_letters(value), by_letters, n=1)
    return f". Did you mean {by_letters[near[0]]!r}?" if near else ""


def _letters(value):
    return re.sub("[^a-z0-9]", "", str(value).lower())


def check_int(name: str, value: Any, minimum: int = 1, maximum: int | None = None) -> None:
    """Raise `InvalidInput` unless `value` is an integer from `minimum` to `maximum`."""
    ok = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not ok or value < minimum or (maximum is not None and value > maximum):
        bounds = f" >= {minimum}" if maximum is None else f" from {minimum} to {maximum}"
        raise InvalidInput(f"{name}: got {value!r}, expected an integer{bounds}")


def as_list(name: str, value: Any, of: str) -> list[Any]:
    """The items of a value that may be any iterable, but no text and no dictionary.

    Args:
        name: the argument that the error names.
        value: the value.
        of: what the items should be, in the plural.

    Raises:
        InvalidInput: it is a text, a dictionary, or one item alone.
    """
    if not isinstance(value, (str, bytes, Mapping)):
        with contextlib.suppress(TypeError):  # one item alone
            return list(value)
    raise InvalidInput(f"{name}: got {value!r}, expected a list of {of}")


def check_list(name: str, value: Any, of: str) -> None:
    """Raise `InvalidInput` unless `value` is a list or tuple; the message says `of` what."""
    if not isinstance(value, (list, tuple)):
        raise InvalidInput(f"{name}: got {value!r}, expected a list of {of}")


def check_line(name: str, value: Any) -> None:
    """Raise `InvalidInput` unless `value` is a text of one line that can be shown as it is.

    Control characters would steer a terminal, and lone surrogates, which names of files
    can hold, cannot be written as UTF-8.
    """
    if not isinstance(value, str):
        raise InvalidInput(f"{name}: got {value!r}, expected a string")
    if any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in value):
        raise InvalidInput(
            f"{name}: got {value!r}, expected one line without control characters"
        )


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
    unit: str = "",
) -> None:
    """Raise `InvalidInput` unless `value` is a finite number in `[low, high]`.

    `open_low` excludes `low` itself. The message names the `unit` of the number, such as
    "ns", for whoever used another one.
    """
    ok = isinstance(value, numbers.Real) and not isinstance(value, bool)
    try:
        ok = ok and math.isfinite(float(value))
    except OverflowError:  # an integer that no floating-point number is near
        ok = False
    if ok and low is not None:
        ok = value > low if open_low else value >= low
    if ok and high is not None:
        ok = value <= high
    if not ok:
        bounds = f" {'>' if open_low else '>='} {low}" if low is not None else ""
        bounds += f"{' and' if bounds else ''} <= {high}" if high is not None else ""
        bounds += f" in {unit}" if unit else ""
        raise InvalidInput(f"{name}: got {value!r}, expected a finite number{bounds}")
