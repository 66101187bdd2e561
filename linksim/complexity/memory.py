"""How much memory a compiled function needs, read from its TensorFlow graph."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

from linksim.complexity.graphs import called_graphs, used_operations
from linksim.errors import InvalidInput

# Operations whose output shares the memory of their first input
_VIEWS = ("Reshape", "Identity", "Squeeze", "ExpandDims", "StopGradient")


def peak_memory(function: Any) -> int:
    """The most bytes of tensors that are alive at once while a function runs.

    Operations run in the order of the graph, and a tensor is alive until the last
    operation that uses it. Constants and weights count where they are read.

    The process may need less, because XLA does not store what it fuses, and TensorFlow
    writes some results over their inputs. It may need more for the program, its compiled
    code and what the allocator keeps. In measurements, a process grew by 0.8 times this
    number for the draw of CDL channels, and by 1.3 times for a few large tensors.

    Args:
        function: a `tf.types.experimental.ConcreteFunction` with fixed shapes.

    Raises:
        InvalidInput: the shape of a tensor is unknown before the function runs.
    """
    return _peak(function.graph, given=())


def _peak(graph, given):
    """The peak of one graph without the tensors `given` to it, which its caller counts."""
    operations = used_operations(graph)
    owner = _owners(operations)
    sizes = {ref: _num_bytes(ref.deref()) for ref in set(owner.values()) - set(given)}
    dies = _last_uses(graph, operations, owner)
    alive = most = 0
    for i, op in enumerate(operations):
        made = sum(sizes.get(t.ref(), 0) for t in op.outputs)
        inside = [_peak(g, [t.ref() for t in g.inputs]) for g in called_graphs(op)]
        most = max(most, alive + made + max(inside, default=0))
        alive += made - sum(sizes.get(ref, 0) for ref in dies[i])
    return most


def _owners(operations):
    """{tensor: the tensor whose memory it uses}, by reference."""
    owner = {}
    for op in operations:
        for tensor in op.outputs:
            is_view = op.type in _VIEWS
            owner[tensor.ref()] = owner[op.inputs[0].ref()] if is_view else tensor.ref()
    return owner


def _last_uses(graph, operations, owner):
    """{position of an operation: the tensors that nothing uses after it}."""
    last = {}
    for i, op in enumerate(operations):
        for tensor in (*op.inputs, *op.outputs):
            last[owner[tensor.ref()]] = i
    for tensor in graph.outputs:
        last[owner[tensor.ref()]] = len(operations)
    dies = defaultdict(list)
    for tensor, i in last.items():
        dies[i].append(tensor)
    return dies


def _num_bytes(tensor):
    if not tensor.dtype.is_numpy_compatible:
        return 0  # handles of variables
    if not tensor.shape.is_fully_defined():
        raise InvalidInput(
            f"function: {tensor.op.type} {tensor.name} has shape {tensor.shape}, "
            "expected fixed shapes"
        )
    return math.prod(tensor.shape.as_list()) * tensor.dtype.size
