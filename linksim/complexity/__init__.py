"""What a detector costs: floating-point operations, parameters and wall-clock time."""

from linksim.complexity.flops import Complexity, count_flops
from linksim.complexity.latency import interleaved_seconds, measure_latency

__all__ = ["Complexity", "count_flops", "interleaved_seconds", "measure_latency"]
