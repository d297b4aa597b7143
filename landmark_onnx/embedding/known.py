"""Which rows that are there hold an image as it is now: looked up in a database on disk, so that memory stays flat."""

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from landmark_onnx.embedding.shards import Shard
from landmark_onnx.errors import FeatureError


class KnownRows:
    """The images of rows that went well: where each was (place), its stamp, and the SHA-256 of its bytes.

    Of several rows of one image the first counts.
    """

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        database.execute("PRAGMA journal_mode=OFF")
        database.execute("PRAGMA synchronous=OFF")
        database.execute("CREATE TABLE known (row INTEGER PRIMARY KEY, place TEXT, stamp TEXT, content BLOB)")
        database.execute("CREATE TABLE stamps (item INTEGER PRIMARY KEY, stamp TEXT)")

    def add(self, shard: Shard, first: int, base: str) -> None:
        """Take the rows of a file, numbered from `first` on. base: what its sources are relative to."""
        columns = zip(shard.sources, shard.errors, shard.contents, shard.stamps, strict=True)
        self._database.executemany(
            "INSERT INTO known VALUES (?, ?, ?, ?)",
            (
                (row, place_of(base, source), stamp, bytes.fromhex(content))
                for row, (source, error, content, stamp) in enumerate(columns, start=first)
                if error is None and content and stamp
            ),
        )

    def sort(self) -> None:
        """All are there: look-ups may begin."""
        for column in ("place", "content"):
            self._database.execute(f"CREATE INDEX IF NOT EXISTS by_{column} ON known ({column})")

    def count(self, end: int) -> int:
        """How many there are up to row `end`."""
        return int(self._database.execute("SELECT COUNT(*) FROM known WHERE row < ?", (end,)).fetchone()[0])

    def at(self, place: str) -> list[tuple[int, str]]:
        """The rows of a place, and their stamps."""
        return self._database.execute("SELECT row, stamp FROM known WHERE place = ? ORDER BY row", (place,)).fetchall()

    def of(self, content: str) -> int | None:
        """A row of the same bytes."""
        query = "SELECT MIN(row) FROM known WHERE content = ?"
        row = self._database.execute(query, (bytes.fromhex(content),)).fetchone()[0]
        return None if row is None else int(row)

    def note_stamp(self, item: int, stamp: str) -> None:
        """Remember the stamp of an image whose row has another, or that has none."""
        self._database.execute("INSERT OR REPLACE INTO stamps VALUES (?, ?)", (item, stamp))

    def stamps(self, start: int, end: int) -> dict[int, str]:
        """Those of the items from `start` up to `end`."""
        query = "SELECT item, stamp FROM stamps WHERE item >= ? AND item < ?"
        return dict(self._database.execute(query, (start, end)))


@contextlib.contextmanager
def known_rows(path: Path) -> Iterator[KnownRows]:
    """None yet, in a new file of that path, which is gone afterwards. Raises: FeatureError if the disk refuses."""
    path.unlink(missing_ok=True)
    try:
        with contextlib.closing(sqlite3.connect(path)) as database:
            yield KnownRows(database)
    except sqlite3.Error as error:
        raise FeatureError(f"{path}: {error}; put that right and run the same again") from error
    finally:
        path.unlink(missing_ok=True)


def place_of(base: str, source: str) -> str:
    """A source as it holds from anywhere."""
    return os.path.join(base, source)  # noqa: PTH118  # Path would tidy up the names of a tar's members too
