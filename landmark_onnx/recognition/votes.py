"""Votes for landmarks, and their sum."""

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

from landmark_onnx.results import Classification
from landmark_onnx.search.answers import Hit

NEIGHBOURS = 3
"""Neighbours that vote, as in smlyaka's solution of 2019."""


@dataclasses.dataclass(frozen=True, slots=True)
class NeighbourVote:
    """An image of the index that votes. landmark: None where the labels have it not. value: 1 - squared L2."""

    id: str
    landmark: str | None
    cosine: float
    value: float

    def to_json(self) -> dict[str, Any]:
        """JSON-ready data."""
        return {"id": self.id, "landmark": self.landmark, "cosine": self.cosine, "vote": self.value}


@dataclasses.dataclass(frozen=True, slots=True)
class ClassVote:
    """A classifier that votes. landmark: None where no map says. value: the probability."""

    model: str
    index: int
    landmark: str | None
    value: float

    def to_json(self) -> dict[str, Any]:
        """JSON-ready data."""
        return {"model": self.model, "index": self.index, "landmark": self.landmark, "vote": self.value}


@dataclasses.dataclass(frozen=True, slots=True)
class Candidate:
    """A landmark with its votes: weighted, of neighbours and of classifiers, and their sum."""

    landmark: str
    score: float
    neighbours: float
    classifiers: float

    def to_json(self) -> dict[str, Any]:
        """JSON-ready data."""
        return dataclasses.asdict(self)


def neighbour_vote(name: str, landmark: str | None, cosine: float) -> NeighbourVote:
    """1 - squared L2 of two unit vectors, 2 cosine - 1: below 0 where they are more than 60 degrees apart.

    Source: lyakaap/Landmark2019-1st-and-3rd-Place-Solution, exp/submit_recognition.py, of which this is the part
    without local features: score(landmark) = sum over those of the nearest three that show it.
    """
    return NeighbourVote(name, landmark, cosine, 2 * cosine - 1)


def neighbour_votes(hits: Iterable[Hit], landmark_of: Callable[[str], str | None]) -> list[NeighbourVote]:
    """The vote of each neighbour. landmark_of: id of one -> its landmark, or None."""
    return [neighbour_vote(hit.id, landmark_of(hit.id), hit.score) for hit in hits]


def class_votes(model: str, answer: Classification) -> list[ClassVote]:
    """A classifier's answer as votes, one for each class of it."""
    rows = zip(answer.indices.tolist(), answer.names, answer.scores.tolist(), strict=True)
    return [ClassVote(model, index, name, score) for index, name, score in rows]


def combine(
    neighbours: Iterable[NeighbourVote],
    classes: Iterable[tuple[ClassVote, float]],
    *,
    neighbour_weight: float,
) -> list[Candidate]:
    """All landmarks with a vote, the best first; of equal ones the lower label.

    score = neighbour_weight x (sum of its neighbours' votes) + sum of weight x (its classifiers' votes).

    >>> votes = [neighbour_vote("1.jpg", "tower", 0.9), neighbour_vote("2.jpg", "bridge", 0.8)]
    >>> [(best.landmark, round(best.score, 3)) for best in combine(votes, [], neighbour_weight=1)]
    [('tower', 0.8), ('bridge', 0.6)]
    """
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for vote in neighbours:
        if vote.landmark is not None:
            sums[vote.landmark][0] += neighbour_weight * vote.value
    for said, weight in classes:
        if said.landmark is not None:
            sums[said.landmark][1] += weight * said.value
    candidates = [Candidate(landmark, near + said, near, said) for landmark, (near, said) in sums.items()]
    return sorted(candidates, key=lambda candidate: (-candidate.score, candidate.landmark))
