"""CSV files as people have them, row by row: a byte-order mark, CRLF, quotes and other columns make no difference.

Fields may be as long as a landmark has images, which Python's csv module takes only where a limit of the whole process
is lifted; so rows are split here, by its rules: RFC 4180, and an error for what comes behind a closing quote.
"""

import codecs
import contextlib
import dataclasses
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

from landmark_onnx.errors import TableError

LONGEST_ROW = 1 << 26
"""Characters; a list of all images of a landmark has some hundred thousand."""

_QUOTED = re.compile(r'[^"]*(?:""[^"]*)*')


def read_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """(line number, values of `columns` in their order) of each row; names of columns may differ in case.

    Empty lines are passed over. Raises: TableError that names the file and the line, of a row with more or fewer fields
    than the header too, or the missing columns.
    """
    with _opened(path) as rows:
        header = next(rows, [])
        places = _places(header, columns, path)
        for row in rows:
            if len(row) != len(header):
                raise TableError(
                    f"{path}, line {rows.line}: wanted {len(header)} fields, as its first line has, got {len(row)}"
                )
            yield rows.line, [row[place].strip() for place in places]


def read_header(path: Path) -> list[str]:
    """The names of the columns. Raises: TableError that names the file."""
    with _opened(path) as rows:
        return [name.strip() for name in next(rows, [])]


@dataclasses.dataclass(slots=True)
class _Rows:
    """The rows of a file that are not empty. line: the last one of the row."""

    file: TextIO
    path: Path
    line: int = 0

    def __iter__(self) -> Iterator[list[str]]:
        return self

    def __next__(self) -> list[str]:
        while text := self._line(LONGEST_ROW):
            if bare := text.rstrip("\r\n"):
                return self._fields(text) if '"' in text else bare.split(",")
        raise StopIteration

    def _line(self, room: int) -> str:
        text = self.file.readline(room)
        self.line += 1
        if len(text) >= room:
            raise TableError(f"{self.path}, line {self.line}: a row of more than {LONGEST_ROW:,} characters")
        return text

    def _fields(self, text: str) -> list[str]:
        """A row with quotes, between which it may go on over lines."""
        fields = []
        at = 0
        while True:
            if text.startswith('"', at):
                text, end = self._closed(text, at + 1)
                fields.append(text[at + 1 : end].replace('""', '"'))
                end += 1
                if end < len(text) and text[end] not in ",\r\n":
                    raise TableError(f"{self.path}, line {self.line}: wanted a comma behind a closing quote")
            else:
                comma = text.find(",", at)
                end = comma if comma >= 0 else len(text)
                fields.append(text[at:end].rstrip("\r\n"))
            if not text.startswith(",", end):
                return fields
            at = end + 1

    def _closed(self, text: str, start: int) -> tuple[str, int]:
        """The row, with more lines if need be, and where the quote is that closes what begins at `start`."""
        while (end := _QUOTED.match(text, start).end()) == len(text):  # type: ignore[union-attr]  # it takes nothing too
            # Two quotes that stand for one are on one line: what is read already need not be looked at again.
            start = end
            more = self._line(LONGEST_ROW - len(text))
            if not more:
                raise TableError(f"{self.path}, line {self.line - 1}: a quote that opens and does not close")
            text += more
        return text, end


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[_Rows]:
    """The rows of a file. Raises: TableError for whatever goes wrong in it."""
    try:
        with path.open("rb") as file:
            marked = file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
        with path.open(encoding="utf-16" if marked else "utf-8-sig", newline="") as text:
            yield _Rows(text, path)
    except UnicodeError as error:
        raise TableError(f"{path}: not UTF-8 text, nor UTF-16 with a byte-order mark: {error}") from error
    except OSError as error:
        raise TableError(f"{path}: {error.strerror or error}") from error


def _places(header: Sequence[str], columns: Sequence[str], path: Path) -> list[int]:
    names = [name.strip().lower() for name in header]
    missing = [column for column in columns if column.lower() not in names]
    if missing:
        raise TableError(f"{path}: no column {', '.join(missing)}; its first line has: {shown_header(header)}")
    return [names.index(column.lower()) for column in columns]


def shown_header(header: Sequence[str]) -> str:
    """The names of the columns, or what stands in their place, as an error has them."""
    return ", ".join(name[:40] for name in header[:8]) or "no header"


def shown_name(name: str) -> str:
    """An id from a file, as an error has it."""
    return name if len(name) <= 80 else f"{name[:79]}…"
