"""Named factories: tables of classes, or of `module:attribute`, imported on first use."""

import importlib
import inspect

from linksim.errors import InvalidInput, check_choice


def load_factory(table, name, what):
    """The class or function that a table has under a name.

    Args:
        table: {name: "module:attribute", or the class itself}.
        what: the argument that an error names.
    """
    check_choice(what, name, table)
    if not isinstance(table[name], str):
        return table[name]
    module, attribute = table[name].split(":")
    return getattr(importlib.import_module(module), attribute)


def describe_factory(factory):
    """The first line of its documentation."""
    doc = inspect.getdoc(factory) or ""
    return doc.split("\n\n")[0].replace("\n", " ")


# Whose constructors' keywords are no options
_FRAMEWORKS = ("keras", "tensorflow")


def check_options(name, factory, options):
    """Raise `InvalidInput` for options that a factory does not take."""
    allowed = _options(factory)
    unknown = sorted(set(options) - allowed)
    if unknown:
        raise InvalidInput(
            f"{name}: unknown option {', '.join(unknown)}; expected some of: "
            f"{', '.join(sorted(allowed))}"
        )


def _options(factory):
    """Keyword arguments of a layer class and its bases, or of a function."""
    callables = [factory]
    if inspect.isclass(factory):
        callables = [c.__init__ for c in factory.__mro__ if "__init__" in vars(c)]
    names = set()
    for function in callables:
        if getattr(function, "__module__", "").split(".")[0] not in _FRAMEWORKS:
            for p in inspect.signature(function).parameters.values():
                if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY):
                    names.add(p.name)
    names |= {"name"} if inspect.isclass(factory) else set()
    return names - {"self", "num_streams", "num_bits_per_symbol"}
