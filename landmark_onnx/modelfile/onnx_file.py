"""An ONNX file without the onnx package: whether it is one, and where its weights are if they lie in another file.

Source of the field numbers: onnx.proto3.
"""

import contextlib
import mmap
from collections.abc import Iterator, Mapping
from pathlib import Path

from landmark_onnx.errors import ModelFileError
from landmark_onnx.modelfile.metadata import read_seal
from landmark_onnx.modelfile.protobuf import LENGTH_DELIMITED, Bytes, field, fields

_GRAPH = 7
"""Of a ModelProto."""

_MESSAGES: Mapping[str, Mapping[int, str]] = {
    "model": {_GRAPH: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "external"},
    "external": {},
}
"""Message -> the numbers of those fields that lead to a tensor's `external_data`, and what message each is."""


def is_onnx(path: Path) -> bool:
    """Whether a file is a protobuf message with the graph of an ONNX model, by the heads of its outer fields."""
    with contextlib.suppress(ValueError), _mapped(path) as (data, end):
        return any((each.number, each.wire) == (_GRAPH, LENGTH_DELIMITED) for each in list(fields(data, 0, end)))
    return False


def weights_beside(path: Path) -> Path | None:
    """The file in which an ONNX model of others keeps its weights, there or not; None if they are inside.

    Raises: ModelFileError if they are in several files, or elsewhere than in the same folder.
    """
    try:
        with _mapped(path) as (data, end):
            names = set(_locations(data, 0, end, "model"))
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{path}: no ONNX model: {error}") from error
    if not names:
        return None
    name = names.pop()
    if names or Path(name).name != name or name in (".", ".."):
        found = ", ".join(sorted({name, *names})[:3])
        raise ModelFileError(f"{path}: wanted its weights inside it or in one file beside it, got {found}")
    return path.with_name(name)


def relocated(path: Path, name: str) -> bytes:
    """The model of a file without what we appended, with its weights in a file called `name`."""
    with _mapped(path) as (data, end):
        return _relocated(data, 0, end, "model", name.encode())


@contextlib.contextmanager
def _mapped(path: Path) -> Iterator[tuple[Bytes, int]]:
    """The bytes of a file, read as they are looked at, and how many are the model. Raises: ValueError if empty."""
    seal = read_seal(path)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        yield data, seal.offset if seal else len(data)


def _locations(data: Bytes, start: int, end: int, message: str) -> Iterator[str]:
    if message == "external":
        key, value = _entry(data, start, end)
        if key == b"location":
            yield value.decode()
    for each in fields(data, start, end):
        if each.wire == LENGTH_DELIMITED and (inner := _MESSAGES[message].get(each.number)):
            yield from _locations(data, each.start, each.end, inner)


def _relocated(data: Bytes, start: int, end: int, message: str, name: bytes) -> bytes:
    if message == "external":
        key, value = _entry(data, start, end)
        return field(1, key) + field(2, name if key == b"location" else value)
    parts = []
    for each in fields(data, start, end):
        inner = _MESSAGES[message].get(each.number) if each.wire == LENGTH_DELIMITED else None
        if inner:
            parts.append(field(each.number, _relocated(data, each.start, each.end, inner, name)))
        else:
            parts.append(data[each.begin : each.end])
    return b"".join(parts)


def _entry(data: Bytes, start: int, end: int) -> tuple[bytes, bytes]:
    """A StringStringEntryProto: key (1), value (2)."""
    found = {each.number: data[each.start : each.end] for each in fields(data, start, end)}
    return found.get(1, b""), found.get(2, b"")
