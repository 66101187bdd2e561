"""Wall-clock time of functions, interleaved so that they share the machine's moods."""

import time

import numpy as np

from linksim.errors import InvalidInput, check_int


def interleaved_seconds(functions, repeats):
    """Seconds of every call.

    Every repeat calls all functions once, in turn; the first call of each, which may
    compile, does not count. A call ends when its result is in the host's memory.

    Args:
        functions: {name: function without arguments}; each returns an array, a tensor,
            or a tuple of them.
        repeats: calls of each function.

    Returns:
        {name: float64 [repeats]}.
    """
    check_int("repeats", repeats)
    if not functions:
        raise InvalidInput("functions: empty, expected at least one")
    for function in functions.values():
        _finish(function())
    seconds = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            start = time.perf_counter()
            _finish(function())
            seconds[name].append(time.perf_counter() - start)
    return {name: np.array(values) for name, values in seconds.items()}


def measure_latency(functions, inputs, repeats=30):
    """Times of calls with the same inputs, from `interleaved_seconds`.

    Args:
        functions: {name: function}.
        inputs: the arguments.
        repeats: calls of each function.

    Returns:
        {name: {"median_ms", "low_ms", "high_ms"}}, the median and the quartiles.
    """
    # The default argument keeps each function, which a closure would not
    calls = {name: lambda f=f: f(*inputs) for name, f in functions.items()}
    quantiles = {"median_ms": 0.5, "low_ms": 0.25, "high_ms": 0.75}
    return {
        name: {key: 1e3 * float(np.quantile(values, q)) for key, q in quantiles.items()}
        for name, values in interleaved_seconds(calls, repeats).items()
    }


def _finish(result):
    for tensor in result if isinstance(result, (tuple, list)) else (result,):
        np.asarray(tensor)
