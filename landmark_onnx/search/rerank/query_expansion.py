"""Query expansion and database augmentation: a vector becomes a weighted mean of itself and what is near it."""

import dataclasses
from typing import ClassVar

import numpy as np

from landmark_onnx.search.rerank.state import Search, State, normalised, parameter
from landmark_onnx.types import Float32, Int64

ROWS = 1024
"""Vectors whose neighbours are gathered at once."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AlphaQueryExpansion:
    """q' = L2(q + sum over its k nearest of d s^alpha), s = max(0, q . d); then the search starts again.

    After a re-ranking, the k nearest are the first of its order. k = 0 leaves the query alone; alpha = 0 is plain
    average query expansion.
    Source: Radenovic, Tolias, Chum, Fine-tuning CNN Image Retrieval with No Human Annotation, 2018, section 4.
    """

    name: ClassVar[str] = "alpha-qe"
    k: int = parameter(10)
    alpha: float = parameter(3.0)

    @property
    def reach(self) -> int:
        """Neighbours of a query that it looks at."""
        return self.k

    def __call__(self, state: State) -> State:
        """The next state."""
        nearest = state.neighbours().positions[:, : self.k]
        expanded = np.empty_like(state.queries)
        for start in range(0, len(nearest), ROWS):
            rows = slice(start, start + ROWS)
            own, others = state.queries[rows], state.database[nearest[rows]]
            weights = similarities(own, others) ** np.float32(self.alpha)
            expanded[rows] = normalised(own + weighted_sum(weights, others))
        return state.moved(queries=expanded)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseAugmentation:
    """x' = L2(sum over j < k of x_j w_j), w_j = s_j^alpha 10^(-decay j / (k - 1)); then the search starts again.

    x_0, x_1, ... are the k database vectors nearest to x, s_j = max(0, x . x_j). self = true: x_0 is x itself, one of
    the k. self = false: x is left out, and all k are others. decay weighs by rank: smlyaka's DBA of 2019 (logspace(0,
    -1.5, k), no similarities) is k=3, alpha=0, decay=1.5.

    Costs a search of the whole database in itself, N^2 D multiplications, and a second database in memory.
    Source: Arandjelovic, Zisserman, Three things everyone should know to improve object retrieval, 2012, section 4;
    the weights: Gordo et al., End-to-end Learning of Deep Visual Representations for Image Retrieval, 2017.
    """

    name: ClassVar[str] = "dba"
    k: int = parameter(3, least=1)
    own: bool = parameter(True, key="self")
    alpha: float = parameter(3.0)
    decay: float = parameter(0.0)

    @property
    def reach(self) -> int:
        """Neighbours of a query that it looks at."""
        return 0

    def __call__(self, state: State) -> State:
        """The next state."""
        return state.moved(database=state.once(self, lambda: self.augment(state.database, state.search)))

    def augment(self, database: Float32, search: Search) -> Float32:
        """(N, D) L2-normalised -> (N, D) float32."""
        count = min(self.k, len(database) if self.own else len(database) - 1)
        by_rank = 10.0 ** (-self.decay * np.arange(count) / max(self.k - 1, 1))
        augmented = np.empty(database.shape, np.float32)
        for start in range(0, len(database), ROWS):
            rows = slice(start, start + ROWS)
            own = np.asarray(database[rows])
            near = search(database, own, count + 1).positions
            near = without(np.arange(start, start + len(own)), near)[:, : count - self.own]
            if self.own:
                near = np.column_stack([np.arange(start, start + len(own)), near])
            others = database[near]
            weights = similarities(own, others) ** np.float32(self.alpha) * by_rank.astype(np.float32)
            augmented[rows] = normalised(weighted_sum(weights, others))
        return augmented


def without(own: Int64, near: Int64) -> Int64:
    """(B,) positions, (B, K) neighbours of each -> (B, K - 1): without itself, or without the last where it is not in.

    It may not be in where more than K vectors are equal.
    """
    keep = near != own[:, None]
    keep[keep.all(axis=1), -1] = False
    others: Int64 = near[keep].reshape(len(near), -1)
    return others


def similarities(own: Float32, others: Float32) -> Float32:
    """(B, D), (B, K, D) -> (B, K) inner products, none below 0."""
    return np.asarray(np.maximum(np.matmul(others, own[:, :, None])[..., 0], 0))


def weighted_sum(weights: Float32, vectors: Float32) -> Float32:
    """(B, K), (B, K, D) -> (B, D)."""
    return np.asarray(np.matmul(weights[:, None, :], vectors)[:, 0])
