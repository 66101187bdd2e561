"""What a detector costs: floating-point operations, parameters, wall-clock time and
memory."""

from linksim.complexity.costs import compiled, detector_costs
from linksim.complexity.flops import Complexity, count_flops
from linksim.complexity.latency import interleaved_seconds, measure_latency
from linksim.complexity.memory import peak_memory

__all__ = [
    "Complexity",
    "compiled",
    "count_flops",
    "detector_costs",
    "interleaved_seconds",
    "measure_latency",
    "peak_memory",
]
