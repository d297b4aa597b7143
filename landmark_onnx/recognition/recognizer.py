"""Image -> landmark, with the reasons: an index, classifiers and a detector that look at the same images in step."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from landmark_onnx.model import Classifier, Detector, Model, Retriever
from landmark_onnx.recognition.rules import Rule, RuleHit, apply_rules
from landmark_onnx.recognition.votes import (
    NEIGHBOURS,
    Candidate,
    ClassVote,
    NeighbourVote,
    class_votes,
    combine,
    neighbour_votes,
)
from landmark_onnx.results import Classification, Detections, Embedding, Failure, Result
from landmark_onnx.search.open import AnyIndex
from landmark_onnx.search.pace import grouped, in_step
from landmark_onnx.search.queries import Queries
from landmark_onnx.types import ImageSource, Tensors

AT_ONCE = 16
"""Images that are searched for together."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Recognition(Result):
    """landmark: the best candidate, or None: no vote at all, or a rule that holds. The rest are the reasons.

    score: the best candidate's. candidates: best first. neighbours: those that voted, nearest first. labels: where
    their landmarks are from, if that is known. classes: of each classifier. hits: the rules that hold.
    """

    landmark: str | None
    score: float | None
    candidates: tuple[Candidate, ...]
    neighbours: tuple[NeighbourVote, ...]
    classes: tuple[ClassVote, ...]
    hits: tuple[RuleHit, ...]
    labels: str | None = None

    def to_json(self) -> dict[str, Any]:
        """JSON-ready data."""
        return {
            "image": self.image,
            "landmark": self.landmark,
            "score": self.score,
            "labels": self.labels,
            "candidates": [candidate.to_json() for candidate in self.candidates],
            "neighbours": [vote.to_json() for vote in self.neighbours],
            "classes": [vote.to_json() for vote in self.classes],
            "no_landmark": [hit.to_json() for hit in self.hits],
        }


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Framed(Detections):
    """Boxes, with the width and height of the image in their pixels."""

    frame: tuple[float, float]


class FramingDetector(Detector):
    """A detector that says how large its image is: what boxes were clipped to, which may be by its scaled input."""

    def _answer(self, feeds: Tensors, outputs: Tensors) -> Framed:
        found = super()._answer(feeds, outputs)
        if "im_info" in feeds:
            height, width, scale = (float(value) for value in feeds["im_info"][0])
        else:
            height, width, scale = *(float(value) for value in feeds["frame"][0, :2]), 1.0
        return Framed(
            boxes=found.boxes,
            classes=found.classes,
            scores=found.scores,
            names=found.names,
            frame=(width / scale, height / scale),
        )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Voter:
    """A classifier and the weight of its votes. top: how many of its best classes vote, by default all it answers."""

    name: str
    classifier: Classifier
    weight: float = 1.0
    top: int | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Recognizer:
    """What looks at an image.

    index, retrievers: one retriever for each model of the index's ensemble, in its order; whether they are the same
    models is the caller's to check (`Ensemble.check`). landmark_of: id of an index image -> landmark, or None.
    labels: where it has them from, for the answers to say. voters: classifiers whose class names are landmarks.
    detector, rules: what is no landmark; both or neither. neighbours: how many of the nearest vote. neighbour_weight:
    of their votes, as the voters have theirs.
    """

    index: AnyIndex
    retrievers: Sequence[Retriever]
    landmark_of: Callable[[str], str | None]
    voters: Sequence[Voter] = ()
    detector: FramingDetector | None = None
    rules: Sequence[Rule] = ()
    neighbours: int = NEIGHBOURS
    neighbour_weight: float = 1.0
    labels: str | None = None

    def stream(self, images: Iterable[ImageSource]) -> Iterator[Recognition | Failure]:
        """Answer each image in order as it comes; memory does not grow with their number."""
        return (answer for answer in self.paced(images) if answer is not None)

    def paced(self, images: Iterable[ImageSource]) -> Iterator[Recognition | Failure | None]:
        """As `stream`, with None where all that came is answered and `images` is silent."""
        for group in grouped(in_step(self.models, images), AT_ONCE):
            yield from self._answer(group)
            if not group:
                yield None

    @property
    def models(self) -> Sequence[Model[Any]]:
        """All that look at an image, in the order in which `conclude` takes their answers."""
        detector = [self.detector] if self.detector else []
        return [*self.retrievers, *(voter.classifier for voter in self.voters), *detector]

    def _answer(self, group: Sequence[Sequence[Result | Failure]]) -> Iterator[Recognition | Failure]:
        whole = [row for row in group if not any(isinstance(answer, Failure) for answer in row)]
        voted = iter(self._neighbours(whole) if whole else [])
        for row in group:
            failure = next((answer for answer in row if isinstance(answer, Failure)), None)
            yield failure or self.conclude(row, next(voted))

    def _neighbours(self, rows: Sequence[Sequence[Any]]) -> list[list[NeighbourVote]]:
        names = [model.name for model in self.index.ensemble.models]
        vectors = {name: np.stack([row[at].vector for row in rows]) for at, name in enumerate(names)}
        images = [row[0].image for row in rows]
        queries = Queries(images, images, self.index.ensemble(vectors))
        return [
            neighbour_votes(answer.hits, self.landmark_of) for answer in self.index.answer(queries, self.neighbours)
        ]

    def conclude(self, row: Sequence[Any], neighbours: Sequence[NeighbourVote]) -> Recognition:
        """What follows from an image's answers by each of `models`, and from the votes of its neighbours."""
        first: Embedding = row[0]
        answers: Sequence[Classification] = row[len(self.retrievers) : len(self.retrievers) + len(self.voters)]
        classes = [
            (vote, voter.weight)
            for voter, answer in zip(self.voters, answers, strict=True)
            for vote in class_votes(voter.name, answer)[: voter.top]
        ]
        candidates = combine(neighbours, classes, neighbour_weight=self.neighbour_weight)
        hits = apply_rules(self.rules, row[-1], *row[-1].frame) if self.detector else ()
        best = candidates[0] if candidates and not hits else None
        return Recognition(
            image=first.image,
            landmark=best.landmark if best else None,
            score=best.score if best else None,
            candidates=tuple(candidates),
            neighbours=tuple(neighbours),
            classes=tuple(vote for vote, _ in classes),
            hits=hits,
            labels=self.labels,
        )
