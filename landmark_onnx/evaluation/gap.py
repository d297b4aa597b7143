"""GAP, the global average precision (micro-AP) of recognition, and top-1 accuracy.

Source: tensorflow/models, research/delf, google_landmarks_dataset/metrics.py, GlobalAveragePrecision, Top1Accuracy.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from landmark_onnx.errors import TableError
from landmark_onnx.evaluation.report import Report, Row
from landmark_onnx.evaluation.solutions import Prediction, Solution, read_predictions, scored, unlike


@dataclasses.dataclass(frozen=True, slots=True)
class RankedPrediction:
    """A prediction at its place among all, from 1, the surest first. precision: share of correct ones up to it."""

    image: str
    prediction: Prediction
    correct: bool
    place: int
    precision: float


def rank_predictions(predictions: Mapping[str, Prediction], solution: Solution) -> list[RankedPrediction]:
    """All predictions in order: falling score, then id, then landmark; all are of images in the solution."""
    ordered = sorted(predictions.items(), key=lambda item: (-item[1].score, item[0], item[1].landmark))
    ranked, correct = [], 0
    for place, (image, prediction) in enumerate(ordered, start=1):
        hit = prediction.landmark in solution[image].relevant
        correct += hit
        ranked.append(RankedPrediction(image, prediction, hit, place, correct / place))
    return ranked


def global_average_precision(predictions: Mapping[str, Prediction], solution: Solution) -> float:
    """Sum of the precision at each correct prediction, by the number of images that have a landmark; at least one has.

    >>> from landmark_onnx.evaluation import Truth
    >>> solution = {"a": Truth("Public", frozenset({"tower"})), "b": Truth("Public", frozenset())}
    >>> global_average_precision({"a": Prediction("tower", 0.9), "b": Prediction("tower", 0.1)}, solution)
    1.0
    >>> global_average_precision({"a": Prediction("tower", 0.1), "b": Prediction("tower", 0.9)}, solution)
    0.5
    """
    terms = [each.precision for each in rank_predictions(predictions, solution) if each.correct]
    return math.fsum(terms) / sum(bool(truth.relevant) for truth in solution.values())


def accuracy(predictions: Mapping[str, Prediction], solution: Solution) -> float:
    """Share of correct predictions among the images that have a landmark; no prediction is a wrong one.

    >>> from landmark_onnx.evaluation import Truth
    >>> accuracy({"a": Prediction("bridge", 1)}, {"a": Truth("Public", frozenset({"bridge", "river"}))})
    1.0
    """
    correct = sum(prediction.landmark in solution[image].relevant for image, prediction in predictions.items())
    return correct / sum(bool(truth.relevant) for truth in solution.values())


def evaluate_recognition(path: Path, solution: Solution, origin: str) -> Report:
    """A submission file against a solution, which errors call `origin`. Raises: TableError."""
    rows = scored(read_predictions(path), solution, path, origin)
    predictions = {image: prediction for image, prediction in rows if prediction}
    counted = {image: truth for image, truth in solution.items() if truth.usage != "Ignored"}
    if not any(truth.relevant for truth in counted.values()):
        raise TableError(f"{origin}: no image that counts has a landmark")
    parts = [_summary(usage, predictions, part) for usage, part in _parts(counted)]
    relevant = {landmark for truth in counted.values() for landmark in truth.relevant}
    said = next((prediction.landmark for prediction in predictions.values()), "")
    unknown = said and relevant.isdisjoint(prediction.landmark for prediction in predictions.values())
    note = unlike(said, counted, "landmark", origin) if unknown else ""
    return Report(parts, _per_image(predictions, counted), answered=len(predictions), wanted=len(counted), note=note)


def _parts(solution: Solution) -> list[tuple[str, Solution]]:
    parts: list[tuple[str, Solution]] = []
    for usage in ("Public", "Private"):
        part = {image: truth for image, truth in solution.items() if truth.usage == usage}
        if any(truth.relevant for truth in part.values()):
            parts.append((usage, part))
    return [*parts, ("all", solution)]


def _summary(usage: str, predictions: Mapping[str, Prediction], part: Solution) -> Row:
    own = {image: prediction for image, prediction in predictions.items() if image in part}
    landmarks = sum(bool(truth.relevant) for truth in part.values())
    gap = global_average_precision(own, part)
    return {
        "usage": usage,
        "images": len(part),
        "landmarks": landmarks,
        "gap": gap,
        "accuracy": accuracy(own, part),
    }


def _per_image(predictions: Mapping[str, Prediction], solution: Solution) -> Sequence[Row]:
    rows: list[Row] = [
        {
            "id": each.image,
            "usage": solution[each.image].usage,
            "landmark": each.prediction.landmark,
            "score": each.prediction.score,
            "correct": each.correct,
            "place": each.place,
            "precision": each.precision,
        }
        for each in rank_predictions(predictions, solution)
    ]
    silent: Row = {"landmark": None, "score": None, "correct": None, "place": None, "precision": None}
    return rows + [
        {"id": image, "usage": truth.usage, **silent} for image, truth in solution.items() if image not in predictions
    ]
