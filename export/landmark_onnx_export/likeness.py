"""How a reduced model's answers compare with those at fp32, photo by photo."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from landmark_onnx.benchmark.accuracy import matches
from landmark_onnx.cards import ModelCard
from landmark_onnx.postprocess import to_detections
from landmark_onnx.precision import MEASURES, Floor
from landmark_onnx.providers import ProviderRequest
from landmark_onnx.results import Detections
from landmark_onnx.session import Session
from landmark_onnx.types import OUTPUTS, Array, Tensors
from landmark_onnx_export.held_out import Photo, feeds

ON_CPU = ProviderRequest(name="cpu")

Run: TypeAlias = Callable[[Tensors], Tensors]
"""Our named tensors in, our named tensors out."""

Answer: TypeAlias = Array | Detections
"""What is kept of a run: the embedding, the probabilities, or the boxes."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Likeness:
    """Agreement with fp32 over `images` photos; a figure that the task does not have is None.

    cosine, cosine_min: mean and least of the embeddings', or of the rows of probabilities. top1: share of photos with
    the same best class. matched: share of the `boxes` that fp32 finds which are found again, same class and IoU of at
    least 0.5; extra: boxes that fp32 does not have, as a share of `boxes`.
    """

    images: int
    cosine: float | None = None
    cosine_min: float | None = None
    top1: float | None = None
    matched: float | None = None
    extra: float | None = None
    boxes: int | None = None

    def value(self, card: ModelCard) -> float:
        """The figure that counts for the card's task; 0 if there was nothing to compare."""
        return float(getattr(self, MEASURES[card.task]) or 0.0)

    def shortfall(self, card: ModelCard, floor: float) -> str | None:
        """Why this is not good enough, or None. A figure that is no number is not good."""
        if self.boxes == 0:
            return "fp32 finds no box on any held-out image, so there is nothing to compare"
        measure = MEASURES[card.task]
        return (
            None if self.value(card) >= floor else f"{measure} {self.value(card):.5f} is below the floor of {floor:g}"
        )

    def to_json(self) -> dict[str, Any]:
        """JSON-ready data of the figures there are."""
        return {key: _rounded(value) for key, value in dataclasses.asdict(self).items() if value is not None}


def floor_of(card: ModelCard, floor: Floor) -> float:
    """The one that counts for the card's task."""
    return float(getattr(floor, MEASURES[card.task]))


def runner(card: ModelCard, model: Path, request: ProviderRequest = ON_CPU, *, threads: int = 0) -> Run:
    """What answers for a file. Raises: SessionError if the provider does not run it."""
    session = Session(model, request, threads=threads, machine_cache=False)
    return lambda fed: session.run(card, fed)


def answers(card: ModelCard, photos: Sequence[Photo], run: Run) -> list[Answer]:
    """What `run` answers to each photo."""
    return [_answer(card, fed, run(fed)) for fed in feeds(card, photos)]


def compare(card: ModelCard, wanted: Sequence[Answer], got: Sequence[Answer]) -> Likeness:
    """Compare two lists of answers to the same photos."""
    pairs = list(zip(wanted, got, strict=True))
    boxes = [(a, b) for a, b in pairs if isinstance(a, Detections) and isinstance(b, Detections)]
    rows = [(a, b) for a, b in pairs if not isinstance(a, Detections) and not isinstance(b, Detections)]
    figures = _boxes(boxes) if card.task == "det" else _rows(rows)
    if card.task == "retrieval":
        figures.pop("top1")
    return Likeness(images=len(pairs), **figures)


def _boxes(pairs: Sequence[tuple[Detections, Detections]]) -> dict[str, Any]:
    boxes = sum(len(a.boxes) for a, _ in pairs)
    same = sum(matches(a, b) for a, b in pairs)
    extra = sum(len(b.boxes) for _, b in pairs) - same
    return {"matched": same / max(boxes, 1), "extra": extra / max(boxes, 1), "boxes": boxes}


def _rows(pairs: Sequence[tuple[Array, Array]]) -> dict[str, Any]:
    cosines = [_cosine(a, b) for a, b in pairs]
    top1 = float(np.mean([a.argmax() == b.argmax() for a, b in pairs]))
    return {"cosine": float(np.mean(cosines)), "cosine_min": float(np.min(cosines)), "top1": top1}


def measure(card: ModelCard, photos: Sequence[Photo], exact: Run, reduced: Run) -> Likeness:
    """Compare what two models answer to the photos, one photo in memory at a time."""
    wanted, got = [], []
    for fed in feeds(card, photos):
        wanted.append(_answer(card, fed, exact(fed)))
        got.append(_answer(card, fed, reduced(fed)))
    return compare(card, wanted, got)


def _answer(card: ModelCard, fed: Tensors, outputs: Tensors) -> Answer:
    if card.task == "det":
        return to_detections(card.postprocess, fed, outputs, {})
    (name,) = OUTPUTS[card.task]
    return np.asarray(outputs[name]).reshape(-1)


def _cosine(a: Array, b: Array) -> float:
    """In float64; 0 where one has no length, not a number where one has no number."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    length = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / length if length else 0.0


def _rounded(value: float) -> float:
    return value if isinstance(value, int) else round(value, 6)
