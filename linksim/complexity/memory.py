"""How much memory a compiled function needs, read from its TensorFlow graph."""

import math
from collections import defaultdict

from linksim.complexity.graphs import called_graphs, used_operations
from linksim.errors import InvalidInput

# Their output is their first input under another shape
_VIEWS = ("Reshape", "Identity", "Squeeze", "ExpandDims", "StopGradient")


def peak_memory(function):
    """Bytes of all tensors that are alive at once, at most.

    Operations run in the order of the graph, and a tensor is alive until the last one
    that uses it. Constants and weights count where they are read. What XLA fuses is not
    stored, and TensorFlow computes some results in place of their inputs, so that both
    need less. The program, its compiled code and what an allocator keeps come on top:
    measured in processes, the draw of CDL channels gained 0.8 of this number, a function
    of a few large tensors 1.3.

    Args:
        function: a `tf.types.experimental.ConcreteFunction`, all of whose shapes are
            known.

    Raises:
        InvalidInput: a tensor whose shape depends on its values.
    """
    return _peak(function.graph, given=())


def _peak(graph, given):
    """Of one graph, with the tensors `given` to it counted where they were made."""
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
    """For every tensor the one whose memory it is."""
    owner = {}
    for op in operations:
        for tensor in op.outputs:
            is_view = op.type in _VIEWS
            owner[tensor.ref()] = owner[op.inputs[0].ref()] if is_view else tensor.ref()
    return owner


def _last_uses(graph, operations, owner):
    """{position: tensors that nothing after this operation uses}."""
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
            "expected known shapes"
        )
    return math.prod(tensor.shape.as_list()) * tensor.dtype.size
