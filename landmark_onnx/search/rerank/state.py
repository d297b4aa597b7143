"""What passes from one step after the search to the next."""

import dataclasses
import logging
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol, Self, TypeAlias, TypeVar

import numpy as np

from landmark_onnx.search.neighbours import Neighbours
from landmark_onnx.types import Float32, Int64

T = TypeVar("T")

logger = logging.getLogger(__name__)

Search: TypeAlias = Callable[[Float32, Float32, int], Neighbours]
"""Database (N, D), queries (Q, D), K -> the min(K, N) nearest by inner product."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class State:
    """Queries, database, and their order so far.

    queries: (Q, D) float32, database: (N, D) float32, both L2-normalised. search: finds the nearest. width: how many
    neighbours the steps and the answer need. ranked: `width` of them after a re-ranking; None before any, or where
    vectors have changed since. kept: what steps have made of the database alone, for the queries that come later.
    """

    queries: Float32
    database: Float32
    search: Search
    width: int
    ranked: Neighbours | None = None
    kept: dict[Any, Any] = dataclasses.field(default_factory=dict)

    def neighbours(self) -> Neighbours:
        """The present order: what a re-ranking has left, or a search."""
        return self.ranked or self.search(self.database, self.queries, self.width)

    def once(self, step: "Step", make: Callable[[], T]) -> T:
        """What `make` makes of the present database, made the first time that this step meets it."""
        key = (step, id(self.database))
        if key not in self.kept:
            # The database is kept too, so that no other one gets its id.
            self.kept[key] = (make(), self.database)
        made: T = self.kept[key][0]
        return made

    def warn(self, text: str) -> None:
        """Log a warning about the present database, once for all queries."""
        if text not in self.kept:
            self.kept[text] = None
            logger.warning("%s", text)

    def moved(self, *, queries: Float32 | None = None, database: Float32 | None = None) -> Self:
        """The same with other vectors, to be searched again."""
        return dataclasses.replace(
            self,
            queries=self.queries if queries is None else queries,
            database=self.database if database is None else database,
            ranked=None,
        )

    def reranked(self, count: int, score: Callable[[Float32, Int64], Float32]) -> Self:
        """Order the first `count` neighbours of each query by a new score; the others follow in their former order.

        score: (D,) query, (M,) positions in their present order -> (M,) float32, higher is nearer; of equal ones the
        former order stays. The scores of the others are moved down by a constant, so that all of them still fall.
        """
        found = self.neighbours()
        positions, scores = found.positions.copy(), found.scores.copy()
        for row, query in enumerate(self.queries):
            head = positions[row, :count]
            values = score(query, head)
            order = np.argsort(-values, kind="stable")
            positions[row, :count], scores[row, :count] = head[order], values[order]
            if count < positions.shape[1]:
                scores[row, count:] += min(0.0, float(scores[row, count - 1] - scores[row, count]))
        return dataclasses.replace(self, ranked=Neighbours(positions, scores))


class Step(Protocol):
    """One step: frozen data with explicit parameters, that takes a state to the next.

    name: in a spec. reach: how many neighbours of a query it looks at.
    """

    name: ClassVar[str]
    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]

    @property
    def reach(self) -> int:
        """Neighbours of a query that it looks at."""

    def __call__(self, state: State) -> State:
        """The next state."""


def parameter(default: Any, *, key: str = "", least: float = 0, most: float = float("inf")) -> Any:
    """A field of a step: its default, its key in a spec (the field's name unless given), and the values it may have."""
    metadata: Mapping[str, Any] = {"key": key, "least": least, "most": most}
    return dataclasses.field(default=default, metadata=metadata)


def normalised(vectors: Float32) -> Float32:
    """(..., D) float32, each divided by its L2 norm; one without length stays as it is."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1), np.float32)
