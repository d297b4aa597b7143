"""Who may change the store: one lock for each model name, held by a process and gone with it, however it ends."""

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import filelock

from landmark_onnx.store.catalogue import home

POLL_SECONDS = 0.05

_GATE = "_store"
"""No model's name begins so."""


@contextlib.contextmanager
def locked(name: str, *, on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Be the only one, of all threads and processes, who changes what belongs to `name`; a thread may nest it.

    on_wait: called once if another has the lock.
    """
    lock = _lock(name)
    waited = False
    # Held for a moment only, so that `all_locked` finds nobody between asking for a lock and having it.
    while not _try_lock(lock):
        if not waited:
            on_wait()
            waited = True
        time.sleep(POLL_SECONDS)
    try:
        yield
    finally:
        lock.release()


def file_locked(path: Path, *, on_wait: Callable[[], None] = lambda: None) -> contextlib.AbstractContextManager[None]:
    """The lock of the model whose exported file this is, or would be; no lock for a file outside the store."""
    if path.parent.resolve() == (home() / "models").resolve():
        return locked(path.name.removesuffix(".onnx"), on_wait=on_wait)
    return contextlib.nullcontext()


@contextlib.contextmanager
def all_locked() -> Iterator[frozenset[str]]:
    """Let nobody begin to change anything; yields the names that somebody works on already."""
    with _lock(_GATE), contextlib.ExitStack() as stack:
        busy = set()
        for path in sorted((home() / "locks").glob("[!_]*.lock")):
            name = path.name.removesuffix(".lock")
            try:
                stack.enter_context(_lock(name).acquire(blocking=False))
            except filelock.Timeout:
                busy.add(name)
        yield frozenset(busy)


def _try_lock(lock: filelock.BaseFileLock) -> bool:
    with _lock(_GATE):
        try:
            lock.acquire(blocking=False)
        except filelock.Timeout:
            return False
    return True


def _lock(name: str) -> filelock.BaseFileLock:
    folder = home() / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    return filelock.FileLock(folder / f"{name}.lock", poll_interval=POLL_SECONDS, is_singleton=True)
