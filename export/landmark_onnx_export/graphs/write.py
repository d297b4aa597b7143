"""Write an ONNX file around weights that stream from the release: none of them is ever in memory whole."""

import dataclasses
import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import onnx
from onnx import TensorProto, helper

from landmark_onnx.errors import ExportError
from landmark_onnx.files.atomic import publish, sync
from landmark_onnx.modelfile import protobuf
from landmark_onnx.modelfile.metadata import append_metadata
from landmark_onnx_export.graphs.io import check, weight_names
from landmark_onnx_export.paddle.variables import Variable

INLINE_LIMIT = 1 << 30
"""Bytes of weights beyond which they go to a file beside the model.

A protobuf message ends at 2 GiB, and ONNX Runtime holds two copies of what is inside while it loads.
"""

ALIGNMENT = 4096
"""Of each weight in that file, so that it can be memory-mapped."""

MODEL_GRAPH, GRAPH_INITIALIZER, TENSOR_RAW_DATA = 7, 5, 9
"""Field numbers of onnx.proto: ModelProto.graph, GraphProto.initializer, TensorProto.raw_data."""


@dataclasses.dataclass(frozen=True, slots=True)
class Written:
    """The files of a model. data: the weights beside it, with their digest, or None if they are inside."""

    model: Path
    data: Path | None = None
    data_sha256: str = ""


def weight_size(variables: Mapping[str, Variable], name: str) -> int:
    """Bytes of a weight. Raises: ExportError if the source does not have it."""
    if name not in variables:
        raise ExportError(f"the graph wants the weight {name}, which the source does not have")
    return variables[name].nbytes


def write_model(
    model: onnx.ModelProto, variables: Mapping[str, Variable], path: Path, *, held: Collection[str] = ()
) -> Written:
    """Turn the weights among the graph's inputs into initializers, but for those `held` back, and write `path`.

    Raises: ExportError if a weight is missing or the graph is not valid ONNX.
    """
    names = [name for name in weight_names(model.graph) if name not in held]
    size = sum(weight_size(variables, name) for name in names)
    weights = [variables[name] for name in names]
    check(model, "the converted graph")
    inputs = [value for value in model.graph.input if value.name not in names]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    if size > INLINE_LIMIT:
        tensors = [_tensor(weight) for weight in weights]
        written = store_beside(path, tensors, [weight.copy_data for weight in weights])
        model.graph.initializer.extend(tensors)
        write_graph(model, path)
        return written
    _write_inline(model, weights, path)
    return Written(path)


def _write_inline(model: onnx.ModelProto, weights: Sequence[Variable], path: Path) -> None:
    """The model with its weights inside: the same bytes in the same fields as protobuf itself would write."""
    graph = model.graph.SerializeToString(deterministic=True)
    heads = [_tensor(weight).SerializeToString() for weight in weights]
    heads = [head + protobuf.head(TENSOR_RAW_DATA, weight.nbytes) for head, weight in zip(heads, weights, strict=True)]
    sizes = [len(head) + weight.nbytes for head, weight in zip(heads, weights, strict=True)]
    framed = sum(len(protobuf.head(GRAPH_INITIALIZER, size)) + size for size in sizes)
    model.ClearField("graph")
    with path.open("wb") as file:
        file.write(model.SerializeToString(deterministic=True))
        file.write(protobuf.head(MODEL_GRAPH, len(graph) + framed) + graph)
        for head, size, weight in zip(heads, sizes, weights, strict=True):
            file.write(protobuf.head(GRAPH_INITIALIZER, size) + head)
            weight.copy_data(file)
        sync(file)


def store_beside(path: Path, tensors: Sequence[TensorProto], writers: Sequence[Callable[[BinaryIO], Any]]) -> Written:
    """Have each tensor's data written to one file beside the model `path`, and the tensors say where they lie.

    The file has its digest in its name, so an old model keeps its own weights until the new one is in place.
    """
    spans = []
    unnamed = path.with_name(path.name + ".data")
    with unnamed.open("wb") as file:
        for write in writers:
            start = _align(file)
            write(file)
            spans.append((start, file.tell() - start))
        sync(file)
    with unnamed.open("rb") as written:
        digest = hashlib.file_digest(written, "sha256").hexdigest()
    data = unnamed.rename(path.with_name(f"{path.stem}-{digest[:12]}.onnx.data"))
    for tensor, (offset, size) in zip(tensors, spans, strict=True):
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in {"location": data.name, "offset": offset, "length": size}.items():
            tensor.external_data.add(key=key, value=str(value))
    return Written(path, data, digest)


def write_graph(model: onnx.ModelProto, path: Path) -> None:
    """Write the message as it is; the same model gives the same bytes."""
    with path.open("wb") as file:
        file.write(model.SerializeToString(deterministic=True))
        sync(file)


def _align(file: BinaryIO) -> int:
    offset = -(-file.tell() // ALIGNMENT) * ALIGNMENT
    file.write(bytes(offset - file.tell()))
    return offset


def _tensor(variable: Variable) -> TensorProto:
    """The weight without its data; ONNX and Paddle both store little endian in C order."""
    kind = helper.np_dtype_to_tensor_dtype(variable.dtype)
    return TensorProto(name=variable.name, data_type=kind, dims=variable.shape)


def publish_model(written: Written, output: Path, metadata: Mapping[str, Any]) -> int:
    """Seal the files with what they say of themselves and move them to `output`; bytes of graph and weights.

    The weights come first: until the model itself is there, the old one stays whole.
    """
    size = written.model.stat().st_size
    if written.data:
        size += written.data.stat().st_size
        metadata = {**metadata, "data": {"file": written.data.name, "sha256": written.data_sha256}}
    with written.model.open("r+b") as file:
        append_metadata(file, metadata)
        sync(file)
    if written.data:
        publish(written.data, output.with_name(written.data.name))
    publish(written.model, output)
    return size
