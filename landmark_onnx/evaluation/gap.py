"""GAP, the global average precision (micro-AP) of recognition, and top-1 accuracy.

Source: tensorflow/models, research/delf, google_landmarks_dataset/metrics.py, GlobalAveragePrecision, Top1Accuracy.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from landmark_onnx.errors import TableError
from landmark_onnx.evaluation.report import Report, Row
from landmark_onnx.evaluation.solutions import Guess, Solution, read_guesses, scored, unlike


@dataclasses.dataclass(frozen=True, slots=True)
class RankedGuess:
    """A guess at its place among all, from 1, the surest first. precision: share of right ones up to this place."""

    image: str
    guess: Guess
    correct: bool
    place: int
    precision: float


def rank_guesses(guesses: Mapping[str, Guess], solution: Solution) -> list[RankedGuess]:
    """All guesses in order: falling score, then id, then landmark; all are of images in the solution."""
    ordered = sorted(guesses.items(), key=lambda item: (-item[1].score, item[0], item[1].landmark))
    ranked, correct = [], 0
    for place, (image, guess) in enumerate(ordered, start=1):
        hit = guess.landmark in solution[image].right
        correct += hit
        ranked.append(RankedGuess(image, guess, hit, place, correct / place))
    return ranked


def global_average_precision(guesses: Mapping[str, Guess], solution: Solution) -> float:
    """Sum of the precision at each correct guess, by the number of images that have a landmark; at least one has.

    >>> from landmark_onnx.evaluation import Truth
    >>> solution = {"a": Truth("Public", frozenset({"tower"})), "b": Truth("Public", frozenset())}
    >>> global_average_precision({"a": Guess("tower", 0.9), "b": Guess("tower", 0.1)}, solution)
    1.0
    >>> global_average_precision({"a": Guess("tower", 0.1), "b": Guess("tower", 0.9)}, solution)
    0.5
    """
    terms = [each.precision for each in rank_guesses(guesses, solution) if each.correct]
    return math.fsum(terms) / sum(bool(truth.right) for truth in solution.values())


def accuracy(guesses: Mapping[str, Guess], solution: Solution) -> float:
    """Share of correct guesses among the images that have a landmark; no guess is a wrong one.

    >>> from landmark_onnx.evaluation import Truth
    >>> accuracy({"a": Guess("bridge", 1)}, {"a": Truth("Public", frozenset({"bridge", "river"}))})
    1.0
    """
    correct = sum(guess.landmark in solution[image].right for image, guess in guesses.items())
    return correct / sum(bool(truth.right) for truth in solution.values())


def evaluate_recognition(path: Path, solution: Solution, origin: str) -> Report:
    """A submission file against a solution, which errors call `origin`. Raises: TableError."""
    rows = scored(read_guesses(path), solution, path, origin)
    guesses = {image: guess for image, guess in rows if guess}
    counted = {image: truth for image, truth in solution.items() if truth.usage != "Ignored"}
    if not any(truth.right for truth in counted.values()):
        raise TableError(f"{origin}: no image that counts has a landmark")
    parts = [_summary(usage, guesses, part) for usage, part in _parts(counted)]
    right = {landmark for truth in counted.values() for landmark in truth.right}
    said = next((guess.landmark for guess in guesses.values()), "")
    strange = said and right.isdisjoint(guess.landmark for guess in guesses.values())
    note = unlike(said, counted, "landmark", origin) if strange else ""
    return Report(parts, _per_image(guesses, counted), answered=len(guesses), wanted=len(counted), note=note)


def _parts(solution: Solution) -> list[tuple[str, Solution]]:
    parts: list[tuple[str, Solution]] = []
    for usage in ("Public", "Private"):
        part = {image: truth for image, truth in solution.items() if truth.usage == usage}
        if any(truth.right for truth in part.values()):
            parts.append((usage, part))
    return [*parts, ("all", solution)]


def _summary(usage: str, guesses: Mapping[str, Guess], part: Solution) -> Row:
    own = {image: guess for image, guess in guesses.items() if image in part}
    landmarks = sum(bool(truth.right) for truth in part.values())
    gap = global_average_precision(own, part)
    return {
        "usage": usage,
        "images": len(part),
        "landmarks": landmarks,
        "gap": gap,
        "accuracy": accuracy(own, part),
    }


def _per_image(guesses: Mapping[str, Guess], solution: Solution) -> Sequence[Row]:
    rows: list[Row] = [
        {
            "id": each.image,
            "usage": solution[each.image].usage,
            "landmark": each.guess.landmark,
            "score": each.guess.score,
            "correct": each.correct,
            "place": each.place,
            "precision": each.precision,
        }
        for each in rank_guesses(guesses, solution)
    ]
    silent: Row = {"landmark": None, "score": None, "correct": None, "place": None, "precision": None}
    return rows + [
        {"id": image, "usage": truth.usage, **silent} for image, truth in solution.items() if image not in guesses
    ]
