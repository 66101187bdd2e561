"""What a detector costs: floating-point operations, parameters and wall-clock time."""

from linksim.complexity.costs import compiled, detector_costs
from linksim.complexity.flops import Complexity, count_flops
from linksim.complexity.latency import interleaved_seconds, measure_latency

__all__ = [
    "Complexity",
    "compiled",
    "count_flops",
    "detector_costs",
    "interleaved_seconds",
    "measure_latency",
]
