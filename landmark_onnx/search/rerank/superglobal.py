"""SuperGlobal's re-ranking: candidates are refined by each other, then compared with the query and its best."""

import dataclasses
from typing import ClassVar

import numpy as np

from landmark_onnx.search.rerank.query_expansion import weighted_sum
from landmark_onnx.search.rerank.state import State, parameter
from landmark_onnx.search.rerank.topk import least
from landmark_onnx.types import Float32, Int64


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SuperGlobal:
    """Order the first m candidates x of each query q by (q . x' + e . x') / 2.

    x' = (x + beta sum s_j x_j) / (1 + beta sum s_j) over the k candidates nearest to x, s_j = max(0, x . x_j); it is
    not normalised. The method was made for embeddings of its own pooling, which no released network has: here it
    re-ranks those there are. e: the elementwise largest of the k + 1 refined candidates with the highest q . x'.
    Source: Shao et al., Global Features are All You Need for Image Retrieval and Reranking, 2023; the authors'
    modules/reranking/MDescAug.py and RerankwMDA.py, where similarities below 0 do not occur and are not cut.
    """

    name: ClassVar[str] = "superglobal"
    m: int = parameter(400, least=1)
    k: int = parameter(9)
    beta: float = parameter(0.15)

    @property
    def reach(self) -> int:
        """Neighbours of a query that it looks at."""
        return self.m

    def __call__(self, state: State) -> State:
        """The next state."""

        def score(query: Float32, positions: Int64) -> Float32:
            refined = self.refine(state.database[positions])
            direct = refined @ query
            best = np.argsort(-direct, kind="stable")[: self.k + 1]
            expanded = refined[best].max(axis=0)
            return np.asarray((direct + refined @ expanded) / 2, np.float32)

        return state.reranked(self.m, score)

    def refine(self, candidates: Float32) -> Float32:
        """(M, D) L2-normalised -> (M, D) x'."""
        similarity = candidates @ candidates.T
        order = least(np.maximum(1 - similarity, 0), self.k + 1, own_first=True)
        weights = self.beta * np.maximum(np.take_along_axis(similarity, order, axis=1), 0)
        weights[:, 0] = 1
        weights = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
        return weighted_sum(weights, candidates[order])
