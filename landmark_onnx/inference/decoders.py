"""A detector's outputs of one image -> boxes in pixels of the photo, whichever its decoder.

`rois` decodes deltas and runs NMS, as the original does: `landmark_onnx.inference.postprocess`. The others answer
boxes: `boxes` and `rows` after a NMS of their own, `detr` without one.
"""

from collections.abc import Mapping

import numpy as np

from landmark_onnx.cards.schema import ModelCard
from landmark_onnx.inference.postprocess import decode_rois, finite
from landmark_onnx.results import Detections, named
from landmark_onnx.types import Array, Tensors


def to_detections(card: ModelCard, feeds: Tensors, outputs: Tensors, names: Mapping[int, str]) -> Detections:
    """Outputs as a session gives them -> Detections. feeds: of `landmark_onnx.inference.preprocess`.

    Raises: SessionError if a value is not finite.
    """
    if card.postprocess.decoder == "rois":
        return decode_rois(card.postprocess, feeds, outputs, names)
    rule, probability = card.postprocess, finite(outputs["probability"], "probability")
    roi, column = np.nonzero(probability >= np.float32(rule.score))
    scores = probability[roi, column]
    best = np.argsort(-scores, kind="stable")[: rule.keep]
    roi, column, scores = roi[best], column[best], scores[best]
    classes = (finite(outputs["classes"][roi, 0], "classes") if "classes" in outputs else column).astype(np.int64)
    in_photo = "scale_factor" in card.inputs
    boxes = _on_photo(finite(outputs["rois"][roi], "boxes"), feeds["frame"][0], in_photo=in_photo)
    order = np.argsort(classes, kind="stable")
    classes = classes[order]
    return Detections(boxes=boxes[order], classes=classes, scores=scores[order], names=named(names, classes))


def _on_photo(boxes: Array, frame: Array, *, in_photo: bool) -> Array:
    """(R, 4) x1, y1, x2, y2 -> (R, 4) float32 x, y, width, height of the part that is in the photo.

    frame: see `landmark_onnx.inference.preprocess.resize`. in_photo: they are of the photo already.
    """
    height, width, rows, columns, top, left = frame.astype(np.float64)
    found = boxes.astype(np.float64)
    if not in_photo:
        found = (found - [left, top, left, top]) * np.array([width / columns, height / rows] * 2)
    found = np.clip(found, 0, [width, height, width, height])
    found[:, 2:] -= found[:, :2]
    return found.astype(np.float32)
