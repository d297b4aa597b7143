"""Images prepared by threads while the caller does something else: bounded in number, and as soon as they are ready."""

import collections
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, Self, TypeVar

S = TypeVar("S")
T = TypeVar("T")

LINGER = 0.02
"""Seconds to wait for a source that is silent, before what is there goes on without it."""

GRACE = 0.2
"""Seconds that leaving waits for a source which is being asked for its next element."""

NAME = "landmark-onnx"


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
        self._changed = threading.Condition()
        self._ready: collections.deque[tuple[int, Future[T]]] = collections.deque()
        self._limit = limit
        self._in_order = in_order
        self._taken = self._released = self._busy = 0
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
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._pool.shutdown(cancel_futures=True)
        self._feeder.join(GRACE)

    def take(self, *, patient: bool) -> tuple[int, T] | None:
        """The next that is ready, with its position; None if none comes before something is released.

        patient: wait for a silent source however long it takes; otherwise None after LINGER seconds. None to a patient
        caller who has released everything is the end. Raises: what `prepare` has raised.
        """
        with self._changed:
            while not self._ready:
                if not self._busy and (self._ended or self._taken - self._released >= self._limit):
                    return None
                if not self._changed.wait(None if patient or self._busy else LINGER) and not self._busy:
                    return None
            position, future = self._ready.popleft()
        return position, future.result()

    def release(self) -> None:
        """One more may be taken from the source: one that was is done with."""
        with self._changed:
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
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _room(self) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._taken - self._released < self._limit)
            return not self._closed

    def _submit(self, source: S) -> None:
        with self._changed:
            if self._closed:
                return
            position = self._taken
            self._taken += 1
            self._busy += 1
            future = self._pool.submit(self._prepare, position, source)
            if self._in_order:
                # Taken before it is ready, it is waited for.
                self._ready.append((position, future))
                self._changed.notify_all()
        future.add_done_callback(lambda done: self._arrive(position, done))

    def _arrive(self, position: int, done: Future[T]) -> None:
        with self._changed:
            self._busy -= 1
            if not self._in_order:
                self._ready.append((position, done))
            self._changed.notify_all()
