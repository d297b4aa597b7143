"""Neighbours of a query by name: what the command line writes, and the contact sheet shows."""

import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from landmark_onnx.images.ids import as_text
from landmark_onnx.search.neighbours import Neighbours
from landmark_onnx.search.queries import Queries
from landmark_onnx.types import Float32


@dataclasses.dataclass(frozen=True, slots=True)
class Hit:
    """A neighbour. rank: 1 for the nearest. source: the path of its image, or tar:member. landmark: if it has one."""

    rank: int
    id: str
    score: float
    source: str
    landmark: str | None = None


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class StoredRow:
    """An image of an index. vector: (D,) float32 of norm 1. source: the path of its image, or tar:member."""

    vector: Float32
    source: str


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """The neighbours of a query, nearest first. image: its name, `is_id` or a path. source: where its image is.

    labels: where the neighbours' landmarks are from, a file or a word for it; None where nobody asked for them.
    """

    image: str
    source: str
    hits: Sequence[Hit]
    is_id: bool = False
    labels: str | None = None

    def labelled(self, landmark_of: Callable[[str], str | None], labels: str) -> "Answer":
        """The same with landmarks. landmark_of: id of a neighbour -> its landmark, or None."""
        hits = [dataclasses.replace(hit, landmark=landmark_of(hit.id)) for hit in self.hits]
        return dataclasses.replace(self, hits=hits, labels=labels)

    def to_json(self) -> dict[str, Any]:
        """JSON-ready data; sources below the working folder as seen from it.

        With the key "id" if the query has one; "labels", and "landmark" of each neighbour, if these were asked for.
        """
        known = {"id": self.image} if self.is_id else {}
        here = os.path.join(as_text(str(Path.cwd())), "")  # noqa: PTH118  # ends with a separator
        hits = [{**dataclasses.asdict(hit), "source": hit.source.removeprefix(here)} for hit in self.hits]
        if self.labels is None:
            for hit in hits:
                del hit["landmark"]
        else:
            known["labels"] = self.labels
        return {"image": self.image, **known, "neighbours": hits}


def answers(queries: Queries, found: Neighbours, ids: Sequence[str], sources: Sequence[str]) -> Iterator[Answer]:
    """The neighbours of each query. ids, sources: of each position."""
    for at, (name, source) in enumerate(zip(queries.names, queries.sources, strict=True)):
        pairs = zip(found.positions[at].tolist(), found.scores[at].tolist(), strict=True)
        hits = [Hit(rank, ids[row], score, sources[row]) for rank, (row, score) in enumerate(pairs, 1)]
        yield Answer(name, source, hits, queries.are_ids)
