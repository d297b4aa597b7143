"""Things that wait for others of their kind, so that they are handled together."""

import dataclasses
import heapq
import math
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

N = TypeVar("N", int, float)
T = TypeVar("T")

BATCH_SIZE = 4
"""Images that run together, unless it is said otherwise."""


@dataclasses.dataclass(slots=True)
class _Bucket(Generic[N, T]):
    """room: members that make it full. opened: how many had come to any bucket before its first member.

    members: position, how many had come before, item; a heap.
    """

    room: int
    opened: int
    members: list[tuple[N, int, T]] = dataclasses.field(default_factory=list)


class Buckets(Generic[N, T]):
    """One bucket per kind of item. patience: how many may come after an item before its bucket goes, full or not.

    A position is any number: the lower goes first.
    """

    def __init__(self, patience: float = math.inf) -> None:
        self._patience = patience
        self._count = 0
        self._buckets: dict[Hashable, _Bucket[N, T]] = {}

    def __bool__(self) -> bool:
        return bool(self._buckets)

    def add(self, kind: Hashable, room: int, position: N, item: T) -> None:
        """Put an item to those of its kind, of which `room` make a batch."""
        bucket = self._buckets.setdefault(kind, _Bucket(room, self._count))
        bucket.room = room
        heapq.heappush(bucket.members, (position, self._count, item))
        self._count += 1

    def due(self) -> list[tuple[N, T]]:
        """Take a batch out of a bucket that is full or has waited too long, by position; empty if there is none."""
        for kind, bucket in self._buckets.items():
            if len(bucket.members) >= bucket.room or self._count - bucket.opened > self._patience:
                return self._take(kind)
        return []

    def oldest(self) -> list[tuple[N, T]]:
        """Take a batch out of the bucket with the lowest position of all, by position."""
        return self._take(min(self._buckets, key=lambda kind: self._buckets[kind].members[0][:2]))

    def drop(self, test: Callable[[T], bool]) -> None:
        """Let go of the items of which `test` is true."""
        for kind, bucket in list(self._buckets.items()):
            bucket.members = [member for member in bucket.members if not test(member[2])]
            heapq.heapify(bucket.members)
            if not bucket.members:
                del self._buckets[kind]

    def _take(self, kind: Hashable) -> list[tuple[N, T]]:
        """The lowest positions of a bucket, as many as make a batch; the rest stays."""
        bucket = self._buckets[kind]
        taken = [heapq.heappop(bucket.members) for _ in range(min(bucket.room, len(bucket.members)))]
        if not bucket.members:
            del self._buckets[kind]
        return [(position, item) for position, _, item in taken]
