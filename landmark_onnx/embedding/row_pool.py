"""Rows of shards that are there, wherever they lie, by their number; put together in another order."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from landmark_onnx.embedding.manifest import FeatureManifest
from landmark_onnx.embedding.shards import Shard, Vectors, read_shard
from landmark_onnx.types import Int64

KEPT = 3
"""Shards that are kept in memory for the rows that are asked next."""


@dataclasses.dataclass(frozen=True, slots=True)
class RowFile:
    """A shard, or a part of one. first: number of its first row."""

    path: Path
    manifest: FeatureManifest
    first: int


class RowPool:
    """The rows of files of the same models and form. kept: how many files are kept in memory."""

    def __init__(self, kept: int = KEPT) -> None:
        self._files: list[RowFile] = []
        self._read = functools.lru_cache(kept)(self._opened)
        self.count = 0

    def add(self, path: Path, manifest: FeatureManifest, rows: int) -> None:
        """Number the rows of one more file, from `count` on."""
        if rows:
            self._files.append(RowFile(path, manifest, self.count))
            self.count += rows

    def shard(self, numbers: Int64) -> Shard:
        """The rows of these numbers, in this order; without positions. Raises: FeatureError that names a file."""
        found = _Gathered(len(numbers))
        files = np.searchsorted([file.first for file in self._files], numbers, side="right") - 1
        for at in np.unique(files).tolist():
            places = np.flatnonzero(files == at)
            found.take(self._read(at), numbers[places] - self._files[at].first, places)
        return found.shard()

    def _opened(self, at: int) -> Shard:
        return read_shard(self._files[at].path, self._files[at].manifest)


class _Gathered:
    """Rows on their way into a shard."""

    def __init__(self, count: int) -> None:
        self._ids = [""] * count
        self._sources = [""] * count
        self._errors: list[str | None] = [None] * count
        self._contents: list[str | None] = [None] * count
        self._stamps: list[str | None] = [None] * count
        self._vectors: dict[str, Vectors] = {}

    def take(self, shard: Shard, rows: Int64, places: Int64) -> None:
        """`rows` of a shard become those at `places`."""
        columns: list[tuple[list[str], Sequence[str]] | tuple[list[str | None], Sequence[str | None]]] = [
            (self._ids, shard.ids),
            (self._sources, shard.sources),
            (self._errors, shard.errors),
            (self._contents, shard.contents or [None] * len(shard.ids)),
            (self._stamps, shard.stamps or [None] * len(shard.ids)),
        ]
        for place, row in zip(places.tolist(), rows.tolist(), strict=True):
            for new, old in columns:
                new[place] = old[row]
        fine = np.array([error is None for error in shard.errors], bool)
        rank = np.cumsum(fine) - 1
        chosen = fine[rows]
        for name, vectors in shard.vectors.items():
            if name not in self._vectors:
                self._vectors[name] = np.zeros((len(self._ids), vectors.shape[1]), vectors.dtype)
            self._vectors[name][places[chosen]] = vectors[rank[rows[chosen]]]

    def shard(self) -> Shard:
        """What they are now."""
        fine = np.array([error is None for error in self._errors], bool)
        vectors: Mapping[str, Vectors] = {name: values[fine] for name, values in self._vectors.items()}
        return Shard(
            ids=self._ids,
            sources=self._sources,
            errors=self._errors,
            contents=self._contents,
            stamps=self._stamps,
            vectors=vectors,
        )
