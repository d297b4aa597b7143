"""Embedding as a job that may be killed at any moment: shards are made one by one, and whole or not at all.

A second start writes the list of images anew, sees that it and the models are those of the first, keeps the shards
that are there and whole, and makes the rest.
"""

import contextlib
import dataclasses
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import filelock

from landmark_onnx.embedding.extract import Extractor
from landmark_onnx.embedding.folder import SHARD_SIZE, Features
from landmark_onnx.embedding.items import Item
from landmark_onnx.embedding.manifest import FILE, DType, Manifest, ModelIdentity, read_manifest
from landmark_onnx.embedding.plan import FILE as PLAN
from landmark_onnx.embedding.plan import read_items, remove_plan, write_plan
from landmark_onnx.embedding.shards import NAMES, is_shard, read_shard, shard_path, write_shard
from landmark_onnx.errors import FeatureError
from landmark_onnx.files import temporaries
from landmark_onnx.images import ReadOptions
from landmark_onnx.model import Retriever

LOCK = ".lock"
OURS = re.compile(rf"{re.escape(FILE)}|{re.escape(PLAN)}|{NAMES.pattern}")
"""Names of what is written into a folder."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """Who is told how far it is. Counts are of images.

    found: so many are on the list by now. duplicates: ids that several have. kept: so many are done from before.
    done: so many of so many are. damaged: a shard was, and is made anew.
    """

    found: Callable[[int], None] = lambda count: None
    duplicates: Callable[[Mapping[str, list[str]]], None] = lambda sources: None
    kept: Callable[[int], None] = lambda count: None
    done: Callable[[int, int], None] = lambda count, total: None
    damaged: Callable[[str], None] = lambda reason: None


@dataclasses.dataclass(frozen=True, slots=True)
class Job:
    """What has to be known to make any shard of a folder."""

    folder: Path
    plan: Path
    manifest: Manifest

    def rows(self, number: int) -> int:
        """The images of a shard."""
        return min(self.manifest.shard_size, self.manifest.rows - number * self.manifest.shard_size)

    def make(self, number: int, extractor: Extractor, told: Callable[[], None] = lambda: None) -> int:
        """Make a shard; the number of its rows that failed. Raises: FeatureError if it cannot be written."""
        shard = extractor(read_items(self.plan, number), told)
        path = shard_path(self.folder, number)
        with writing(path):
            write_shard(path, shard, self.manifest)
        return sum(error is not None for error in shard.errors)


Work: TypeAlias = Callable[[Job, Sequence[int], Callable[[int], None]], Iterable[tuple[int, int]]]
"""Makes the shards of these numbers in any order, and yields of each its number and its failed rows when it is there.
The last argument is told of rows that are done before their shard is.
"""


def embed(
    items: Iterable[Item],
    models: Sequence[ModelIdentity],
    folder: Path,
    work: Work,
    *,
    dtype: DType = "float32",
    shard_size: int = SHARD_SIZE,
    restart: bool = False,
    watch: Watch | None = None,
) -> Features:
    """Embed `items` into a folder of features, or go on where an earlier run was stopped.

    restart: throw away what is in the folder of another list, model or form. work: who makes the shards: `here`, or
    a cluster. Raises: FeatureError if the folder is another job's, somebody else is at it, or the disk is full.
    """
    watch = watch or Watch()
    with writing(folder), _alone(folder):
        plan = write_plan(folder, items, shard_size, watch.found)
        wanted = Manifest(models=tuple(models), dtype=dtype, shard_size=shard_size, inputs=plan.sha256, rows=plan.rows)
        _settle(folder, wanted, restart)
        watch.duplicates(plan.duplicates)
        job = Job(folder, plan.path, wanted)
        kept = _kept(job, watch)
        done = sum(map(job.rows, kept))
        watch.kept(done)
        failed = _worked(job, work, kept, done, watch)
        whole = dataclasses.replace(wanted, failed=sum(failed.values()), complete=True)
        whole.write(folder)
        remove_plan(folder)
    return Features(folder, whole)


def here(retrievers: Sequence[Retriever], reading: ReadOptions | None = None) -> Work:
    """Work in this process."""

    def work(job: Job, numbers: Sequence[int], told: Callable[[int], None]) -> Iterator[tuple[int, int]]:
        models = {retriever.card.name: retriever for retriever in retrievers}
        extractor = Extractor(manifest=job.manifest, models=models, reading=reading or ReadOptions())
        for number in numbers:
            yield number, job.make(number, extractor, lambda: told(1))

    return work


def _settle(folder: Path, wanted: Manifest, restart: bool) -> None:
    """Leave the folder with a manifest that agrees with `wanted`. Raises: FeatureError if it holds something else."""
    shards = sorted(folder.glob("part-*.parquet"))
    if not (folder / FILE).exists():
        if shards:
            raise FeatureError(f"{folder}: has {shards[0].name} but no {FILE}: name a folder of its own")
        wanted.write(folder)
        return
    if restart:
        # The old manifest goes last: until then this is the old job, with fewer shards.
        for path in _old_shards(folder, wanted):
            path.unlink()
        wanted.write(folder)
    elif differences := read_manifest(folder).differences(wanted):
        remove_plan(folder)
        raise FeatureError(
            f"{folder}: holds features of another job: {'; '.join(differences)}. "
            "Name another folder, or throw these away with --restart"
        )


def _old_shards(folder: Path, wanted: Manifest) -> list[Path]:
    """The shards to throw away: those of the old manifest's numbers, and others that say what they are.

    Raises: FeatureError if the manifest, or a shard of `wanted`, would take the place of another file.
    """
    with contextlib.suppress(ValueError):  # a damaged one is ours
        data = json.loads((folder / FILE).read_bytes())
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


def _kept(job: Job, watch: Watch) -> dict[int, int]:
    """The shards that are there, whole and of these very images: number -> failed rows."""
    kept = {}
    for number in range(job.manifest.shards):
        path = shard_path(job.folder, number)
        if not path.exists():
            continue
        try:
            shard = read_shard(path, job.manifest)
        except FeatureError as error:
            watch.damaged(str(error))
            continue
        items = read_items(job.plan, number)
        if list(shard.ids) == [item.id for item in items] and list(shard.sources) == [item.source for item in items]:
            kept[number] = sum(error is not None for error in shard.errors)
        else:
            watch.damaged(f"{path}: of other images: made anew")
    return kept


def _worked(job: Job, work: Work, kept: Mapping[int, int], done: int, watch: Watch) -> dict[int, int]:
    """Have the rest of the shards made: number -> failed rows, of all."""

    def told(rows: int) -> None:
        nonlocal done
        done += rows
        watch.done(done, job.manifest.rows)

    missing = [number for number in range(job.manifest.shards) if number not in kept]
    return {**kept, **dict(work(job, missing, told))}


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the disk refuses into one line that says how to go on."""
    try:
        yield
    except OSError as error:
        where = error.filename2 or error.filename or path
        raise FeatureError(f"{where}: {error.strerror or error}; put that right and run the same again") from error


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Be the only one at work in the folder, and clear away what killed ones left half written."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with filelock.FileLock(folder / LOCK, timeout=0):
            for path in temporaries(folder, OURS):
                path.unlink(missing_ok=True)
            yield
    except filelock.Timeout:
        raise FeatureError(f"{folder}: another landmark-onnx embed is at work there; wait for it") from None
