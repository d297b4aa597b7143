"""k-reciprocal re-ranking: neighbours count that have the query among their own neighbours too."""

import dataclasses
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from landmark_onnx.search.rerank.state import State, parameter
from landmark_onnx.search.rerank.topk import least
from landmark_onnx.types import Float32, Int64

Bool = npt.NDArray[np.bool_]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class KReciprocal:
    """Order each query's candidates by 1 - ((1 - lambda) jaccard distance + lambda squared L2 / its largest).

    A query and its candidates are a set of their own, in which all neighbours are looked for: with `candidates` at
    least the database's size and one query this is the published method, which takes all queries and the whole
    database, and the memory of its square. Here a query costs (candidates + 1)^2 D multiplications.

    k1: neighbours that have to be mutual, beside the image itself. k2: images, the first of them itself, over which
    encodings are averaged; 1 for none. weight ("lambda"): share of the original distance.
    Source: Zhong et al., Re-ranking Person Re-identification with k-reciprocal Encoding, 2017, and the authors'
    python-version/re_ranking_feature (in whose half of k1 round() is to even).
    """

    name: ClassVar[str] = "k-reciprocal"
    k1: int = parameter(20, least=1)
    k2: int = parameter(6, least=1)
    weight: float = parameter(0.3, key="lambda", most=1)
    candidates: int = parameter(1000, least=1)

    @property
    def reach(self) -> int:
        """Neighbours of a query that it looks at."""
        return self.candidates

    def __call__(self, state: State) -> State:
        """The next state."""

        def score(query: Float32, positions: Int64) -> Float32:
            return self.score(np.concatenate([query[None], state.database[positions]]))

        return state.reranked(self.candidates, score)

    def score(self, pool: Float32) -> Float32:
        """(1 + M, D) float32 query and candidates, L2-normalised -> (M,) float32, higher is nearer."""
        distances = relative_distances(pool)
        order = least(distances, max(self.k1 + 1, self.k2), own_first=True)
        mutual = reciprocal(order[:, : self.k1 + 1])
        encoding = np.where(expanded(mutual, order[:, : round(self.k1 / 2) + 1]), np.exp(-distances), 0)
        encoding /= encoding.sum(axis=1, keepdims=True)
        used = np.flatnonzero(encoding[order[0, : self.k2]].any(axis=0))
        averaged = encoding[:, used][order[:, : self.k2]].mean(axis=1)
        shared = np.minimum(averaged[0], averaged).sum(axis=1)
        jaccard = 1 - shared / (2 - shared)
        distance = (1 - self.weight) * jaccard + self.weight * distances[0]
        return np.asarray(1 - distance[1:], np.float32)


def relative_distances(pool: Float32) -> Float32:
    """(P, D) L2-normalised -> (P, P) squared L2 distances, each row divided by its largest; 0 on the diagonal."""
    distances = pool @ pool.T
    distances *= -2
    distances += 2
    np.maximum(distances, 0, out=distances)
    np.fill_diagonal(distances, 0)
    largest = distances.max(axis=1, keepdims=True)
    distances /= np.where(largest > 0, largest, np.float32(1))
    return distances


def reciprocal(order: Int64) -> Bool:
    """(P, K) neighbours of each -> (P, P): whether each of two is a neighbour of the other."""
    near = np.zeros((len(order), len(order)), np.bool_)
    np.put_along_axis(near, order, values=True, axis=1)
    return near & near.T


def expanded(mutual: Bool, half: Int64) -> Bool:
    """(P, P) reciprocal neighbours, (P, H) nearest of each -> (P, P), joined with those of fitting neighbours.

    A neighbour fits if more than two thirds of its own reciprocal neighbours, within its H nearest, are mutual with
    the image too.
    """
    closer = reciprocal(half)
    image, neighbour = np.nonzero(mutual)
    own = half[neighbour]
    valid = np.take_along_axis(closer, half, axis=1)[neighbour]
    overlap = (mutual[image[:, None], own] & valid).sum(axis=1)
    fits = overlap > 2 / 3 * valid.sum(axis=1)
    result = mutual.copy()
    rows = np.broadcast_to(image[:, None], own.shape)
    taken = valid & fits[:, None]
    result[rows[taken], own[taken]] = True
    return result
