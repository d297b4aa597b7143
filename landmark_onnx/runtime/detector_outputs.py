"""Outputs of detectors that answer boxes themselves, in one form whatever their decoder.

That form is {"rois": (R, 4) x1, y1, x2, y2, "probability": (R, C)}, or (R, 1) with {"classes": (R, 1)} where each box
has one class. rois are in pixels of the network's image, or of the photo if the card feeds `scale_factor`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from landmark_onnx.cards.schema import ModelCard
from landmark_onnx.errors import ModelFileError, SessionError
from landmark_onnx.runtime.backend import FLOATS, Port, shape_text
from landmark_onnx.tasks import Decoder
from landmark_onnx.types import Array, Tensors

MOST_BOXES = 1 << 20

NUMBERS = (*FLOATS, "int32", "int64")

WANTED: Mapping[Decoder, str] = {
    "boxes": "boxes (R, 4), scores (R), classes (R)",
    "rows": "rows (R, 6): class, score, x1, y1, x2, y2",
    "detr": "logits (Q, C), boxes (Q, 4)",
}
"""The outputs' shapes, as an error says them. A leading axis of 1, the one image, is taken away."""

RANKS: Mapping[str, tuple[int, int]] = {
    "boxes": (2, 4),
    "rows": (2, 6),
    "logits": (2, 0),
    "scores": (1, 0),
    "classes": (1, 0),
}
"""Without that axis: how many axes, and the size of the last one, 0 for any."""


def check_boxes(card: ModelCard, ports: Mapping[str, Port], origin: str) -> None:
    """Compare the outputs that the card names with what the file says of them.

    Raises: ModelFileError that names `origin` and the output, wanted and got.
    """
    decoder = card.postprocess.decoder
    for ours, theirs in zip(card.output_keys(), card.output_names(), strict=True):
        port = ports[theirs]
        kinds = NUMBERS if ours == "classes" else FLOATS
        if port.kind not in kinds:
            raise ModelFileError(f"{origin}: {theirs}: wanted {', '.join(kinds)}, got {port.kind}")
        rank, last = RANKS[ours]
        shape = port.shape[1:] if len(port.shape) == rank + 1 else port.shape
        if port.shape and (len(shape) != rank or (last and shape[-1] not in (None, last))):
            what = f"postprocess.decoder {decoder!r} wants {WANTED[decoder]}"
            raise ModelFileError(f"{origin}: {theirs}: {what}, got {shape_text(port.shape)}")


def conform_boxes(card: ModelCard, sides: tuple[int, int], values: Sequence[Any], origin: str) -> Tensors:
    """What a run on one image gave, in the common form. sides: height and width of the network's image in pixels.

    Raises: SessionError that names `origin`, if it is not what the card's decoder wants.
    """
    decoder = card.postprocess.decoder
    found: dict[str, Array] = {}
    for ours, value in zip(card.output_keys(), values, strict=True):
        rank, last = RANKS[ours]
        array = np.asarray(value)
        if array.ndim == rank + 1 and len(array) == 1:
            array = array[0]
        if array.dtype.name not in NUMBERS or array.ndim != rank or (last and array.shape[-1] != last):
            raise _misfit(card, values, origin)
        found[ours] = array.astype(np.float32)
    if len({len(array) for array in found.values()}) > 1 or len(next(iter(found.values()))) > MOST_BOXES:
        raise _misfit(card, values, origin)
    return {"boxes": _of_boxes, "rows": _of_rows, "detr": _of_queries}[decoder](found, sides)


def _of_boxes(found: Tensors, sides: tuple[int, int]) -> Tensors:
    return {
        "rois": found["boxes"],
        "probability": found["scores"].reshape(-1, 1),
        "classes": found["classes"].reshape(-1, 1),
    }


def _of_rows(found: Tensors, sides: tuple[int, int]) -> Tensors:
    """Rows of a class below 0 fill up a fixed number."""
    rows = found["rows"][~(found["rows"][:, 0] <= -0.5)]  # a class that is no number is for the decoder to refuse
    return {"rois": rows[:, 2:], "probability": rows[:, 1:2], "classes": np.rint(rows[:, :1])}


def _of_queries(found: Tensors, sides: tuple[int, int]) -> Tensors:
    """Sigmoid of logits; centre, width and height of 0..1 to corners in pixels.

    Source: transformers, RTDetrImageProcessor.post_process_object_detection, with focal loss.
    """
    height, width = sides
    centre, size = found["boxes"][:, :2], found["boxes"][:, 2:]
    corners = np.concatenate([centre - size / 2, centre + size / 2], axis=1)
    with np.errstate(over="ignore"):
        probability = 1 / (1 + np.exp(-found["logits"]))
    return {"rois": corners * np.array([width, height, width, height], np.float32), "probability": probability}


def _misfit(card: ModelCard, values: Sequence[Any], origin: str) -> SessionError:
    decoder = card.postprocess.decoder
    got = ", ".join(f"{name} {np.shape(value)}" for name, value in zip(card.output_names(), values, strict=True))
    return SessionError(f"{origin}: postprocess.decoder {decoder!r} wants {WANTED[decoder]}, got {got}")
