"""Named tensors of one image -> its answer.

Source: PaddlePaddle/Research, CV/landmark/inference, infer_retrieval.py and infer_recognition.py.
"""

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from landmark_onnx.cards.schema import Postprocess
from landmark_onnx.errors import SessionError
from landmark_onnx.results import Classification, Detections, Embedding, named
from landmark_onnx.runtime.outputs import widened
from landmark_onnx.types import Array, Float32, Int64, Tensors

Bools = npt.NDArray[np.bool_]

BLOCK = 128
"""Boxes that suppress each other at once: more would be compared in vain, fewer would leave NumPy little to do."""

# The widest a box may grow relative to its roi; the released detector was trained with it.
MAX_LOG_SCALE = np.float32(math.log(1000 / 16))


def to_embedding(rule: Postprocess, outputs: Tensors) -> Embedding:
    """{"embedding": (1, D)} -> Embedding. Raises: SessionError if a value is not finite."""
    vector = finite(outputs["embedding"].reshape(-1).astype(np.float32), "embedding")
    if rule.normalise:
        vector = vector / max(np.linalg.norm(vector.astype(np.float64)), np.finfo(np.float32).tiny)
    return Embedding(vector=vector.astype(np.float32))


def cosine(a: Array, b: Array) -> float:
    """Cosine of two (D,) vectors, clamped to 0..1; 0 where one of them has no length.

    Source: infer_retrieval.py, `cosinedist`; here in float64.

    >>> cosine(np.array([3, 4]), np.array([4, 3]))
    0.96
    >>> cosine(np.array([1, 0]), np.array([-1, 0]))
    0.0
    """
    return min(max(float(cosines(a, b)), 0.0), 1.0)


def cosines(a: Array, b: Array) -> npt.NDArray[np.float64]:
    """(..., D) with (..., D) -> (...) in float64: 0 where one has no length, not a number where one has no number."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    lengths = np.sqrt(np.vecdot(a, a) * np.vecdot(b, b))
    found: npt.NDArray[np.float64] = np.divide(np.vecdot(a, b), lengths, out=np.zeros_like(lengths), where=lengths != 0)
    return found


def to_classification(rule: Postprocess, outputs: Tensors, top: int, names: Mapping[int, str]) -> Classification:
    """{"probability": (1, C)} -> the `top` best classes; of equal ones the lower index first."""
    probability = finite(outputs["probability"].reshape(-1), "probability")
    if rule.softmax:
        exponentials = np.exp(probability - probability.max())
        probability = exponentials / exponentials.sum()
    order = _best(probability, top)
    return Classification(indices=order, scores=probability[order].astype(np.float32), names=named(names, order))


def decode_rois(rule: Postprocess, feeds: Tensors, outputs: Tensors, names: Mapping[int, str]) -> Detections:
    """{"rois": (R, 4), "probability": (R, C), "deltas": (R, 4C)} -> boxes in pixels of the image.

    Decodes each (roi, class) pair whose score passes, clips it in the scaled frame, divides by the scale, then runs
    NMS per class and keeps the best `rule.keep` of all classes, ties included. Source: `get_dt_res_common`.
    """
    height, width, scale = feeds["im_info"][0]
    rois, probability = outputs["rois"], finite(outputs["probability"], "probability")
    if not rois.any():  # Paddle's generate_proposals answers one box of zeros where no proposal is left
        rois, probability = rois[:0], probability[:0]
    roi, category = np.nonzero(probability[:, 1:] >= np.float32(rule.score))
    category += 1
    scores = probability[roi, category]
    deltas = outputs["deltas"].reshape(-1, probability.shape[1], 4)[roi, category]
    rois, deltas = finite(rois[roi], "rois"), finite(deltas, "deltas")
    boxes = decode_boxes(rois, deltas * np.array(rule.variances, np.float32))
    boxes = np.clip(boxes, 0, np.array([width, height, width, height], np.float32) - 1) / scale
    order = np.argsort(-scores, kind="stable")
    order = order[nms(boxes[order], category[order], scores[order], rule)]
    order = order[np.argsort(category[order], kind="stable")]
    boxes, category = boxes[order], category[order]
    boxes[:, 2:] = boxes[:, 2:] - boxes[:, :2] + 1
    boxes, scores = boxes.astype(np.float32), scores[order].astype(np.float32)
    return Detections(boxes=boxes, classes=category, scores=scores, names=named(names, category))


def decode_boxes(rois: Float32, deltas: Float32) -> Float32:
    """(N, 4) xyxy rois, (N, 4) dx, dy, dw, dh -> (N, 4) xyxy boxes; a box covers both its edge pixels.

    Source: infer_recognition.py, `box_decoder`.
    """
    sizes = rois[:, 2:] - rois[:, :2] + 1
    centres = deltas[:, :2] * sizes + (rois[:, :2] + np.float32(0.5) * sizes)
    half = np.float32(0.5) * (np.exp(np.minimum(deltas[:, 2:], MAX_LOG_SCALE)) * sizes)
    return np.concatenate([centres - half, centres + half - 1], axis=1)


def nms(boxes: Float32, groups: Int64, scores: Float32, rule: Postprocess) -> Int64:
    """Positions of the boxes that survive greedy non-maximum suppression within their group, the best first.

    boxes: (N, 4) xyxy, by falling score. A box goes when its IoU, with the +1 area convention, with a better one of its
    group is over `rule.iou`. Of the survivors those are answered that score no less than the `rule.keep`-th: what comes
    after is not looked at, for nothing depends on it.
    Source: infer_recognition.py, `nms`, and the end of `get_dt_res_common`.
    """
    kept = np.arange(0)
    for start in range(0, len(boxes), BLOCK):
        if len(kept) >= rule.keep and scores[start] < scores[kept[rule.keep - 1]]:
            break
        block = np.arange(start, min(start + BLOCK, len(boxes)))
        rivals = kept[np.isin(groups[kept], groups[block])]
        alive = ~np.logical_or.reduce(_covers(boxes, groups, rivals, block, rule.iou))
        inside = _covers(boxes, groups, block, block, rule.iou)
        for row in range(len(block)):
            if alive[row]:
                alive[row + 1 :] &= ~inside[row, row + 1 :]
        kept = np.concatenate([kept, block[alive]])
    return kept if len(kept) <= rule.keep else kept[scores[kept] >= scores[kept[rule.keep - 1]]]


def _covers(boxes: Float32, groups: Int64, better: Int64, worse: Int64, threshold: float) -> Bools:
    """(B, W) bool: whether a box of `better` makes one of `worse` go."""
    areas = (boxes[:, 2] - boxes[:, 0] + 1) * (boxes[:, 3] - boxes[:, 1] + 1)
    best, other = boxes[better, np.newaxis], boxes[worse]
    width, height = (
        np.maximum(
            np.float32(0), np.minimum(best[..., high], other[:, high]) - np.maximum(best[..., low], other[:, low]) + 1
        )
        for low, high in ((0, 2), (1, 3))
    )
    inter = width * height
    with np.errstate(divide="ignore", invalid="ignore"):  # boxes without an area
        overlap = inter / (areas[better, np.newaxis] + areas[worse] - inter)
    covers: Bools = ~(overlap <= np.float32(threshold)) & np.equal.outer(groups[better], groups[worse])
    return covers


def _best(values: Array, count: int) -> Int64:
    """Positions of the `count` largest values, best first; of equal ones the lower position first."""
    count = min(count, len(values))
    candidates = np.flatnonzero(values >= np.partition(values, -count)[-count])
    return candidates[np.argsort(-values[candidates], kind="stable")][:count]


def finite(values: Array, name: str) -> Array:
    """`values` in float32 or better. Raises: SessionError if one is not finite."""
    if not np.isfinite(values).all():
        raise SessionError(f"the model's {name} has values that are not finite: its file is damaged or its weights are")
    return widened(values)
