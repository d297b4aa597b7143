"""Ids that several images of a list have, found in memory that hardly grows with the list."""

import dataclasses
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

TOLD = 1000
"""Ids that are told with their sources; the others are counted."""
SOURCES = 3
"""Sources that are told of an id."""
PART = 1 << 18
"""Hashes that are compared at a time: 2 MB."""
MOST_PARTS = 64

_BLOCK = 1 << 18

Hashes: TypeAlias = npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True, slots=True)
class SharedId:
    """An id that `count` images have. sources: of the first SOURCES of them."""

    id: str
    count: int
    sources: Sequence[str]


@dataclasses.dataclass(frozen=True, slots=True)
class SharedIds:
    """The ids that several images have: the first TOLD of them, and the number of all."""

    told: Sequence[SharedId] = ()
    count: int = 0


class IdHashes:
    """The hashes of a list's ids: 8 bytes each, in a file of `folder` that has no name and ends with the process."""

    def __init__(self, folder: Path) -> None:
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  # closed by __exit__
        self.count = 0

    def __enter__(self) -> "IdHashes":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, ids: Sequence[str]) -> None:
        """Take some more."""
        self._file.write(_hashes(ids).tobytes())
        self.count += len(ids)

    def repeated(self) -> Hashes:
        """Those that are there more than once, each once, sorted."""
        parts = 1
        while parts < MOST_PARTS and parts * PART < self.count:
            parts *= 2
        return np.sort(np.concatenate([self._repeated(parts, number) for number in range(parts)]))

    def _repeated(self, parts: int, number: int) -> Hashes:
        values = np.concatenate([block[block & (parts - 1) == number] for block in self._blocks()])
        values.sort()
        return np.unique(values[1:][values[1:] == values[:-1]])

    def _blocks(self) -> Iterator[Hashes]:
        self._file.seek(0)
        yield np.empty(0, np.int64)
        while data := self._file.read(_BLOCK * 8):
            yield np.frombuffer(data, np.int64)


def shared_ids(rows: Iterable[tuple[Sequence[str], Sequence[str]]], repeated: Hashes) -> SharedIds:
    """Those of `rows` (ids and sources, some at a time) whose hashes are `repeated`. Equal hashes are only suspects."""
    if not len(repeated):
        return SharedIds()
    counts: dict[str, int] = {}
    places: dict[str, list[str]] = {}
    for ids, sources in rows:
        hashes = _hashes(ids)
        near = repeated[np.searchsorted(repeated, hashes).clip(max=len(repeated) - 1)]
        for row in np.flatnonzero(near == hashes).tolist():
            name = ids[row]
            if name not in counts and len(counts) == TOLD:
                continue
            counts[name] = counts.get(name, 0) + 1
            if counts[name] <= SOURCES:
                places.setdefault(name, []).append(sources[row])
    told = [SharedId(name, count, places[name]) for name, count in counts.items() if count > 1]
    return SharedIds(told, len(repeated) - (len(counts) - len(told)) if len(counts) == TOLD else len(told))


def _hashes(ids: Sequence[str]) -> Hashes:
    return np.fromiter(map(hash, ids), np.int64, len(ids))
