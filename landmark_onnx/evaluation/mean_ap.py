"""mAP@k and P@k of retrieval.

Source: tensorflow/models, research/delf, google_landmarks_dataset/metrics.py, MeanAveragePrecision, MeanPrecisions.
"""

import dataclasses
import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from landmark_onnx.evaluation.report import Report, mean
from landmark_onnx.evaluation.solutions import Solution, Truth, read_images, scored, unlike

CUTS = (1, 5, 10, 100)
"""The k of P@k."""


@dataclasses.dataclass(frozen=True, slots=True)
class QueryScore:
    """One query. precisions: P@k for each of CUTS. answers: how many came.

    relevant: how many images are. found: of those, among the answers that count.
    """

    query: str
    usage: str
    average_precision: float
    precisions: tuple[float, ...]
    answers: int
    relevant: int
    found: int

    def to_json(self) -> Mapping[str, str | float]:
        """JSON-ready data."""
        shown = {f"p@{cut}": value for cut, value in zip(CUTS, self.precisions, strict=True)}
        counts = {"relevant": self.relevant, "found": self.found}
        return {"id": self.query, "usage": self.usage, "ap": self.average_precision, **shown, **counts}


def average_precision(answers: Sequence[str], relevant: Collection[str], top: int = 100) -> float:
    """Sum of precision at the place of each relevant answer among the first `top`, by the most there can be.

    A repeated answer counts once but keeps its places. relevant: at least one.

    >>> average_precision(["right", "wrong", "also right"], {"right", "also right"})
    0.8333333333333333
    """
    found = hits(answers[:top], relevant)
    counts = itertools.accumulate(found)
    total = sum(count / place for place, (hit, count) in enumerate(zip(found, counts, strict=True), start=1) if hit)
    return total / min(len(relevant), top)


def precision(answers: Sequence[str], relevant: Collection[str], cut: int) -> float:
    """Share of relevant ones among `cut` answers; one that is missing or repeated is not.

    >>> precision(["right", "wrong", "right"], {"right"}, 5)
    0.2
    """
    return sum(hits(answers[:cut], relevant)) / cut


def hits(answers: Sequence[str], relevant: Collection[str]) -> list[bool]:
    """Whether each answer is relevant and there for the first time."""
    seen: set[str] = set()
    result = []
    for answer in answers:
        result.append(answer in relevant and answer not in seen)
        seen.add(answer)
    return result


def evaluate_retrieval(path: Path, solution: Solution, top: int, origin: str) -> Report:
    """A submission file against a solution, which errors call `origin`. Raises: TableError."""
    left = {query: truth for query, truth in solution.items() if truth.usage != "Ignored"}
    relevant = {image for truth in left.values() for image in truth.relevant}
    scores = []
    said, known = "", False
    for query, images in scored(read_images(path), solution, path, origin):
        scores.append(_score(query, left.pop(query), images, top))
        said = said or next(iter(images), "")
        known = known or not relevant.isdisjoint(images)
    answered = sum(score.answers > 0 for score in scores)
    scores += [_score(query, truth, [], top) for query, truth in left.items()]
    rows = [_summary(usage, part, top) for usage, part in parts(scores)]
    note = unlike(said, solution, "image", origin) if said and not known else ""
    return Report(rows, [score.to_json() for score in scores], answered=answered, wanted=len(scores), note=note)


def parts(scores: Sequence[QueryScore]) -> Iterator[tuple[str, list[QueryScore]]]:
    """Public and Private, where there are any, then all."""
    for usage in ("Public", "Private"):
        if part := [score for score in scores if score.usage == usage]:
            yield usage, part
    yield "all", list(scores)


def _summary(usage: str, part: Sequence[QueryScore], top: int) -> Mapping[str, str | float]:
    precisions = zip(*(score.precisions for score in part), strict=True)
    shown = {f"p@{cut}": mean(values) for cut, values in zip(CUTS, precisions, strict=True)}
    average = mean(score.average_precision for score in part)
    return {"usage": usage, "queries": len(part), f"map@{top}": average, **shown}


def _score(query: str, truth: Truth, images: Sequence[str], top: int) -> QueryScore:
    relevant = truth.relevant
    precisions = tuple(precision(images, relevant, cut) for cut in CUTS)
    found = sum(hits(images[:top], relevant))
    average = average_precision(images, relevant, top)
    return QueryScore(query, truth.usage, average, precisions, len(images), len(relevant), found)
