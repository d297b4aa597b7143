"""Writing files so that a reader sees the old one or the whole new one, never a half."""

import contextlib
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """A file to write that becomes `path` when the block ends well, and vanishes when it does not.

    Until then its `name` is the path of a hidden file beside.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("x+b") as file:
            yield file
            sync(file)
        publish(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def sync(file: BinaryIO) -> None:
    """Bring what was written to the disk itself."""
    file.flush()
    os.fsync(file.fileno())


def publish(temporary: Path, path: Path) -> None:
    """Rename a finished, synced file into place."""
    temporary.replace(path)
    with contextlib.suppress(OSError):  # a folder cannot be opened, let alone synced, on Windows
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


_TEMPORARY = re.compile(r"\.(.+)\.[0-9a-f]{16}\.tmp")


def temporaries(folder: Path, of: re.Pattern[str]) -> list[Path]:
    """What a killed `atomic_write` has left of files whose whole names match `of`: by the exact form of its names."""
    found = ((path, _TEMPORARY.fullmatch(path.name)) for path in folder.glob(".*.tmp"))
    return [path for path, name in found if name and of.fullmatch(name[1])]
