"""A folder of features follows its images: what is new or changed is embedded, what is gone dropped, the rest kept.

An image is known by its place and stamp (the time and size of its file), or else by its bytes: moved, copied or touched
it keeps its vectors. What is not known is embedded by a job of its own, in a folder inside, that may be stopped and
goes on as any other; then all rows are put in the order of the list, and take the place of the old ones at once.
"""

import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path

from landmark_onnx.embedding.feature_folder import Features
from landmark_onnx.embedding.folder_lock import alone, writing
from landmark_onnx.embedding.item import Item
from landmark_onnx.embedding.job import Work, embed, embed_plan
from landmark_onnx.embedding.known import known_rows
from landmark_onnx.embedding.manifest import FILE, FeatureManifest, read_manifest
from landmark_onnx.embedding.matching import Matched, Matcher
from landmark_onnx.embedding.request import EmbedProgress, FeatureRequest
from landmark_onnx.embedding.shards import Shard, is_shard, shard_path
from landmark_onnx.embedding.swap import finish_swap, remove_staged, stage, workplace
from landmark_onnx.embedding.worklist import Worklist, items_of_shards, write_plan
from landmark_onnx.errors import FeatureError
from landmark_onnx.types import Int64

_KNOWN = "known.sqlite"
_NEW = "new-"
"""Folders of what was embedded on the way: an update that was stopped may have left several."""


def update_features(
    items: Iterable[Item], request: FeatureRequest, folder: Path, work: Work, *, progress: EmbedProgress | None = None
) -> Features:
    """Make a folder of features what `embed` would make of `items` now, and embed only what it does not have.

    Rows are those of a fresh folder, in its order, with its ids; so are their vectors, to the bit if images run one by
    one, else as they come from other batches. What had failed is tried again. Stopped, the same call goes on, with the
    same or other images. No folder: as `embed`.
    Raises: FeatureError if the folder has features of other models or form, or does not say what its images were.
    """
    progress = progress or EmbedProgress()
    with writing(folder), alone(folder):
        finish_swap(folder)
        before = _checked(folder, request) if (folder / FILE).exists() else None
        place = workplace(folder) if before else folder
        plan = write_plan(place, items, request.shard_size, progress.on_found, part=request.part)
        wanted = request.manifest(plan)
        if before:
            _check_names(folder, range(before.shards, wanted.shards))
        if before is None or (before.inputs == wanted.inputs and not before.complete):
            features = embed_plan(plan, wanted, folder, work, progress=progress)
            if before is None:
                return features
        else:
            progress.on_duplicates(plan.duplicates)
        with known_rows(place / _KNOWN) as known:
            return _updated(folder, plan, wanted, Matcher(plan, wanted.base, known, progress), request, work)


def _checked(folder: Path, request: FeatureRequest) -> FeatureManifest:
    """The folder's manifest. Raises: FeatureError if its rows are not to be mixed with those that are wanted."""
    before = read_manifest(folder)
    wanted = dataclasses.replace(
        before,
        models=tuple(request.models),
        dtype=request.dtype,
        damaged=request.damaged,
        shard_size=request.shard_size,
        part=request.part,
    )
    if differences := before.differences(wanted):
        raise FeatureError(
            f"{folder}: cannot be updated, its vectors are others: {'; '.join(differences)}. "
            "Name another folder, or embed all images again with --restart"
        )
    if not before.recorded:
        raise FeatureError(
            f"{folder}: cannot be updated: it was made before embed wrote down what its images were. Embed all of them "
            "again with --restart, or name another folder"
        )
    return before


def _check_names(folder: Path, numbers: Iterable[int]) -> None:
    """Raises: FeatureError if new shards of these numbers would take the place of a file of somebody else."""
    for number in numbers:
        path = shard_path(folder, number)
        if path.exists() and not is_shard(path):
            raise FeatureError(f"{path}: is no shard of these features, and would be replaced; name another folder")


def _updated(
    folder: Path, plan: Worklist, wanted: FeatureManifest, matcher: Matcher, request: FeatureRequest, work: Work
) -> Features:
    """The folder, when it has the rows of the list."""
    before = read_manifest(folder)
    there = matcher.add(folder, before)
    progress = matcher.progress
    matched, place = _matched(folder, matcher)
    progress.on_update(matched.counts)
    rows = matcher.pool.count
    if matched.counts.fresh:
        fresh = (item for _, item in matched.fresh(plan))
        quiet = dataclasses.replace(progress, on_found=lambda count: None, on_duplicates=lambda shared: None)
        features = embed(fresh, dataclasses.replace(request, part=None), place, work, progress=quiet)
        for number in range(features.manifest.shards):
            path = shard_path(place, number)
            matcher.pool.add(path, features.manifest, features.manifest.rows_of(number))
    numbers = matched.numbers_with(rows)
    whole = stage(folder, wanted, _rearranged(plan, wanted, matcher, numbers, rows), there)
    if whole == before and len(there) == whole.shards:
        remove_staged(folder)
    finish_swap(folder)
    return Features(folder, whole)


def _matched(folder: Path, matcher: Matcher) -> tuple[Matched, Path]:
    """Which rows the images have, and the folder for those that have none.

    A job of the very same images that was stopped goes on. What one of others has done is kept, too, as rows.
    """
    matched = matcher.match()
    place = workplace(folder) / f"{_NEW}{matched.digest}"
    others = sorted(workplace(folder).glob(f"{_NEW}*"))
    if others and place not in others:
        for other in others:
            if (other / FILE).exists():
                matcher.add(other, read_manifest(other))
        matched = matcher.match()
        place = place.with_name(f"{_NEW}{matched.digest}")
    return matched, place


def _rearranged(
    plan: Worklist, wanted: FeatureManifest, matcher: Matcher, numbers: Int64, known: int
) -> Iterator[Shard]:
    """The shards of the list. known: rows before this number have the stamps that images have now."""
    start = 0
    for items in items_of_shards(plan.path):
        part = numbers[start : start + len(items)]
        shard = matcher.pool.shard(part)
        now = matcher.known.stamps(start, start + len(items))
        yield dataclasses.replace(
            shard,
            ids=[item.id for item in items],
            sources=[item.source for item in items],
            positions=[item.position for item in items],
            stamps=[
                now.get(start + at, stamp) if number < known else stamp
                for at, (number, stamp) in enumerate(zip(part.tolist(), shard.stamps, strict=True))
            ],
        )
        start += len(items)
