"""The standard streams, whatever state the program was started with."""

import contextlib
import io
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

READER_LEFT = 141
"""The exit code if the reader of standard output left early: what a shell reports of a program that SIGPIPE ended."""


def open_streams() -> None:
    """Have something behind each of the three, and a standard error that never fails a run.

    Where one was closed it is the null device from now on. Otherwise the next file that is opened would get its number,
    and whatever a native library says would go into that file.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", errors="surrogateescape", closefd=False)  # noqa: SIM115
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", errors="surrogateescape", closefd=False)  # noqa: SIM115
    if sys.stderr is None or sys.stderr is sys.__stderr__:
        encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
        raw = io.BufferedWriter(_Lenient(2, "wb", closefd=False))
        sys.stderr = io.TextIOWrapper(raw, encoding, errors="backslashreplace", line_buffering=True)


def reader_left() -> bool:
    """Whether nobody reads standard output any more."""
    import select

    if not hasattr(select, "poll"):
        return True  # Windows cannot say; a broken pipe is hardly ever another one
    poll = select.poll()
    poll.register(1, 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def drop_output() -> None:
    """Let what still waits in standard output go nowhere: the interpreter would fail over it once more as it ends."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)


class _Lenient(io.FileIO):
    """A stream whose errors are nobody's: a reader that left, a full disk behind a log."""

    def write(self, data: "ReadableBuffer", /) -> int:
        with contextlib.suppress(OSError):
            return super().write(data)
        return len(memoryview(data).cast("B"))
