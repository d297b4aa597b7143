"""Exact nearest neighbours by inner product: FAISS proposes in float32, float64 decides.

FAISS' flat search runs at the rate of matrix multiplication, and reads the matrix where it is mapped. Blocked NumPy
with a pruning threshold comes close to that, but would be ours to keep; usearch's exact search and LanceDB multiply no
matrices, and take ten times as long and more. The figures are in benchmarks/results/*/search.

A float32 sum depends on the order of its terms, and that on the block a row falls into: equal rows may get unequal
scores. So more rows than wanted are proposed, and scored again in float64 in an order that is always the same: an
answer depends on the query and the database alone, not on threads, batches or the library's version.
"""

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from landmark_onnx.errors import SearchError, reason_of
from landmark_onnx.extras import extra
from landmark_onnx.runtime.cpu import available_cores
from landmark_onnx.search.neighbours import Neighbours
from landmark_onnx.types import Float32, Float64, Int64

SPARE = 32
"""Proposals beyond those wanted: rows this close to the last one wanted are rarely more."""
QUERIES_AT_ONCE = 1024
RESCORED_AT_ONCE = 16
"""Queries whose proposals are in memory as float64 together."""
ROWS_AT_ONCE = 16_384
UNIT_ROUNDOFF = 2.0**-24


def search_exact(database: Float32, queries: Float32, top: int) -> Neighbours:
    """The K = min(top, N) rows of the largest inner product with each query.

    database: (N, D) float32, memory-mapped or not, of rows of norm 1 or 0: the bound of the rounding error relies on
    it. queries: (Q, D) float32. Scores are inner products summed in float64 and rounded to float32 once; of equal
    ones the lower position comes first.
    Raises: SearchError for other shapes, top < 1 or a query that is not finite; MissingExtraError without faiss.

    >>> database = np.eye(3, dtype=np.float32)
    >>> found = search_exact(database, database[1:2], 2)
    >>> found.positions.tolist(), found.scores.tolist()
    ([[1, 0]], [[1.0, 0.0]])
    """
    check_queries(queries, database.shape[1], top)
    wanted = min(top, len(database))
    positions = np.empty((len(queries), wanted), np.int64)
    scores = np.empty((len(queries), wanted), np.float32)
    for start in range(0, len(queries) if wanted else 0, QUERIES_AT_ONCE):
        part = slice(start, start + QUERIES_AT_ONCE)
        positions[part], scores[part] = _nearest(database, np.ascontiguousarray(queries[part]), wanted)
    return Neighbours(positions, scores)


def check_queries(queries: Float32, dim: int, top: int) -> None:
    """Raises: SearchError unless queries are (Q, dim) finite float32 and top is at least 1."""
    if queries.ndim != 2 or queries.shape[1] != dim or queries.dtype != np.float32:
        raise SearchError(f"wanted queries of shape (Q, {dim}) float32, got {queries.shape} {queries.dtype}")
    if top < 1:
        raise SearchError(f"wanted at least one neighbour, got {top}")
    if not np.isfinite(queries).all():
        raise SearchError(f"query {int(np.argmin(np.isfinite(queries).all(axis=1)))}: a value is not finite")


def rescore(database: Float32, queries: Float32, positions: Int64) -> Neighbours:
    """Score (Q, P) proposals in float64, and sort them: falling score, then rising position."""
    scores = np.empty(positions.shape, np.float32)

    def score(start: int) -> None:
        part = slice(start, start + RESCORED_AT_ONCE)
        rows = database[positions[part]].astype(np.float64)
        rows *= queries[part, None].astype(np.float64)
        # Summed along the last axis, every row has its terms in the same order; a BLAS product promises no such thing.
        scores[part] = rows.sum(axis=-1)

    if len(positions) <= RESCORED_AT_ONCE:
        score(0)  # to start threads would take longer
    else:
        with ThreadPoolExecutor(available_cores()) as pool:
            list(pool.map(score, range(0, len(positions), RESCORED_AT_ONCE)))
    order = np.lexsort((positions, -scores), axis=-1)
    return Neighbours(np.take_along_axis(positions, order, 1), np.take_along_axis(scores, order, 1))


def _nearest(database: Float32, queries: Float32, wanted: int) -> tuple[Int64, Float32]:
    faiss = load_faiss()
    width = min(len(database), wanted + SPARE)
    with asking_faiss("the search"):
        raw, proposals = faiss.knn(queries, database, width, metric=faiss.METRIC_INNER_PRODUCT)
    found = rescore(database, queries, proposals)
    positions, scores = found.positions[:, :wanted], found.scores[:, :wanted]
    if width < len(database):
        # FAISS scored whatever it left out no higher than its last proposal, and erred by no more than the bound.
        unsure = raw[:, -1] >= scores[:, -1] - _bounds(queries)
        for query in np.flatnonzero(unsure):
            positions[query], scores[query] = _settle(database, queries[query], float(scores[query, -1]), wanted)
    return positions, scores


def _bounds(queries: Float32) -> Float64:
    """How far float32 inner products with unit vectors may be from those of `rescore`: (Q,) float64.

    n u |x| |y| / (1 - n u), with one more rounding, from float64, on the other side.
    Source: Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., section 3.1.
    """
    terms = (queries.shape[1] + 2) * UNIT_ROUNDOFF
    return np.asarray(np.linalg.norm(queries.astype(np.float64), axis=1) * (terms / (1 - terms)))


def _settle(database: Float32, query: Float32, floor: float, wanted: int) -> tuple[Int64, Float32]:
    """The best rows for one query, all those that may score `floor` or more considered; that many rows do."""
    best = Neighbours(np.empty((1, 0), np.int64), np.empty((1, 0), np.float32))
    floor -= float(_bounds(query[None])[0])
    for start in range(0, len(database), ROWS_AT_ONCE):
        scores = database[start : start + ROWS_AT_ONCE] @ query
        close = start + np.flatnonzero(scores >= floor)
        merged = np.concatenate([best.positions[0], close])
        best = rescore(database, query[None], merged[None])
        best = Neighbours(best.positions[:, :wanted], best.scores[:, :wanted])
    return best.positions[0], best.scores[0]


def load_faiss() -> Any:
    """The module faiss. Raises: MissingExtraError."""
    with extra("search", what="faiss"):
        import faiss
    return faiss


@contextlib.contextmanager
def asking_faiss(what: object) -> Iterator[None]:
    """Whatever FAISS raises in this block becomes a SearchError about `what`."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        # Before the reason are the function, the line, and the condition in its words.
        reason = reason_of(error).rpartition(" failed: ")[2]
        raise SearchError(f"{what}: FAISS: {reason}") from error
