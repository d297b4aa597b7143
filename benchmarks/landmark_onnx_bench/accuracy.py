"""How much the answers of a contestant are like those at fp32: what its speed is worth."""

import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from landmark_onnx.cards.schema import ModelCard
from landmark_onnx.modelfile.metadata import read_metadata
from landmark_onnx.precision import MEASURES, precision_file
from landmark_onnx.tasks import Task
from landmark_onnx.types import Array
from landmark_onnx.verification.answers import Answer, Likeness, answer, compare
from landmark_onnx_bench.resolve import Entrant
from landmark_onnx_bench.targets import Contestant

PHOTOS: Mapping[Task, int] = types.MappingProxyType({"retrieval": 8, "cls": 32, "det": 2})
"""How many photos are compared: a detector takes seconds for each."""


def likeness(card: ModelCard, exact: Path, other: Path) -> Likeness | None:
    """Compare the answers in two files of `Worker.outputs`; None for a detector that found nothing on any photo."""
    found = compare(card, _answers(card, exact), _answers(card, other))
    return None if found.boxes == 0 else found


def stored_likeness(model: Entrant, contestant: Contestant) -> Likeness | None:
    """What the file of a reduced precision says of itself, if there is one."""
    path = precision_file(model.path, contestant.precision)
    if path == model.path or not path.is_file():
        return None
    said: dict[str, Any] = (read_metadata(path) or {}).get("agreement", {})
    known: dict[str, Any] = {key: float(value) for key, value in said.items() if key == MEASURES[model.card.task]}
    return Likeness(images=0, **known) if known else None


def likeness_json(card: ModelCard, found: Likeness | None) -> dict[str, Any] | None:
    """What a report's row says of it, in the measure of the task; JSON-ready."""
    if found is None:
        return None
    return {"measure": MEASURES[card.task], "value": round(found.value(card), 6), "photos": found.images}


def _answers(card: ModelCard, file: Path) -> list[Answer]:
    """What was answered to each photo, in their order."""
    found: dict[int, dict[str, Array]] = {}
    with np.load(file) as arrays:
        for key in arrays.files:
            number, _, name = key.partition("/")
            found.setdefault(int(number), {})[name] = arrays[key]
    return [answer(card, tensors, tensors) for tensors in found.values()]
