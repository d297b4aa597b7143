"""Ground truth of the revisited Oxford and Paris: pickles of lists, dictionaries, texts, numbers and arrays of these.

Source of the layout: filipradenovic/revisitop, python/dataset.py and example_evaluate.py.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from landmark_onnx.errors import TableError
from landmark_onnx.files.documents import read_bytes
from landmark_onnx.files.pickles import NUMPY, PickledArray, RefusedPickleError, load_pickle
from landmark_onnx.files.structure import DocumentError

MAX_BYTES = 16 << 20
"""The real files have 0.1 to 0.3 MB."""
LARGE = 2**53
MAX_POSITIONS = 5_000_000
"""Of all queries together; the real files have some 30,000. A pickle may have one list in many places."""


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
        data = read_bytes(path, MAX_BYTES, pipes=True)
    except OSError as error:
        raise TableError(f"{path}: {error.strerror or error}") from error
    except DocumentError as error:
        raise TableError(f"{path}: {error}: no ground truth of revisited Oxford or Paris") from error
    try:
        found = load_pickle(data, NUMPY)
    except RefusedPickleError as error:
        raise TableError(f"{path}: refused: {error}") from error
    return _checked(found, path)


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
        queries = tuple(_queries(names, rows, len(images)))
    except ValueError as error:
        raise refuse(str(error)) from error
    return GroundTruth(tuple(images), queries)


def _queries(names: Sequence[str], rows: Sequence[Mapping[str, Any]], size: int) -> Iterator[Query]:
    """Raises: ValueError."""
    positions = 0
    for name, row in zip(names, rows, strict=True):
        query = _query(name, row, size)
        positions += len(query.easy) + len(query.hard) + len(query.junk)
        if positions > MAX_POSITIONS:
            raise ValueError(f"more than {MAX_POSITIONS:,} positions")
        yield query


def _query(name: str, row: Mapping[str, Any], size: int) -> Query:
    """Raises: ValueError."""
    lists = {key: _numbers(row, key, name, (int,)) for key in ("easy", "hard", "junk")}
    for key, positions in lists.items():
        if any(not 0 <= position < size for position in positions):
            raise ValueError(f"query {name}: {key} has a position that is not among the {size:,} images")
    box = _numbers(row, "bbx", name, (int, float))
    if len(box) != 4:
        raise ValueError(f"query {name}: bbx has {len(box)} values, not 4")
    left, top, right, bottom = map(float, box)
    return Query(name, (left, top, right, bottom), **{key: frozenset(each) for key, each in lists.items()})


def _numbers(row: Mapping[str, Any], key: str, name: str, accepted: tuple[type, ...]) -> Sequence[Any]:
    values = row.get(key)
    if isinstance(values, PickledArray):
        values = values.values
        values = values.tolist() if values.ndim == 1 and values.size <= MAX_POSITIONS else None
    if not isinstance(values, list | tuple) or not all(
        type(value) in accepted and abs(value) < LARGE for value in values
    ):
        raise ValueError(f"query {name}: {key} is not a list of numbers")
    return values
