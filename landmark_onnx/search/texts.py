"""Texts in two files, read where they are mapped: their UTF-8 bytes, and where each one ends.

Both files only grow, so a reader that knows how many texts there were keeps reading them while more are appended.
"""

import itertools
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, overload

import numpy as np
import numpy.typing as npt

from landmark_onnx.errors import SearchError
from landmark_onnx.types import Int64

TEXTS_AT_ONCE = 65_536
ENDS_AT_ONCE = 1 << 20
ENDS, TEXT = ".ends", ".text"


class Writer(Protocol):
    """What takes bytes."""

    def write(self, data: bytes, /) -> Any:
        """Append them."""


class Texts(Sequence[str]):
    """ends: (N,) int64, the byte after each text. data: (B,) uint8 with B = ends[-1]."""

    def __init__(self, ends: Int64, data: npt.NDArray[np.uint8]) -> None:
        """Arrays in memory or mapped."""
        self._ends = ends
        self._data = data

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, at: int) -> str: ...
    @overload
    def __getitem__(self, at: slice) -> list[str]: ...
    def __getitem__(self, at: int | slice) -> str | list[str]:
        if isinstance(at, slice):
            return [self[each] for each in range(*at.indices(len(self)))]
        position = range(len(self))[at]
        start = int(self._ends[position - 1]) if position else 0
        return _decode(self._data[start : int(self._ends[position])].tobytes())

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), TEXTS_AT_ONCE):
            ends = [int(self._ends[start - 1]) if start else 0, *self._ends[start : start + TEXTS_AT_ONCE].tolist()]
            block = self._data[ends[0] : ends[-1]].tobytes()
            for begin, end in itertools.pairwise(ends):
                yield _decode(block[begin - ends[0] : end - ends[0]])


def append_texts(texts: Iterable[str], size: int, ends: Writer, data: Writer) -> int:
    """Append to both files, of which `data` has `size` bytes; the size it has then."""
    encoded = [text.encode("utf-8", "surrogateescape") for text in texts]
    after = size + np.cumsum([len(each) for each in encoded], dtype="<i8")
    data.write(b"".join(encoded))
    ends.write(after.tobytes())
    return int(after[-1]) if encoded else size


def check_ends(ends: Int64, size: int) -> None:
    """Raises: ValueError unless the texts follow each other, and end where the data does, at `size` bytes."""
    before = 0
    for start in range(0, len(ends), ENDS_AT_ONCE):
        part = ends[start : start + ENDS_AT_ONCE]
        if part[0] < before or (part[1:] < part[:-1]).any():
            raise ValueError(f"a text from {start:,} on ends before it begins")
        before = int(part[-1])
    if before != size:
        raise ValueError(f"the texts end at byte {before:,} of {size:,}")


def text_files(column: str, generation: int) -> tuple[str, str]:
    """The names of the files of a column: ends, and data."""
    return f"{column}-{generation}{ENDS}", f"{column}-{generation}{TEXT}"


def _decode(data: bytes) -> str:
    # A file's name may hold bytes that are no text; they come out as they went in.
    return data.decode("utf-8", "surrogateescape")


def absent(folder: Path, missing: int, wanted: Collection[str], example: str, there: Iterable[str]) -> SearchError:
    """The error that `missing` of the ids `wanted` are not among those that are `there`."""
    one = next(iter(there), None)
    known = "" if one is None else f" (one there: {one})"
    return SearchError(
        f"{folder}: {missing:,} of {len(wanted):,} ids are not in the index, such as {example}{known}; of paths "
        "that were given, landmark-onnx index remove --ids stem takes the stems"
    )
