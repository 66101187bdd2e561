"""What the receivers of a scenario cost: operations, parameters and time."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from linksim.backend import num_weights
from linksim.complexity.flops import count_flops
from linksim.complexity.latency import compile_detector, interleaved_seconds
from linksim.errors import InvalidInput
from linksim.link.receiver import create_receiver
from linksim.link.scenario import Scenario


def detector_costs(
    scenario: Scenario,
    names: Iterable[str],
    inputs: Sequence[np.ndarray] | None = None,
    repeats: int = 5,
) -> dict[str, dict[str, Any]]:
    """Count the operations and parameters of detectors, and time them.

    Args:
        scenario: the `Scenario`; learned detectors come with the weights that a run of it
            takes.
        names: names of receivers, see `linksim.names`. Of a quantizer the parameters count,
            its operations and its time do not. A receiver of several passes costs what its
            detector does in the first of them, which has no prior.
        inputs: `y [B, M]`, `h [B, M, K]` complex64 and `no [B]` float32 or covariances
            [B, M, M] complex64 to time the detectors on, or None to leave the time out.
        repeats: calls of each detector, in turn.

    Returns:
        {name: {"flops", "parameters", "us", "weights"}}, all for one vector. `flops` and
        `parameters` are None where `count_flops` refuses; `us`, the median in
        microseconds, is None without inputs. `weights` is
        {"<model>/<configuration>": SHA-256}.

    Raises:
        InvalidInput: a name is unknown, or no weights fit.
    """
    costs: dict[str, dict[str, Any]] = {}
    calls = {}
    for name in names:
        receiver = create_receiver(name, scenario)
        costs[name] = {"flops": None, "parameters": None, "us": None}
        costs[name]["weights"] = receiver.weights
        try:
            counted = count_flops(receiver.detector, scenario.system.num_rx)
            quantizer: Any = receiver.quantizer
            more = 0 if quantizer is None else num_weights(quantizer.weights)
            costs[name].update(flops=counted.flops, parameters=counted.parameters + more)
        except InvalidInput:  # a loop, for instance: a graph does not say how often it runs
            pass
        if inputs is not None:
            calls[name] = functools.partial(compile_detector(receiver.detector), *inputs)
    if inputs is not None and calls:
        for name, seconds in interleaved_seconds(calls, repeats).items():
            costs[name]["us"] = 1e6 * float(np.median(seconds)) / len(inputs[0])
    return costs
