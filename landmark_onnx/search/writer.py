"""Changing an index: build, add, remove. Each holds the folder's lock, and ends by replacing the manifest.

Rows are appended behind what the manifest counts, or written to the files of a new generation; a change that is killed,
or fails, leaves bytes that nobody reads, and the next one clears them away.
"""

import contextlib
import dataclasses
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import filelock
import numpy as np
import numpy.typing as npt

from landmark_onnx.embedding.folder import Batch
from landmark_onnx.errors import SearchError
from landmark_onnx.files import sync
from landmark_onnx.search.approximate import GraphOptions, make_graph, renewed_graph
from landmark_onnx.search.ensemble import Ensemble
from landmark_onnx.search.index import Index
from landmark_onnx.search.manifest import FILE, Manifest
from landmark_onnx.search.neighbours import Float32, Int64
from landmark_onnx.search.texts import append_texts, text_files

LOCK = "index.lock"
PATTERNS = ("vectors-*.f32", "ids-*.*", "sources-*.*", "whitening-*.npz", "graph-*.*", ".*.tmp")
"""Every file that a change makes, beside the manifest and the lock."""
ROWS_AT_ONCE = 16_384


def build(
    folder: Path,
    ensemble: Ensemble,
    batches: Iterable[Batch],
    *,
    replace: bool = False,
    graph: GraphOptions | None = None,
) -> Index:
    """Make an index of `batches`, whose vectors are embeddings of the ensemble's models.

    replace: take the place of an index that is there; whoever has it open keeps it. graph: an approximate index too.
    Raises: SearchError if there is one and not `replace`, the folder holds other things, an id comes twice, or another
    process changes the index; FeatureError from reading.
    """
    _check_ours(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with _changing(folder) as before:
        if before and not replace:
            raise SearchError(f"{folder}: has an index of {before.rows:,} rows; add to it (index add), or --replace it")
        generation = before.generation + 1 if before else 1
        empty = Manifest(generation=generation, rows=0, id_bytes=0, source_bytes=0, ensemble=ensemble)
        after, _ = _append(folder, empty, batches, frozenset())
        if graph:
            after = dataclasses.replace(after, graph=make_graph(folder, Index(folder, after).vectors, graph))
        return _publish(folder, after)


def add(folder: Path, batches: Iterable[Batch], *, replace: bool = False) -> Index:
    """Append `batches` to an index; an approximate one grows too. replace: rows of the same ids give way to the new.

    Raises: SearchError if ids are there already and not `replace`, or come twice; if another process changes it.
    """
    with _changing(folder) as before:
        manifest = before or Manifest.read(folder)
        taken = Index(folder, manifest).ids
        after, new = _append(folder, manifest, batches, frozenset() if replace else frozenset(taken))
        moved = np.arange(manifest.rows)
        if replace and (gone := np.fromiter((name in new for name in taken), bool, len(taken))).any():
            keep = np.concatenate([~gone, np.ones(after.rows - manifest.rows, bool)])
            after = _rewrite(folder, after, keep)
            moved = _moved(~gone)
        return _publish(folder, renewed_graph(folder, manifest, after, moved))


def remove(folder: Path, ids: Collection[str]) -> Index:
    """Take rows out: what is left is written anew, in its order.

    Raises: SearchError if an id is not there, and then removes none; if another process changes it.
    """
    with _changing(folder) as before:
        manifest = before or Manifest.read(folder)
        unwanted = frozenset(ids)
        keep = np.fromiter((name not in unwanted for name in Index(folder, manifest).ids), bool, manifest.rows)
        if missing := len(unwanted) - int((~keep).sum()):
            absent = sorted(unwanted - frozenset(Index(folder, manifest).ids))[0]
            raise SearchError(f"{folder}: {missing:,} of {len(unwanted):,} ids are not in the index, such as {absent}")
        after = _rewrite(folder, manifest, keep)
        return _publish(folder, renewed_graph(folder, manifest, after, _moved(keep)))


class _Appender:
    """Files of a manifest's generation, open to write behind what it counts."""

    def __init__(self, folder: Path, manifest: Manifest, stack: contextlib.ExitStack) -> None:
        self._manifest = manifest

        def opened(path: Path, size: int) -> BinaryIO:
            # What lies behind is of a change that did not come to its end. Who reads has mapped no more than `size`.
            path.touch()
            file = stack.enter_context(path.open("r+b"))
            file.truncate(size)
            file.seek(size)
            return file

        rows, generation = manifest.rows, manifest.generation
        self._vectors = opened(manifest.vectors_path(folder), rows * manifest.ensemble.dim * 4)
        sizes = {"ids": manifest.id_bytes, "sources": manifest.source_bytes}
        self._texts = {
            column: (opened(ends, rows * 8), opened(data, sizes[column]))
            for column in sizes
            for ends, data in [text_files(folder, column, generation)]
        }

    def write(self, ids: Sequence[str], sources: Sequence[str], vectors: Float32) -> None:
        """Append (n, dim) rows."""
        self._vectors.write(np.ascontiguousarray(vectors, "<f4").data)
        self._manifest = dataclasses.replace(
            self._manifest,
            rows=self._manifest.rows + len(ids),
            id_bytes=append_texts(ids, self._manifest.id_bytes, *self._texts["ids"]),
            source_bytes=append_texts(sources, self._manifest.source_bytes, *self._texts["sources"]),
        )

    def finish(self) -> Manifest:
        """Bring all of it to the disk; the manifest that counts it."""
        for file in (self._vectors, *self._texts["ids"], *self._texts["sources"]):
            sync(file)
        return self._manifest


def _append(
    folder: Path, manifest: Manifest, batches: Iterable[Batch], taken: Collection[str]
) -> tuple[Manifest, frozenset[str]]:
    """Write `batches` behind `manifest`'s rows; the manifest that counts them too, and their ids.

    Raises: SearchError if ids come twice or are `taken`, after counting all such.
    """
    new: set[str] = set()
    clashes: list[str] = []
    with contextlib.ExitStack() as stack:
        appender = _Appender(folder, manifest, stack)
        for batch in batches:
            for name in batch.ids:
                if name in taken or name in new:
                    clashes.append(name)
                new.add(name)
            if not clashes:
                appender.write(batch.ids, batch.sources, manifest.ensemble(batch.vectors))
        after = appender.finish()
    if clashes:
        there = sum(name in taken for name in clashes)
        found = [f"{there:,} ids are in the index already"] if there else []
        found += [f"{len(clashes) - there:,} come twice"] if len(clashes) > there else []
        remedy = "; --replace puts the new ones in their place" if there else "; give each image an id of its own"
        raise SearchError(f"{folder}: {' and '.join(found)}, such as {clashes[0]}{remedy}")
    return after, frozenset(new)


def _rewrite(folder: Path, manifest: Manifest, keep: npt.NDArray[np.bool_]) -> Manifest:
    """The rows of `manifest` where `keep` says so, as files of the next generation."""
    old = Index(folder, manifest)
    empty = dataclasses.replace(manifest, generation=manifest.generation + 1, rows=0, id_bytes=0, source_bytes=0)
    with contextlib.ExitStack() as stack:
        appender = _Appender(folder, empty, stack)
        for start in range(0, len(old), ROWS_AT_ONCE):
            part = slice(start, start + ROWS_AT_ONCE)
            kept = np.flatnonzero(keep[part]).tolist()
            ids, sources = old.ids[part], old.sources[part]
            appender.write([ids[at] for at in kept], [sources[at] for at in kept], old.vectors[part][kept])
        return appender.finish()


def _moved(keep: npt.NDArray[np.bool_]) -> Int64:
    """Old position -> new one, -1 where it is gone."""
    return np.where(keep, np.cumsum(keep) - 1, -1)


def _publish(folder: Path, manifest: Manifest) -> Index:
    manifest.write(folder)
    return Index(folder, manifest)


def _check_ours(folder: Path) -> None:
    """Raises: SearchError if the folder holds what is no index's: its files might be taken for leftovers of ours."""
    if folder.is_dir():
        for path in folder.iterdir():
            if path.name not in (FILE, LOCK) and not any(path.match(pattern) for pattern in PATTERNS):
                raise SearchError(f"{folder}: holds {path.name}, which is no part of an index; name another folder")


@contextlib.contextmanager
def _changing(folder: Path) -> Iterator[Manifest | None]:
    """Hold the lock; yields the manifest, None where there is none yet. At the end, what no manifest names goes."""
    if not folder.is_dir():
        raise SearchError(f"{folder}: no index; make one: landmark-onnx index build FEATURES -o {folder}")
    lock = filelock.FileLock(folder / LOCK)
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        raise SearchError(f"{folder}: another process is changing this index; try again when it is done") from None
    try:
        yield Manifest.read(folder) if (folder / FILE).exists() else None
    finally:
        _clear(folder)
        lock.release()


def _clear(folder: Path) -> None:
    """Delete what the manifest does not name; processes that have it mapped keep it."""
    manifest = Manifest.read(folder) if (folder / FILE).exists() else None
    named = manifest.files(folder) if manifest else frozenset()
    for path in {path for pattern in PATTERNS for path in folder.glob(pattern)} - named:
        with contextlib.suppress(OSError):  # Windows deletes nothing that is mapped; the next change finds it again
            path.unlink()
