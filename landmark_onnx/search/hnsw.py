"""The approximate index: FAISS' HNSW graph over float16 copies of the vectors, its proposals scored again exactly.

A node of the graph is a row as it was when added; `positions` says where that row is now, or that it is gone. So rows
are added and removed without rebuilding the graph, until too many of its nodes are dead.
"""

import dataclasses
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from landmark_onnx.errors import SearchError
from landmark_onnx.files.atomic import atomic_write
from landmark_onnx.search.columns import mapped
from landmark_onnx.search.contents import EMPTY, Appended, Contents, check_contents, remedy, write_whole
from landmark_onnx.search.exact import SPARE, asking_faiss, check_queries, load_faiss, rescore, search_exact
from landmark_onnx.search.manifest import GraphFile, IndexManifest
from landmark_onnx.search.neighbours import Neighbours
from landmark_onnx.search.recall import AT, SAMPLE, recall
from landmark_onnx.types import Float32, Int64

ROWS_AT_ONCE = 16_384
BYTES_AT_ONCE = 1 << 20
DEAD_SHARE = 0.25
"""Of the nodes: from here on the graph is rebuilt."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class GraphOptions:
    """links: of a node. building, effort: candidates held while a node is placed, and while a query is answered.

    More of each finds more of the true neighbours, and takes longer.
    Source: Malkov and Yashunin, Efficient and robust approximate nearest neighbor search using Hierarchical Navigable
    Small World graphs, 2016: M, efConstruction, ef.
    """

    links: int = 32
    building: int = 128
    effort: int = 256


class GraphSearch:
    """A graph that has been read, over an index's (N, D) vectors."""

    def __init__(self, folder: Path, manifest: IndexManifest, vectors: Float32) -> None:
        """vectors: (N, D), the manifest's. Raises: SearchError if a file is missing or damaged."""
        assert manifest.graph
        self.graph = manifest.graph
        self.vectors = vectors
        self.hnsw, self.positions = _read(folder, manifest)

    def search(self, queries: Float32, top: int) -> Neighbours:
        """As `search_exact`, but neighbours may be missed; a query that gets too few is answered exactly."""
        check_queries(queries, self.vectors.shape[1], top)
        wanted = min(top, len(self.vectors))
        width = min(len(self.vectors), wanted + SPARE)
        with asking_faiss("the approximate index"):
            _, nodes = self.hnsw.search(np.ascontiguousarray(queries), width, params=self._parameters(width))
        whole = (nodes >= 0).all(axis=1)
        positions = np.empty((len(queries), wanted), np.int64)
        scores = np.empty((len(queries), wanted), np.float32)
        for rows, found in (
            (whole, rescore(self.vectors, queries[whole], self.positions[nodes[whole]])),
            (~whole, search_exact(self.vectors, queries[~whole], wanted)),
        ):
            positions[rows], scores[rows] = found.positions[:, :wanted], found.scores[:, :wanted]
        return Neighbours(positions, scores)

    def _parameters(self, width: int) -> Any:
        faiss = load_faiss()
        alive = np.packbits(self.positions >= 0, bitorder="little")
        selector = faiss.IDSelectorBitmap(alive) if self.graph.dead else None
        return faiss.SearchParametersHNSW(efSearch=max(self.graph.effort, width), sel=selector)


def make_graph(folder: Path, manifest: IndexManifest, options: GraphOptions, name: str) -> IndexManifest:
    """Write a graph of all rows, and measure it; `manifest` with it. name: of its files, without suffix.

    Raises: SearchError without a row; OSError; MissingExtraError.
    """
    if not manifest.rows:
        raise SearchError(f"{folder}: no row to make an approximate index of")
    faiss = load_faiss()
    dim = manifest.ensemble.dim
    hnsw = faiss.IndexHNSWSQ(dim, faiss.ScalarQuantizer.QT_fp16, options.links, faiss.METRIC_INNER_PRODUCT)
    hnsw.hnsw.efConstruction = options.building
    hnsw.hnsw.efSearch = options.effort
    return _with_graph(folder, manifest, hnsw, np.arange(manifest.rows), name)


def renewed_graph(folder: Path, before: IndexManifest, after: IndexManifest, moved: Int64, name: str) -> IndexManifest:
    """`after` with its approximate index, if `before` has one.

    moved: (before.rows,) int64, where each row of `before` is in `after`, -1 if gone; the rows behind those are new.
    """
    if before.graph is None or not after.rows:
        return after
    hnsw, old = _read(folder, before)
    positions = np.where(old >= 0, moved[old], -1)
    if (positions < 0).sum() > DEAD_SHARE * len(positions):
        options = GraphOptions(links=before.graph.links, building=hnsw.hnsw.efConstruction, effort=before.graph.effort)
        return make_graph(folder, after, options, name)
    new = np.arange((moved >= 0).sum(), after.rows)
    return _with_graph(folder, after, hnsw, np.concatenate([positions, new]), name)


def _with_graph(folder: Path, manifest: IndexManifest, hnsw: Any, positions: Int64, name: str) -> IndexManifest:
    """Add the nodes that `hnsw` lacks, write it, and measure its recall against exact search."""
    vectors: Float32 = mapped(manifest.vectors_path(folder), "<f4", (manifest.rows, manifest.ensemble.dim))
    with asking_faiss(folder):
        for start in range(hnsw.ntotal, len(positions), ROWS_AT_ONCE):
            hnsw.add(np.ascontiguousarray(vectors[positions[start : start + ROWS_AT_ONCE]]))
    graph = GraphFile(
        file=f"{name}.faiss",
        positions=f"{name}.positions",
        nodes=len(positions),
        dead=int((positions < 0).sum()),
        links=hnsw.hnsw.nb_neighbors(1),
        effort=hnsw.hnsw.efSearch,
        recall=0.0,
        at=min(AT, len(vectors)),
        sample=min(SAMPLE, len(vectors)),
    )
    contents = {
        graph.file: _write(hnsw, folder / graph.file),
        graph.positions: write_whole(folder / graph.positions, positions.astype("<i8").tobytes()),
    }
    written = dataclasses.replace(manifest, files={**manifest.files, **contents}, graph=graph)
    found = recall(vectors, GraphSearch(folder, written, vectors).search)
    return dataclasses.replace(written, graph=dataclasses.replace(graph, recall=found))


def _read(folder: Path, manifest: IndexManifest) -> tuple[Any, Int64]:
    """A manifest's graph, and where each of its nodes is. Raises: SearchError if it is not what was written."""
    graph = manifest.graph
    assert graph
    # FAISS believes what it reads: a changed file may end the process.
    check_contents(folder, {name: manifest.files[name] for name in (graph.file, graph.positions)})
    positions: Int64 = mapped(folder / graph.positions, "<i8", (graph.nodes,))
    alive = positions[positions >= 0]
    if len(alive) != manifest.rows or not np.array_equal(np.sort(alive), np.arange(manifest.rows)):
        raise SearchError(f"{folder / graph.positions}: not a position of each row: damaged; {remedy(folder)}")
    with asking_faiss(folder / graph.file), (folder / graph.file).open("rb") as file:
        hnsw = load_faiss().read_index(_source(file))
    if hnsw.ntotal != graph.nodes or hnsw.d != manifest.ensemble.dim:
        raise SearchError(f"{folder / graph.file}: not the graph of this index; {remedy(folder)}")
    return hnsw, positions


def _source(file: BinaryIO) -> Any:
    """What FAISS reads fastest: a path, where it is text."""
    try:
        file.name.encode()
    except UnicodeEncodeError:
        return load_faiss().PyCallbackIOReader(file.read, BYTES_AT_ONCE)
    return file.name


def _write(hnsw: Any, path: Path) -> Contents:
    """Write a graph; what is in its file."""
    faiss = load_faiss()
    with atomic_write(path) as file:
        # FAISS' own writer leaves it unsaid if the last bytes find no room.
        appended = Appended(file, path, EMPTY)
        with asking_faiss(path):
            faiss.write_index(hnsw, faiss.PyCallbackIOWriter(appended.write, BYTES_AT_ONCE))
        return appended.finish()
