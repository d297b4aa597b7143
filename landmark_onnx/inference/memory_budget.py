"""How much decoders may hold together."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class MemoryBudget:
    """Bytes that decoders may hold together. Whoever waits goes before whoever comes later, so that none starves."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._used = 0
        self._turn = threading.Lock()
        self._changed = threading.Condition()

    @contextmanager
    def reserved(self, size: int) -> Iterator[None]:
        """Wait until `size` bytes are there, or until nothing else is held, and hold them."""
        with self._turn, self._changed:
            self._changed.wait_for(lambda: not self._used or self._used + size <= self._total)
            self._used += size
        try:
            yield
        finally:
            self.release(size)

    def add(self, size: int) -> None:
        """Hold what is there already, without waiting."""
        with self._changed:
            self._used += size

    def release(self, size: int) -> None:
        """Give bytes back."""
        with self._changed:
            self._used -= size
            self._changed.notify_all()
