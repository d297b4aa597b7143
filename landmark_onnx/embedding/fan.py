"""One iterator for several readers, each of which may be a thread of its own."""

import collections
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
        self._lock = threading.Lock()
        self._waiting: list[collections.deque[T]] = [collections.deque() for _ in range(readers)]

    def readers(self) -> list[Iterator[T]]:
        """One iterator for each reader."""
        return [self._read(waiting) for waiting in self._waiting]

    def _read(self, waiting: collections.deque[T]) -> Iterator[T]:
        while True:
            with self._lock:
                if not waiting:
                    try:
                        element = next(self._source)
                    except StopIteration:
                        return
                    for each in self._waiting:
                        each.append(element)
                element = waiting.popleft()
            yield element
