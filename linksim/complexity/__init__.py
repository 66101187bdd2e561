"""What a detector costs: floating-point operations, parameters, time and memory.

The functions here take a detector or a TensorFlow function; `linksim.link.costs` takes
the names of a scenario's receivers.
"""

from linksim.complexity.flops import Complexity, count_flops
from linksim.complexity.latency import (
    compile_detector,
    interleaved_seconds,
    measure_latency,
)
from linksim.complexity.memory import peak_memory

__all__ = [
    "Complexity",
    "compile_detector",
    "count_flops",
    "interleaved_seconds",
    "measure_latency",
    "peak_memory",
]
