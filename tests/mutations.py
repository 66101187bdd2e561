"""Values that are wrong for nearly every argument, for the sweeps over scenarios and API."""

import keras
import numpy as np


class Anything:
    """An object that nothing expects."""


# Types, signs, emptiness and sizes; NumPy's numbers stand for right ones where they fit
PLAIN = [
    *(None, True, False, "", "x", "3", "$\\foo$", "[red]", "a\nb", "\x1b[31m", "\0", b"x"),
    *([], [None], ["x"], [[1]], [1, 2], (1,), {}, {"a": 1}, {3: 1}, {1}, range(3)),
    *(-1, 0, 1, 2, 3, 7, 0.5, -0.5, 1e-9, 1e9, 10**6, 10**30, 10**400, 1j),
    *(float("nan"), float("inf"), -float("inf")),
    *(np.int64(3), np.int64(-1), np.float32(0.5), np.bool_(True), np.str_("x")),
    *(np.array([1, 2]), np.array(3.0), np.array([]), np.array([Anything()])),
    *(Anything(), Anything),
]


def values():
    """`PLAIN` and layers."""
    return [*PLAIN, keras.layers.Dense(3), [keras.layers.Dense(3)]]


def other_than(error_kinds, call):
    """What a call raises other than the kinds of error given, as a text; "" if nothing."""
    try:
        call()
    except error_kinds:
        pass
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""
