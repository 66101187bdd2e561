"""What is in a TensorFlow graph."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
from tensorflow.python.framework.function_def_to_graph import function_def_to_graph


def used_operations(graph: Any) -> list[Any]:
    """The operations that the outputs of a graph depend on, in an order in which they can run.

    TensorFlow runs no others, except those with side effects.
    """
    waiting, used = [t.op for t in graph.outputs], set()
    while waiting:
        op = waiting.pop()
        if op.name not in used:
            used.add(op.name)
            waiting += [t.op for t in op.inputs]
    return [op for op in graph.get_operations() if op.name in used]


def called_graphs(op: Any) -> list[Any]:
    """The graphs of the functions that an operation calls, such as the body of a loop."""
    names = []
    for attribute in op.node_def.attr.values():
        if attribute.HasField("func"):
            names.append(attribute.func.name)
        names += [function.name for function in attribute.list.func]
    functions = [op.graph._get_function(name) for name in names]
    # Functions that were traced here have a graph, those of a loaded SavedModel do not
    return [
        getattr(f, "graph", None) or function_def_to_graph(f.cached_definition)
        for f in functions
    ]


def specs_of(function: Any) -> Any:
    """Shapes and types of what a concrete function returns, in its structure."""
    return tf.nest.map_structure(
        lambda t: tf.TensorSpec(t.shape, t.dtype), function.structured_outputs
    )
