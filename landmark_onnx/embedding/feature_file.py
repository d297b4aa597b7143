"""Embeddings of many images in one file: names and an (N, D) float32 matrix, written whole or not at all.

.npz: arrays `names` (N,) and `features` (N, D). .npy: the matrix, and the names as a JSON array in FILE.names.json.
.parquet: columns `name` and `feature`. Vectors wait on disk, beside the file to be, so memory stays flat.
"""

import contextlib
import functools
import json
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

import numpy as np

from landmark_onnx.errors import ImageError
from landmark_onnx.extras import extra
from landmark_onnx.files.atomic import atomic_write, destination
from landmark_onnx.types import Float32

ROWS_PER_GROUP = 1024


class AddVector(Protocol):
    """Take one more image's (D,) vector; D is the same for all."""

    def __call__(self, name: str, vector: Float32) -> None:
        """AddVector a row."""


def feature_file(path: Path) -> AbstractContextManager[AddVector]:
    """A context that takes rows and writes them to `path` when it ends well, in the form of its suffix.

    Raises: ImageError for another suffix, and at the end if there was no row; MissingExtraError without pyarrow.
    """
    try:
        return FORMATS[path.suffix.lower()](path)
    except KeyError:
        raise ImageError(f"{path}: wanted a name that ends with {', '.join(FORMATS)}") from None


class _Spool:
    """Rows on their way to a file whose header has to know their number."""

    def __init__(self, rows: BinaryIO, names: BinaryIO) -> None:
        self._rows = rows
        self._names = names
        self._count = self._width = self._longest = 0

    def __call__(self, name: str, vector: Float32) -> None:
        self._rows.write(vector.astype("<f4").tobytes())
        self._names.write(json.dumps(name).encode() + b"\n")
        self._count += 1
        self._width = vector.size
        self._longest = max(self._longest, len(name))

    def write_matrix(self, file: BinaryIO) -> None:
        """The vectors as an .npy file."""
        _write_header(file, "<f4", (self._count, self._width))
        self._rows.seek(0)
        shutil.copyfileobj(self._rows, file)

    def write_names(self, file: BinaryIO) -> None:
        """The names as an .npy file of text."""
        kind = np.dtype(f"<U{self._longest}")
        _write_header(file, kind.str, (self._count,))
        for line in self._name_lines():
            file.write(np.array([json.loads(line)], kind).tobytes())

    def write_names_json(self, file: BinaryIO) -> None:
        """The names as a JSON array."""
        for number, line in enumerate(self._name_lines()):
            file.write((b",\n" if number else b"[\n") + line.rstrip())
        file.write(b"\n]\n")

    def is_empty(self) -> bool:
        """Whether no row came."""
        return not self._count

    def _name_lines(self) -> Iterator[bytes]:
        self._names.seek(0)
        return iter(self._names)


def _write_header(file: BinaryIO, kind: str, shape: tuple[int, ...]) -> None:
    np.lib.format.write_array_header_1_0(file, {"descr": kind, "fortran_order": False, "shape": shape})


def _write_npz(path: Path, spool: _Spool) -> None:
    with atomic_write(path) as file, zipfile.ZipFile(file, "w") as archive:
        for name, write in (("names.npy", spool.write_names), ("features.npy", spool.write_matrix)):
            # An entry made like this has no time of its own: the same images give the same bytes.
            with archive.open(zipfile.ZipInfo(name), "w", force_zip64=True) as entry:
                write(cast(BinaryIO, entry))


def _write_npy(path: Path, spool: _Spool) -> None:
    with atomic_write(path) as file, atomic_write(path.with_name(path.name + ".names.json")) as names:
        spool.write_matrix(file)
        spool.write_names_json(names)


@contextlib.contextmanager
def _spooled(path: Path, write: Callable[[Path, _Spool], None]) -> Iterator[AddVector]:
    """Gather rows on disk, then let `write` make the file of them."""
    place = destination(path)
    folder = place.parent if place else None
    with tempfile.TemporaryFile(dir=folder) as rows, tempfile.TemporaryFile(dir=folder) as names:
        spool = _Spool(rows, names)
        yield spool
        if spool.is_empty():
            raise _no_rows(path)
        write(path, spool)


@contextlib.contextmanager
def _parquet(path: Path) -> Iterator[AddVector]:
    """Write each full row group as it comes: Parquet has its sizes at the end."""
    with extra("parquet", what="pyarrow"):
        import pyarrow as pa
        import pyarrow.parquet as pq
    group: list[tuple[str, Float32]] = []
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(atomic_write(path))
        writer: Any = None

        def flush() -> None:
            nonlocal writer
            width = group[0][1].size
            # Parquet holds Unicode alone, and a file's name may be other bytes.
            names = pa.array([name.encode("utf-8", "backslashreplace").decode() for name, _ in group])
            values = pa.array(np.concatenate([vector for _, vector in group]), pa.float32())
            vectors = pa.FixedSizeListArray.from_arrays(values, width)
            table = pa.Table.from_arrays([names, vectors], names=["name", "feature"])
            if writer is None:
                writer = stack.enter_context(pq.ParquetWriter(file, table.schema))
            writer.write_table(table)
            group.clear()

        def add(name: str, vector: Float32) -> None:
            group.append((name, vector))
            if len(group) == ROWS_PER_GROUP:
                flush()

        yield add
        if group:
            flush()
        if writer is None:
            raise _no_rows(path)


def _no_rows(path: Path) -> ImageError:
    return ImageError(f"{path}: not written: no image has an embedding")


FORMATS: Mapping[str, Callable[[Path], AbstractContextManager[AddVector]]] = {
    ".npz": functools.partial(_spooled, write=_write_npz),
    ".npy": functools.partial(_spooled, write=_write_npy),
    ".parquet": _parquet,
}
