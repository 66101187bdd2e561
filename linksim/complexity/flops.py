"""Floating-point operations of a detector, counted from its TensorFlow graph."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from linksim.backend import num_weights, require_tensorflow
from linksim.complexity.graphs import used_operations
from linksim.errors import InvalidInput, check_int


@dataclass(frozen=True)
class Complexity:
    """Cost of detecting one vector of M received values.

    Attributes:
        flops: number of real floating-point operations. An addition, a multiplication, a
            division, and an evaluation of exp, log, sqrt and the like count as 1 each;
            comparisons, rounding, selections, changes of sign and moves of data are free.
        by_operation: {type of a TensorFlow operation: its share of `flops`}.
        parameters: how many numbers the detector's weights hold.
    """

    flops: int
    by_operation: Mapping[str, int]
    parameters: int


def count_flops(detector: Any, num_rx: int) -> Complexity:
    """Count the floating-point operations of a detector for one vector.

    The detector is traced for a batch of one. Operations that do not depend on the input,
    such as those on weights alone, are not counted: they are done once for any number of
    vectors. The product of matrices (m, n) and (n, l) costs 2mnl - ml [Mohammad20],
    Table I. A complex product costs 6 and a complex sum 2. Factorisations cost their
    leading terms: 2 n^3 for an inverse (LU), n^3/3 for a Cholesky factor,
    4 m n^2 - 4 n^3/3 for Q and R.

    Args:
        detector: a detector of the registry.
        num_rx: M, the number of receive antennas.

    Raises:
        InvalidInput: the detector cannot be traced (`sdr-cvxpy`); it has a loop, and the
            graph does not say how often it runs (`sdr`, `sphere`); or the cost of one of
            its operations is not known here (`sionna-...`).
    """
    import tensorflow as tf

    require_tensorflow("counting operations")
    check_int("num_rx", num_rx)
    name = type(detector).__name__
    if detector.eager_only:
        raise InvalidInput(f"detector: {name} only runs eagerly, it has no graph to count")
    streams = detector.num_streams
    signature = [
        tf.TensorSpec([1, num_rx], tf.complex64),
        tf.TensorSpec([1, num_rx, streams], tf.complex64),
        tf.TensorSpec([1], tf.float32),
    ]
    # The first call creates the weights, which the counted graph must not do
    detector(*[np.ones(s.shape, s.dtype.as_numpy_dtype) for s in signature])
    function = tf.function(lambda *args: detector(*args), autograph=False)
    graph = function.get_concrete_function(*signature).graph
    by_operation = _count(graph, name)
    return Complexity(
        flops=sum(by_operation.values()),
        by_operation=by_operation,
        parameters=num_weights(detector.weights),
    )


def _count(graph, name):
    counts = {}
    live = {t.ref() for t in graph.inputs[:3]}  # what changes with y, h or N0
    for op in used_operations(graph):
        if not any(t.ref() in live for t in op.inputs):
            continue
        live.update(t.ref() for t in op.outputs)
        if op.type in _FREE:
            continue
        if op.type not in _COSTS:
            raise InvalidInput(
                f"detector: {name} has an operation {op.type}, whose cost is not known"
            )
        flops = _COSTS[op.type](op)
        if flops:
            counts[op.type] = counts.get(op.type, 0) + flops
    return counts


def _size(tensor):
    return math.prod(tensor.shape.as_list())


def _elementwise(real=1, complex_=2):
    def cost(op):
        out = op.outputs[0]
        if not (out.dtype.is_floating or out.dtype.is_complex):
            return 0  # indices and masks
        return (complex_ if out.dtype.is_complex else real) * _size(out)

    return cost


def _sum(op):
    if op.inputs[0].dtype.is_integer:
        return 0
    return _elementwise()(op) * (_size(op.inputs[0]) // _size(op.outputs[0]) - 1)


def _mean(op):
    return _sum(op) + _size(op.outputs[0])


def _softmax(op):
    # Difference to the largest, exp, sum, division
    size = _size(op.outputs[0])
    return 4 * size - size // op.outputs[0].shape[-1]


def _product(op):
    adjoint = ("transpose_a",) if op.type == "MatMul" else ("adj_x",)
    a, out = op.inputs[0], op.outputs[0]
    inner = a.shape[-2] if op.get_attr(adjoint[0]) else a.shape[-1]
    multiply, add = (6, 2) if out.dtype.is_complex else (1, 1)
    return _size(out) * (multiply * inner + add * (inner - 1))


def _inverse(op):
    n = op.inputs[0].shape[-1]
    return _size(op.inputs[0]) * 2 * n


def _cholesky(op):
    return _size(op.inputs[0]) * op.inputs[0].shape[-1] // 3


def _triangular_solve(op):
    # One product and one sum for half of the matrix, for each right-hand side
    return _size(op.outputs[0]) * op.inputs[0].shape[-1]


def _qr(op):
    m, n = op.inputs[0].shape[-2:]
    short = min(m, n)
    batch = _size(op.inputs[0]) // (m * n)
    return batch * round(4 * m * n * short - 4 * short**3 / 3)


_ONE = _elementwise()
_COSTS = {
    **dict.fromkeys(("Add", "AddV2", "AddN", "Sub", "BiasAdd"), _ONE),
    **dict.fromkeys(("Mul", "RealDiv", "Square"), _elementwise(1, 6)),
    **dict.fromkeys(("Exp", "Log", "Sqrt", "Sin", "Cos", "Tanh", "Pow"), _ONE),
    **dict.fromkeys(("Log1p", "Expm1", "Softplus", "Erf"), _ONE),
    "SquaredDifference": _elementwise(2, 8),
    "Rsqrt": _elementwise(2),
    "Elu": _elementwise(2),  # exp, difference
    "Reciprocal": _ONE,
    "Sigmoid": _elementwise(3),  # exp, sum, division
    "Softmax": _softmax,
    "LogSoftmax": lambda op: 4 * _size(op.outputs[0]),
    "Sum": _sum,
    "Mean": _mean,
    "Cumsum": _ONE,
    "MatMul": _product,
    "BatchMatMulV2": _product,
    "MatrixInverse": _inverse,
    "Cholesky": _cholesky,
    "MatrixTriangularSolve": _triangular_solve,
    "Qr": _qr,
    "FloorDiv": lambda op: 0,
    "FloorMod": lambda op: 0,
}
_FREE = {
    *(
        "Abs",
        "Neg",
        "Sign",
        "Round",
        "Maximum",
        "Minimum",
        "Relu",
        "Max",
        "Min",
        "ClipByValue",
    ),
    *("Less", "LessEqual", "Greater", "GreaterEqual", "Equal", "NotEqual"),
    *("LogicalAnd", "LogicalOr", "LogicalNot", "Any", "All", "IsFinite", "IsNan"),
    *("SelectV2", "Select", "ArgMin", "ArgMax", "TopKV2", "OneHot", "Bitcast"),
    *("BitwiseAnd", "Cast", "Real", "Imag", "Complex", "Conj", "StopGradient"),
    *("Reshape", "Transpose", "ExpandDims", "Squeeze", "ConcatV2", "Pack", "Unpack"),
    *("Split", "SplitV", "StridedSlice", "Slice", "GatherV2", "GatherNd", "Tile"),
    *("BroadcastTo", "Pad", "PadV2", "Shape", "Identity", "NoOp", "ZerosLike"),
    *("OnesLike", "Fill", "MatrixDiagV3", "MatrixDiagPartV3", "MatrixSetDiagV3"),
    *("MatrixBandPart", "ReverseV2", "ConjugateTranspose", "CheckNumerics"),
    *("TensorScatterUpdate", "InvertPermutation"),
    # In `into_range`, which works only on vectors of extreme scale
    *("If", "StatelessIf"),
}
