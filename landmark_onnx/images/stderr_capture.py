"""What a decoder's C libraries write to standard error, which names no file: captured, reported with the file's name.

Standard error is one for the whole process, so what is written there can be attributed to a decoding only while no
other runs; where it is certain that nothing will be written, images are decoded without this.
"""

import contextlib
import os
import re
import tempfile
import threading
from collections.abc import Callable, Iterator
from typing import IO, TypeVar

T = TypeVar("T")

_STDERR = 2
_ONE_AT_A_TIME = threading.Lock()

_OPENCV_LOG = rb"\[ ?[A-Z]+:\d+@[\d.]+\] "
_DECODERS = re.compile(
    rb"Corrupt JPEG data|Premature end of JPEG|Warning: unknown JFIF|Invalid SOS param|Inconsistent progression"
    rb"|Unknown Adobe color|Unsupported marker|libpng |" + _OPENCV_LOG
)
_CONTINUED = re.compile(rb"[>\s]")
_WHERE = re.compile(rb"^" + _OPENCV_LOG + rb"global \S+ \S+ |.*error: \([^)]*\) | in function '\w+'$|^libpng \w+: ")


def overheard(decode: Callable[[], T]) -> tuple[T, list[str]]:
    """What `decode` returns, and what decoders wrote to standard error meanwhile, a line each.

    One at a time in this process. What other threads write there in that moment is passed on when it is over.
    """
    with _ONE_AT_A_TIME, _scratch() as file:
        with _redirected(file.fileno()):
            result = decode()
        file.seek(0)
        heard, rest = _told_apart(file.read())
    if rest:
        with contextlib.suppress(OSError):
            os.write(_STDERR, rest)
    return result, heard


def _told_apart(written: bytes) -> tuple[list[str], bytes]:
    """What decoders wrote, a line each, and the rest. What follows a line of theirs, and is set off, belongs to it."""
    heard: list[str] = []
    rest = b""
    inside = False
    for line in written.splitlines(keepends=True):
        if _DECODERS.match(line):
            heard.append(_WHERE.sub(b"", line.strip()).decode(errors="replace"))
            inside = True
        elif not (inside and _CONTINUED.match(line)):
            rest += line
            inside = False
    return heard, rest


def _scratch() -> IO[bytes]:
    """A file in memory, where there is such a thing: a full disk is no reason not to decode."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("landmark-onnx"), "w+b")
    return tempfile.TemporaryFile()


@contextlib.contextmanager
def _redirected(target: int) -> Iterator[None]:
    saved = os.dup(_STDERR)
    try:
        os.dup2(target, _STDERR)
        yield
    finally:
        os.dup2(saved, _STDERR)
        os.close(saved)


def _occupy() -> None:
    """Where standard error was closed, have the null device there: else the next file that is opened would be it."""
    try:
        os.fstat(_STDERR)
    except OSError:
        while (number := os.open(os.devnull, os.O_RDWR)) < _STDERR:
            pass
        if number > _STDERR:
            os.close(number)


_occupy()
if hasattr(os, "register_at_fork"):
    # A child that is forked meanwhile would have the file for its standard error, and a lock that nobody releases.
    os.register_at_fork(
        before=_ONE_AT_A_TIME.acquire,
        after_in_parent=_ONE_AT_A_TIME.release,
        after_in_child=_ONE_AT_A_TIME.release,
    )
