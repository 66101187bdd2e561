"""Wall-clock time of functions, measured in turn so that all see the same load."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from linksim.backend import compiled, wait_for
from linksim.errors import InvalidInput, check_int


def compile_detector(detector: Any) -> Callable[..., Any]:
    """A function that calls a detector in the mode that is faster on a CPU.

    Args:
        detector: a detector of the registry. It says itself whether XLA is faster
            (`xla_on_cpu`), and whether it cannot be traced at all (`eager_only`); then
            it is returned as it is.
    """
    if detector.eager_only:
        return detector
    return compiled(lambda *args: detector(*args), xla=detector.xla_on_cpu)


def interleaved_seconds(
    functions: Mapping[str, Callable[[], Any]], repeats: int
) -> dict[str, np.ndarray]:
    """Time every call of several functions.

    Every repeat calls all functions once, in turn, so that a busy machine slows all of
    them. The first call of each may compile and is not counted. A call ends when its
    result is computed; a GPU keeps it.

    Args:
        functions: {name: function without arguments}; each returns an array, a tensor,
            or a tuple of them.
        repeats: calls of each function.

    Returns:
        {name: seconds of each call, float64 [repeats]}.

    Raises:
        InvalidInput: there is no function, or `repeats` is not a positive integer.
    """
    check_int("repeats", repeats)
    if not functions:
        raise InvalidInput("functions: empty, expected at least one")
    for function in functions.values():
        wait_for(function())
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            start = time.perf_counter()
            wait_for(function())
            seconds[name].append(time.perf_counter() - start)
    return {name: np.array(values) for name, values in seconds.items()}


def measure_latency(
    functions: Mapping[str, Callable[..., Any]], inputs: Sequence[Any], repeats: int = 30
) -> dict[str, dict[str, float]]:
    """Median and quartiles of the time of calls with the same inputs.

    Args:
        functions: {name: function}.
        inputs: the arguments of each call.
        repeats: calls of each function; see `interleaved_seconds`.

    Returns:
        {name: {"median_ms", "low_ms", "high_ms"}}, the median and the quartiles.
    """
    # The default argument binds each function; a closure would only see the last
    calls = {name: lambda f=f: f(*inputs) for name, f in functions.items()}
    quantiles = {"median_ms": 0.5, "low_ms": 0.25, "high_ms": 0.75}
    return {
        name: {key: 1e3 * float(np.quantile(values, q)) for key, q in quantiles.items()}
        for name, values in interleaved_seconds(calls, repeats).items()
    }
