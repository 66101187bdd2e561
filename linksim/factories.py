"""Registries: names for detectors, quantizers and channels, imported on first use."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from linksim.errors import InvalidInput, check_choice, refuse_precision

# Keyword arguments that these packages' base classes take are not options of ours
_FRAMEWORKS = ("keras", "tensorflow", "sionna")


@dataclass(frozen=True)
class Entry:
    """What a registry knows about one name.

    Attributes:
        name: the name.
        target: "module:attribute", which is imported on first use so that listing is
            instant; or the class or function itself.
        summary: one line for lists.
        options: options of the target that the name stands for.
        learned: whether it has weights that are trained.
        own: whether a user registered it, as opposed to linksim itself.
        revision: grows when the results of the name's default options change, so that
            counts from before the change are not added to those from after it.
    """

    name: str
    target: str | Callable[..., Any]
    summary: str
    options: Mapping[str, Any] = field(default_factory=dict)
    learned: bool = False
    own: bool = False
    revision: int = 1

    def load(self) -> Callable[..., Any]:
        """The class or function behind the name."""
        if not isinstance(self.target, str):
            return self.target
        module, attribute = self.target.split(":")
        return getattr(importlib.import_module(module), attribute)


class Registry:
    """Entries by name, in the order in which lists show them.

    Args:
        what: the argument that errors name, such as "detector".
        entries: linksim's own.
    """

    def __init__(self, what: str, entries: Iterable[Entry]):
        self.what = what
        self._entries = {entry.name: entry for entry in entries}

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    def names(self) -> list[str]:
        """All names."""
        return list(self._entries)

    def entry(self, name: str, what: str | None = None) -> Entry:
        """The `Entry` of a name.

        Args:
            name: the name.
            what: the argument that an error names; default that of the registry.

        Raises:
            InvalidInput: there is none; the message lists the names that there are.
        """
        check_choice(what or self.what, name, self._entries)
        return self._entries[name]

    def add(self, entry: Entry) -> None:
        """Add an entry, in place of one of the same name."""
        self._entries[entry.name] = entry

    def own(self) -> list[Entry]:
        """The entries that users registered."""
        return [entry for entry in self if entry.own]


def check_options(
    what: str,
    factory: Callable[..., Any],
    options: Iterable[str],
    *,
    noun: str = "option",
    apart_from: Iterable[str] = ("num_streams", "num_bits_per_symbol"),
) -> None:
    """Check that a class or function takes the options named.

    Args:
        what: how the error begins, such as the name of a detector.
        factory: the class or function.
        options: names of the options.
        noun: what the error calls them.
        apart_from: arguments that are not options.

    Raises:
        InvalidInput: it does not take some of them; the message lists those it takes.
    """
    refuse_precision(what, set(options))
    allowed = keyword_names(factory) - set(apart_from)
    unknown = sorted(set(options) - allowed)
    if unknown:
        raise InvalidInput(
            f"{what}: unknown {noun} {', '.join(unknown)}; expected some of: "
            f"{', '.join(sorted(allowed)) or 'none'}"
        )


def first_paragraph_of(factory: Callable[..., Any]) -> str:
    """The first paragraph of the documentation of a class or function, as one line."""
    doc = inspect.getdoc(factory) or ""
    return doc.split("\n\n")[0].replace("\n", " ")


def keyword_names(factory: Callable[..., Any]) -> set[str]:
    """Names of the arguments that a class or function takes.

    A class that hands further keywords on (`**kwargs`) takes those of its base class too.
    """
    if not inspect.isclass(factory):
        return _parameters(factory)[0]
    names: set[str] = set()
    for cls in factory.__mro__:
        if "__init__" not in vars(cls):
            continue
        if cls.__module__.split(".")[0] in _FRAMEWORKS:
            return names | {"name"}
        found, hands_on = _parameters(vars(cls)["__init__"])
        names |= found
        if not hands_on:
            break
    return names


def _parameters(function: Callable[..., Any]) -> tuple[set[str], bool]:
    """Names of a function's arguments, and whether it takes any others as well."""
    parameters = inspect.signature(function).parameters.values()
    named = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    return named - {"self"}, any(p.kind is p.VAR_KEYWORD for p in parameters)
