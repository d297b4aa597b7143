"""What has arrived of a download, kept so that the next attempt, or the next run, goes on from there."""

import contextlib
import dataclasses
import json
import os
from pathlib import Path
from typing import Self

from landmark_onnx.files.atomic import atomic_write
from landmark_onnx.files.documents import read_json
from landmark_onnx.files.hashing import digest
from landmark_onnx.files.structure import Count, DocumentError, structure


@dataclasses.dataclass(frozen=True, slots=True)
class Fetched:
    """A file that has arrived. path: where it is. url: where it came from, without a password."""

    path: Path
    url: str
    sha256: str
    size: int

    @classmethod
    def of(cls, path: Path, url: str) -> Self:
        """Hash what is there."""
        found = digest(path)
        return cls(path, url, found.sha256, found.size)


@dataclasses.dataclass(frozen=True, slots=True)
class _Record:
    """Of what file a part is. validator: its version on the server. total: its size, if known."""

    url: str
    validator: str
    total: Count | None


class Part:
    """What has arrived of a file so far. url: its address, without a password."""

    def __init__(self, path: Path, url: str) -> None:
        self.url = url
        self.path = path.with_name(f"{path.name}.part")
        self._record = path.with_name(f"{path.name}.part.json")
        self.validator = ""
        self.total: int | None = None
        with contextlib.suppress(OSError, DocumentError):
            record = structure(_Record, read_json(self._record))
            if record.url == url and record.validator:
                self.total, self.validator = record.total, record.validator

    @property
    def size(self) -> int:
        """Bytes that are of use: without a validator, nobody knows what the others belong to."""
        return self.path.stat().st_size if self.validator and self.path.is_file() else 0

    @property
    def complete(self) -> bool:
        """Whether all of it has arrived."""
        return self.total is not None and self.size == self.total

    def begin(self, validator: str, total: int | None) -> None:
        """Start with nothing."""
        self.discard()
        with atomic_write(self._record) as file:
            file.write(json.dumps(dataclasses.asdict(_Record(self.url, validator, total))).encode())
        self.validator, self.total = validator, total

    def discard(self) -> None:
        """Forget what has arrived."""
        self.path.unlink(missing_ok=True)
        self._record.unlink(missing_ok=True)
        self.validator, self.total = "", None

    def finish(self) -> Fetched:
        """Put it on the disk for good, and hash what is there."""
        with self.path.open("r+b") as file:
            os.fsync(file.fileno())
        return Fetched.of(self.path, self.url)
