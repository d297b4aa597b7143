"""What the outputs of a task must be: as a file declares them, and in each run.

A trailing (1, 1), of networks that end with a pool, is taken away; tokens are pooled as the card says. Half precision
is widened, so that whatever is computed from outputs is computed in float32 or better.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from landmark_onnx.cards.schema import ModelCard
from landmark_onnx.errors import ModelFileError, SessionError
from landmark_onnx.runtime.backend import FLOATS, Port, shape_text
from landmark_onnx.tasks import OUTPUTS, Task
from landmark_onnx.types import Array, Tensors

MOST_VALUES = 1 << 20
"""Of an embedding, or classes: five times those of the largest release."""

MOST_PAIRS = 1 << 24
"""Of rois and classes: thirty times those of the released detector."""

WANTED: Mapping[Task, str] = {
    "retrieval": f"(N, D): an embedding of up to {MOST_VALUES} values for each of N images",
    "cls": f"(N, C): a row of up to {MOST_VALUES} classes for each of N images",
    "det": f"rois (R, 4), probability (R, C), deltas (R, 4 C), with R C up to {MOST_PAIRS}",
}
"""The outputs' shapes, as an error says them."""


def check_declared(card: ModelCard, ports: Mapping[str, Port], origin: str) -> None:
    """Compare the outputs that the card names with what the file says of them; a size that it leaves open is no fault.

    The first size is left to the runs, for exporters write one there that does not hold.
    Raises: ModelFileError that names `origin` and the output, wanted and got.
    """
    for ours, theirs in zip(OUTPUTS[card.task], card.output_names(), strict=True):
        port = ports[theirs]
        if port.kind not in FLOATS:
            raise ModelFileError(f"{origin}: {theirs}: wanted floating-point values, got {port.kind}")
        shape = _row_shape(card, port.shape, f"{origin}: {theirs}")
        least, most = (4, 4) if ours == "rois" else (1, MOST_PAIRS if card.task == "det" else MOST_VALUES)
        if shape and not (len(shape) == 2 and (shape[1] is None or least <= shape[1] <= most)):
            got = f"{shape_text(port.shape)}{_remedy(card, port)}"
            raise ModelFileError(f"{origin}: {theirs}: wanted {WANTED[card.task]}, got {got}")
        wanted = card.postprocess.dimension
        if wanted and shape and shape[1] not in (None, wanted):
            what = f"postprocess.dimension: wanted {wanted}, got {shape[1]} values"
            raise ModelFileError(f"{origin}: {theirs}: {what}")


def conform(card: ModelCard, images: int, values: Sequence[Any], origin: str) -> Tensors:
    """What a run gave, by our names: float32 or float64, a row for each image or roi. images: N of the run.

    Raises: SessionError that names `origin` and the output, if it is not what the card's task wants.
    """
    found: dict[str, Array] = {}
    for ours, theirs, value in zip(OUTPUTS[card.task], card.output_names(), values, strict=True):
        if not isinstance(value, np.ndarray) or value.dtype.name not in FLOATS:
            got = value.dtype if isinstance(value, np.ndarray) else type(value).__name__
            raise SessionError(f"{origin}: {theirs}: wanted floating-point values, got {got}")
        array = widened(_pooled(card, value, f"{origin}: {theirs}"))
        if array.ndim != 2 or not 0 < array.shape[1] <= MOST_PAIRS:
            raise SessionError(f"{origin}: {theirs}: wanted {WANTED[card.task]}, got {value.shape}")
        found[ours] = array
    if (wanted := card.postprocess.dimension) and found["embedding"].shape[1] != wanted:
        got = found["embedding"].shape[1]
        raise SessionError(f"{origin}: postprocess.dimension: wanted {wanted}, got {got} values")
    misfit = _detector_misfit(found) if card.task == "det" else _row_misfit(found, images)
    if misfit:
        raise SessionError(f"{origin}: {', '.join(card.output_names())}: wanted {WANTED[card.task]}, got {misfit}")
    return found


def widened(values: Array) -> Array:
    """Half precision as float32, anything else as it is."""
    return values.astype(np.float32) if values.dtype == np.float16 else values


def _without_pool(task: Task, shape: tuple[Any, ...]) -> tuple[Any, ...]:
    return shape[:2] if task != "det" and len(shape) == 4 and {*shape[2:]} <= {1, None} else shape


def _row_shape(card: ModelCard, declared: tuple[int | None, ...], origin: str) -> tuple[int | None, ...]:
    """What is left of a declared shape when tokens are pooled, or a trailing (1, 1) is taken away."""
    if card.postprocess.pool == "none":
        return _without_pool(card.task, declared)
    if declared and len(declared) != 3:
        raise ModelFileError(f"{origin}: {_tokens_wanted(card, declared)}")
    return declared[::2]


def _pooled(card: ModelCard, value: Array, origin: str) -> Array:
    """The same of values."""
    pool = card.postprocess.pool
    if pool == "none":
        return value.reshape(_without_pool(card.task, value.shape))
    if value.ndim != 3 or not value.shape[1]:
        raise SessionError(f"{origin}: {_tokens_wanted(card, value.shape)}")
    return value[:, 0] if pool == "cls" else widened(value).mean(axis=1)


def _tokens_wanted(card: ModelCard, shape: tuple[int | None, ...]) -> str:
    return (
        f"postprocess.pool {card.postprocess.pool!r}: wanted (N, T, D), D values of T tokens, got {shape_text(shape)}"
    )


def _remedy(card: ModelCard, port: Port) -> str:
    tokens = card.task == "retrieval" and len(port.shape) == 3
    return '; of tokens, postprocess.pool = "cls" or "mean" makes one row' if tokens else ""


def _row_misfit(found: Tensors, images: int) -> str:
    (values,) = found.values()
    if len(values) == images and values.shape[1] <= MOST_VALUES:
        return ""
    remedy = "; its batch axis is fixed inside: run images one by one, or export it again" if images > 1 else ""
    return f"{values.shape} for {images} image{'s' if images > 1 else ''}{remedy}"


def _detector_misfit(found: Tensors) -> str:
    rois, probability, deltas = (found[name].shape for name in OUTPUTS["det"])
    count, classes = probability
    fits = rois == (count, 4) and deltas == (count, 4 * classes) and count * classes <= MOST_PAIRS
    return "" if fits else f"{rois}, {probability}, {deltas}"
