"""Export a detector to ONNX from PyTorch, in an environment without TensorFlow."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from linksim.backend import Tensor
from linksim.errors import InvalidInput, check_int
from linksim.files import as_path, write_atomically
from linksim.replaced import replaced_operations

#: The inputs of an exported detector, in their order
INPUTS = ("y_real", "y_imag", "h_real", "h_imag", "no")

# Vectors of the example that is traced: no other size is equal to it, which PyTorch would take
# for the same size
_BATCH = 97


def export_onnx(detector: Any, num_rx: int, path: str | os.PathLike[str]) -> None:
    """Write a detector as an ONNX file, which onnxruntime runs without linksim and PyTorch.

    Complex numbers are not in ONNX, so that y and H come as real and imaginary parts. The
    noise is white, and values are not checked.

    Inputs of the file: `y_real`, `y_imag` float32 [B, M]; `h_real`, `h_imag` float32
    [B, M, K]; `no` float32 [B], N0. Its output is `llr` float32 [B, K, m]. B is any number.

    Args:
        detector: a `Detector`.
        num_rx: M.
        path: of the file.

    Raises:
        InvalidInput: Keras runs on another backend, a package is missing, or ONNX lacks an
            operation of the detector; the message has the exporter's.
        ResultFileError: the file cannot be written.
    """
    check_int("num_rx", num_rx)
    if keras.backend.backend() != "torch":
        raise InvalidInput(
            f"KERAS_BACKEND: Keras runs on {keras.backend.backend()!r} in this process, but "
            "export_onnx needs 'torch'; `linksim export` writes ONNX from TensorFlow"
        )
    try:
        import onnxscript  # noqa: F401
        import torch
    except ImportError as error:
        raise InvalidInput(
            f'detector: ONNX needs pip install "linksim[torch-onnx]" ({error})'
        ) from None

    class Parts(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.detector = detector

        def forward(self, *parts):
            return self.detector.llrs_of_parts(*parts)

    y = np.zeros((_BATCH, num_rx), np.complex64)
    h = np.tile(np.eye(num_rx, detector.num_streams), (_BATCH, 1, 1))
    no = np.ones(_BATCH, np.float32)
    parts = (y.real, y.imag, h.real, h.imag, no)
    example = tuple(torch.from_numpy(np.array(part, np.float32)) for part in parts)
    batch = torch.export.Dim("batch", min=2)  # of 1 PyTorch makes a graph of its own
    with torch.no_grad(), replaced_operations(_PORTABLE):
        detector(y, h.astype(np.complex64), no)  # creates the weights
        try:
            program = torch.export.export(
                Parts(), example, dynamic_shapes=(tuple({0: batch} for _ in example),)
            )
            _leave_out_squeezes(program, torch.ops.aten.squeeze.dim)
            made = torch.onnx.export(
                program,
                dynamo=True,
                verbose=False,
                input_names=list(INPUTS),
                output_names=["llr"],
            )
        except Exception as error:  # of many types, of PyTorch's own
            raise InvalidInput(
                f"detector: {detector.name} cannot be exported to ONNX: {reason_of(error)}"
            ) from error
    write_atomically(as_path("path", Path(path)), made.model_proto.SerializeToString())


def _leave_out_squeezes(program, target):
    """Take squeezes of axes that are not of size 1 out of a graph.

    Keras makes one in each `ops.take`. They do nothing on PyTorch, and are wrong in ONNX.
    """
    graph = program.graph_module.graph
    for node in list(graph.nodes):
        if node.target is target and len(node.meta["val"].shape) == len(
            node.args[0].meta["val"].shape
        ):
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
    program.graph_module.recompile()


def reason_of(error: BaseException) -> str:
    """The line of an exporter's message that names the operation, or its first line."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    named = [line for line in lines if "No ONNX function found" in line]
    return (named or lines or [type(error).__name__])[0]


def argsort(x: Tensor, axis: int = -1) -> Tensor:
    """Indices int32 [..., N] that sort x [..., N]; equal entries stay in their order.

    Raises:
        InvalidInput: another axis than the last one.
    """
    if axis % len(x.shape) != len(x.shape) - 1:
        raise InvalidInput(f"axis: got {axis}, expected the last one")
    places = ops.arange(x.shape[-1], dtype="int32")
    one, other = x[..., :, None], x[..., None, :]
    equal_before = ops.logical_and(other == one, places[None, :] < places[:, None])
    rank = ops.sum(ops.cast(ops.logical_or(other < one, equal_before), "int32"), axis=-1)
    has_rank = rank[..., None, :] == places[:, None]
    return ops.cast(ops.sum(ops.where(has_rank, places, 0), axis=-1), "int32")


def diagonal(x: Tensor, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Tensor:
    """Main diagonal [..., N] of square matrices float32 [..., N, N].

    Raises:
        InvalidInput: another diagonal, or other axes than the last two.
    """
    rank = len(x.shape)
    if offset or (axis1 % rank, axis2 % rank) != (rank - 2, rank - 1):
        raise InvalidInput(
            f"axes: got {axis1} and {axis2} with offset {offset}, expected the main diagonal of "
            "the last two"
        )
    return ops.sum(ops.where(ops.eye(x.shape[-1], dtype="bool"), x, 0.0), axis=-1)


def inverse(x: Tensor) -> Tensor:
    """Inverse of symmetric, positive definite matrices float32 [..., N, N].

    This is Gauss-Jordan elimination without pivoting, after scaling to a unit diagonal,
    with a step for each column; it is stable because of the symmetry. With e the unit
    vector k, the step on column k is A - (A e - e)(e'A + e')/A_kk.
    """
    size = x.shape[-1]
    scale = 1.0 / ops.sqrt(diagonal(x, axis1=-2, axis2=-1))[..., None]
    scale = scale * ops.swapaxes(scale, -1, -2)
    a, eye = x * scale, ops.eye(size)
    for k in range(size):
        row, column = a[..., k : k + 1, :], a[..., :, k : k + 1]
        pivot = row[..., :, k : k + 1]
        a = a - (column - eye[:, k : k + 1]) * ((row + eye[k : k + 1]) / pivot)
    return a * scale


# What ONNX or its exporter lacks: inverses, sorting that keeps the order of equal entries, and
# diagonals, of which files with them do not load
_PORTABLE = {"inv": inverse, "diagonal": diagonal, "argsort": argsort}
