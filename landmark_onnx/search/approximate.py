"""The approximate index: FAISS' HNSW graph over float16 copies of the vectors, its proposals scored again exactly.

A node of the graph is a row as it was when added; `positions` says where that row is now, or that it is gone. So rows
are added and removed without making the graph anew, until too many of its nodes are dead.
"""

import dataclasses
import secrets
from pathlib import Path
from typing import Any

import numpy as np

from landmark_onnx.errors import SearchError
from landmark_onnx.files import atomic_write
from landmark_onnx.search.exact import SPARE, check_queries, load_faiss, rescore, search_exact
from landmark_onnx.search.manifest import Graph, Manifest
from landmark_onnx.search.mapping import mapped
from landmark_onnx.search.neighbours import Float32, Int64, Neighbours

ROWS_AT_ONCE = 16_384
DEAD_SHARE = 0.25
"""Of the nodes: from here on the graph is made anew."""
SAMPLE, AT = 200, 100


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

    def __init__(self, folder: Path, graph: Graph, vectors: Float32) -> None:
        """Raises: SearchError if a file is missing or damaged."""
        self.graph = graph
        self.vectors = vectors
        self.positions: Int64 = mapped(folder / graph.positions, "<i8", (graph.nodes,))
        self.hnsw = _read(folder / graph.file)
        if self.hnsw.ntotal != graph.nodes or self.hnsw.d != vectors.shape[1]:
            raise SearchError(f"{folder / graph.file}: not the graph of this index; build the index anew")

    def search(self, queries: Float32, top: int) -> Neighbours:
        """As `search_exact`, but neighbours may be missed; a query that gets too few is answered exactly."""
        check_queries(queries, self.vectors.shape[1], top)
        wanted = min(top, len(self.vectors))
        width = min(len(self.vectors), wanted + SPARE)
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


def make_graph(folder: Path, vectors: Float32, options: GraphOptions) -> Graph:
    """Write a graph of all (N, D) vectors, and measure it. Raises: SearchError without a vector; MissingExtraError."""
    if not len(vectors):
        raise SearchError(f"{folder}: no row to make an approximate index of")
    faiss = load_faiss()
    hnsw = faiss.IndexHNSWSQ(vectors.shape[1], faiss.ScalarQuantizer.QT_fp16, options.links, faiss.METRIC_INNER_PRODUCT)
    hnsw.hnsw.efConstruction = options.building
    hnsw.hnsw.efSearch = options.effort
    return _written(folder, hnsw, np.arange(len(vectors)), vectors)


def renewed_graph(folder: Path, before: Manifest, after: Manifest, moved: Int64) -> Manifest:
    """`after` with its approximate index, if `before` has one.

    moved: (before.rows,) int64, where each row of `before` is in `after`, -1 if gone; the rows behind those are new.
    """
    if before.graph is None or not after.rows:
        return dataclasses.replace(after, graph=None)
    vectors: Float32 = mapped(after.vectors_path(folder), "<f4", (after.rows, after.ensemble.dim))
    old: Int64 = mapped(folder / before.graph.positions, "<i8", (before.graph.nodes,))
    positions = np.where(old >= 0, moved[old], -1)
    hnsw = _read(folder / before.graph.file)
    if (positions < 0).sum() > DEAD_SHARE * len(positions):
        options = GraphOptions(links=before.graph.links, building=hnsw.hnsw.efConstruction, effort=before.graph.effort)
        return dataclasses.replace(after, graph=make_graph(folder, vectors, options))
    new = np.arange((moved >= 0).sum(), after.rows)
    return dataclasses.replace(after, graph=_written(folder, hnsw, np.concatenate([positions, new]), vectors))


def _written(folder: Path, hnsw: Any, positions: Int64, vectors: Float32) -> Graph:
    """Add the nodes that `hnsw` lacks, write it, and measure its recall against exact search."""
    for start in range(hnsw.ntotal, len(positions), ROWS_AT_ONCE):
        hnsw.add(np.ascontiguousarray(vectors[positions[start : start + ROWS_AT_ONCE]]))
    name = f"graph-{secrets.token_hex(8)}"
    _write(hnsw, folder / f"{name}.faiss")
    with atomic_write(folder / f"{name}.positions") as file:
        file.write(positions.astype("<i8").tobytes())
    graph = Graph(
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
    return dataclasses.replace(graph, recall=_recall(GraphSearch(folder, graph, vectors)))


def _recall(search: GraphSearch) -> float:
    """Share of the exact neighbours of a sample of rows, each among its own, that the graph finds."""
    rows = np.random.default_rng(0).choice(len(search.vectors), search.graph.sample, replace=False)
    queries = np.ascontiguousarray(search.vectors[np.sort(rows)])
    exact = search_exact(search.vectors, queries, search.graph.at).positions
    found = search.search(queries, search.graph.at).positions
    return float(np.mean([np.isin(*pair).mean() for pair in zip(exact, found, strict=True)]))


def _read(path: Path) -> Any:
    faiss = load_faiss()
    try:
        return faiss.read_index(str(path))
    except RuntimeError as error:
        raise SearchError(f"{path}: missing or damaged: FAISS cannot read it; build the index anew") from error


def _write(hnsw: Any, path: Path) -> None:
    with atomic_write(path) as file:
        load_faiss().write_index(hnsw, file.name)
