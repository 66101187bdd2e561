"""Replace operations of Keras for a while, for exporters that lack them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from keras import ops


@contextlib.contextmanager
def replaced_operations(functions: Mapping[str, Callable[..., Any]]) -> Iterator[None]:
    """Inside, layers that are traced use other functions.

    They call them as `keras.ops.inv` and so on, whose attributes are replaced meanwhile.

    Args:
        functions: {name in `keras.ops`: what replaces it}.
    """
    before = {name: getattr(ops, name) for name in functions}
    try:
        for name, function in functions.items():
            setattr(ops, name, function)
        yield
    finally:
        for name, function in before.items():
            setattr(ops, name, function)
