"""What the detectors of a scenario cost, by name."""

import functools

import numpy as np

from linksim.complexity.flops import count_flops
from linksim.complexity.latency import interleaved_seconds
from linksim.errors import InvalidInput


def detector_costs(scenario, names, inputs=None, repeats=5):
    """Operations, parameters and time of detectors.

    Args:
        scenario: the `Scenario`; learned detectors come with the weights that a run of it
            takes.
        names: `DETECTOR[:POINT][+QUANTIZER[:BITS]]`; the quantizer is not counted.
        inputs: None, or `y [B, M]`, `h [B, M, K]` complex64 and `no [B]` float32 to take
            the time on.
        repeats: calls of each detector, in turn.

    Returns:
        {name: {"flops", "parameters", "us", "weights"}}: of one vector; `flops` and
        `parameters` are None where `count_flops` refuses, `us` (microseconds, the median)
        without inputs. `weights` is {"<model>/<configuration>": SHA-256}.

    Raises:
        InvalidInput: unknown names, no weights that fit.
    """
    # Needs every detector there is, this module needs none
    from linksim.link.receiver import create_receiver

    costs, calls = {}, {}
    for name in names:
        receiver = create_receiver(name, scenario)
        detector = receiver.detector
        try:
            counted = count_flops(detector, scenario.system.num_rx)
            flops, parameters = counted.flops, counted.parameters
        except InvalidInput:  # loops, whose passes a graph does not tell
            flops = parameters = None
        costs[name] = {
            "flops": flops,
            "parameters": parameters,
            "us": None,
            "weights": receiver.weights,
        }
        if inputs is not None:
            calls[name] = functools.partial(compiled(detector), *inputs)
    if calls:
        for name, seconds in interleaved_seconds(calls, repeats).items():
            costs[name]["us"] = 1e6 * float(np.median(seconds)) / len(inputs[0])
    return costs


def compiled(detector):
    """A detector as a function in the faster mode on CPU."""
    import tensorflow as tf

    if getattr(detector, "eager_only", False):
        return detector
    # Sionna's blocks say nothing: graph mode is the faster one of most
    xla = getattr(detector, "xla_on_cpu", False)
    return tf.function(lambda *args: detector(*args), autograph=False, jit_compile=xla)
