"""Write a model that is in memory: inside one file, or with its weights beside it where they are too many."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import onnx
from onnx import TensorProto
from onnx.external_data_helper import ExternalDataInfo, uses_external_data

from landmark_onnx_export.graphs.write import INLINE_LIMIT, Written, store_beside, write_graph

CHUNK = 16 << 20
"""Bytes that are copied at once."""

SMALL = 1024
"""Bytes of a tensor that stays in the graph's file whatever happens: shapes, scales, zero points."""


def save_model(model: onnx.ModelProto, path: Path) -> Written:
    """Write `path`, or `path` and NAME-HASH.onnx.data beside it if the weights are over `INLINE_LIMIT`.

    Weights that lie in other files of the same folder are copied from there. `model` is used up.
    """
    large = [tensor for tensor in model.graph.initializer if _size(tensor) >= SMALL]
    written = Written(path)
    if sum(map(_size, large)) > INLINE_LIMIT:
        writers = [_writer(tensor, path.parent) for tensor in large]
        for tensor in large:
            del tensor.external_data[:]
        written = store_beside(path, large, writers)
    else:
        onnx.load_external_data_for_model(model, str(path.parent))
    write_graph(model, path)
    return written


def _size(tensor: TensorProto) -> int:
    """Bytes of its data, where they are not in one of the fields by type."""
    return ExternalDataInfo(tensor).length or 0 if uses_external_data(tensor) else len(tensor.raw_data)


def _writer(tensor: TensorProto, folder: Path) -> Callable[[BinaryIO], None]:
    """What writes a tensor's data to a file."""
    if not uses_external_data(tensor):
        return functools.partial(_write_data, tensor)
    place = ExternalDataInfo(tensor)
    return functools.partial(_copy, folder / place.location, place.offset or 0, place.length or 0)


def _copy(source: Path, start: int, length: int, file: BinaryIO) -> None:
    with source.open("rb") as data:
        data.seek(start)
        while length > 0:
            chunk = data.read(min(length, CHUNK))
            file.write(chunk)
            length -= len(chunk)


def _write_data(tensor: TensorProto, file: BinaryIO) -> None:
    file.write(tensor.raw_data)
