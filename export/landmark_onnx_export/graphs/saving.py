"""Write a model that is in memory: inside one file, or with its weights beside it where they are too many."""

import functools
from pathlib import Path
from typing import BinaryIO

import onnx
from onnx import TensorProto

from landmark_onnx_export.graphs.write import INLINE_LIMIT, Written, store_beside, write_graph

SMALL = 1024
"""Bytes of a tensor that stays in the graph's file whatever happens: shapes, scales, zero points."""


def save_model(model: onnx.ModelProto, path: Path) -> Written:
    """Write `path`, or `path` and NAME-HASH.onnx.data beside it if the weights are over `INLINE_LIMIT`.

    `model` is used up.
    """
    large = [tensor for tensor in model.graph.initializer if len(tensor.raw_data) >= SMALL]
    written = Written(path)
    if sum(len(tensor.raw_data) for tensor in large) > INLINE_LIMIT:
        written = store_beside(path, large, [functools.partial(_write_data, tensor) for tensor in large])
    write_graph(model, path)
    return written


def _write_data(tensor: TensorProto, file: BinaryIO) -> None:
    file.write(tensor.raw_data)
