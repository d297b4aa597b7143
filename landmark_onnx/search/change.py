"""Holding an index's folder while it is changed: the lock, and what changes that were killed have left behind.

A change writes the names of all files that it may make, or may make superfluous, into `index.pending` before it makes
the first. So whatever is deleted was named there or by a manifest; and new files get names that nobody has.
"""

import contextlib
import dataclasses
import itertools
import json
import os
import re
import secrets
from collections.abc import Collection, Iterator
from pathlib import Path

import filelock

from landmark_onnx.errors import SearchError
from landmark_onnx.files.atomic import atomic_write, temporaries
from landmark_onnx.files.documents import read_json
from landmark_onnx.files.structure import DocumentError, structure
from landmark_onnx.search.contents import remedy
from landmark_onnx.search.manifest import FILE, OURS, IndexManifest, column_files, known_names

LOCK, PENDING = "index.lock", "index.pending"
_WRITTEN = re.compile(rf"{re.escape(FILE)}|{re.escape(PENDING)}|{OURS.pattern}")


@dataclasses.dataclass(frozen=True, slots=True)
class Change:
    """before: the state at its beginning, None where none can be read. generation, graph, codes: to name new files by.

    graph: without the suffixes.
    """

    folder: Path
    before: IndexManifest | None
    generation: int
    graph: str
    codes: str

    @property
    def manifest(self) -> IndexManifest:
        """The state at its beginning. Raises: SearchError if there is none, or it cannot be used."""
        return self.before or IndexManifest.read(self.folder)


def check_free(folder: Path, *, replace: bool) -> None:
    """Raises: SearchError if a folder is no place to build in: it has an index, and not `replace`, or other things."""
    if (folder / FILE).exists():
        if not replace:
            rows = IndexManifest.read(folder).rows
            raise SearchError(f"{folder}: has an index of {rows:,} rows; add to it (index add), or --replace it")
        known_names(folder)
    elif folder.is_dir():
        ours = {LOCK, PENDING, *_pending(folder), *(path.name for path in temporaries(folder, _WRITTEN))}
        for path in folder.iterdir():
            if path.name not in ours:
                raise SearchError(f"{folder}: holds {path.name}, which is no part of an index; name another folder")


@contextlib.contextmanager
def changing(folder: Path, *, build: bool = False, also: Collection[str] = ()) -> Iterator[Change]:
    """Hold the lock, and clear up before and after; a change ends by writing the manifest, or changes nothing.

    build: there need not be an index, nor one that can be read. also: more names of files that the change may write.
    Raises: SearchError if there is no index, or somebody else is changing it.
    """
    if not build:
        IndexManifest.read(folder)  # where there is none to change, no lock is made
    try:
        held = filelock.FileLock(folder / LOCK).acquire(blocking=False)
    except filelock.Timeout:
        raise SearchError(f"{folder}: another process is changing this index; try again when it is done") from None
    with held, _named_errors(folder):
        with contextlib.suppress(OSError):  # Windows deletes nothing that is mapped; a later change finds it again
            _clear(folder)
        try:
            yield _begun(folder, also, build=build)
        finally:
            with contextlib.suppress(SearchError, OSError):  # the next change clears up, or says what is wrong
                _clear(folder)


def check_sizes(folder: Path, manifest: IndexManifest) -> None:
    """Raises: SearchError if a file is missing, or of another size, unless it grows in a change that has not ended."""
    for name, contents in manifest.files.items():
        path = folder / name
        try:
            size = path.stat().st_size
            growing = (folder / PENDING).exists()
            if size > contents.bytes and not growing:
                # Between the two looks, the change may have ended, and cut the file.
                size = path.stat().st_size
        except OSError as error:
            raise SearchError(f"{path}: {error.strerror}: the index is damaged; {remedy(folder)}") from error
        if size < contents.bytes or (size > contents.bytes and not growing):
            raise SearchError(
                f"{path}: {size:,} bytes, wanted {contents.bytes:,}: the index is damaged; {remedy(folder)}"
            )


def _begun(folder: Path, also: Collection[str], *, build: bool) -> Change:
    before: IndexManifest | None = None
    if (folder / FILE).exists():
        with contextlib.suppress(*([SearchError] if build else [])):
            before = IndexManifest.read(folder)
    taken = {path.name for path in folder.iterdir()}
    first = before.generation + 1 if before else 1
    generation = next(number for number in itertools.count(first) if taken.isdisjoint(column_files(number)))
    token = secrets.token_hex(8)
    graph, codes = f"graph-{token}", f"codes-{token}.sq8"
    new = (*column_files(generation), f"{graph}.faiss", f"{graph}.positions", codes, *(set(also) - taken))
    with atomic_write(folder / PENDING) as file:
        file.write(json.dumps(sorted({*_pending(folder), *known_names(folder), *new})).encode())
    return Change(folder, before, generation, graph, codes)


@contextlib.contextmanager
def _named_errors(folder: Path) -> Iterator[None]:
    """Turn what the disk refuses into one line."""
    try:
        yield
    except OSError as error:
        where, reason = error.filename2 or error.filename or folder, error.strerror or error
        raise SearchError(f"{where}: {reason}; nothing was changed") from error


def _clear(folder: Path) -> None:
    """Delete what was pending and is not named by the manifest, and cut what grew; those who have it mapped keep it."""
    named, pending = known_names(folder), _pending(folder)
    with contextlib.suppress(SearchError):
        for name, contents in IndexManifest.read(folder).columns.items():
            if name in pending and (path := folder / name).stat().st_size > contents.bytes:
                os.truncate(path, contents.bytes)
    for path in (*temporaries(folder, _WRITTEN), *(folder / name for name in pending - named)):
        path.unlink(missing_ok=True)
    (folder / PENDING).unlink(missing_ok=True)


def _pending(folder: Path) -> frozenset[str]:
    """The names in `index.pending`. Raises: SearchError if it is of something else."""
    path = folder / PENDING
    try:
        return frozenset(filter(OURS.fullmatch, structure(tuple[str, ...], read_json(path))))
    except FileNotFoundError:
        return frozenset()
    except DocumentError as error:
        raise SearchError(f"{path}: of no index; move it away, or name another folder") from error
