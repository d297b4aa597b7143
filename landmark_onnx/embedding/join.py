"""Folders of features of all parts of a list -> the folder that one run over the whole list would have made."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from landmark_onnx.embedding.feature_folder import Features, open_features
from landmark_onnx.embedding.folder_lock import alone, writing
from landmark_onnx.embedding.job import settle
from landmark_onnx.embedding.manifest import POSITION, FeatureManifest, ListPart
from landmark_onnx.embedding.row_pool import KEPT, RowPool
from landmark_onnx.embedding.shards import Shard, read_footer, read_shard, shard_path
from landmark_onnx.embedding.swap import finish_swap, stage
from landmark_onnx.errors import FeatureError
from landmark_onnx.types import Int64


def join_features(
    folders: Sequence[Path],
    folder: Path,
    *,
    restart: bool = False,
    on_done: Callable[[int, int], None] = lambda count, total: None,
) -> Features:
    """Put the rows of parts (`FeatureRequest.part`) into the order of their list. Memory: a file of each part.

    on_done: how many rows of how many are in their place. restart: throw away what `folder` has of another list.
    Raises: FeatureError if a part is missing, twice there, not complete or of another job, or `folder` holds another.
    """
    parts = [open_features(each) for each in folders]
    wanted = _whole(parts)
    pool = RowPool(len(parts) + KEPT)
    numbers = _in_order(parts, pool, wanted)
    with writing(folder), alone(folder):
        if not restart:
            finish_swap(folder)
        settle(folder, wanted, restart)
        whole = stage(folder, wanted, _shards(pool, numbers, wanted, on_done), _there(folder, wanted))
        finish_swap(folder)
    return Features(folder, whole)


def _whole(parts: Sequence[Features]) -> FeatureManifest:
    """The manifest of the whole, not complete. Raises: FeatureError unless these are all parts of one list."""
    first, *others = parts
    found: dict[ListPart, Path] = {}
    for each in parts:
        if each.manifest.part is None:
            raise FeatureError(f"{each.folder}: is not a part of a list; embed makes one with --shard-of")
        if each.manifest.part in found:
            raise FeatureError(f"{each.folder}: is part {each.manifest.part}, as {found[each.manifest.part]} is")
        found[each.manifest.part] = each.folder
    known = first.manifest
    assert known.part
    for each in others:
        if differences := known.differences(dataclasses.replace(each.manifest, part=known.part)):
            raise FeatureError(f"{each.folder}: of another job than {first.folder}: {'; '.join(differences)}")
    wanted = [dataclasses.replace(known.part, number=number) for number in range(1, known.part.of + 1)]
    if strangers := [part for part in found if part not in wanted]:
        raise FeatureError(f"{found[strangers[0]]}: is part {strangers[0]}, and {first.folder} is part {known.part}")
    if missing := [str(part) for part in wanted if part not in found]:
        raise FeatureError(f"parts are missing: {', '.join(missing)}; run embed with --shard-of these, then join again")
    _check_bases(parts)
    return dataclasses.replace(known, part=None, rows=known.part.rows, failed=0, complete=False, shard_sha256=())


def _check_bases(parts: Sequence[Features]) -> None:
    """Raises: FeatureError if the same relative path may be another file's in two parts."""
    bases = {each.manifest.base for each in parts}
    if len(bases) == 1:
        return
    for each in parts:
        if relative := next((source for source in each.sources() if not Path(source).is_absolute()), None):
            raise FeatureError(
                f"{each.folder}: {relative} is below {each.manifest.base}, and other parts are from elsewhere; give "
                "images by absolute paths, or run all parts in one folder"
            )


def _in_order(parts: Sequence[Features], pool: RowPool, wanted: FeatureManifest) -> Int64:
    """The number of each row in the pool, which gets those of all parts, in the order of the list."""
    positions = [np.empty(0, np.int64)]
    for each in parts:
        for number in range(each.manifest.shards):
            path = shard_path(each.folder, number)
            shard = read_shard(path, each.manifest, (POSITION,))
            positions.append(np.array(shard.positions, np.int64))
            pool.add(path, each.manifest, len(shard.positions))
    found = np.concatenate(positions)
    order = np.argsort(found)
    if not np.array_equal(found[order], np.arange(wanted.rows)):
        raise FeatureError(
            f"{parts[0].folder} and the others do not have each image of their list once: embed them again"
        )
    return order


def _shards(
    pool: RowPool, numbers: Int64, wanted: FeatureManifest, on_done: Callable[[int, int], None]
) -> Iterator[Shard]:
    for start in range(0, wanted.rows, wanted.shard_size):
        part = numbers[start : start + wanted.shard_size]
        yield pool.shard(part)
        on_done(start + len(part), wanted.rows)


def _there(folder: Path, wanted: FeatureManifest) -> Mapping[int, str]:
    """The SHA-256 of shards that an earlier call has left, by number."""
    found = {}
    for number in range(wanted.shards):
        if shard_path(folder, number).exists():
            try:
                found[number] = read_footer(shard_path(folder, number), wanted).sha256
            except FeatureError:  # it is made again
                continue
    return found
