"""Named tensors of one image -> its answer.

Source: PaddlePaddle/Research, CV/landmark/inference, infer_retrieval.py and infer_recognition.py.
"""

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from landmark_onnx.cards import Postprocess
from landmark_onnx.errors import SessionError
from landmark_onnx.results import Classification, Detections, Embedding, named
from landmark_onnx.types import Array, Tensors

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]

# The widest a box may grow relative to its roi; the released detector was trained with it.
MAX_LOG_SCALE = np.float32(math.log(1000 / 16))


def to_embedding(rule: Postprocess, outputs: Tensors) -> Embedding:
    """{"embedding": (1, D)} -> Embedding. Raises: SessionError if a value is not finite."""
    vector = _finite(outputs["embedding"].reshape(-1).astype(np.float32), "embedding")
    if rule.normalise:
        vector = vector / np.maximum(np.linalg.norm(vector), np.finfo(np.float32).tiny)
    return Embedding(vector=vector)


def cosine(a: Array, b: Array) -> float:
    """Cosine of two (D,) vectors, clamped to 0..1; 0 where one of them has no length.

    Source: infer_retrieval.py, `cosinedist`; here in float64.
    """
    a, b = a.astype(np.float64), b.astype(np.float64)
    length = math.sqrt(float(a @ a) * float(b @ b))
    return min(max(float(a @ b) / length, 0.0), 1.0) if length else 0.0


def to_classification(rule: Postprocess, outputs: Tensors, top: int, names: Mapping[int, str]) -> Classification:
    """{"probability": (1, C)} -> the `top` best classes; of equal ones the lower index first."""
    probability = _finite(outputs["probability"].reshape(-1), "probability")
    if rule.softmax:
        exponentials = np.exp(probability - probability.max())
        probability = exponentials / exponentials.sum()
    order = np.argsort(-probability, kind="stable")[:top]
    return Classification(indices=order, scores=probability[order].astype(np.float32), names=named(names, order))


def to_detections(rule: Postprocess, feeds: Tensors, outputs: Tensors, names: Mapping[int, str]) -> Detections:
    """{"rois": (R, 4), "probability": (R, C), "deltas": (R, 4C)} -> boxes in pixels of the image.

    Decodes each (roi, class) pair whose score passes, clips it in the scaled frame, divides by the scale, then runs
    NMS per class and keeps the best `rule.keep` of all classes, ties included. Source: `get_dt_res_common`.
    """
    height, width, scale = feeds["im_info"][0]
    rois, probability = outputs["rois"], _finite(outputs["probability"], "probability")
    if not rois.any():  # Paddle's generate_proposals answers one box of zeros where no proposal is left
        rois, probability = rois[:0], probability[:0]
    roi, category = np.nonzero(probability[:, 1:] >= np.float32(rule.score))
    category += 1
    scores = probability[roi, category]
    deltas = outputs["deltas"].reshape(-1, probability.shape[1], 4)[roi, category]
    rois, deltas = _finite(outputs["rois"][roi], "rois"), _finite(deltas, "deltas")
    boxes = decode_boxes(rois, deltas * np.array(rule.variances, np.float32))
    boxes = np.clip(boxes, 0, np.array([width, height, width, height], np.float32) - 1) / scale
    order = np.lexsort((-scores, category))
    order = order[nms(boxes[order], category[order], rule.iou)]
    if len(order) > rule.keep:
        order = order[scores[order] >= np.partition(scores[order], -rule.keep)[-rule.keep]]
    boxes, category = boxes[order], category[order]
    boxes[:, 2:] = boxes[:, 2:] - boxes[:, :2] + 1
    return Detections(boxes=boxes, classes=category, scores=scores[order], names=named(names, category))


def decode_boxes(rois: Float32, deltas: Float32) -> Float32:
    """(N, 4) xyxy rois, (N, 4) dx, dy, dw, dh -> (N, 4) xyxy boxes; a box covers both its edge pixels.

    Source: infer_recognition.py, `box_decoder`.
    """
    sizes = rois[:, 2:] - rois[:, :2] + 1
    centres = deltas[:, :2] * sizes + (rois[:, :2] + np.float32(0.5) * sizes)
    half = np.float32(0.5) * (np.exp(np.minimum(deltas[:, 2:], MAX_LOG_SCALE)) * sizes)
    return np.concatenate([centres - half, centres + half - 1], axis=1)


def nms(boxes: Float32, groups: Int64, threshold: float) -> Int64:
    """Positions of the boxes that survive greedy non-maximum suppression within their group.

    boxes: (N, 4) xyxy, ordered by group and then by falling score. A box goes when its IoU, with the +1 area
    convention, with a better one of its group is over `threshold`. One round serves every group at once: the best
    box left in each group is kept, then whatever it covers is dropped.
    Source: infer_recognition.py, `nms`.
    """
    areas = (boxes[:, 2] - boxes[:, 0] + 1) * (boxes[:, 3] - boxes[:, 1] + 1)
    left = np.arange(len(boxes))
    kept = [left[:0]]
    while left.size:
        _, first, member = np.unique(groups[left], return_index=True, return_inverse=True)
        kept.append(left[first])
        best = left[first][member]
        corners = np.maximum(boxes[best, :2], boxes[left, :2]), np.minimum(boxes[best, 2:], boxes[left, 2:])
        inter = np.prod(np.maximum(np.float32(0), corners[1] - corners[0] + 1), axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):  # boxes without an area
            overlap = inter / (areas[best] + areas[left] - inter)
        left = left[(overlap <= np.float32(threshold)) & (best != left)]
    return np.sort(np.concatenate(kept))


def _finite(values: Array, name: str) -> Array:
    if not np.isfinite(values).all():
        raise SessionError(f"the model's {name} has values that are not finite: its file is damaged or its weights are")
    return values
