"""How much an approximate search finds, measured where it is made."""

from collections.abc import Callable

import numpy as np

from landmark_onnx.search.exact import search_exact
from landmark_onnx.search.neighbours import Neighbours
from landmark_onnx.types import Float32

SAMPLE, AT = 200, 100


def recall(vectors: Float32, search: Callable[[Float32, int], Neighbours]) -> float:
    """Share of the min(AT, N) exact neighbours of min(SAMPLE, N) rows, each among its own, that a search finds.

    vectors: (N, D). search: (Q, D) queries and how many neighbours -> those neighbours among the vectors.
    """
    rows = np.random.default_rng(0).choice(len(vectors), min(SAMPLE, len(vectors)), replace=False)
    queries = np.ascontiguousarray(vectors[np.sort(rows)])
    at = min(AT, len(vectors))
    exact = search_exact(vectors, queries, at).positions
    found = search(queries, at).positions
    return float(np.mean([np.isin(*pair).mean() for pair in zip(exact, found, strict=True)]))
