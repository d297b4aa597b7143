"""What has arrived of a download, kept so that the next attempt, or the next run, goes on from there."""

import contextlib
import dataclasses
import hashlib
import json
import os
from pathlib import Path

from landmark_onnx.files import atomic_write


@dataclasses.dataclass(frozen=True, slots=True)
class Fetched:
    """A file that has arrived. path: where it is. url: where it came from, without a password."""

    path: Path
    url: str
    sha256: str
    size: int


class Part:
    """What has arrived of a file so far. url: its address, without a password."""

    def __init__(self, path: Path, url: str) -> None:
        self.url = url
        self.path = path.with_name(f"{path.name}.part")
        self._record = path.with_name(f"{path.name}.part.json")
        self.validator = ""
        self.total: int | None = None
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            record = json.loads(self._record.read_text(encoding="utf-8"))
            if record["url"] == url and record["validator"]:
                self.total = record["total"] and int(record["total"])
                self.validator = str(record["validator"])

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
            file.write(json.dumps({"url": self.url, "validator": validator, "total": total}).encode())
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
        return Fetched(self.path, self.url, *hashed(self.path))


def hashed(path: Path) -> tuple[str, int]:
    """SHA-256 and size of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest(), file.tell()
