"""Translations of those TensorFlow operations that tf2onnx cannot translate.

ONNX has no linear algebra beyond products. Here an inverse and a QR decomposition are
loops over the columns, in which every step works on the whole batch. The other
translations hold for special cases only, and refuse the rest.

Each translation is a handler of tf2onnx (`custom_op_handlers`), a function of the graph
and the node to replace.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from onnx import TensorProto
from tf2onnx import utils

from linksim.errors import InvalidInput


class _Graph:
    """Makes nodes of a tf2onnx graph by the names of their operations: `graph.Add(x, y)`."""

    def __init__(self, graph):
        self.graph = graph

    def __getattr__(self, op):
        def make(*inputs, **attributes):
            names = [x if isinstance(x, str) else self.const(x) for x in inputs]
            return self.graph.make_node(op, names, attr=attributes).output[0]

        return make

    def const(self, value):
        name = utils.make_name("linksim_const")
        return self.graph.make_const(name, np.asarray(value)).output[0]

    def replace(self, node, *results):
        """Remove a node and give its outputs the values of `results`."""
        outputs = list(node.output)
        shapes = [self.graph.get_shape(name) for name in outputs]
        dtypes = [self.graph.get_dtype(name) for name in outputs]
        self.graph.remove_node(node.name)
        for result, name, shape, dtype in zip(results, outputs, shapes, dtypes):
            self.graph.make_node(
                "Identity", [result], outputs=[name], shapes=[shape], dtypes=[dtype]
            )

    def for_each(self, count, step, state):
        """Loop `state = step(graph, i, state)` for i from 0 to count - 1.

        The state is float32 and keeps its shape.
        """
        body = self.graph.create_new_graph_with_same_config()
        body.parent_graph = self.graph
        i, go_on, before = (utils.make_name(name) for name in ("i", "go_on", "state"))
        shape = self.graph.get_shape(state)
        body.add_graph_input(i, TensorProto.INT64, [])
        body.add_graph_input(go_on, TensorProto.BOOL, [])
        body.add_graph_input(before, TensorProto.FLOAT, shape)
        inner = _Graph(body)
        after = step(inner, inner.Reshape(i, _ints(1)), before)
        body.add_graph_output(inner.Identity(go_on), TensorProto.BOOL, [])
        body.add_graph_output(after, TensorProto.FLOAT, shape)
        loop = self.graph.make_node(
            "Loop",
            [self.const(np.int64(count)), self.const(np.bool_(True)), state],
            branches={"body": body},
            shapes=[shape],
            dtypes=[TensorProto.FLOAT],
        )
        return loop.output[0]


def _ints(*values):
    return np.array(values, np.int64)


def _float(value):
    return np.float32(value)


def _matrix_shape(graph, node, op):
    shape = graph.get_shape(node.input[0])
    if graph.get_dtype(node.input[0]) != TensorProto.FLOAT or not shape or len(shape) != 3:
        raise InvalidInput(f"onnx: {op} is only translated for float32 [B, I, J]")
    if min(shape[1:]) < 1:
        raise InvalidInput(f"onnx: {op} of matrices of unknown size {shape[1:]}")
    return shape[1:]


def _matrix_inverse(graph, node, name, args):
    """Gauss-Jordan elimination without pivoting, after scaling to a unit diagonal.

    That is stable because the matrices are symmetric and positive definite: only
    `regularized_inverse` inverts matrices. With e the unit vector k, the step on column k
    is A - (A e - e)(e'A + e')/A_kk.
    """
    if node.get_attr_value("adjoint", False):
        raise InvalidInput("onnx: the inverse of an adjoint is not translated")
    size, _ = _matrix_shape(graph, node, "MatrixInverse")
    new, eye = _Graph(graph), np.eye(size, dtype=np.float32)
    matrix = node.input[0]
    diagonal = new.ReduceSum(new.Mul(matrix, eye), _ints(2), keepdims=1)  # [B, N, 1]
    scale = new.Div(_float(1), new.Sqrt(diagonal))
    scale = new.Mul(scale, new.Transpose(scale, perm=[0, 2, 1]))

    def eliminate(body, k, a):
        unit = body.Gather(body.const(eye), k, axis=1)  # [N, 1]
        row = body.Gather(a, k, axis=1)
        pivot = body.Gather(row, k, axis=2)
        column = body.Sub(body.Gather(a, k, axis=2), unit)
        row = body.Div(body.Add(row, body.Transpose(unit, perm=[1, 0])), pivot)
        return body.Sub(a, body.Mul(column, row))

    inverse = new.for_each(size, eliminate, new.Mul(matrix, scale))
    new.replace(node, new.Mul(inverse, scale))


def _qr(graph, node, name, args):
    """Householder reflections, applied to [A, I]; Q has as many columns as A."""
    if node.get_attr_value("full_matrices", False):
        raise InvalidInput("onnx: a QR decomposition with full matrices is not translated")
    rows, columns = _matrix_shape(graph, node, "Qr")
    if rows < columns:
        raise InvalidInput("onnx: a QR decomposition of a wide matrix is not translated")
    new, eye = _Graph(graph), np.eye(rows, dtype=np.float32)
    batch = new.Slice(new.Shape(node.input[0]), _ints(0), _ints(1))
    eyes = new.Expand(eye, new.Concat(batch, _ints(rows, rows), axis=0))
    both = new.Concat(node.input[0], eyes, axis=2)
    graph.set_shape(both, [-1, rows, columns + rows])
    from_diagonal = np.triu(np.ones((rows, rows), np.float32)).T  # 1 where row >= column

    def reflect(body, k, a):
        x = body.Gather(a, k, axis=2)  # [B, rows, 1]
        x = body.Mul(x, body.Gather(body.const(from_diagonal), k, axis=1))
        first = body.Gather(x, k, axis=1)
        norm = body.Sqrt(body.MatMul(body.Transpose(x, perm=[0, 2, 1]), x))
        # The sign opposite to that of `first`, so that nothing cancels
        target = body.Where(body.Less(first, _float(0)), norm, body.Neg(norm))
        v = body.Sub(x, body.Mul(target, body.Gather(body.const(eye), k, axis=1)))
        vt = body.Transpose(v, perm=[0, 2, 1])
        power = body.Max(body.MatMul(vt, v), _float(1e-37))
        shares = body.Div(body.MatMul(vt, a), power)
        return body.Sub(a, body.Mul(v, body.Mul(shares, _float(2))))

    both = new.for_each(columns, reflect, both)
    axes, steps = _ints(1, 2), _ints(1, 1)
    r = new.Slice(both, _ints(0, 0), _ints(columns, columns), axes, steps)
    qt = new.Slice(both, _ints(0, columns), _ints(columns, columns + rows), axes, steps)
    upper = np.triu(np.ones((columns, columns), np.float32))
    new.replace(node, new.Transpose(qt, perm=[0, 2, 1]), new.Mul(r, upper))


def _one_hot(graph, node, name, args):
    """A comparison with all indices, for any rank and type; indices out of range give zeros."""
    if node.get_attr_value("axis", -1) != -1:
        raise InvalidInput("onnx: one_hot is only translated along a new last axis")
    new = _Graph(graph)
    indices, depth, on, off = node.input
    depth = int(node.inputs[1].get_tensor_value())
    indices = new.Cast(indices, to=TensorProto.INT64)
    hit = new.Equal(new.Unsqueeze(indices, _ints(-1)), np.arange(depth, dtype=np.int64))
    if graph.get_dtype(on) != TensorProto.BOOL:
        hit = new.Where(hit, on, off)
    new.replace(node, hit)


def _bitcast(graph, node, name, args):
    """The test for negative zeros in Keras' argmin and argmax, as a test of the sign.

    Negative zeros then pass for zeros, which only changes the choice between equal values.
    """
    users = graph.find_output_consumers(node.output[0])
    if graph.get_dtype(node.input[0]) != TensorProto.FLOAT or any(
        user.type != "BitwiseAnd" for user in users
    ):
        raise InvalidInput("onnx: Bitcast is only translated as a test of the sign")
    new = _Graph(graph)
    sign = new.Cast(new.Sign(node.input[0]), to=graph.get_dtype(node.output[0]))
    new.replace(node, sign)


def _update_slice(graph, node, name, args):
    """`x[start : start + n] = update`, for whole rows."""
    whole, update, start = node.input
    shape, rows = graph.get_shape(whole), graph.get_shape(update)
    if not rows or rows[0] < 1 or shape[1:] != rows[1:]:
        raise InvalidInput("onnx: an update of a slice is only translated for whole rows")
    new = _Graph(graph)
    first = new.Slice(new.Cast(start, to=TensorProto.INT64), _ints(0), _ints(1))
    index = new.Unsqueeze(new.Add(first, np.arange(rows[0], dtype=np.int64)), _ints(-1))
    new.replace(node, new.ScatterND(whole, index, update))


def _diagonal(graph, node, name, args):
    """The main diagonal of square matrices.

    tf2onnx can translate any diagonal, but to a hundred nodes, in more than a second.
    """
    rows, columns = _matrix_shape(graph, node, "MatrixDiagPart")
    offset = node.inputs[1].get_tensor_value() if len(node.inputs) > 1 else 0
    if rows != columns or np.any(offset):
        raise InvalidInput("onnx: only the main diagonal of square matrices is translated")
    new = _Graph(graph)
    flat = new.Reshape(node.input[0], _ints(-1, rows * rows))
    new.replace(node, new.Gather(flat, _ints(*range(0, rows * rows, rows + 1)), axis=1))


HANDLERS: dict[str, tuple[Callable[..., None], list]] = {
    "MatrixDiagPartV2": (_diagonal, []),
    "MatrixDiagPartV3": (_diagonal, []),
    "MatrixInverse": (_matrix_inverse, []),
    "Qr": (_qr, []),
    "OneHot": (_one_hot, []),
    "Bitcast": (_bitcast, []),
    "XlaDynamicUpdateSlice": (_update_slice, []),
}
