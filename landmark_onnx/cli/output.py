"""Answers as a table, JSON, NDJSON or CSV: written one by one, so that memory does not grow with their number."""

import contextlib
import csv
import dataclasses
import io
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, Protocol, TextIO, TypeAlias

from landmark_onnx.cli.options import Format, Output
from landmark_onnx.errors import shown

if TYPE_CHECKING:
    from rich.table import Table

Record: TypeAlias = Mapping[str, Any]
"""One answer as JSON-ready data; with a key "error" if there is none."""


@dataclasses.dataclass(frozen=True, slots=True)
class Column:
    """key: of the row. In a table, format: of a number, as for `format()`; once: shown in a record's first row only."""

    key: str
    format: str = ""
    once: bool = False


TIMES = tuple(Column(f"{stage}_ms", ".1f", once=True) for stage in ("decode", "preprocess", "inference", "postprocess"))


@dataclasses.dataclass(frozen=True, slots=True)
class View:
    """A record as rows of values, for tables and CSV. rows: record without error -> its rows."""

    columns: tuple[Column, ...]
    rows: Callable[[Record], list[Record]]

    def timed(self) -> "View":
        """The same with the times of each stage."""
        return View(
            columns=self.columns + TIMES,
            rows=lambda record: [{**row, **record.get("time", {})} for row in self.rows(record)],
        )


class Sink(Protocol):
    """Takes records one by one. `close` completes what was written; it is not called after an error."""

    def write(self, record: Record) -> None:
        """Write one record, so that a reader sees it soon."""

    def pause(self) -> None:
        """Let a reader see now all that was written: the next record may be long in coming."""

    def close(self) -> None:
        """Write what belongs at the end."""


@contextlib.contextmanager
def open_sink(output: Output, view: View) -> Iterator[Sink]:
    """A sink on standard output, or on a file that appears when the block ends well."""
    from landmark_onnx.files.atomic import streaming_write

    with contextlib.ExitStack() as stack:
        binary = stack.enter_context(streaming_write(output.output)) if output.output else sys.stdout.buffer
        # Names of files may hold bytes that are no text: they come out as they went in.
        stream = io.TextIOWrapper(binary, "utf-8", errors="surrogateescape", newline="")
        try:
            sink = SINKS[output.chosen_format(terminal=stream.isatty())](stream, view)
            yield sink
            sink.close()
        finally:
            stream.detach()


class JsonSink:
    """An array, one record a line."""

    def __init__(self, stream: TextIO, view: View) -> None:
        """Write to `stream`; JSON needs no `view`."""
        self._stream = stream
        self._start = "["

    def write(self, record: Record) -> None:
        """Write one element."""
        self._stream.write(f"{self._start}\n{json.dumps(record)}")
        self._stream.flush()
        self._start = ","

    def pause(self) -> None:
        """All is written."""

    def close(self) -> None:
        """End the array."""
        self._stream.write("[]\n" if self._start == "[" else "\n]\n")
        self._stream.flush()


class NdjsonSink:
    """One JSON object a line."""

    def __init__(self, stream: TextIO, view: View) -> None:
        """Write to `stream`; JSON needs no `view`."""
        self._stream = stream

    def write(self, record: Record) -> None:
        """Write one line."""
        self._stream.write(json.dumps(record) + "\n")
        self._stream.flush()

    def pause(self) -> None:
        """All is written."""

    def close(self) -> None:
        """Nothing belongs at the end."""


class CsvSink:
    """A header, then one line for each row of the view; a record that failed has its reason in column "error"."""

    def __init__(self, stream: TextIO, view: View) -> None:
        """Write to `stream`, beginning with the header."""
        self._stream = stream
        self._view = view
        columns = [*(column.key for column in view.columns), "error"]
        self._writer = csv.DictWriter(stream, columns, extrasaction="ignore", lineterminator="\n")
        self._writer.writeheader()

    def write(self, record: Record) -> None:
        """Write a record's rows."""
        self._writer.writerows([record] if "error" in record else self._view.rows(record))
        self._stream.flush()

    def pause(self) -> None:
        """Send the header on its way if nothing followed it."""
        self._stream.flush()

    def close(self) -> None:
        """Send the header on its way if nothing followed it."""
        self._stream.flush()


class TableSink:
    """Columns for people. Failures are left to standard error, which they read too.

    Rows wait until a second has passed or there are enough of them, so that the first ones set widths that fit; a
    later row that is wider widens its column from there on.
    """

    ENOUGH = 200
    SECONDS = 1.0
    GAP = 2
    NARROWEST, WIDEST = 12, 10_000

    def __init__(self, stream: TextIO, view: View) -> None:
        """Write to `stream`, folded to its width if it is a terminal."""
        from rich.console import Console

        self._stream = stream
        # A file has room for all; and where a terminal is too narrow even for the numbers, it wraps lines itself.
        self._console = Console(file=stream, width=self.WIDEST)
        self._room = Console(file=stream).width if stream.isatty() else self.WIDEST
        self._columns = view.columns
        self._rows = view.rows
        self._widths = [0] * len(view.columns)
        self._waiting: list[list[str]] = []
        self._since = time.monotonic()

    def write(self, record: Record) -> None:
        """Take a record's rows, and print what has waited long enough."""
        if "error" in record:
            return
        # A record without rows, such as an image without a box, is an answer too.
        rows = self._rows(record) or [{**record, **record.get("time", {})}]
        for number, row in enumerate(rows):
            blank = [number > 0 and column.once for column in self._columns]
            cells = [_cell(row.get(column.key), column.format) for column in self._columns]
            self._waiting.append(["" if hide else cell for hide, cell in zip(blank, cells, strict=True)])
        if len(self._waiting) >= self.ENOUGH or time.monotonic() - self._since > self.SECONDS:
            self._print()

    def pause(self) -> None:
        """Print what still waits."""
        if self._waiting:
            self._print()

    def close(self) -> None:
        """Print what still waits."""
        self.pause()

    def _print(self) -> None:
        from rich.text import Text

        table = self._table(header=not any(self._widths))
        for cells in self._waiting:
            table.add_row(*map(Text, cells))
        with self._console.capture() as printed:
            self._console.print(table)
        for line in printed.get().splitlines():
            self._stream.write(line.rstrip() + "\n")
        self._stream.flush()
        self._waiting.clear()
        self._since = time.monotonic()

    def _table(self, *, header: bool) -> "Table":
        from rich.cells import cell_len
        from rich.table import Table

        table = Table(box=None, show_header=header, pad_edge=False, padding=(0, self.GAP, 0, 0))
        for at, column in enumerate(self._columns):
            lengths = [cell_len(cells[at]) for cells in self._waiting]
            self._widths[at] = max(self._widths[at], len(column.key), *lengths)
        for column, width in zip(self._columns, self._fitting(), strict=True):
            justify: Literal["left", "right"] = "right" if column.format else "left"
            table.add_column(column.key, justify=justify, overflow="fold", width=width)
        return table

    def _fitting(self) -> list[int]:
        """The widths, with the widest texts narrowed until a row fits the terminal."""
        widths = list(self._widths)
        texts = [at for at, column in enumerate(self._columns) if not column.format]
        excess = sum(widths) + self.GAP * (len(widths) - 1) - self._room
        while excess > 0 and max(widths[at] for at in texts) > self.NARROWEST:
            widths[max(texts, key=widths.__getitem__)] -= 1
            excess -= 1
        return list(self._widths) if excess > 0 else widths


def _cell(value: object, form: str) -> str:
    if value is None:
        return "-"
    return format(value, form) if form else shown(str(value))


SINKS: Mapping[Format, Callable[[TextIO, View], Sink]] = {
    Format.TABLE: TableSink,
    Format.JSON: JsonSink,
    Format.NDJSON: NdjsonSink,
    Format.CSV: CsvSink,
}
