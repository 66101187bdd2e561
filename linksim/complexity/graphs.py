"""What is in a TensorFlow graph."""

from tensorflow.python.framework.function_def_to_graph import function_def_to_graph


def used_operations(graph):
    """Operations that the outputs depend on, in an order in which they can run.

    TensorFlow runs no others, but for those with side effects.
    """
    waiting, used = [t.op for t in graph.outputs], set()
    while waiting:
        op = waiting.pop()
        if op.name not in used:
            used.add(op.name)
            waiting += [t.op for t in op.inputs]
    return [op for op in graph.get_operations() if op.name in used]


def called_graphs(op):
    """Graphs of the functions that an operation calls: bodies of loops, branches, calls."""
    names = []
    for attribute in op.node_def.attr.values():
        if attribute.HasField("func"):
            names.append(attribute.func.name)
        names += [function.name for function in attribute.list.func]
    functions = [op.graph._get_function(name) for name in names]
    # Those traced here keep their graph; others come from a loaded SavedModel
    return [
        getattr(f, "graph", None) or function_def_to_graph(f.cached_definition)
        for f in functions
    ]
