"""Images prepared by threads while the caller does something else: bounded in number, and as soon as they are ready."""

import dataclasses
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Generic, Self, TypeVar

S = TypeVar("S")
T = TypeVar("T")

LINGER = 0.02
"""Seconds to wait for a source that is silent, before what is there goes on without it."""

GRACE = 0.2
"""Seconds that leaving waits for a source which is being asked for its next element."""

NAME = "landmark-onnx"


@dataclasses.dataclass(frozen=True, slots=True)
class _Raised:
    error: BaseException


class Arrivals(Generic[S, T]):
    """`prepare(position, source)` of each source, in whatever order they get ready, or `in_order`.

    A thread advances `sources`, which may block; `workers` threads prepare. At most `limit` are between the source
    and `release`. A context manager: leaving it, at any moment, ends the threads; only a source that blocks keeps
    the thread that waits for it, which does not keep the process.
    """

    def __init__(
        self, prepare: Callable[[int, S], T], sources: Iterable[S], *, workers: int, limit: int, in_order: bool = False
    ) -> None:
        self._prepare = prepare
        # An interrupt comes at any call's return, also within the `with` of a Condition or a Future, which are Python:
        # the lock would stay taken, and the threads would wait for it for ever. A lock's own `with` is one step.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._ready: dict[int, T | _Raised] = {}
        self._limit = limit
        self._in_order = in_order
        self._taken = self._released = self._busy = self._given = 0
        self._ended = self._closed = False
        self._error: BaseException | None = None
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix=NAME)
        self._feeder = threading.Thread(target=self._feed, args=(iter(sources),), name=f"{NAME}-source", daemon=True)

    def __enter__(self) -> Self:
        self._feeder.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._lock:
            self._closed = True
            self._changed.notify_all()
        self._pool.shutdown(cancel_futures=True)
        self._feeder.join(GRACE)

    def take(self, *, patient: bool) -> tuple[int, T] | None:
        """The next that is ready, with its position; None if none comes before something is released.

        patient: wait for a silent source however long it takes; otherwise None after LINGER seconds. None to a patient
        caller who has released everything is the end. Raises: what `prepare` has raised.
        """
        with self._lock:
            while (position := self._next()) not in self._ready:
                if not self._busy and (self._ended or self._taken - self._released >= self._limit):
                    return None
                if not self._changed.wait(None if patient or self._busy else LINGER) and not self._busy:
                    return None
            prepared = self._ready.pop(position)
            self._given += 1
        if isinstance(prepared, _Raised):
            raise prepared.error
        return position, prepared

    def release(self) -> None:
        """One more may be taken from the source: one that was is done with."""
        with self._lock:
            self._released += 1
            self._changed.notify_all()

    def check(self) -> None:
        """Raises: what the source has raised."""
        if self._error:
            raise self._error

    def _feed(self, sources: Iterator[S]) -> None:
        try:
            while self._room():
                self._submit(next(sources))
        except StopIteration:
            pass
        except BaseException as error:  # whatever it is, it is the caller's
            self._error = error
        with self._lock:
            self._ended = True
            self._changed.notify_all()

    def _room(self) -> bool:
        with self._lock:
            self._changed.wait_for(lambda: self._closed or self._taken - self._released < self._limit)
            return not self._closed

    def _submit(self, source: S) -> None:
        with self._lock:
            if self._closed:
                return
            position = self._taken
            self._taken += 1
            self._busy += 1
            self._pool.submit(self._work, position, source)

    def _work(self, position: int, source: S) -> None:
        prepared: T | _Raised
        try:
            prepared = self._prepare(position, source)
        except BaseException as error:  # whatever it is, it is the caller's
            prepared = _Raised(error)
        with self._lock:
            self._busy -= 1
            self._ready[position] = prepared
            self._changed.notify_all()

    def _next(self) -> int:
        """The position that is given next, whether it is ready or not."""
        return self._given if self._in_order else next(iter(self._ready), -1)
