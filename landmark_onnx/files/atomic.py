"""Writing files so that a reader sees the old one or the whole new one, never a half.

What a path leads to stays what it is. A link keeps pointing where it does; a device, a pipe or an open descriptor
(/dev/stdout) is written to; a file that is replaced hands on its mode and, as far as this user may give them, its owner
and group.
"""

import contextlib
import errno
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

MAX_LINKS = 40
"""Links of a path that are followed, as many as Linux does."""

_TEMPORARY = re.compile(r"\.(.+)\.[0-9a-f]{16}\.tmp")

_NO_RENAME = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.EBUSY, errno.EXDEV})
"""A folder that takes no new file, a sticky one, a mounted file, or a file that waited in the temporary folder."""

_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})
"""How file systems say that they know no hard links."""


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """A file to write that becomes `path` when the block ends well, and vanishes when it does not.

    Until then its `name` is the path of a hidden file beside, or in the temporary folder where `path` is no regular
    file, or its folder takes no new one: then it is copied into what is there.
    Raises: OSError that names `path`.
    """
    with _unfinished(path, publish) as file:
        yield file


@contextlib.contextmanager
def streaming_write(path: Path) -> Iterator[BinaryIO]:
    """As `atomic_write`, but a device, a pipe or a descriptor gets what is written as it is flushed, in order."""
    target = _followed(path)
    if _is_written_through(target):
        with _opened(target, path) as file:
            yield file
        return
    with atomic_write(path) as file:
        yield file


def copy_file(source: Path, target: Path, check: Callable[[Path], object]) -> None:
    """Copy a file; `check` raises if the copy is not what it should be, and then nothing is left of it."""
    with source.open("rb") as reader, atomic_write(target) as file:
        shutil.copyfileobj(reader, file)
        file.flush()
        check(Path(file.name))


def check_writable(path: Path) -> None:
    """Raises: OSError if `atomic_write` could not write `path`; its folders are made."""
    with contextlib.suppress(_NothingWrittenError), atomic_write(path):
        raise _NothingWrittenError


class _NothingWrittenError(Exception):
    pass


@contextlib.contextmanager
def write_new(path: Path) -> Iterator[BinaryIO]:
    """As `atomic_write`, but it replaces nothing. Raises: FileExistsError, at either end, if the name is taken."""
    if os.path.lexists(path):
        raise _error(errno.EEXIST, path)
    with _unfinished(path, _publish_new) as file:
        yield file


def destination(path: Path) -> Path | None:
    """What a rename will replace for `path`, at the end of its links, there or not; its parents are made if need be.

    None if what is there has to be written to. Raises: OSError for links in a circle.
    """
    target = _followed(path)
    if _is_written_through(target):
        return None
    assert isinstance(target, Path)
    # Where a link leads nobody has asked for folders: a disk may be missing there.
    if not path.is_symlink():
        target.parent.mkdir(parents=True, exist_ok=True)
    return target if _accepts_files(target.parent) or not target.exists() else None


def sync(file: BinaryIO) -> None:
    """Bring what was written to the disk itself."""
    file.flush()
    os.fsync(file.fileno())


def publish(temporary: Path, path: Path) -> None:
    """Bring a finished, synced file, or folder, to where `path` leads: by a rename wherever that is possible."""
    target = _followed(path)
    if _is_written_through(target):
        with temporary.open("rb") as source, _opened(target, path) as file:
            shutil.copyfileobj(source, file)
        temporary.unlink()
        return
    assert isinstance(target, Path)
    try:
        if target.is_file():
            _hand_on(target.stat(), temporary)
        temporary.replace(target)
    except OSError as error:
        if error.errno not in _NO_RENAME or os.name == "nt" or not target.is_file():
            raise
        _overwrite(temporary, target)
        temporary.unlink()
    _sync_folder(target.parent)


def temporaries(folder: Path, of: re.Pattern[str]) -> list[Path]:
    """What a killed `atomic_write` has left of files whose whole names match `of`: by the exact form of its names."""
    found = ((path, _TEMPORARY.fullmatch(path.name)) for path in folder.glob(".*.tmp"))
    return [path for path, name in found if name and of.fullmatch(name[1])]


@contextlib.contextmanager
def _unfinished(path: Path, finish: Callable[[Path, Path], None]) -> Iterator[BinaryIO]:
    if path.is_dir():
        raise _error(errno.EISDIR, path)
    target = destination(path)
    # Until it has the mode of the file that it replaces, nobody else reads it.
    mode = 0o600 if target is None or target.exists() else 0o666
    temporary = (target or Path(tempfile.gettempdir(), path.name)).with_name(_temporary_name(target or path))
    try:
        temporary.touch(mode, exist_ok=False)
    except OSError as error:
        raise _error(error.errno, path) from error
    try:
        with temporary.open("r+b") as file:
            yield file
            sync(file)
        finish(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _temporary_name(path: Path) -> str:
    # A file system's longest names leave no room for what is added: 58 characters have 232 bytes at most.
    name = path.name if len(os.fsencode(path.name)) <= 232 else path.name[:58]
    return f".{name}.{secrets.token_hex(8)}.tmp"


def _publish_new(temporary: Path, path: Path) -> None:
    """A link is refused where a rename would replace."""
    try:
        path.hardlink_to(temporary)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise _error(error.errno, path) from error
        path.open("xb").close()
        temporary.replace(path)
    _sync_folder(path.parent)


def _followed(path: Path) -> Path | int:
    """Where `path` leads: the file at the end of its links, there or not, or the number of an own descriptor."""
    own = {os.path.realpath(folder) for folder in ("/dev/fd", "/proc/self/fd", "/proc/thread-self/fd")}
    place = path
    for _ in range(MAX_LINKS):
        if place.name.isdecimal() and os.path.realpath(place.parent) in own:
            return int(place.name)
        if not place.is_symlink():
            return place
        following = place.parent / place.readlink()
        # The descriptors of other processes are links to names that are none.
        if place.exists() and not following.exists():
            return place
        place = following
    raise _error(errno.ELOOP, path)


def _is_written_through(target: Path | int) -> bool:
    if isinstance(target, int):
        return True
    try:
        mode = target.stat().st_mode
    except OSError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def _opened(target: Path | int, path: Path) -> BinaryIO:
    """A device, pipe or descriptor to write to; a pipe waits for its reader."""
    try:
        # Neither made nor cut: Linux refuses others' pipes in shared folders to those who would make them.
        descriptor = os.dup(target) if isinstance(target, int) else os.open(target, os.O_WRONLY)
    except OSError as error:
        if isinstance(target, Path) and target.is_socket():
            raise OSError(error.errno, "a socket cannot be opened by its name", str(path)) from error
        raise _error(error.errno, path) from error
    return os.fdopen(descriptor, "wb")


def _accepts_files(folder: Path) -> bool:
    return os.access(folder, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids)


def _hand_on(old: os.stat_result, temporary: Path) -> None:
    """Give the new file the owner, group and mode of the old one, as far as this user may."""
    mode, new = stat.S_IMODE(old.st_mode) & 0o777, temporary.stat()
    if new.st_gid != old.st_gid:
        try:
            os.chown(temporary, -1, old.st_gid)
        except OSError:
            # Another group gets no more than everybody has.
            mode = mode & 0o707 | (mode & 0o007) << 3
    if new.st_uid != old.st_uid:
        with contextlib.suppress(OSError):
            os.chown(temporary, old.st_uid, -1)
    with contextlib.suppress(OSError):  # some file systems have no modes
        temporary.chmod(mode)


def _overwrite(temporary: Path, target: Path) -> None:
    """Copy over the bytes of a file that nothing can be renamed to; where there is no room, it stays as it is."""
    with temporary.open("rb") as source, target.open("r+b") as file:
        size, before = os.fstat(source.fileno()).st_size, os.fstat(file.fileno()).st_size
        if size > before and hasattr(os, "posix_fallocate"):
            try:
                os.posix_fallocate(file.fileno(), before, size - before)
            except OSError as error:
                file.truncate(before)
                raise _error(error.errno, target) from error
        shutil.copyfileobj(source, file)
        file.truncate(size)
        sync(file)


def _sync_folder(path: Path) -> None:
    with contextlib.suppress(OSError):  # a folder cannot be opened, let alone synced, on Windows
        folder = os.open(path, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _error(number: int | None, path: Path) -> OSError:
    """An error of the system's that names the path that was given."""
    return OSError(number, os.strerror(number or errno.EIO), str(path))
