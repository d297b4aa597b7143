"""Searches that wait for one state of an index, done together: the more of them, the less each costs."""

import dataclasses
from collections.abc import Hashable, Sequence

import numpy as np

from landmark_onnx.errors import LandmarkError
from landmark_onnx.results import Failure
from landmark_onnx.search.answers import Hit, answers
from landmark_onnx.search.index import Index
from landmark_onnx.search.neighbours import Neighbours
from landmark_onnx.search.queries import Queries
from landmark_onnx.search.rerank.state import Step
from landmark_onnx.serving.live_index import Snapshot
from landmark_onnx.serving.metrics import SEARCH
from landmark_onnx.types import Float32

ROOM = 256
ROOM_WITH_STEPS = 8
"""Fewer: a step takes its time for each query alone, and other work waits for the batch."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Wanted:
    """A search. vector: (D,) float32 of norm 1. top: how many neighbours. Steps search exactly."""

    snapshot: Snapshot
    vector: Float32
    top: int
    approximate: bool = False
    steps: tuple[Step, ...] = ()


class SearchStage:
    """What a scheduler runs for searches: each item is answered as `Index.answer` does, whatever the others ask for."""

    name = SEARCH

    def kind(self, item: Wanted) -> Hashable:
        """Items of one kind are searched for together."""
        # What the graph finds depends on how many are wanted.
        return item.snapshot, item.approximate, item.steps, item.top if item.approximate else 0

    def room(self, item: Wanted) -> int:
        """How many items make a batch."""
        return ROOM_WITH_STEPS if item.steps else ROOM

    def run_batch(self, items: Sequence[Wanted]) -> Sequence[Sequence[Hit] | Failure]:
        """The neighbours of each item, nearest first, without landmarks; a `Failure` where there is no answer."""
        try:
            return _searched(items)
        except LandmarkError as error:
            if len(items) == 1:
                return [Failure(image="", error=str(error), kind=type(error))]
            return [answer for item in items for answer in self.run_batch([item])]


def _searched(items: Sequence[Wanted]) -> list[Sequence[Hit]]:
    """Search once, for the most that any item wants. Raises: LandmarkError."""
    first = items[0]
    index, top = first.snapshot.index, max(item.top for item in items)
    queries = _named(np.stack([item.vector for item in items]))
    if not isinstance(index, Index):
        found = index.answer(queries, top, steps=first.steps, approximate=first.approximate)
        return [answer.hits[: item.top] for item, answer in zip(items, found, strict=True)]
    ranked = index.ranked(queries.vectors, top, steps=first.steps, approximate=first.approximate)
    hits: list[Sequence[Hit]] = []
    for at, item in enumerate(items):
        # Names are read only of what is answered.
        own = Neighbours(ranked.positions[at : at + 1, : item.top], ranked.scores[at : at + 1, : item.top])
        hits += [each.hits for each in answers(_named(item.vector[None]), own, index.ids, index.sources)]
    return hits


def _named(vectors: Float32) -> Queries:
    nameless = [""] * len(vectors)
    return Queries(nameless, nameless, vectors)
