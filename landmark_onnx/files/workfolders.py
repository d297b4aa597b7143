"""Folders for work in progress. Each has a lock inside that goes with its process, however that ends.

So what a killed process left is known for certain, and is removed when the next folder is made there.
"""

import contextlib
import logging
import os
import re
import secrets
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import filelock

from landmark_onnx.files.atomic import destination

logger = logging.getLogger(__name__)

OWNER = ".landmark-onnx.lock"
"""The lock. A folder without one is none of ours, whatever it is called."""

OLD = "old"
"""What stood in the place of a finished folder, where the two cannot be exchanged in one step."""

_NAME = re.compile(r"landmark-onnx-[0-9a-f]{16}|\.(?P<target>.+)\.[0-9a-f]{16}\.tmp", re.DOTALL)

_NO_LOCKS = OSError, NotImplementedError
"""What locking raises where it does not work."""

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
"""Of Linux' fcntl.h and fs.h."""


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder in the system's temporary one, gone after the block."""
    with _owned(Path(tempfile.gettempdir()), "landmark-onnx-", "") as folder:
        yield folder


@contextlib.contextmanager
def folder_beside(target: Path) -> Iterator[Path]:
    """A hidden folder on the same disk as `target`, to make it in; gone after the block.

    It is a temporary one where nothing can be renamed to `target`: `landmark_onnx.files.atomic.publish` copies then.
    """
    place = destination(target)
    with _owned(place.parent, f".{place.name}.", ".tmp") if place else temporary_folder() as folder:
        yield folder


def replace_folder(new: Path, target: Path) -> None:
    """Put `new`, a folder inside one of `folder_beside(target)`, in the place of the folder `target`, there or not.

    Linux exchanges the two in one step. Elsewhere, and on a file system that cannot, there is a moment without either;
    the next call for a folder beside `target` puts back what a kill in that moment took away.
    """
    target = destination(target) or target
    if not target.exists():
        new.rename(target)
    elif not _exchange(new, target):
        old = new.with_name(OLD)
        target.rename(old)
        try:
            new.rename(target)
        except BaseException:
            old.rename(target)
            raise


def stale_folders(parent: Path) -> Iterator[Path]:
    """The folders that killed processes of this user left in `parent`, each locked until the next is asked for."""
    try:
        names = [entry.name for entry in os.scandir(parent) if _NAME.fullmatch(entry.name)]
    except OSError:
        return
    for folder in (parent / name for name in sorted(names)):
        lock = None
        with contextlib.suppress(*_NO_LOCKS):
            lock = _try_own(folder) if _is_ours(folder) else None
        if lock:
            try:
                _put_back(folder)
                yield folder
            finally:
                lock.release()


def in_use(folder: Path) -> bool:
    """Whether it is one of ours whose process is alive."""
    try:
        if not _is_ours(folder):
            return False
        if lock := _try_own(folder):
            lock.release()
    except _NO_LOCKS:
        return True
    return lock is None


@contextlib.contextmanager
def _owned(parent: Path, prefix: str, suffix: str) -> Iterator[Path]:
    for stale in stale_folders(parent):
        logger.info("%s: a killed process left it; removed", stale)
        shutil.rmtree(stale, ignore_errors=True)
    with contextlib.ExitStack() as stack:
        yield _make(parent, prefix, suffix, stack)


def _make(parent: Path, prefix: str, suffix: str, stack: contextlib.ExitStack) -> Path:
    """A new folder with its lock; where a file system has no locks it has none, and stays for ever after a kill."""
    while True:
        folder = parent / f"{prefix}{secrets.token_hex(8)}{suffix}"
        # Before it is there, lest an interrupt come between.
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        folder.mkdir(mode=0o700)
        try:
            # Who clears up at this very moment may be first: then the folder is theirs.
            if lock := _try_own(folder):
                stack.callback(lock.release)
                return folder
        except _NO_LOCKS as error:
            logger.info("%s: cannot be locked: %s", folder, error)
            (folder / OWNER).unlink(missing_ok=True)
            return folder


def _try_own(folder: Path) -> filelock.BaseFileLock | None:
    # A generator may be closed by another thread than the one that began it.
    lock = filelock.FileLock(folder / OWNER, thread_local=False)
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        return None
    return lock


def _is_ours(folder: Path) -> bool:
    """A folder, no link to one, that belongs to this user and has a lock: others may write where it lies."""
    try:
        status, lock = folder.lstat(), (folder / OWNER).lstat()
    except OSError:
        return False
    mine = not hasattr(os, "getuid") or status.st_uid == os.getuid()
    return mine and stat.S_ISDIR(status.st_mode) and stat.S_ISREG(lock.st_mode)


def _put_back(folder: Path) -> None:
    named = _NAME.fullmatch(folder.name)
    target = named and named["target"]
    if target and (folder / OLD).is_dir() and not folder.with_name(target).exists():
        (folder / OLD).rename(folder.with_name(target))


def _exchange(one: Path, other: Path) -> bool:
    """Let two folders change places; whether that worked."""
    if sys.platform != "linux":
        return False
    import ctypes

    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:  # a C library older than 2018
        return False
    failed = rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE)
    if failed:
        logger.info("%s: cannot be exchanged in one step: %s", other, os.strerror(ctypes.get_errno()))
    return not failed
