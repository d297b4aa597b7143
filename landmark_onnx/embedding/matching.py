"""Which image of a list has a row that is there already: by its place and stamp, or else by its bytes."""

import array
import collections
import concurrent.futures
import contextlib
import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from landmark_onnx.embedding.item import Item
from landmark_onnx.embedding.known import KnownRows, place_of
from landmark_onnx.embedding.manifest import FeatureManifest
from landmark_onnx.embedding.parts import part_files
from landmark_onnx.embedding.request import EmbedProgress, UpdateCounts
from landmark_onnx.embedding.row_pool import RowPool
from landmark_onnx.embedding.shards import Shard, read_shard, shard_path
from landmark_onnx.embedding.worklist import Worklist, items_of_shards
from landmark_onnx.errors import FeatureError
from landmark_onnx.types import Int64

READERS = 4
"""Threads that read images whose stamps are not known."""

NONE = -1

Numbered: TypeAlias = tuple[int, Item]


@dataclasses.dataclass(frozen=True, slots=True)
class Matched:
    """The row of each image of a list, or NONE. digest: of those that have none, and of their stamps."""

    numbers: Int64
    digest: str
    counts: UpdateCounts

    def fresh(self, plan: Worklist) -> Iterator[Numbered]:
        """The images that have no row, and their places in the list."""
        return _without_row(plan, self.numbers)

    def numbers_with(self, start: int) -> Int64:
        """The numbers, where those that have none are the rows from `start` on."""
        found = self.numbers.copy()
        missing = np.flatnonzero(found == NONE)
        found[missing] = np.arange(start, start + len(missing))
        return found


class Matcher:
    """A list of images, and rows that are there. base: what the list's sources are relative to."""

    def __init__(self, plan: Worklist, base: str, known: KnownRows, progress: EmbedProgress) -> None:
        self._plan = plan
        self._base = base
        self.known = known
        self.progress = progress
        self.pool = RowPool()
        self._old = 0
        self._status = functools.lru_cache(64)(os.stat)

    def add(self, folder: Path, manifest: FeatureManifest) -> dict[int, str]:
        """Take the rows of a folder, complete or not; the SHA-256 of its shards that are whole, by number.

        The first one is that which is updated.
        """
        there = {}
        for number in range(manifest.shards):
            path = shard_path(folder, number)
            if not path.exists():
                continue
            try:
                shard = read_shard(path, manifest)
            except FeatureError as error:
                self.progress.on_bad(str(error))
                continue
            if manifest.complete and shard.sha256 != manifest.shard_sha256[number]:
                self.progress.on_bad(f"{path}: not the file that was written under this name: rebuilt")
                continue
            there[number] = shard.sha256
            self._take(path, shard, manifest)
        for path in part_files(folder):
            with contextlib.suppress(FeatureError):  # what it held is embedded again
                self._take(path, read_shard(path, manifest), manifest)
        self._old = self._old or self.pool.count
        return there

    def match(self) -> Matched:
        """Find the rows. Images are read where place and stamp are not known."""
        self.known.sort()
        numbers = array.array("q")
        used = np.zeros(self.pool.count, bool)
        for items in items_of_shards(self._plan.path):
            numbers.extend(self._at_place(at, item, used) for at, item in enumerate(items, start=len(numbers)))
            self.progress.on_compared(len(numbers), self._plan.rows)
        found: Int64 = np.array(numbers, np.int64)
        digest = hashlib.sha256()
        fresh = 0
        for at, item, content in _contents(_without_row(self._plan, found)):
            number = self.known.of(content) if content else None
            if number is None:
                stamp = self.known.stamps(at, at + 1)[at]
                facts = (item.id, item.source, item.offset, item.size, item.refusal, stamp)
                digest.update(f"{json.dumps(facts)}\n".encode())
                fresh += 1
            else:
                found[at], used[number] = number, True
        gone = self.known.count(self._old) - int(used[: self._old].sum())
        return Matched(found, digest.hexdigest()[:16], UpdateCounts(len(found) - fresh, fresh, gone))

    def _take(self, path: Path, shard: Shard, manifest: FeatureManifest) -> None:
        self.known.add(shard, self.pool.count, manifest.base)
        self.pool.add(path, manifest, len(shard.errors))

    def _at_place(self, at: int, item: Item, used: npt.NDArray[np.bool_]) -> int:
        """The row of an image that is as it was, where it was; else NONE, and its stamp is noted."""
        try:
            stamp = "" if item.refusal else item.stamp(self._status(item.path))
        except (OSError, ValueError):
            stamp = ""
        found = NONE
        for number, seen in self.known.at(place_of(self._base, item.source)) if stamp else ():
            used[number] = True
            found = number if found == NONE and seen == stamp else found
        if found == NONE:
            self.known.note_stamp(at, stamp)
        return found


def _without_row(plan: Worklist, numbers: Int64) -> Iterator[Numbered]:
    at = 0
    for items in items_of_shards(plan.path):
        for item in items:
            if numbers[at] == NONE:
                yield at, item
            at += 1


def _contents(items: Iterable[Numbered]) -> Iterator[tuple[int, Item, str | None]]:
    """Each image with the SHA-256 of its bytes, in order, read ahead by several threads; None where it has none."""
    waiting: collections.deque[tuple[int, Item, concurrent.futures.Future[str | None]]] = collections.deque()
    with concurrent.futures.ThreadPoolExecutor(READERS) as readers:
        for at, item in items:
            waiting.append((at, item, readers.submit(_content, item)))
            if len(waiting) > 2 * READERS:
                yield _settled(*waiting.popleft())
        while waiting:
            yield _settled(*waiting.popleft())


def _settled(at: int, item: Item, content: "concurrent.futures.Future[str | None]") -> tuple[int, Item, str | None]:
    return at, item, content.result()


def _content(item: Item) -> str | None:
    file = item.open()
    if not item.refusal:
        with contextlib.suppress(OSError):
            file.read()
    return file.content
