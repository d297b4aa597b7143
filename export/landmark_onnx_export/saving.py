"""Write a model that is in memory: inside one file, or with its weights beside it where they are too many."""

import hashlib
from pathlib import Path

import onnx
from onnx import TensorProto

from landmark_onnx.files import sync
from landmark_onnx_export.weights import ALIGNMENT, INLINE_LIMIT, Written

SMALL = 1024
"""Bytes of a tensor that stays in the graph's file whatever happens: shapes, scales, zero points."""


def save_model(model: onnx.ModelProto, path: Path) -> Written:
    """Write `path`, or `path` and NAME-HASH.onnx.data beside it if the weights are over `INLINE_LIMIT`.

    `model` is used up.
    """
    large = [tensor for tensor in model.graph.initializer if len(tensor.raw_data) >= SMALL]
    if sum(len(tensor.raw_data) for tensor in large) <= INLINE_LIMIT:
        _write(model, path)
        return Written(path)
    unnamed = path.with_name(path.name + ".data")
    digest = hashlib.sha256()
    offsets = []
    with unnamed.open("wb") as file:
        for tensor in large:
            padding = bytes(-file.tell() % ALIGNMENT)
            offsets.append(file.tell() + len(padding))
            for part in (padding, tensor.raw_data):
                file.write(part)
                digest.update(part)
        sync(file)
    sha256 = digest.hexdigest()
    data = unnamed.rename(path.with_name(f"{path.stem}-{sha256[:12]}.onnx.data"))
    for tensor, offset in zip(large, offsets, strict=True):
        size = len(tensor.raw_data)
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in {"location": data.name, "offset": offset, "length": size}.items():
            tensor.external_data.add(key=key, value=str(value))
    _write(model, path)
    return Written(path, data, sha256)


def _write(model: onnx.ModelProto, path: Path) -> None:
    with path.open("wb") as file:
        file.write(model.SerializeToString(deterministic=True))
        sync(file)
