"""How the answers of one model compare with those of another, photo by photo: what a precision or a runtime costs."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from landmark_onnx.cards.schema import ModelCard
from landmark_onnx.errors import ModelFileError
from landmark_onnx.images.decode import read_image
from landmark_onnx.inference.decoders import to_detections
from landmark_onnx.inference.postprocess import cosines
from landmark_onnx.inference.preprocess import preprocess
from landmark_onnx.precision import MEASURES, Floor
from landmark_onnx.results import Detections
from landmark_onnx.runtime.providers import ProviderRequest
from landmark_onnx.runtime.session import Session
from landmark_onnx.tasks import OUTPUTS
from landmark_onnx.types import Array, Tensors

ON_CPU = ProviderRequest(name="cpu")

Run: TypeAlias = Callable[[Tensors], Tensors]
"""Our named tensors in, our named tensors out."""

Answer: TypeAlias = Array | Detections
"""What is kept of a run: the embedding, the probabilities, or the boxes."""

TOP = 5
"""Classes whose probabilities are compared."""

SAME_BOX = 0.5
"""Intersection over union from which two boxes of a class are the same."""


@dataclasses.dataclass(frozen=True, slots=True)
class Photo:
    """A readable image file. sha256: of its bytes."""

    path: Path
    sha256: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Likeness:
    """Agreement with fp32 over `images` photos, 0 where a file tells its own; a figure that is not known is None.

    cosine, cosine_min: mean and least of the embeddings', or of the rows of probabilities. top1: share of photos with
    the same best class. top5_error: the largest difference of a probability among fp32's five best classes, mean over
    the photos. matched: share of the `boxes` that fp32 finds which are found again, same class and IoU of at
    least 0.5; extra: boxes that fp32 does not have, as a share of `boxes`.
    """

    images: int
    cosine: float | None = None
    cosine_min: float | None = None
    top1: float | None = None
    top5_error: float | None = None
    matched: float | None = None
    extra: float | None = None
    boxes: int | None = None

    def value(self, card: ModelCard) -> float:
        """The figure that counts for the card's task; 0 if there was nothing to compare."""
        return float(getattr(self, MEASURES[card.task]) or 0.0)

    def shortfall(self, card: ModelCard, floor: float, bound: float | None = None) -> str | None:
        """Why this is not good enough, or None. A figure that is no number is not good. bound: of `top5_error`."""
        if self.boxes == 0:
            return "fp32 finds no box on any held-out image, so there is nothing to compare"
        if not self.value(card) >= floor:
            return f"{MEASURES[card.task]} {self.value(card):.5f} is below the floor of {floor:g}"
        if bound is not None and self.top5_error is not None and not self.top5_error <= bound:
            return f"top5_error {self.top5_error:.5f} is above the bound of {bound:g}"
        return None

    def to_json(self) -> dict[str, Any]:
        """JSON-ready data of the figures there are."""
        return {key: _rounded(value) for key, value in dataclasses.asdict(self).items() if value is not None}


def floor_of(card: ModelCard, floor: Floor) -> float:
    """The one that counts for the card's task."""
    return float(getattr(floor, MEASURES[card.task]))


def bound_of(card: ModelCard, floor: Floor) -> float | None:
    """The most that a classifier's five best probabilities may differ; None for other tasks."""
    return floor.top5_error if card.task == "cls" else None


def runner(card: ModelCard, model: Path, request: ProviderRequest = ON_CPU, *, threads: int = 0) -> Run:
    """What answers for a file. Raises: SessionError if the provider does not run it; ModelFileError as `opened`."""
    return opened(card, model, request, threads=threads).run


def opened(card: ModelCard, model: Path, request: ProviderRequest = ON_CPU, *, threads: int = 0) -> Session:
    """A session of a file that takes what `feeds` gives.

    Raises: SessionError if the provider does not run it; ModelFileError if it takes bytes, or its card does not fit.
    """
    session = Session(model, request, threads=threads, machine_cache=False)
    session.bind(card)
    if session.input_kind != "float32":
        raise ModelFileError(f"{model}: takes {session.input_kind} images; reduce a file that takes float32")
    return session


def feeds(card: ModelCard, photos: Sequence[Photo]) -> Iterator[Tensors]:
    """Each photo as the card's own preprocessing makes it, one at a time in memory."""
    for photo in photos:
        yield preprocess(card.preprocess, read_image(photo.path))


def answers(card: ModelCard, photos: Sequence[Photo], run: Run) -> list[Answer]:
    """What `run` answers to each photo."""
    return [answer(card, fed, run(fed)) for fed in feeds(card, photos)]


def answer(card: ModelCard, fed: Tensors, outputs: Tensors) -> Answer:
    """What is kept of a run that was fed `fed`."""
    if card.task == "det":
        return to_detections(card, fed, outputs, {})
    (name,) = OUTPUTS[card.task]
    return np.asarray(outputs[name]).reshape(-1)


def compare(card: ModelCard, wanted: Sequence[Answer], got: Sequence[Answer]) -> Likeness:
    """Compare two lists of answers to the same photos."""
    pairs = list(zip(wanted, got, strict=True))
    boxes = [(a, b) for a, b in pairs if isinstance(a, Detections) and isinstance(b, Detections)]
    rows = [(a, b) for a, b in pairs if not isinstance(a, Detections) and not isinstance(b, Detections)]
    figures = _boxes(boxes) if card.task == "det" else _rows(rows)
    if card.task == "cls":
        figures |= _best(rows, logits=card.postprocess.softmax)
    return Likeness(images=len(pairs), **figures)


def measure(card: ModelCard, photos: Sequence[Photo], exact: Run, reduced: Run) -> Likeness:
    """Compare what two models answer to the photos, one photo in memory at a time."""
    wanted, got = [], []
    for fed in feeds(card, photos):
        wanted.append(answer(card, fed, exact(fed)))
        got.append(answer(card, fed, reduced(fed)))
    return compare(card, wanted, got)


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


def _boxes(pairs: Sequence[tuple[Detections, Detections]]) -> dict[str, Any]:
    boxes = sum(len(a.boxes) for a, _ in pairs)
    same = sum(matches(a, b) for a, b in pairs)
    extra = sum(len(b.boxes) for _, b in pairs) - same
    return {"matched": same / max(boxes, 1), "extra": extra / max(boxes, 1), "boxes": boxes}


def _rows(pairs: Sequence[tuple[Array, Array]]) -> dict[str, Any]:
    each = [cosines(a, b) for a, b in pairs]
    return {"cosine": float(np.mean(each)), "cosine_min": float(np.min(each))}


def _best(pairs: Sequence[tuple[Array, Array]], *, logits: bool) -> dict[str, Any]:
    """What becomes of the best class and of the five best. logits: the rows are no probabilities yet."""
    same, errors = [], []
    for wanted, got in pairs:
        same.append(wanted.argmax() == got.argmax())
        exact, other = (_softmax(row) if logits else row for row in (wanted, got))
        best = np.argpartition(-exact, min(TOP, len(exact)) - 1)[:TOP]
        errors.append(np.abs(exact[best] - other[best]).max())
    return {"top1": float(np.mean(same)), "top5_error": float(np.mean(errors))}


def _softmax(logits: Array) -> Array:
    exponentials = np.exp(logits - logits.max())
    return np.asarray(exponentials / exponentials.sum())


def _rounded(value: float) -> float:
    return value if isinstance(value, int) else round(value, 6)
