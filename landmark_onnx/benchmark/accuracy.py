"""How much the answers of a contestant are like those at fp32: what its speed is worth."""

import dataclasses
import types
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from landmark_onnx.benchmark.contestants import Contestant
from landmark_onnx.benchmark.roster import Entry
from landmark_onnx.cards import ModelCard
from landmark_onnx.postprocess import to_detections
from landmark_onnx.precision import MEASURES, precision_file
from landmark_onnx.results import Detections
from landmark_onnx.seal import read_metadata
from landmark_onnx.types import Array, Task, Tensors

PHOTOS: Mapping[Task, int] = types.MappingProxyType({"retrieval": 8, "cls": 32, "det": 2})
"""How many photos are compared: a detector takes seconds for each."""

SAME_BOX = 0.5
"""Intersection over union from which two boxes of a class are the same."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Likeness:
    """How alike the answers are, in the measure of the task.

    measure: "cosine" (mean of the embeddings'), "top1" (share of photos with the same best class) or "matched" (share
    of the boxes found again). photos: how many were compared; 0 if the file itself says so, from when it was made.
    """

    measure: str
    value: float
    photos: int

    def to_json(self) -> dict[str, Any]:
        """JSON-ready data."""
        return {"measure": self.measure, "value": round(self.value, 6), "photos": self.photos}


def likeness(card: ModelCard, exact: Path, other: Path) -> Likeness | None:
    """Compare the answers in two files of `Worker.outputs`; None for a detector that found nothing on any photo."""
    pairs = list(zip(_answers(exact), _answers(other), strict=True))
    if card.task == "retrieval":
        values = [_cosine(a["embedding"], b["embedding"]) for a, b in pairs]
    elif card.task == "cls":
        values = [float(a["probability"].argmax() == b["probability"].argmax()) for a, b in pairs]
    else:
        found = [
            (to_detections(card.postprocess, a, a, {}), to_detections(card.postprocess, b, b, {})) for a, b in pairs
        ]
        boxes = sum(len(a.boxes) for a, _ in found)
        if not boxes:
            return None
        return Likeness(measure="matched", value=sum(matches(a, b) for a, b in found) / boxes, photos=len(pairs))
    return Likeness(measure=MEASURES[card.task], value=float(np.mean(values)), photos=len(pairs))


def stored_likeness(model: Entry, contestant: Contestant) -> Likeness | None:
    """What the file of a reduced precision says of itself, if there is one."""
    path = precision_file(model.path, contestant.precision)
    if path == model.path or not path.is_file():
        return None
    said = (read_metadata(path) or {}).get("agreement", {})
    measure = MEASURES[model.card.task]
    return Likeness(measure=measure, value=float(said[measure]), photos=0) if measure in said else None


def matches(wanted: Detections, got: Detections) -> int:
    """How many of the wanted boxes were found again: same class, and no box of `got` taken twice, best scores first."""
    free = np.ones(len(got.boxes), bool)
    count = 0
    for index in np.argsort(-wanted.scores, kind="stable"):
        overlap = np.where(free & (got.classes == wanted.classes[index]), iou(wanted.boxes[index], got.boxes), 0)
        if overlap.size and overlap.max() >= SAME_BOX:
            free[overlap.argmax()] = False
            count += 1
    return count


def iou(box: Array, boxes: Array) -> Array:
    """(4,) against (N, 4), each x, y, width, height -> (N,) intersection over union."""
    left_top = np.maximum(box[:2], boxes[:, :2])
    right_bottom = np.minimum(box[:2] + box[2:], boxes[:, :2] + boxes[:, 2:])
    common = np.clip(right_bottom - left_top, 0, None).prod(axis=1)
    return np.asarray(common / (box[2:].prod() + boxes[:, 2:].prod(axis=1) - common))


def _answers(file: Path) -> Iterable[Tensors]:
    """The tensors of each photo, in their order."""
    found: dict[int, dict[str, Array]] = {}
    with np.load(file) as arrays:
        for key in arrays.files:
            number, _, name = key.partition("/")
            found.setdefault(int(number), {})[name] = arrays[key]
    return found.values()


def _cosine(a: Array, b: Array) -> float:
    """Of two (1, D) rows, in float64; 0 where one of them has no length."""
    a, b = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    length = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / length if length else 0.0
