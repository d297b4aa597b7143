"""What is in the files of an index: how many bytes count, and their SHA-256, block by block as `blocks` has them.

A file grows by whole changes: the hash of its last block goes on where it was, those before stay as they are.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

from landmark_onnx.errors import SearchError
from landmark_onnx.files.atomic import atomic_write, sync
from landmark_onnx.files.hashing import BLOCK, blocks, intact
from landmark_onnx.files.structure import Count, Sha256
from landmark_onnx.runtime.cpu import available_cores


@dataclasses.dataclass(frozen=True, slots=True)
class Contents:
    """bytes: of the file that count, from its beginning. sha256: of each block of these."""

    bytes: Count
    sha256: tuple[Sha256, ...]


EMPTY = Contents(0, ())


class Appended:
    """Bytes written behind what counts of a file, which then count too."""

    def __init__(self, file: BinaryIO, path: Path, contents: Contents) -> None:
        """file: open to read and write. Raises: SearchError unless its last block is what `contents` says."""
        self._file = file
        self._size = contents.bytes
        file.truncate(self._size)
        start = self._size // BLOCK * BLOCK
        self._digests = list(contents.sha256[: start // BLOCK])
        file.seek(start)
        self._hash = hashlib.sha256(file.read(self._size - start))
        if self._size > start and self._hash.hexdigest() != contents.sha256[-1]:
            raise SearchError(_changed(path, start, self._size))

    def write(self, data: bytes | memoryview) -> None:
        """Append bytes: flat, one each."""
        self._file.write(data)
        view = memoryview(data)
        while len(view):
            part = view[: BLOCK - self._size % BLOCK]
            self._hash.update(part)
            self._size += len(part)
            if self._size % BLOCK == 0:
                self._digests.append(self._hash.hexdigest())
                self._hash = hashlib.sha256()
            view = view[len(part) :]

    def finish(self) -> Contents:
        """Bring it to the disk; what counts now."""
        sync(self._file)
        last = [self._hash.hexdigest()] if self._size % BLOCK else []
        return Contents(self._size, (*self._digests, *last))


def write_whole(path: Path, data: bytes) -> Contents:
    """Write a file, whole or not at all; what is in it."""
    with atomic_write(path) as file:
        appended = Appended(file, path, EMPTY)
        appended.write(data)
        return appended.finish()


def check_contents(
    folder: Path, files: Mapping[str, Contents], on_done: Callable[[int, int], None] = lambda done, total: None
) -> None:
    """Read all that counts of the files called so. on_done: of bytes checked, and of all bytes.

    Raises: SearchError that names the first place where a file is not what was written.
    """
    total = sum(each.bytes for each in files.values())
    done = 0
    with ThreadPoolExecutor(available_cores()) as pool:
        try:
            for path, start, end, fine in pool.map(_checked, _all_blocks(folder, files)):
                if not fine:
                    raise SearchError(_changed(path, start, end))
                done += end - start
                on_done(done, total)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _all_blocks(folder: Path, files: Mapping[str, Contents]) -> Iterator[tuple[Path, int, Contents]]:
    for name, each in files.items():
        for number in range(blocks(each.bytes)):
            yield folder / name, number, each


def _checked(block: tuple[Path, int, Contents]) -> tuple[Path, int, int, bool]:
    path, number, contents = block
    start, end = number * BLOCK, min((number + 1) * BLOCK, contents.bytes)
    return path, start, end, intact(path, number, contents.sha256[number], contents.bytes)


def _changed(path: Path, start: int, end: int) -> str:
    return f"{path}: bytes {start:,} to {end:,} are not what was written: the index is damaged; {remedy(path.parent)}"


def remedy(folder: Path, *, url: str = "") -> str:
    """How to get an index that can be used. url: where Qdrant keeps it."""
    where = f" --qdrant {url}" if url else ""
    return f"rebuild it with: landmark-onnx index build FEATURES -o {folder}{where} --replace"
