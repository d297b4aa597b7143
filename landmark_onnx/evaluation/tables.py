"""CSV files as people have them, row by row: a byte-order mark, CRLF, quotes and other columns make no difference."""

import contextlib
import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from landmark_onnx.errors import TableError

if TYPE_CHECKING:
    from _csv import Reader

LONGEST_FIELD = 1 << 28
"""Characters; a list of all images of a landmark is far over the csv module's own limit of 131,072."""


def read_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """(line number, values of `columns` in their order) of each row; names of columns may differ in case.

    Empty lines are passed over. Raises: TableError that names the file and the line or the missing columns.
    """
    with _opened(path) as reader:
        places = _places(next(reader, []), columns, path)
        for row in filter(None, reader):
            if len(row) <= max(places):
                raise TableError(
                    f"{path}, line {reader.line_num}: wanted {max(places) + 1} or more fields, got {len(row)}"
                )
            yield reader.line_num, [row[place].strip() for place in places]


def read_header(path: Path) -> list[str]:
    """The names of the columns. Raises: TableError that names the file."""
    with _opened(path) as reader:
        return [name.strip() for name in next(reader, [])]


@contextlib.contextmanager
def _opened(path: Path) -> Iterator["Reader"]:
    """The rows of a file. Raises: TableError for whatever goes wrong in it."""
    csv.field_size_limit(LONGEST_FIELD)
    line = 0
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            try:
                yield reader
            finally:
                line = reader.line_num
    except csv.Error as error:
        raise TableError(f"{path}, line {line}: {error}") from error
    except UnicodeDecodeError as error:
        raise TableError(f"{path}: not UTF-8 text: {error.reason} at byte {error.start:,}") from error
    except OSError as error:
        raise TableError(f"{path}: {error.strerror or error}") from error


def _places(header: Sequence[str], columns: Sequence[str], path: Path) -> list[int]:
    names = [name.strip().lower() for name in header]
    missing = [column for column in columns if column.lower() not in names]
    if missing:
        shown = ", ".join(name[:40] for name in header[:8]) or "no header"
        raise TableError(f"{path}: no column {', '.join(missing)}; its first line has: {shown}")
    return [names.index(column.lower()) for column in columns]
