"""Changing an index: build, add, remove. Each holds the folder, and ends by replacing the manifest.

Rows are appended behind what the manifest counts, or written to the files of a new generation; a change that is killed,
or fails, leaves bytes that nobody reads, and the next one clears them away.
"""

import contextlib
import dataclasses
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from landmark_onnx.embedding.feature_folder import Batch
from landmark_onnx.errors import SearchError
from landmark_onnx.search.change import Change, changing, check_free
from landmark_onnx.search.codes import make_codes
from landmark_onnx.search.contents import Appended, check_contents
from landmark_onnx.search.ensemble import Ensemble
from landmark_onnx.search.exact import load_faiss
from landmark_onnx.search.hnsw import GraphOptions, make_graph, renewed_graph
from landmark_onnx.search.index import Index
from landmark_onnx.search.manifest import COLUMNS, IndexManifest, vectors_file
from landmark_onnx.search.texts import absent, append_texts, text_files
from landmark_onnx.types import Float32, Int64

ROWS_AT_ONCE = 16_384


def build(
    folder: Path,
    ensemble: Ensemble,
    batches: Iterable[Batch],
    *,
    replace: bool = False,
    graph: GraphOptions | None = None,
    compress: Literal["sq8"] | None = None,
) -> Index:
    """Make an index of `batches`, whose vectors are embeddings of the ensemble's models.

    replace: take the place of an index that is there; its open readers keep it. graph: an approximate index too.
    compress: or rows of a quarter of the bytes as such. At most one of both.
    Raises: SearchError if there is one and not `replace`, the folder holds other things, an id appears twice, or
    another process changes the index; FeatureError from reading; MissingExtraError.
    """
    check_build(folder, replace=replace, graph=graph, compress=compress)
    folder.mkdir(parents=True, exist_ok=True)
    whitening = [ensemble.whitening.file] if ensemble.whitening else []
    with changing(folder, build=True, also=whitening) as change:
        check_free(folder, replace=replace)  # somebody may have been faster
        after, _ = _append(folder, IndexManifest.empty(change.generation, ensemble), batches, new=True)
        if graph:
            after = make_graph(folder, after, graph, change.graph)
        elif compress:
            after = make_codes(folder, after, change.codes)
        return _publish(folder, after)


def check_build(
    folder: Path,
    *,
    replace: bool = False,
    graph: GraphOptions | None = None,
    compress: Literal["sq8"] | None = None,
) -> None:
    """What `build` can refuse before the work. Raises: SearchError, MissingExtraError."""
    check_free(folder, replace=replace)
    if graph and compress:
        raise SearchError(f"{folder}: an index has a graph or compressed rows; leave out one of them")
    if graph or compress:
        load_faiss()


def add(folder: Path, batches: Iterable[Batch], *, replace: bool = False) -> Index:
    """Append `batches` to an index; an approximate one grows too. replace: rows of the same ids give way to the new.

    Raises: SearchError if ids are there already and not `replace`, or appear twice; if another process changes it, or
    it is damaged where that is seen on the way.
    """
    with changing(folder) as change:
        manifest = change.manifest
        check_contents(folder, {name: manifest.files[name] for name in text_files("ids", manifest.generation)})
        taken = Index(folder, manifest).ids
        after, new = _append(folder, manifest, batches, () if replace else frozenset(taken))
        moved = np.arange(manifest.rows)
        if replace and (gone := np.fromiter((name in new for name in taken), bool, len(taken))).any():
            keep = np.concatenate([~gone, np.ones(after.rows - manifest.rows, bool)])
            after = _rewrite(change, after, keep)
            moved = _moved(~gone)
        return _publish(folder, _renewed(change, manifest, after, moved))


def remove(folder: Path, ids: Collection[str]) -> Index:
    """Take rows out: what is left is written again, in its order.

    Raises: SearchError if an id is not there, and then removes none; if another process changes it, or it is damaged.
    """
    with changing(folder) as change:
        manifest = change.manifest
        unwanted = frozenset(ids)
        keep = np.fromiter((name not in unwanted for name in Index(folder, manifest).ids), bool, manifest.rows)
        if missing := len(unwanted) - int((~keep).sum()):
            there = Index(folder, manifest).ids
            raise absent(folder, missing, unwanted, min(unwanted - frozenset(there)), there)
        after = _rewrite(change, manifest, keep)
        return _publish(folder, _renewed(change, manifest, after, _moved(keep)))


class _Appender:
    """The columns' files of a manifest, open to write behind what it counts. new: they are not there yet."""

    def __init__(self, folder: Path, manifest: IndexManifest, stack: contextlib.ExitStack, *, new: bool) -> None:
        self._manifest = manifest

        def opened(name: str) -> Appended:
            contents = manifest.files[name]
            path = folder / name
            # Who reads has mapped no more than what counts. A file that is there is never taken for a new one.
            file = stack.enter_context(path.open("x+b") if new else path.open("r+b"))
            return Appended(file, path, contents)

        self._vectors = opened(vectors_file(manifest.generation))
        self._texts = {column: [opened(name) for name in text_files(column, manifest.generation)] for column in COLUMNS}
        self._sizes = {column: manifest.files[text_files(column, manifest.generation)[1]].bytes for column in COLUMNS}
        self._rows = manifest.rows

    def write(self, ids: Sequence[str], sources: Sequence[str], vectors: Float32) -> None:
        """Append (n, dim) rows."""
        self._vectors.write(np.ascontiguousarray(vectors, "<f4").reshape(-1).view(np.uint8).data)
        for column, texts in zip(COLUMNS, (ids, sources), strict=True):
            self._sizes[column] = append_texts(texts, self._sizes[column], *self._texts[column])
        self._rows += len(ids)

    def finish(self) -> IndexManifest:
        """Bring all of it to the disk; the manifest that counts it, without an approximate index."""
        files = [self._vectors, *(file for pair in self._texts.values() for file in pair)]
        contents = dict(zip(self._manifest.columns, [file.finish() for file in files], strict=True))
        return dataclasses.replace(self._manifest, rows=self._rows, files=contents, graph=None, codes=None)


def _append(
    folder: Path, manifest: IndexManifest, batches: Iterable[Batch], taken: Collection[str] = (), *, new: bool = False
) -> tuple[IndexManifest, frozenset[str]]:
    """Write `batches` behind `manifest`'s rows; the manifest that counts them too, and their ids.

    Raises: SearchError if ids appear twice or are `taken`, after counting all such.
    """
    added: set[str] = set()
    clashes: list[str] = []
    with contextlib.ExitStack() as stack:
        appender = _Appender(folder, manifest, stack, new=new)
        for batch in batches:
            for name in batch.ids:
                if name in taken or name in added:
                    clashes.append(name)
                added.add(name)
            if not clashes:
                appender.write(batch.ids, batch.sources, manifest.ensemble(batch.vectors))
        after = appender.finish()
    if clashes:
        there = sum(name in taken for name in clashes)
        found = [f"{there:,} ids are in the index already"] if there else []
        found += [f"{len(clashes) - there:,} appear twice"] if len(clashes) > there else []
        remedy = "; --replace puts the new ones in their place" if there else "; give each image an id of its own"
        raise SearchError(f"{folder}: {' and '.join(found)}, such as {clashes[0]}{remedy}")
    return after, frozenset(added)


def _rewrite(change: Change, manifest: IndexManifest, keep: npt.NDArray[np.bool_]) -> IndexManifest:
    """The rows of `manifest` where `keep` says so, as files of the next generation. Raises: SearchError if damaged."""
    folder = change.folder
    # What is copied gets a SHA-256 of its own, so it has to be right.
    check_contents(folder, manifest.columns)
    old = Index(folder, manifest)
    with contextlib.ExitStack() as stack:
        appender = _Appender(folder, IndexManifest.empty(change.generation, manifest.ensemble), stack, new=True)
        for start in range(0, len(old), ROWS_AT_ONCE):
            part = slice(start, start + ROWS_AT_ONCE)
            kept = np.flatnonzero(keep[part]).tolist()
            ids, sources = old.ids[part], old.sources[part]
            appender.write([ids[at] for at in kept], [sources[at] for at in kept], old.vectors[part][kept])
        return appender.finish()


def _renewed(change: Change, before: IndexManifest, after: IndexManifest, moved: Int64) -> IndexManifest:
    """`after` with the kind of approximate index that `before` has. moved: as of `renewed_graph`."""
    if before.codes and after.rows:
        return make_codes(change.folder, after, change.codes)
    return renewed_graph(change.folder, before, after, moved, change.graph)


def _moved(keep: npt.NDArray[np.bool_]) -> Int64:
    """Old position -> new one, -1 where it is gone."""
    return np.where(keep, np.cumsum(keep) - 1, -1)


def _publish(folder: Path, manifest: IndexManifest) -> Index:
    manifest.write(folder)
    return Index(folder, manifest)
