"""The compressed rows: FAISS' scalar quantiser keeps a byte of each value, its proposals are scored again exactly.

Value x of dimension i is the byte 255 (x - low_i) / width_i, cut to whole; low_i and width_i span all rows. Codes say
nothing of the rows that were there before: a change makes them anew, with ranges that still hold every value.

Like rows, codes are plain values that are read where they are mapped: FAISS reads no file, and no byte can harm it.
"""

import dataclasses
import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np

from landmark_onnx.errors import SearchError
from landmark_onnx.files.atomic import atomic_write
from landmark_onnx.search.columns import mapped
from landmark_onnx.search.contents import EMPTY, Appended, Contents, remedy
from landmark_onnx.search.exact import SPARE, asking_faiss, check_queries, load_faiss, rescore
from landmark_onnx.search.manifest import CodesFile, IndexManifest, codes_bytes
from landmark_onnx.search.neighbours import Neighbours
from landmark_onnx.search.recall import AT, SAMPLE, recall
from landmark_onnx.types import Float32, Int64, UInt8

PROPOSALS = 2
"""For each neighbour wanted, beside `SPARE`. Of clustered unit vectors 1.1 find all; ranges that are wide need more."""
QUERIES_AT_ONCE = 64
COPIED_AT_ONCE = 8
ROWS_AT_ONCE = 16_384


class CodesSearch:
    """Compressed rows, searched where they are mapped."""

    def __init__(self, folder: Path, manifest: IndexManifest) -> None:
        """Map the codes and rows of `manifest`. Raises: SearchError if a file is too short, or ranges cannot be."""
        assert manifest.codes
        rows, dim = manifest.rows, manifest.ensemble.dim
        path = folder / manifest.codes.file
        data: UInt8 = mapped(path, "u1", (codes_bytes(rows, dim),))
        ranges: Float32 = data[: 8 * dim].view("<f4").reshape(2, dim)
        # Values of a unit vector are from -1 to 1; rounding may move them.
        if not ((np.abs(ranges[0]) < 1.01) & (ranges[1] >= 0) & (ranges[1] < 2.02)).all():
            raise SearchError(f"{path}: a range is none of unit vectors: the index is damaged; {remedy(folder)}")
        # Not the mapping that exact search uses: what is read of this one is let go.
        self._rows: Float32 = mapped(manifest.vectors_path(folder), "<f4", (rows, dim))
        self._data = data
        self._codes = _over(data[8 * dim :].reshape(rows, dim), _quantiser(ranges))

    def search(self, queries: Float32, top: int) -> Neighbours:
        """As `search_exact`, but a neighbour may be missed."""
        check_queries(queries, self._rows.shape[1], top)
        wanted = min(top, len(self._rows))
        positions = np.empty((len(queries), wanted), np.int64)
        scores = np.empty((len(queries), wanted), np.float32)
        for at, proposals in enumerate(self._proposals(queries, min(len(self._rows), PROPOSALS * wanted + SPARE))):
            proposals.sort()  # of equal scores, `rescore` has the earlier one first
            found = rescore(_copied(self._rows, proposals), queries[at : at + 1], np.arange(len(proposals))[None])
            positions[at], scores[at] = proposals[found.positions[0, :wanted]], found.scores[0, :wanted]
        return Neighbours(positions, scores)

    def _proposals(self, queries: Float32, width: int) -> Iterator[Int64]:
        for start in range(0, len(queries), QUERIES_AT_ONCE):
            with asking_faiss("the compressed index"):
                _, proposals = self._codes.search(np.ascontiguousarray(queries[start : start + QUERIES_AT_ONCE]), width)
            yield from proposals


def make_codes(folder: Path, manifest: IndexManifest, name: str) -> IndexManifest:
    """Write the codes of all rows, and measure what they find; `manifest` with them. name: of the file.

    Raises: SearchError without a row; OSError; MissingExtraError.
    """
    if not manifest.rows:
        raise SearchError(f"{folder}: no row to compress")
    vectors: Float32 = mapped(manifest.vectors_path(folder), "<f4", (manifest.rows, manifest.ensemble.dim))
    with asking_faiss(folder):
        contents = _write(vectors, folder / name)
    size = len(vectors)
    codes = CodesFile(file=name, kind="sq8", recall=0.0, at=min(AT, size), sample=min(SAMPLE, size))
    written = dataclasses.replace(manifest, files={**manifest.files, name: contents}, codes=codes)
    found = recall(vectors, CodesSearch(folder, written).search)
    return dataclasses.replace(written, codes=dataclasses.replace(codes, recall=found))


def _write(vectors: Float32, path: Path) -> Contents:
    """Write the ranges and codes of (N, D) vectors; what is in their file."""
    ranges = _ranges(vectors)
    quantiser = _quantiser(ranges)
    with atomic_write(path) as file:
        appended = Appended(file, path, EMPTY)
        appended.write(ranges.astype("<f4").tobytes())
        for start in range(0, len(vectors), ROWS_AT_ONCE):
            rows = np.ascontiguousarray(vectors[start : start + ROWS_AT_ONCE], np.float32)
            appended.write(quantiser.sa_encode(rows).tobytes())
        return appended.finish()


def _ranges(vectors: Float32) -> Float32:
    """(N, D) -> (2, D) float32: the least value of each dimension, and how far from there to the largest."""
    low = np.full(vectors.shape[1], np.inf, np.float32)
    high = -low
    for start in range(0, len(vectors), ROWS_AT_ONCE):
        rows = vectors[start : start + ROWS_AT_ONCE]
        low, high = np.minimum(low, rows.min(axis=0)), np.maximum(high, rows.max(axis=0))
    return np.stack([low, high - low])


def _quantiser(ranges: Float32) -> Any:
    """An empty index of FAISS with these ranges, as its training would have set them."""
    faiss = load_faiss()
    quantiser = faiss.IndexScalarQuantizer(ranges.shape[1], faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT)
    faiss.copy_array_to_vector(np.ascontiguousarray(ranges, np.float32).reshape(-1), quantiser.sq.trained)
    quantiser.is_trained = True
    return quantiser


def _over(codes: UInt8, quantiser: Any) -> Any:
    """The empty `quantiser`, to search (N, D) codes where they lie; they have to outlive it.

    FAISS makes views of files that it has mapped itself. Its Python has no call for other memory, but the fields.
    """
    faiss = load_faiss()
    view = faiss.MaybeOwnedVectorUInt8()
    view.is_owned = False
    view.view_data = view.c_ptr = faiss.swig_ptr(codes)
    view.view_size = view.c_size = codes.size
    quantiser.codes = view
    quantiser.ntotal = len(codes)
    return quantiser


def _copied(rows: Float32, positions: Int64) -> Float32:
    """(N, D) mapped, (P,) -> (P, D). What this brings into the process's memory is let go.

    With a row the system may map a megabyte around it; were these kept, the proposals of a few thousand queries would
    bring in all rows. They stay in its cache of files. Without such a call, the system does so when memory is short.
    """
    copies = np.empty((len(positions), rows.shape[1]), np.float32)
    for start in range(0, len(positions), COPIED_AT_ONCE):
        part = slice(start, start + COPIED_AT_ONCE)
        copies[part] = rows[positions[part]]
        if hasattr(mmap, "MADV_DONTNEED"):
            cast(mmap.mmap, rows.base).madvise(mmap.MADV_DONTNEED)
    return copies
