"""CSV files as people have them, row by row: a byte-order mark, CRLF, quotes and other columns make no difference."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from landmark_onnx.errors import TableError

LONGEST_FIELD = 1 << 28
"""Characters; a list of all images of a landmark is far over the csv module's own limit of 131,072."""


def read_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """(line number, values of `columns` in their order) of each row; names of columns may differ in case.

    Empty lines are passed over. Raises: TableError that names the file and the line or the missing columns.
    """
    csv.field_size_limit(LONGEST_FIELD)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            places = _places(next(reader, []), columns, path)
            for row in filter(None, reader):
                if len(row) <= max(places):
                    raise TableError(
                        f"{path}, line {reader.line_num}: wanted {max(places) + 1} or more fields, got {len(row)}"
                    )
                yield reader.line_num, [row[place].strip() for place in places]
    except csv.Error as error:
        raise TableError(f"{path}, line {reader.line_num}: {error}") from error
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
