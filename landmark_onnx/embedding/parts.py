"""Rows of a shard that are kept before all of it is there: hidden files beside, each with the rows behind the last.

They are shards in form, and gone when theirs is there.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from landmark_onnx.embedding.item import Item
from landmark_onnx.embedding.manifest import FeatureManifest
from landmark_onnx.embedding.shards import Shard, read_shard
from landmark_onnx.errors import FeatureError

PARTS = re.compile(r"\.part-(\d{5,})\.from-(\d{10,})\.parquet")
"""Their names: 1 is the shard's number, 2 that of the first row in it."""


def part_path(folder: Path, number: int, row: int) -> Path:
    """The file of the rows of a shard from `row` on, as many as were done when it was written."""
    return folder / f".part-{number:05d}.from-{row:010d}.parquet"


def kept_parts(folder: Path, number: int, manifest: FeatureManifest, items: Sequence[Item]) -> Iterator[Shard]:
    """The rows of the shard of `items` that were kept, from the first on, as far as they are whole and follow."""
    row = 0
    while row < len(items):
        try:
            part = read_shard(part_path(folder, number, row), manifest)
        except FeatureError:  # there is none, or what it held is rebuilt
            return
        rows = len(part.errors)
        if not rows or not is_of(part, items[row : row + rows]):
            return
        yield part
        row += rows


def begun_shards(folder: Path) -> list[int]:
    """The shards of which rows may be kept, in order."""
    return sorted({number for _, number in _found(folder)})


def remove_parts(folder: Path, shard: int | None = None) -> None:
    """Remove what was kept of a shard, or of all of them."""
    for path, number in _found(folder):
        if shard in (None, number):
            path.unlink(missing_ok=True)


def part_files(folder: Path) -> list[Path]:
    """The files of kept rows, in order."""
    return sorted(path for path, _ in _found(folder))


def is_of(shard: Shard, items: Sequence[Item]) -> bool:
    """Whether these are the images of its rows."""
    return list(shard.ids) == [item.id for item in items] and list(shard.sources) == [item.source for item in items]


def joined(parts: Sequence[Shard]) -> Shard:
    """Their rows, one after the other."""
    return Shard(
        ids=[name for part in parts for name in part.ids],
        sources=[name for part in parts for name in part.sources],
        errors=[error for part in parts for error in part.errors],
        contents=[content for part in parts for content in part.contents],
        stamps=[stamp for part in parts for stamp in part.stamps],
        positions=[position for part in parts for position in part.positions],
        vectors={name: np.concatenate([part.vectors[name] for part in parts]) for name in parts[0].vectors},
    )


def _found(folder: Path) -> Iterator[tuple[Path, int]]:
    for path in folder.glob(".part-*.from-*.parquet"):
        if name := PARTS.fullmatch(path.name):
            yield path, int(name[1])
