"""Ground truth of the revisited Oxford and Paris: pickles, read without running anything that is in them.

A pickle is a program. The one here may build lists, dictionaries, texts and numbers, and arrays of numbers, which are
put together by this file and not by NumPy; whatever else it names is refused by name.
Source of the layout: filipradenovic/revisitop, python/dataset.py and example_evaluate.py.
"""

import dataclasses
import io
import math
import pickle
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from landmark_onnx.errors import TableError

MAX_BYTES = 64 << 20
"""The real files have 0.1 to 0.3 MB."""


@dataclasses.dataclass(frozen=True, slots=True)
class Query:
    """A query and its images of the database, by position. box: left, top, right, bottom in pixels, of the query."""

    name: str
    box: tuple[float, float, float, float]
    easy: frozenset[int]
    hard: frozenset[int]
    junk: frozenset[int]


@dataclasses.dataclass(frozen=True, slots=True)
class GroundTruth:
    """images: names of the database's images, in its order. queries: in the file's order."""

    images: tuple[str, ...]
    queries: tuple[Query, ...]


def read_ground_truth(path: Path) -> GroundTruth:
    """gnd_roxford5k.pkl or gnd_rparis6k.pkl. Raises: TableError for anything else, and runs nothing of it."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise TableError(f"{path}: {error.strerror or error}") from error
    if len(data) > MAX_BYTES:
        raise TableError(f"{path}: larger than {MAX_BYTES >> 20} MiB: no ground truth of revisited Oxford or Paris")
    try:
        found = _Reader(io.BytesIO(data), encoding="latin1").load()
    except _RefusedError as error:
        raise TableError(f"{path}: refused: {error}") from None
    except Exception as error:  # what a damaged pickle raises is anything
        raise TableError(f"{path}: no pickle that can be read: {type(error).__name__}: {error}") from error
    return _checked(found, path)


class _RefusedError(Exception):
    """The pickle names what no ground truth needs."""


class _Array:
    """An array on its way: what the pickle says of it."""

    values: npt.NDArray[Any]

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, fortran, data = state
        if not isinstance(kind, _Kind) or not isinstance(data, bytes) or fortran:
            raise _RefusedError("an array that is not of plain numbers")
        values = np.frombuffer(data, kind.resolved())
        if math.prod(shape) != values.size:
            raise _RefusedError(f"an array of {math.prod(shape):,} values with data for {values.size:,}")
        self.values = values


class _Kind:
    """A dtype on its way."""

    def __init__(self, code: Any, *_: Any) -> None:
        self.code = code
        self.order = "<"

    def __setstate__(self, state: Any) -> None:
        self.order = state[1]

    def resolved(self) -> np.dtype[Any]:
        if not isinstance(self.code, str) or self.code[:1] not in "iuf" or self.order not in ("<", ">", "|", "="):
            raise _RefusedError(f"an array of {self.code!r}")
        return np.dtype(self.code if self.order == "|" else self.order + self.code)


def _start_array(*_: Any) -> _Array:
    return _Array()


def _scalar(kind: Any, data: Any) -> Any:
    if not isinstance(kind, _Kind) or not isinstance(data, bytes):
        raise _RefusedError("a number that is none")
    return np.frombuffer(data, kind.resolved())[0].item()


def _encode(text: Any, encoding: Any) -> bytes:
    if encoding != "latin1" or not isinstance(text, str):
        raise _RefusedError(f"text as {encoding!r}")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    """How old protocols write the data of an empty array."""
    return b""


_ALLOWED: Mapping[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Kind,
    ("_codecs", "encode"): _encode,
    ("__builtin__", "bytes"): _no_bytes,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _start_array for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _scalar for core in ("core", "_core")},
}


class _Reader(pickle._Unpickler):
    # The one in Python: that in C takes as much memory as a number in the file says.

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise _RefusedError(f"it names {module}.{name}, which a ground truth has no use for")
        return _ALLOWED[module, name]

    def persistent_load(self, pid: Any) -> Any:
        raise _RefusedError("it asks for objects from outside")


def _checked(found: Any, path: Path) -> GroundTruth:
    def refuse(what: str) -> TableError:
        return TableError(f"{path}: {what}; wanted a dictionary of imlist, qimlist and gnd, as the toolbox has")

    if not isinstance(found, dict) or not {"imlist", "qimlist", "gnd"} <= found.keys():
        raise refuse("not a ground truth of revisited Oxford or Paris")
    images, names, rows = found["imlist"], found["qimlist"], found["gnd"]
    for key, values, kind in (("imlist", images, str), ("qimlist", names, str), ("gnd", rows, dict)):
        if not isinstance(values, list | tuple) or not all(isinstance(value, kind) for value in values):
            raise refuse(f"{key} is not a list of {kind.__name__}")
        if key != "gnd" and len(set(values)) != len(values):
            raise refuse(f"{key} has a name twice")
    if len(names) != len(rows) or not names:
        raise refuse(f"{len(names):,} queries, but {len(rows):,} rows of ground truth")
    try:
        queries = tuple(_query(name, row, len(images)) for name, row in zip(names, rows, strict=True))
    except ValueError as error:
        raise refuse(str(error)) from error
    return GroundTruth(tuple(images), queries)


def _query(name: str, row: Mapping[str, Any], size: int) -> Query:
    """Raises: ValueError."""
    sets = {key: frozenset(_numbers(row, key, name, int)) for key in ("easy", "hard", "junk")}
    for key, positions in sets.items():
        if any(not 0 <= position < size for position in positions):
            raise ValueError(f"query {name}: {key} has a position that is not among the {size:,} images")
    box = _numbers(row, "bbx", name, float)
    if len(box) != 4:
        raise ValueError(f"query {name}: bbx has {len(box)} values, not 4")
    return Query(name, (box[0], box[1], box[2], box[3]), **sets)


def _numbers(row: Mapping[str, Any], key: str, name: str, kind: type) -> Sequence[Any]:
    values = row.get(key)
    values = values.values.tolist() if isinstance(values, _Array) and hasattr(values, "values") else values
    accepted = (int,) if kind is int else (int, float)
    if not isinstance(values, list | tuple) or not all(type(value) in accepted for value in values):
        raise ValueError(f"query {name}: {key} is not a list of numbers")
    return [kind(value) for value in values]
