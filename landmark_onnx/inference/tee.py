"""One iterator for several readers, each of which may be a thread of its own."""

import collections
import itertools
import threading
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Fan(Generic[T]):
    """Gives each of `readers` every element of `source`, in order.

    An element waits for the slowest reader: who reads in step keeps no more than they read ahead of each other.
    `itertools.tee` would not do: two threads may not read at once there.
    """

    def __init__(self, source: Iterator[T], readers: int) -> None:
        self._source = source
        self._changed = threading.Condition()
        self._reading = self._ended = False
        self._waiting: list[collections.deque[T]] = [collections.deque() for _ in range(readers)]

    def readers(self) -> list[Iterator[T]]:
        """One iterator for each reader."""
        return [self._read(waiting) for waiting in self._waiting]

    def _read(self, waiting: collections.deque[T]) -> Iterator[T]:
        while self._fill(waiting):
            yield waiting.popleft()

    def _fill(self, waiting: collections.deque[T]) -> bool:
        """Wait until there is an element; False at the end. Raises: what the source raises, to one reader."""
        with self._changed:
            self._changed.wait_for(lambda: waiting or self._ended or not self._reading)
            if waiting or self._ended:
                return bool(waiting)
            self._reading = True
        read: list[T] = []
        try:
            # Without the lock: a source that is silent keeps nobody from what has come.
            read += itertools.islice(self._source, 1)
        finally:
            with self._changed:
                self._reading, self._ended = False, not read
                for each in self._waiting:
                    each.extend(read)
                self._changed.notify_all()
        return bool(read)
