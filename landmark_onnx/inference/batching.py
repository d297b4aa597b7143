"""Things that wait for others of their kind, so that they are handled together."""

import dataclasses
from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T")

BATCH_SIZE = 4
"""Images that run together, unless it is said otherwise."""


@dataclasses.dataclass(slots=True)
class _Bucket(Generic[T]):
    """room: members that make it full. opened: how many had come to any bucket before its first member."""

    room: int
    opened: int
    members: list[tuple[int, T]] = dataclasses.field(default_factory=list)

    def first(self) -> int:
        """The lowest position of a member."""
        return min(position for position, _ in self.members)


class Buckets(Generic[T]):
    """One bucket per kind of item. patience: how many may come after an item before its bucket goes, full or not."""

    def __init__(self, patience: int) -> None:
        self._patience = patience
        self._count = 0
        self._buckets: dict[Hashable, _Bucket[T]] = {}

    def __bool__(self) -> bool:
        return bool(self._buckets)

    def add(self, kind: Hashable, room: int, position: int, item: T) -> None:
        """Put an item to those of its kind, of which `room` make a batch."""
        bucket = self._buckets.setdefault(kind, _Bucket(room, self._count))
        bucket.members.append((position, item))
        self._count += 1

    def due(self) -> list[tuple[int, T]]:
        """Take out a bucket that is full or has waited too long, by position; empty if there is none."""
        for kind, bucket in self._buckets.items():
            if len(bucket.members) >= bucket.room or self._count - bucket.opened > self._patience:
                return self._take(kind)
        return []

    def oldest(self) -> list[tuple[int, T]]:
        """Take out the bucket with the lowest position of all, by position."""
        return self._take(min(self._buckets, key=lambda kind: self._buckets[kind].first()))

    def _take(self, kind: Hashable) -> list[tuple[int, T]]:
        return sorted(self._buckets.pop(kind).members, key=lambda member: member[0])
