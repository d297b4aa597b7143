"""Index a tar where it lies: nothing is extracted, and whatever could escape, mislead or explode is refused first."""

import bz2
import contextlib
import gzip
import io
import lzma
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from landmark_onnx.errors import ExportError
from landmark_onnx.files.workfolders import temporary_folder
from landmark_onnx_export.paddle.variables import open_binary

MAX_MEMBERS = 100_000
MAX_RATIO = 200
"""Decompressed over compressed size. Weights reach 1.1, all zeros 1,000 and more."""
FREE_BYTES = 64 << 20
"""What any file may decompress to, whatever the ratio."""

_CHUNK_BYTES = 1 << 20
_MAX_HEADER_BYTES = 64 << 10
_XZ_MEMORY = 128 << 20
_KINDS = {
    tarfile.LNKTYPE: "a hard link",
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.CHRTYPE: "a character device",
    tarfile.BLKTYPE: "a block device",
    tarfile.FIFOTYPE: "a pipe",
}
_DAMAGE = (tarfile.TarError, OSError, EOFError, ValueError, ArithmeticError, LookupError, RecursionError)
"""What tarfile raises on a damaged archive, most of it by accident."""


@dataclass(frozen=True, slots=True)
class TarEntry:
    """A file of a source: `size` bytes of `path` from `offset` on. name: relative, with forward slashes."""

    name: str
    path: Path
    offset: int
    size: int

    def read(self, limit: int | None = None) -> bytes:
        """Its bytes, or the first `limit` of them."""
        with open_binary(self.path) as file:
            file.seek(self.offset)
            return file.read(self.size if limit is None else min(limit, self.size))


@contextlib.contextmanager
def tar_entries(path: Path, max_bytes: int) -> Iterator[list[TarEntry] | None]:
    """The files of a tar, plain or gzip, bzip2 or xz compressed, as its bytes say; None for any other file.

    A compressed one is decompressed to a temporary file first, of at most `max_bytes`.
    Raises: ExportError naming file and member for anything but plain files in folders.
    """
    with open_binary(path) as file:
        kind = _compression(file.read(6))
    with contextlib.ExitStack() as stack:
        plain = path
        if kind:
            plain = stack.enter_context(temporary_folder()) / "release.tar"
            _decompress(path, kind, plain, max_bytes)
        if _is_tar(plain):
            yield _index(plain, path)
        elif kind:
            raise ExportError(f"{path}: compressed with {kind}, but there is no tar inside")
        else:
            yield None


def _compression(head: bytes) -> str:
    magics = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz"}
    return next((name for magic, name in magics.items() if head.startswith(magic)), "")


def _decompress(path: Path, kind: str, target: Path, max_bytes: int) -> None:
    compressed = path.stat().st_size
    limit = min(max_bytes, max(FREE_BYTES, MAX_RATIO * compressed))
    total = 0
    try:
        with target.open("wb") as out:
            for chunk in _chunks(path, kind):
                total += len(chunk)
                if total > limit:
                    raise ExportError(
                        f"{path}: decompresses to more than {limit} bytes from {compressed}: a decompression bomb?"
                    )
                out.write(chunk)
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise ExportError(f"{path}: cannot decompress {kind}: {error}") from error


def _chunks(path: Path, kind: str) -> Iterator[bytes]:
    if kind == "xz":
        yield from _xz_chunks(path)
        return
    with gzip.open(path) if kind == "gzip" else bz2.open(path) as file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk


def _xz_chunks(path: Path) -> Iterator[bytes]:
    # lzma.open has no memory limit, and a header can ask for 4 GB.
    with path.open("rb") as file:
        data = file.read(_CHUNK_BYTES)
        while data:
            decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)
            while not decoder.eof:
                yield decoder.decompress(data, _CHUNK_BYTES)
                data = b""
                if decoder.needs_input and not decoder.eof:
                    data = file.read(_CHUNK_BYTES)
                    if not data:
                        raise EOFError("the file ends early")
            data = decoder.unused_data.lstrip(b"\0") or file.read(_CHUNK_BYTES).lstrip(b"\0")


class _HeaderFile(io.BufferedReader):
    """What tarfile reads headers from: no long read, which only a forged extended header would ask for."""

    def read(self, size: int | None = -1, /) -> bytes:
        """As any file's. Raises: ReadError above the size of headers."""
        if size is None or not 0 <= size <= _MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"an extended header of {size} bytes")
        return super().read(size)


def _is_tar(plain: Path) -> bool:
    with open_binary(plain) as file:
        try:
            tarfile.TarInfo.frombuf(file.read(tarfile.BLOCKSIZE), "utf-8", "replace")
        except _DAMAGE:
            return False
    return True


def _index(plain: Path, path: Path) -> list[TarEntry]:
    """The plain files of the tar `plain`, which errors call `path`."""
    entries: dict[str, TarEntry] = {}
    end = plain.stat().st_size
    count = 0
    with _HeaderFile(io.FileIO(plain)) as file:
        try:
            archive = tarfile.open(fileobj=file, mode="r:", encoding="utf-8", errors="replace")  # noqa: SIM115
            while member := archive.next():
                archive.members = []  # type: ignore[attr-defined]  # else every header ever read stays in memory
                count += 1
                name = _checked_name(member, path, end)
                if name in entries or count > MAX_MEMBERS:
                    what = "is there twice" if name in entries else f"is one of more than {MAX_MEMBERS}"
                    raise ExportError(f"{path}: member {name!r} {what}")
                if member.isreg():
                    entries[name] = TarEntry(name, plain, member.offset_data, member.size)
            file.seek(archive.offset)
            mark = file.read(tarfile.BLOCKSIZE)
        except _DAMAGE as error:
            raise ExportError(f"{path}: damaged tar: {error or type(error).__name__}") from error
    # tarfile stops at the first header it cannot read and says nothing.
    if mark != bytes(tarfile.BLOCKSIZE):
        what = "damaged header" if len(mark) == tarfile.BLOCKSIZE else "cut off"
        raise ExportError(f"{path}: damaged tar: {what} at byte {archive.offset} of {end}")
    return list(entries.values())


def _checked_name(member: tarfile.TarInfo, path: Path, end: int) -> str:
    """The member's clean name. Raises: ExportError for what is neither a plain file nor a folder, or lies outside."""
    name = PurePosixPath(member.name)
    shown = f"{path}: member {member.name[:200]!r}"
    if name.is_absolute() or PureWindowsPath(member.name).anchor or ".." in name.parts or "\\" in member.name:
        raise ExportError(f"{shown} lies outside the archive's own folder")
    if member.issparse():
        raise ExportError(f"{shown} is a sparse file")
    if not (member.isreg() or member.isdir()):
        raise ExportError(f"{shown} is {_KINDS.get(member.type, f'of the unknown kind {member.type!r}')}")
    if member.size < 0 or (member.isreg() and member.offset_data + member.size > end):
        raise ExportError(f"{shown}: wanted {member.size} bytes, got {max(0, end - member.offset_data)}")
    return str(name)
