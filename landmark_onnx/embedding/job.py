"""Embedding as a job that may be killed at any moment: shards are made one by one, and whole or not at all.

A second start writes the list of images again, sees that it and the models are those of the first, keeps the shards
that are there and whole, and makes the rest. Of a shard that was not finished it finds the rows that were kept in
hidden files beside, every half minute and when the run was stopped; it goes on behind them, with the same bits.
"""

import contextlib
import dataclasses
import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from landmark_onnx.embedding.extract import Extractor
from landmark_onnx.embedding.feature_folder import Features
from landmark_onnx.embedding.folder_lock import alone, writing
from landmark_onnx.embedding.item import Item
from landmark_onnx.embedding.manifest import FILE, FeatureManifest, read_manifest
from landmark_onnx.embedding.parts import begun_shards, is_of, joined, kept_parts, part_path, remove_parts
from landmark_onnx.embedding.request import EmbedProgress, FeatureRequest
from landmark_onnx.embedding.shards import NAMES, Shard, is_shard, read_shard, shard_path, write_shard
from landmark_onnx.embedding.swap import finish_swap, remove_staged
from landmark_onnx.embedding.worklist import Worklist, read_items, remove_plan, write_plan
from landmark_onnx.errors import FeatureError
from landmark_onnx.files.documents import read_json
from landmark_onnx.model import Retriever

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class FinishedShard:
    """A shard that is there. failed: of its rows. sha256: as its footer has it."""

    number: int
    failed: int
    sha256: str


@dataclasses.dataclass(frozen=True, slots=True)
class Job:
    """What has to be known to make any shard of a folder. begun: rows of shards that were kept when the job started."""

    folder: Path
    plan: Path
    manifest: FeatureManifest
    begun: Mapping[int, int] = dataclasses.field(default_factory=dict)

    def rows(self, number: int) -> int:
        """The images of a shard that are to be embedded."""
        return self.manifest.rows_of(number) - self.begun.get(number, 0)

    def make(self, number: int, extractor: Extractor, on_done: Callable[[], None] = lambda: None) -> FinishedShard:
        """Make a shard, or what is missing of it. Raises: FeatureError if it cannot be written."""
        items = read_items(self.plan, number)
        parts = list(kept_parts(self.folder, number, self.manifest, items))
        partial = bool(parts)

        def keep(row: int, part: Shard) -> None:
            nonlocal partial
            partial = True
            path = part_path(self.folder, number, row)
            with writing(path):
                write_shard(path, part, self.manifest)

        shard = joined([*parts, extractor(items, on_done, start=sum(len(part.errors) for part in parts), keep=keep)])
        path = shard_path(self.folder, number)
        with writing(path):
            sha256 = write_shard(path, shard, self.manifest)
            logger.info("%s: written, %d rows", path, len(shard.errors))
            if partial:
                remove_parts(self.folder, number)
        return FinishedShard(number, sum(error is not None for error in shard.errors), sha256)


class Work(Protocol):
    """What makes shards: this process, or a cluster."""

    def __call__(self, job: Job, numbers: Sequence[int], on_done: Callable[[int], None]) -> Iterable[FinishedShard]:
        """Make the shards of these numbers in any order, and yield each when it is there.

        on_done: how many rows more are done, before their shard is.
        """


def embed(
    items: Iterable[Item],
    request: FeatureRequest,
    folder: Path,
    work: Work,
    *,
    restart: bool = False,
    progress: EmbedProgress | None = None,
) -> Features:
    """Embed `items` into a folder of features, or go on where an earlier run was stopped.

    work: what makes the shards: `here`, or a cluster. restart: throw away what is in the folder of another list, model
    or form.
    Raises: FeatureError if the folder is another job's, another process works in it, or the disk is full.
    """
    progress = progress or EmbedProgress()
    with writing(folder), alone(folder):
        if not restart:
            finish_swap(folder)
        plan = write_plan(folder, items, request.shard_size, progress.on_found, part=request.part)
        return embed_plan(plan, request.manifest(plan), folder, work, restart=restart, progress=progress)


def embed_plan(
    plan: Worklist,
    wanted: FeatureManifest,
    folder: Path,
    work: Work,
    *,
    restart: bool = False,
    progress: EmbedProgress,
) -> Features:
    """As `embed`, of a list that is written down already, by who is `alone` in the folder."""
    with writing(folder):
        before = settle(folder, wanted, restart)
        # A folder that was begun before there were records goes on without them.
        wanted = dataclasses.replace(wanted, recorded=before.recorded)
        progress.on_duplicates(plan.duplicates)
        job = Job(folder, plan.path, wanted)
        kept = _kept(job, before, progress)
        job = dataclasses.replace(job, begun=_begun(job, kept))
        done = sum(map(wanted.rows_of, kept)) + sum(job.begun.values())
        progress.on_kept(done)
        logger.info("%s: %d of %d images are done, %d whole shards", folder, done, plan.rows, len(kept))
        if before.complete and done < plan.rows:
            wanted.write(folder)
        made = _worked(job, work, kept, done, progress)
        failed, hashes = sum(each.failed for each in made), tuple(each.sha256 for each in made)
        whole = dataclasses.replace(wanted, failed=failed, complete=True, shard_sha256=hashes)
        whole.write(folder)
        remove_plan(folder)
        remove_parts(folder)
    return Features(folder, whole)


def here(retrievers: Sequence[Retriever]) -> Work:
    """Work in this process."""

    def work(job: Job, numbers: Sequence[int], on_done: Callable[[int], None]) -> Iterator[FinishedShard]:
        models = {retriever.card.name: retriever for retriever in retrievers}
        extractor = Extractor(manifest=job.manifest, models=models)
        for number in numbers:
            yield job.make(number, extractor, lambda: on_done(1))

    return work


def settle(folder: Path, wanted: FeatureManifest, restart: bool) -> FeatureManifest:
    """Leave the folder with a manifest that agrees with `wanted`; that. Raises: FeatureError if it is another job's."""
    shards = sorted(folder.glob("part-*.parquet"))
    if not (folder / FILE).exists():
        if shards:
            raise FeatureError(f"{folder}: has {shards[0].name} but no {FILE}: name a folder of its own")
        remove_parts(folder)
        wanted.write(folder)
        return wanted
    if restart:
        remove_staged(folder)
        # The old manifest goes last: until then this is the old job, with fewer shards.
        for path in _old_shards(folder, wanted):
            path.unlink()
        remove_parts(folder)
        wanted.write(folder)
        return wanted
    before = read_manifest(folder)
    if differences := before.differences(wanted):
        remove_plan(folder)
        images = before.recorded and not before.differences(dataclasses.replace(wanted, inputs=before.inputs))
        raise FeatureError(
            f"{folder}: holds features of another job: {'; '.join(differences)}. Name another folder, "
            f"{'embed what changed with --update, ' if images else ''}or throw these away with --restart"
        )
    return before


def _old_shards(folder: Path, wanted: FeatureManifest) -> list[Path]:
    """The shards to throw away: those of the old manifest's numbers, and others that say what they are.

    Raises: FeatureError if the manifest, or a shard of `wanted`, would take the place of another file.
    """
    with contextlib.suppress(ValueError):  # a damaged one is ours
        data = read_json(folder / FILE)
        if not isinstance(data, dict) or not data.keys() >= {"version", "models"}:
            raise FeatureError(f"{folder / FILE}: is not of features, and would be replaced; name another folder")
    try:
        known = read_manifest(folder).shards
    except FeatureError:
        known = 0
    found = {path: int(name[1]) for path in folder.glob("part-*.parquet") if (name := NAMES.fullmatch(path.name))}
    ours = [path for path, number in sorted(found.items()) if number < known or is_shard(path)]
    for path, number in found.items():
        if path not in ours and number < wanted.shards:
            raise FeatureError(f"{path}: is no shard of these features, and would be replaced; name another folder")
    return ours


def _kept(job: Job, before: FeatureManifest, progress: EmbedProgress) -> dict[int, FinishedShard]:
    """The shards that are there, whole, of these very images, and those of the manifest that was there: by number."""
    kept = {}
    for number in range(job.manifest.shards):
        path = shard_path(job.folder, number)
        if not path.exists():
            continue
        try:
            shard = read_shard(path, job.manifest)
        except FeatureError as error:
            progress.on_bad(str(error))
            continue
        items = read_items(job.plan, number)
        if not is_of(shard, items):
            progress.on_bad(f"{path}: of other images: rebuilt")
        elif shard.sha256 not in before.shard_sha256[number : number + 1] and before.complete:
            progress.on_bad(f"{path}: not the file that was written under this name: rebuilt")
        else:
            kept[number] = FinishedShard(number, sum(error is not None for error in shard.errors), shard.sha256)
    return kept


def _begun(job: Job, kept: Collection[int]) -> dict[int, int]:
    """How many rows are kept of each shard that is not there yet."""
    found = {}
    for number in begun_shards(job.folder):
        if number < job.manifest.shards and number not in kept:
            parts = kept_parts(job.folder, number, job.manifest, read_items(job.plan, number))
            found[number] = sum(len(part.errors) for part in parts)
    return found


def _worked(
    job: Job, work: Work, kept: Mapping[int, FinishedShard], done: int, progress: EmbedProgress
) -> list[FinishedShard]:
    """Have the rest of the shards made; all of them, in order."""

    def on_done(rows: int) -> None:
        nonlocal done
        done += rows
        progress.on_done(done, job.manifest.rows)

    missing = [number for number in range(job.manifest.shards) if number not in kept]
    made = dict(kept)
    try:
        for each in work(job, missing, on_done):
            made[each.number] = each
    except KeyboardInterrupt:
        progress.on_stopped(sum(map(job.manifest.rows_of, made)) + sum(_begun(job, made).values()), job.manifest.rows)
        raise
    return [made[number] for number in range(job.manifest.shards)]
