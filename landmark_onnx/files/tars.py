"""The members of a plain tar by its headers, read where they lie: a size that lies makes no loop and takes no memory.

Python's `tarfile` follows a negative size backwards, reads an extended header of any length into memory, and takes a
header that it cannot read for the end. Its reader of one header block is used here, and what joins them is our own.
"""

import dataclasses
import re
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

BLOCK = tarfile.BLOCKSIZE
MAX_EXTENDED = 64 << 10
"""Bytes of an extended header, which has a name, times and the like."""

_PAX = frozenset({tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE})
_LONG = frozenset({tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK})
_WITHOUT_DATA = frozenset(
    {tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE}
)
_RECORD = re.compile(rb"(\d{1,6}) ([^=]+)=")
_SPARSE = "GNU.sparse."
_KEYS = frozenset({"path", "size", "GNU.sparse.name"})


class TarError(ValueError):
    """The headers of a tar end too early, or cannot be read, so that what follows is not known."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TarMember:
    """A member. kind: its type, as `tarfile` calls it. offset, size: of its data, in bytes; the size may be negative.

    odd: what is wrong with its own headers, or nothing. Then its name or size may be another's.
    """

    name: str
    kind: bytes
    offset: int
    size: int
    sparse: bool
    odd: str

    @property
    def regular(self) -> bool:
        """Whether it is a plain file, one of a kind that nobody knows among them."""
        return self.kind not in _WITHOUT_DATA


def members(file: BinaryIO, *, marked: bool = False) -> Iterator[TarMember]:
    """All members, in their order, of a tar that can seek.

    marked: the end must be marked by a block of zeros; else the file may also just end after a member.
    Raises: TarError that says at which byte.
    """
    end = file.seek(0, 2)
    at = 0
    everywhere: dict[str, str] = {}
    while (header := _header(file, at, end, marked)) is not None:
        extended: dict[str, str] = {}
        odd = ""
        while header.type in _PAX | _LONG:
            data = _extended(file, at, header)
            if data is None:
                odd = f"an extended header of {header.size:,} bytes"
            elif header.type in _LONG:
                extended |= {"path": _text(data)} if header.type == tarfile.GNUTYPE_LONGNAME else {}
            else:
                target = everywhere if header.type == tarfile.XGLTYPE else extended
                target |= _records(data)
            at += BLOCK + _blocks(header.size)
            following = _header(file, at, end, marked=True)
            if following is None:
                raise TarError(f"an extended header of nothing at byte {at}")
            header = following
        member, at = _member(file, at, header, everywhere | extended, odd)
        yield member
        if at > end:
            raise TarError(f"{member.name[:200]!r} is cut at byte {end}")


def pack_folder(folder: Path, name: str, file: BinaryIO) -> None:
    """Write the folder's files as a tar, below `name`; the same files give the same bytes.

    Raises: TarError if there is none.
    """

    def plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = member.mtime = 0
        member.uname = member.gname = ""
        member.mode = 0o644
        return member

    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    if not paths:
        raise TarError("no file in this folder")
    with tarfile.open(fileobj=file, mode="w", dereference=True) as tar:
        for path in paths:
            tar.add(path, f"{name}/{path.relative_to(folder).as_posix()}", filter=plain)


def _header(file: BinaryIO, at: int, end: int, marked: bool) -> tarfile.TarInfo | None:
    """The header at a place, None at the end. Raises: TarError."""
    if at and at == end and not marked:
        return None
    if at > end:
        raise TarError(f"cut at byte {end}")
    file.seek(at)
    block = file.read(BLOCK)
    if at and len(block) == BLOCK and not block.strip(b"\0"):
        return None
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except (tarfile.TarError, ValueError) as error:
        raise TarError(f"no header at byte {at} of {end}: {error}") from error


def _member(
    file: BinaryIO, at: int, header: tarfile.TarInfo, said: Mapping[str, str], odd: str
) -> tuple[TarMember, int]:
    """A member whose own header is at a place, and the place of the next one's."""
    sparse = header.type == tarfile.GNUTYPE_SPARSE or _SPARSE in said
    size = header.size
    if "size" in said:
        if re.fullmatch(r"\d{1,18}", said["size"], re.ASCII):
            size = int(said["size"])
        else:
            odd = odd or f"a size of {said['size'][:40]!r}"
    if header.size < 0:
        odd = odd or f"a size of {header.size:,}"
    member = TarMember(
        name=said.get("GNU.sparse.name") or said.get("path") or header.name,
        kind=header.type,
        offset=at + BLOCK,
        size=size,
        sparse=sparse,
        odd=odd,
    )
    at += BLOCK
    if header.type == tarfile.GNUTYPE_SPARSE:
        at = _past_map(file, at)
    return member, at + (_blocks(size) if member.regular else 0)


def _past_map(file: BinaryIO, at: int) -> int:
    """Where the data of an old sparse file begin: its map may go on in blocks of its own."""
    file.seek(at - BLOCK + 482)
    more = file.read(1)
    while more.strip(b"\0"):
        file.seek(at + 504)
        more = file.read(1)
        at += BLOCK
    return at


def _extended(file: BinaryIO, at: int, header: tarfile.TarInfo) -> bytes | None:
    """The data of an extended header, None if it claims more than any has."""
    if not 0 <= header.size <= MAX_EXTENDED:
        return None
    file.seek(at + BLOCK)
    return file.read(header.size)


def _records(data: bytes) -> dict[str, str]:
    """What counts of the "LENGTH KEY=VALUE" lines of an extended header, as far as they are such."""
    found = {}
    at = 0
    while match := _RECORD.match(data, at):
        following = at + int(match[1])
        if following <= match.end():
            break
        key = _text(match[2])
        if key in _KEYS:
            found[key] = _text(data[match.end() : following - 1]).rstrip("/")
        if key.startswith(_SPARSE):
            found[_SPARSE] = key
        at = following
    return found


def _text(data: bytes) -> str:
    return data.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


def _blocks(size: int) -> int:
    return -(-max(size, 0) // BLOCK) * BLOCK
