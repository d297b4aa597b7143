"""Diffusion: similarity flows from a query's neighbours along the graph of mutual neighbours."""

import dataclasses
from typing import ClassVar, Literal, Self

import numpy as np

from landmark_onnx.search.neighbours import Neighbours
from landmark_onnx.search.rerank.state import State, parameter
from landmark_onnx.search.rerank.topk import least
from landmark_onnx.types import Float32, Int64

CROWD = 0.1
"""Share of all images: of made-up groups of 4 to 50 in 24 to 1,000 images, a larger k found fewer than no diffusion."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class NeighbourGraph:
    """A symmetric graph of N images, normalised: D^-1/2 A D^-1/2.

    columns: (N, K) int64 other ends of each image's edges. weights: (N, K) float32, 0 where there is no edge.
    """

    columns: Int64
    weights: Float32

    @classmethod
    def build(cls, found: Neighbours, gamma: float) -> Self:
        """The (N, K) nearest of each of N images -> A = s^gamma where each of two is among the other's nearest.

        Itself is one of the K, but no image has an edge to itself; s = max(0, score); D = the rows' sums + 1e-12.
        """
        own = np.arange(len(found.positions))[:, None]
        mutual = (found.positions != own) & _has_back(found.positions, own)
        affinity = np.where(mutual, np.maximum(found.scores, 0) ** np.float32(gamma), np.float32(0))
        scale = 1 / np.sqrt(affinity.sum(axis=1, dtype=np.float64) + 1e-12)
        return cls(found.positions, (affinity * scale[:, None] * scale[found.positions]).astype(np.float32))

    def restricted(self, members: Int64) -> Self:
        """The part among (M,) members, which are numbered by their place there; the weights stay as they are."""
        local = np.full(len(self.columns), -1)
        local[members] = np.arange(len(members))
        columns = local[self.columns[members]]
        return type(self)(np.maximum(columns, 0), np.where(columns >= 0, self.weights[members], np.float32(0)))

    def flow(self, values: Float32) -> Float32:
        """(N,) -> the matrix times it, (N,)."""
        return np.asarray(np.einsum("nk,nk->n", self.weights, values[self.columns]))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Diffusion:
    """Order each query's candidates by f of (I - alpha D^-1/2 A D^-1/2) f = y.

    A as of `NeighbourGraph.build` with k and gamma; y = max(0, s)^gamma of the query's kq nearest candidates, 0 for the
    others; f by conjugate gradients, until the residual is `tolerance` of y or `iterations` have passed. truncation:
    candidates, the first of the present order. graph: of which images A and D are, "candidates" (each query's own,
    (truncation^2) D multiplications a query) or "database" (the published one: once, but N^2 D, cut to the candidates).
    Source: Iscen et al., Efficient Diffusion on Region Manifolds, 2017; the graph as in fyang93/diffusion.
    """

    name: ClassVar[str] = "diffusion"
    k: int = parameter(50, least=2)
    kq: int = parameter(10, least=1)
    gamma: float = parameter(3.0)
    alpha: float = parameter(0.99, most=0.9999)
    iterations: int = parameter(20, least=1)
    tolerance: float = parameter(1e-6)
    truncation: int = parameter(1000, least=1)
    graph: Literal["candidates", "database"] = parameter("candidates")

    @property
    def reach(self) -> int:
        """Neighbours of a query that it looks at."""
        return self.truncation

    def __call__(self, state: State) -> State:
        """The next state. A graph in which each image has a large part of the others is warned of: it blurs them."""
        images = len(state.database) if self.graph == "database" else min(self.truncation, len(state.database))
        if self.k > CROWD * images:
            state.warn(
                f"{self.name}: k={self.k} of {images:,} images joins each to many that are unlike it, and may rank "
                f"worse than no step; take k={max(2, int(CROWD * images))} or less"
            )
        whole = state.once(self, lambda: self._whole_graph(state)) if self.graph == "database" else None

        def score(query: Float32, positions: Int64) -> Float32:
            vectors = state.database[positions]
            graph = (
                whole.restricted(positions)
                if whole
                else NeighbourGraph.build(nearest_among(vectors, self.k), self.gamma)
            )
            similarity = np.maximum(vectors @ query, 0)
            seeds = np.zeros_like(similarity)
            nearest = np.argsort(-similarity, kind="stable")[: self.kq]
            seeds[nearest] = similarity[nearest] ** np.float32(self.gamma)
            return self.solve(graph, seeds)

        return state.reranked(self.truncation, score)

    def _whole_graph(self, state: State) -> NeighbourGraph:
        return NeighbourGraph.build(state.search(state.database, state.database, self.k), self.gamma)

    def solve(self, graph: NeighbourGraph, seeds: Float32) -> Float32:
        """(N,) y -> (N,) f, by the conjugate gradient method from f = 0."""
        answer = np.zeros_like(seeds)
        residual = seeds
        direction = seeds
        power = limit = float(residual @ residual)
        for _ in range(self.iterations):
            if power <= limit * self.tolerance**2:
                break
            image = direction - np.float32(self.alpha) * graph.flow(direction)
            step = np.float32(power / float(direction @ image))
            answer += step * direction
            residual = np.subtract(residual, step * image, dtype=np.float32)
            power, former = float(residual @ residual), power
            direction = np.add(residual, np.float32(power / former) * direction, dtype=np.float32)
        return answer


def nearest_among(vectors: Float32, count: int) -> Neighbours:
    """(M, D), few enough for their (M, M) products -> the min(count, M) nearest of each; of equal ones the lower."""
    products = vectors @ vectors.T
    order = least(np.maximum(1 - products, 0), count)
    return Neighbours(order, np.take_along_axis(products, order, axis=1))


def _has_back(positions: Int64, own: Int64) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """(N, K) neighbours, (N, 1) 0..N-1 -> (N, K): whether the neighbour has the image among its own."""
    size = len(positions)
    edges = np.sort((own * size + positions).ravel())
    back = positions * size + own
    at = np.minimum(np.searchsorted(edges, back), edges.size - 1)
    return np.asarray(edges[at] == back)
