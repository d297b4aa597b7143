"""Lists of paths or ids as people have them, read as they come: each name is there when its line is.

One name a line, which ends with a line feed or CR LF and with nothing else: a file's name may hold the other
characters that Unicode breaks lines at. Where the first name ends with a NUL, as `find -print0` writes it, all do.
"""

import codecs
import functools
import os
import sys
from collections.abc import Callable, Iterable, Iterator

from landmark_onnx.errors import TableError

STDIN = "-"
LONGEST = 1 << 20
"""Bytes of a name, far over what a system takes for a path."""

_CHUNK = 1 << 16
_BOMS = ((codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))


def read_list(path: str) -> Iterator[str]:
    r"""The names in a file, or on standard input for "-"; empty lines are passed over.

    UTF-8, with a byte-order mark or without, or UTF-16 with one; other bytes are kept as `os.fsdecode` does.
    Raises: TableError that names the file and the line: it cannot be read, is other text, or a NUL is inside a line.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     _ = file.write("a.jpg\r\n\r\nb, c.jpg\n".encode("utf-16")), file.flush()
    ...     list(read_list(file.name))
    ['a.jpg', 'b, c.jpg']
    """
    name = "standard input" if path == STDIN else path
    try:
        if path == STDIN:
            # Not Python's own object: a thread may wait for a line when the program ends, and Python aborts then.
            yield from _names(functools.partial(os.read, _standard_input(), _CHUNK), name)
            return
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123  # the name as it was given
            yield from _names(functools.partial(file.read, _CHUNK), name)
    except OSError as error:
        raise TableError(f"{name}: {error.strerror or error}") from error


def _standard_input() -> int:
    if sys.stdin is None:
        raise TableError("standard input is closed: give the list there, or in a file")
    return sys.stdin.fileno()


def _names(read: Callable[[], bytes], name: str) -> Iterator[str]:
    """read: some bytes more, none at the end."""
    head = b""
    while len(head) < 4 and b"\n" not in head and (more := read()):
        head += more
    separator = b""
    waiting = b""
    number = 0
    for chunk in _as_utf8(head, iter(read, b""), name):
        waiting += chunk
        separator = separator or _separator(waiting)
        if separator:
            *whole, waiting = waiting.split(separator)
            for line in whole:
                number += 1
                yield from _name(line, number, separator, name)
        if len(waiting) > LONGEST:
            raise TableError(f"{name}, line {number + 1}: longer than {LONGEST:,} bytes: no list of paths or ids")
    yield from _name(waiting, number + 1, separator or b"\n", name)


def _separator(data: bytes) -> bytes:
    """What the first name ends with; nothing while that is not known."""
    ends = [at for at in (data.find(b"\n"), data.find(b"\0")) if at >= 0]
    return data[min(ends) : min(ends) + 1] if ends else b""


def _name(line: bytes, number: int, separator: bytes, origin: str) -> Iterator[str]:
    if separator == b"\n":
        line = line.removesuffix(b"\r")
        if b"\0" in line:
            raise TableError(
                f"{origin}, line {number}: a NUL inside a line: end every name with a line feed, or every name with a "
                "NUL, as find -print0 does"
            )
    if line:
        yield os.fsdecode(line)


def _as_utf8(head: bytes, rest: Iterable[bytes], name: str) -> Iterator[bytes]:
    """The bytes without a mark of their order, and UTF-16 as UTF-8. head: four of them or more, unless all is less."""
    if head.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        raise TableError(f"{name}: UTF-32 text; write it as UTF-8: iconv -f UTF-32 -t UTF-8")
    for bom, encoding in _BOMS:
        if head.startswith(bom):
            yield from _recoded(head[len(bom) :], rest, encoding, name)
            return
        # Without a mark, every other byte of plain names is a NUL: no list with NULs between names begins so.
        pair = head[:4]
        if len(pair) == 4 and pair[1 if bom == codecs.BOM_UTF16_LE else 0 :: 2] == b"\0\0":
            raise TableError(
                f"{name}: UTF-16 text without a byte-order mark; write it as UTF-8: "
                f"iconv -f {encoding.upper()} -t UTF-8"
            )
    yield head.removeprefix(codecs.BOM_UTF8)
    yield from rest


def _recoded(head: bytes, rest: Iterable[bytes], encoding: str, name: str) -> Iterator[bytes]:
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        yield os.fsencode(decoder.decode(head))
        for chunk in rest:
            yield os.fsencode(decoder.decode(chunk))
        decoder.decode(b"", final=True)
    except UnicodeError as error:
        raise TableError(f"{name}: damaged UTF-16 text ({error.args[-1]}); write it as UTF-8") from error
