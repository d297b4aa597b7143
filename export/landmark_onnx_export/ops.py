"""ONNX bodies for the Paddle ops that paddle2onnx cannot carry from a 2019 program.

`prepare` fits an op of a program to its body, before paddle2onnx runs; `lower` puts the bodies in afterwards. A body is
an onnxscript function in domain Paddle, of standard ops of opset 17, for one image (batch 1) and float32, in the order
of operations of the Paddle 1.x CPU kernels. Sources are files below paddle/fluid/operators/ of Paddle 1.8.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import onnx
import onnx.inliner
from onnx import FunctionProto, NodeProto, helper
from onnxscript import BOOL, DOUBLE, FLOAT, INT32, INT64, script
from onnxscript import opset17 as op
from onnxscript.values import OnnxFunction, Opset

from landmark_onnx.errors import ExportError

PADDLE = Opset("Paddle", 1)
PREFIX = "landmark_"  # hides an op from paddle2onnx's own mapper of the same name
LOG_MAX = math.log(1000.0 / 16.0)

# --- Normalisation and resizing -----------------------------------------------------------------------------------


@script(PADDLE, default_opset=op)
def affine_channel(bias: FLOAT, scale: FLOAT, x: FLOAT) -> FLOAT:
    """Scale and shift each channel. x: (N, C, H, W); scale, bias: (C,). Source: affine_channel_op.cc."""
    return x * op.Unsqueeze(scale, [1, 2]) + op.Unsqueeze(bias, [1, 2])


@script(PADDLE, default_opset=op)
def affine_channel_nhwc(bias: FLOAT, scale: FLOAT, x: FLOAT) -> FLOAT:
    """Scale and shift each channel. x: (..., C); scale, bias: (C,). Source: affine_channel_op.cc."""
    return x * scale + bias


@script(PADDLE, default_opset=op)
def batch_norm(bias: FLOAT, mean: FLOAT, scale: FLOAT, variance: FLOAT, x: FLOAT, epsilon: float = 1e-5) -> FLOAT:
    """Inference form. x: (N, C, ...); the others: (C,). Source: batch_norm_op.cc."""
    return op.BatchNormalization(x, scale, bias, mean, variance, epsilon=epsilon)


@script(PADDLE, default_opset=op)
def batch_norm_nhwc(bias: FLOAT, mean: FLOAT, scale: FLOAT, variance: FLOAT, x: FLOAT, epsilon: float = 1e-5) -> FLOAT:
    """Inference form. x: (..., C); the others: (C,). Source: batch_norm_op.cc."""
    gain = scale / op.Sqrt(variance + epsilon)
    return x * gain + (bias - mean * gain)


@script(PADDLE, default_opset=op)
def nearest_index(old: INT64, new: INT64, align_corners: int) -> INT64:
    """(new,) source indices along an axis of `old` pixels; old, new: (1,).

    The ratio is float32, the added half double. Paddle 2 takes 1 / scale for a ratio where a scale is given.
    Source: interpolate_op.h, NearestNeighborInterpolate.
    """
    inner = op.Cast(op.Max(new - align_corners, 1), to=FLOAT.dtype)
    ratio = op.Cast(old - align_corners, to=FLOAT.dtype) / inner
    steps = op.Cast(op.Range(0, op.Squeeze(new), 1), to=FLOAT.dtype)
    half = op.Cast(align_corners, to=FLOAT.dtype) * 0.5
    return op.Cast(op.Cast(ratio * steps, to=DOUBLE.dtype) + op.Cast(half, to=DOUBLE.dtype), to=INT64.dtype)


@script(PADDLE, default_opset=op)
def nearest_resize(x: FLOAT, size: INT64, align_corners: int) -> FLOAT:
    """Map (N, C, H, W) -> (N, C, size[0], size[1]); size: (2,). Source: interpolate_op.h."""
    shape = op.Shape(x)
    rows = nearest_index(shape[2:3], size[0:1], align_corners=align_corners)
    columns = nearest_index(shape[3:4], size[1:2], align_corners=align_corners)
    return op.Gather(op.Gather(x, rows, axis=2), columns, axis=3)


@script(PADDLE, default_opset=op)
def nearest_interp(x: FLOAT, scale: float = 0.0, out_h: int = -1, out_w: int = -1, align_corners: int = 1) -> FLOAT:
    """Map (N, C, H, W) scaled by `scale` if that is positive, else to (out_h, out_w). Source: interpolate_op.h."""
    scaled = op.Cast(op.Cast(op.Shape(x)[2:4], to=FLOAT.dtype) * scale, to=INT64.dtype)
    given = op.Concat(op.Reshape(out_h, [1]), op.Reshape(out_w, [1]), axis=0)
    return nearest_resize(x, op.Where(scale > 0.0, scaled, given), align_corners=align_corners)


@script(PADDLE, default_opset=op)
def nearest_interp_to_size(size: INT32, x: FLOAT, align_corners: int = 1) -> FLOAT:
    """Map (N, C, H, W) to the height and width in size (2,). Source: interpolate_op.h, OutSize and SizeTensor."""
    return nearest_resize(x, op.Cast(size, to=INT64.dtype), align_corners=align_corners)


@script(PADDLE, default_opset=op)
def nearest_interp_by_scale(scale: FLOAT, x: FLOAT, align_corners: int = 1) -> FLOAT:
    """Map (N, C, H, W) scaled by scale (1,), which is positive. Source: interpolate_op.h, Scale."""
    scaled = op.Cast(op.Cast(op.Shape(x)[2:4], to=FLOAT.dtype) * scale, to=INT64.dtype)
    return nearest_resize(x, scaled, align_corners=align_corners)


# --- Anchors and boxes --------------------------------------------------------------------------------------------


@script(PADDLE, default_opset=op)
def round_half_away(x: FLOAT) -> FLOAT:
    """C++ round for x >= 0.5: half away from zero, where ONNX Round goes half to even."""
    return op.Floor(x + 0.5)


@script(PADDLE, default_opset=op)
def base_anchors(anchor_sizes: Sequence[float], aspect_ratios: Sequence[float], stride: Sequence[float]) -> FLOAT:
    """(A, 4) xyxy around the origin, ratios outer, sizes inner. Source: detection/anchor_generator_op.h."""
    ratios = op.Unsqueeze(op.Constant(value_floats=aspect_ratios), [1])
    step = op.Constant(value_floats=stride)
    width = round_half_away(op.Sqrt(op.ReduceProd(step) / ratios))
    height = round_half_away(width * ratios)
    scale = op.Unsqueeze(op.Constant(value_floats=anchor_sizes), [1]) / step
    sides = scale * op.Unsqueeze(op.Concat(width, height, axis=1), [1])
    half = 0.5 * (op.Reshape(sides, [-1, 2]) - 1.0)
    return op.Concat(op.Neg(half), half, axis=1)


@script(PADDLE, default_opset=op)
def cell_centres(count: INT64, step: FLOAT, offset: float) -> FLOAT:
    """(count,) pixel centres of cells `step` pixels wide; count, step: (1,). Source: anchor_generator_op.h."""
    return op.Cast(op.Range(0, op.Squeeze(count), 1), to=FLOAT.dtype) * step + offset * (step - 1.0)


@script(PADDLE, default_opset=op)
def anchor_generator(
    feature: FLOAT,
    anchor_sizes: Sequence[float],
    aspect_ratios: Sequence[float],
    stride: Sequence[float],
    variances: Sequence[float],
    offset: float = 0.5,
):
    """Anchors and their variances, both (H, W, A, 4), for a feature map (N, C, H, W).

    stride: width, height in pixels. Source: detection/anchor_generator_op.h.
    """
    shape = op.Shape(feature)
    step = op.Constant(value_floats=stride)
    x = op.Unsqueeze(cell_centres(shape[3:4], step[0:1], offset=offset), [0, 2, 3])
    y = op.Unsqueeze(cell_centres(shape[2:3], step[1:2], offset=offset), [1, 2, 3])
    grid = op.Concat(shape[2:4], [1, 1], axis=0)
    xy = op.Concat(op.Expand(x, grid), op.Expand(y, grid), axis=3)
    base = base_anchors(anchor_sizes=anchor_sizes, aspect_ratios=aspect_ratios, stride=stride)
    anchors = op.Concat(xy, xy, axis=3) + base
    return anchors, op.Expand(op.Constant(value_floats=variances), op.Shape(anchors))


@script(PADDLE, default_opset=op)
def clip_boxes(boxes: FLOAT, size: FLOAT) -> FLOAT:
    """Boxes (..., 4) xyxy -> [0, side - 1]; size: (1, 2) height, width. Source: detection/bbox_util.h."""
    last = op.Gather(op.Squeeze(size, [0]), [1, 0, 1, 0]) - 1.0
    return op.Max(op.Min(boxes, last), 0.0)


@script(PADDLE, default_opset=op)
def box_clip(im_info: FLOAT, boxes: FLOAT) -> FLOAT:
    """Clip xyxy boxes to [0, side - 1] pixels of the unscaled image.

    im_info: (1, 3) height, width, scale. boxes: (..., 4). Source: detection/bbox_util.h, ClipTiledBoxes.
    """
    size = op.Gather(im_info, [0, 1], axis=1) / op.Gather(im_info, [2], axis=1)
    return clip_boxes(boxes, round_half_away(size))


@script(PADDLE, default_opset=op)
def box_decode(prior: FLOAT, variance: FLOAT, target: FLOAT, axis: int = 0, box_normalized: int = 1) -> FLOAT:
    """Boxes (R, M, 4) from deltas `target` (R, M, 4) to `prior`: (M, 4) for axis 0, (R, 4) for axis 1.

    variance: as prior, or (1, 4). Source: detection/box_coder_op.h, DecodeCenterSize.
    """
    extra = 1.0 - op.Cast(box_normalized, to=FLOAT.dtype)
    low, high = op.Split(op.Unsqueeze(prior, op.Reshape(axis, [1])), axis=2)
    size = high - low + extra
    shift, growth = op.Split(op.Unsqueeze(variance, op.Reshape(axis, [1])) * target, axis=2)
    centre = shift * size + (low + size / 2.0)
    half = op.Exp(growth) * size / 2.0
    return op.Concat(centre - half, centre + half - extra, axis=2)


@script(PADDLE, default_opset=op)
def box_decode_constant(
    prior: FLOAT,
    target: FLOAT,
    variance: Sequence[float] = (1.0, 1.0, 1.0, 1.0),
    axis: int = 0,
    box_normalized: int = 1,
) -> FLOAT:
    """`box_decode` with one variance for all boxes. Source: detection/box_coder_op.h."""
    every = op.Unsqueeze(op.Constant(value_floats=variance), [0])
    return box_decode(prior, every, target, axis=axis, box_normalized=box_normalized)


@script(PADDLE, default_opset=op)
def box_encode(prior: FLOAT, variance: FLOAT, target: FLOAT, box_normalized: int = 1) -> FLOAT:
    """Deltas (R, M, 4) of boxes `target` (R, 4) to each `prior` (M, 4).

    variance: as prior, or (1, 4). Source: detection/box_coder_op.h, EncodeCenterSize.
    """
    extra = 1.0 - op.Cast(box_normalized, to=FLOAT.dtype)
    low, high = op.Split(op.Unsqueeze(prior, [0]), axis=2)
    size = high - low + extra
    target_low, target_high = op.Split(op.Unsqueeze(target, [1]), axis=2)
    target_size = target_high - target_low + extra
    shift = ((target_high + target_low) / 2.0 - (low + size / 2.0)) / size
    return op.Concat(shift, op.Log(op.Abs(target_size / size)), axis=2) / variance


@script(PADDLE, default_opset=op)
def box_encode_constant(
    prior: FLOAT, target: FLOAT, variance: Sequence[float] = (1.0, 1.0, 1.0, 1.0), box_normalized: int = 1
) -> FLOAT:
    """`box_encode` with one variance for all boxes. Source: detection/box_coder_op.h."""
    return box_encode(prior, op.Constant(value_floats=variance), target, box_normalized=box_normalized)


# --- Proposals ----------------------------------------------------------------------------------------------------


@script(PADDLE, default_opset=op)
def decode_proposals(anchors: FLOAT, deltas: FLOAT, variances: FLOAT) -> FLOAT:
    """(K, 4) each -> (K, 4) xyxy, +1 widths, growth clipped. Source: detection/bbox_util.h, BoxCoder."""
    low, high = op.Split(anchors, axis=1)
    size = high - low + 1.0
    shift, growth = op.Split(variances * deltas, axis=1)
    centre = shift * size + (low + 0.5 * size)
    half = op.Exp(op.Min(growth, LOG_MAX)) * size / 2.0
    return op.Concat(centre - half, centre + half - 1.0, axis=1)


@script(PADDLE, default_opset=op)
def is_proposal(boxes: FLOAT, im_info: FLOAT, min_size: float) -> BOOL:
    """(K,) whether a box has min_size unscaled pixels and its centre in the image. Source: bbox_util.h, FilterBoxes."""
    low, high = op.Split(boxes, axis=1)
    span = high - low
    large = span / op.Gather(im_info, [2], axis=1) + 1.0 >= op.Max(min_size, 1.0)
    inside = low + (span + 1.0) / 2.0 <= op.Gather(im_info, [1, 0], axis=1)
    fits = op.Cast(op.And(large, inside), to=INT32.dtype)
    return op.Cast(op.ReduceMin(fits, axes=[1], keepdims=0), to=BOOL.dtype)


@script(PADDLE, default_opset=op)
def at_most(count: INT64, limit: int) -> INT64:
    """(1,) the smaller of both; a limit below 1 is none. count: (1,)."""
    return op.Where(limit < 1, count, op.Min(limit, count))


@script(PADDLE, default_opset=op)
def nms_pixels(boxes: FLOAT, scores: FLOAT, most: INT64, nms_thresh: float) -> INT64:
    """Rows of boxes (K, 4), best score (K,) first, that greedy NMS keeps; at most `most`.

    Side lengths count pixels (+1). Unlike Paddle, boxes less than a pixel apart overlap: this matters only between
    boxes narrower than a pixel. Source: detection/generate_proposals_op.cc, NMS.
    """
    low, high = op.Split(boxes, axis=1)
    corners = op.Unsqueeze(op.Concat(low, high + 1.0, axis=1), [0])
    picked = op.NonMaxSuppression(corners, op.Unsqueeze(scores, [0, 1]), most, op.Reshape(nms_thresh, [1]))
    return op.Gather(picked, 2, axis=1)


@script(PADDLE, default_opset=op)
def generate_proposals(
    anchors: FLOAT,
    deltas: FLOAT,
    im_info: FLOAT,
    scores: FLOAT,
    variances: FLOAT,
    pre_nms_topN: int,  # noqa: N803
    post_nms_topN: int,  # noqa: N803
    nms_thresh: float,
    min_size: float,
):
    """RpnRois (R, 4), RpnRoiProbs (R, 1) and RpnRoisNum (1,) int32, best first; a zero box of score 0 if none is left.

    anchors, variances: (H, W, A, 4); deltas: (1, 4A, H, W); im_info: (1, 3) height, width, scale; scores: (1, A, H, W).
    Of equal scores the later cell goes first, as in Paddle up to 16 candidates, beyond which it has no order for them.
    RpnRoisLod has no result: nothing reads it for one image.
    Source: detection/generate_proposals_op.cc, ProposalForOneImage.
    """
    cell_scores = op.Reshape(op.Transpose(op.Squeeze(scores, [0]), perm=[1, 2, 0]), [-1])
    cell_deltas = op.Reshape(op.Transpose(op.Squeeze(deltas, [0]), perm=[1, 2, 0]), [-1, 4])
    _, best = op.TopK(cell_scores, at_most(op.Shape(cell_scores), limit=pre_nms_topN), axis=0)
    index = best[::-1]  # NonMaxSuppression takes the earlier of equal scores
    variance = op.Gather(op.Reshape(variances, [-1, 4]), index)
    decoded = decode_proposals(op.Gather(op.Reshape(anchors, [-1, 4]), index), op.Gather(cell_deltas, index), variance)
    clipped = clip_boxes(decoded, op.Gather(im_info, [0, 1], axis=1))
    fits = is_proposal(clipped, im_info, min_size=min_size)
    boxes = op.Compress(clipped, fits, axis=0)
    probs = op.Compress(op.Gather(cell_scores, index), fits, axis=0)
    kept = nms_pixels(boxes, probs, at_most(op.Shape(probs), limit=post_nms_topN), nms_thresh=nms_thresh)
    missing = op.Max(1 - op.Shape(kept), 0)
    pads = op.Concat([0, 0], missing, [0], axis=0)
    rois = op.Pad(op.Gather(boxes, kept), pads)
    roi_probs = op.Pad(op.Unsqueeze(op.Gather(probs, kept), [1]), pads)
    return rois, roi_probs, op.Cast(op.Shape(rois)[0:1], to=INT32.dtype)


# --- Regions of interest ------------------------------------------------------------------------------------------


@script(PADDLE, default_opset=op)
def one_image(x: FLOAT) -> FLOAT:
    """Map (1, C, H, W), unchanged; ONNX Runtime refuses a larger batch, whose rois would all read the first image."""
    return op.Unsqueeze(op.Squeeze(x, [0]), [0])


@script(PADDLE, default_opset=op)
def roi_align(
    rois: FLOAT,
    x: FLOAT,
    pooled_height: int = 1,
    pooled_width: int = 1,
    spatial_scale: float = 1.0,
    sampling_ratio: int = 0,
) -> FLOAT:
    """Map (1, C, H, W) at rois (R, 4) xyxy -> (R, C, pooled_height, pooled_width).

    sampling_ratio: points a side of each bin, 0 for as many as it has cells. Source: roi_align_op.h.
    """
    return op.RoiAlign(
        one_image(x),
        rois,
        op.Expand(0, op.Shape(rois)[0:1]),
        coordinate_transformation_mode="output_half_pixel",
        output_height=pooled_height,
        output_width=pooled_width,
        sampling_ratio=sampling_ratio,
        spatial_scale=spatial_scale,
    )


@script(PADDLE, default_opset=op)
def roi_pool(rois: FLOAT, x: FLOAT, pooled_shape: Sequence[int], spatial_scale: float = 1.0) -> FLOAT:
    """Map (1, C, H, W) at rois (R, 4) xyxy -> (R, C, *pooled_shape). Source: roi_pool_op.h."""
    image_rois = op.Pad(rois, [0, 1, 0, 0])  # image 0 in front
    return op.MaxRoiPool(one_image(x), image_rois, pooled_shape=pooled_shape, spatial_scale=spatial_scale)


@script(PADDLE, default_opset=op)
def fpn_levels(rois: FLOAT, min_level: int, max_level: int, refer_level: int, refer_scale: int) -> INT64:
    """(R,) pyramid level of each box (R, 4). Source: detection/distribute_fpn_proposals_op.h.

    The logarithm is double: float32 would put a box at an exact power of two on either side of its level.
    """
    low, high = op.Split(rois, axis=1)
    span = high - low
    area = op.ReduceProd(span + 1.0, axes=[1], keepdims=0)
    valid = op.ReduceMin(span, axes=[1], keepdims=0) >= 0.0
    side = op.Sqrt(op.Where(valid, area, 0.0)) / op.Cast(refer_scale, to=FLOAT.dtype)
    octave = op.Log(op.Cast(side, to=DOUBLE.dtype)) / op.Log(op.Cast(2.0, to=DOUBLE.dtype))
    level = op.Floor(op.Cast(octave, to=FLOAT.dtype) + op.Cast(refer_level, to=FLOAT.dtype))
    lowest = op.Max(level, op.Cast(min_level, to=FLOAT.dtype))
    return op.Cast(op.Min(lowest, op.Cast(max_level, to=FLOAT.dtype)), to=INT64.dtype)


@script(PADDLE, default_opset=op)
def fpn_rois_of_level(rois: FLOAT, levels: INT64, level: int) -> FLOAT:
    """Boxes (R, 4) of one level; levels: (R,). Source: detection/distribute_fpn_proposals_op.h."""
    return op.Compress(rois, levels == level, axis=0)


@script(PADDLE, default_opset=op)
def fpn_restore_index(levels: INT64) -> INT32:
    """(R, 1) row of each box among all levels' boxes in turn. Source: detection/distribute_fpn_proposals_op.h."""
    count = op.Shape(levels)
    rows = op.Range(0, op.Squeeze(count), 1)
    _, order = op.TopK(levels * count + rows, count, largest=0)
    _, restore = op.TopK(order, count, largest=0)
    return op.Cast(op.Unsqueeze(restore, [1]), to=INT32.dtype)


@script(PADDLE, default_opset=op)
def collect_fpn_proposals(rois: FLOAT, scores: FLOAT, post_nms_topN: int):  # noqa: N803
    """FpnRois (K, 4), best first, and RoisNum (1,) int32 of all levels' boxes (R, 4) and scores (R, 1).

    Paddle sorts with >=, so of equal scores the later goes first.
    Source: detection/collect_fpn_proposals_op.h.
    """
    reverse = op.Reshape(scores, [-1])[::-1]
    count = op.Shape(reverse)
    _, best = op.TopK(reverse, at_most(count, limit=post_nms_topN))
    return op.Gather(rois, count - 1 - best), op.Cast(op.Shape(best), to=INT32.dtype)


# --- Detections ---------------------------------------------------------------------------------------------------


@script(PADDLE, default_opset=op)
def shared_boxes(boxes: FLOAT, scores: FLOAT):
    """Boxes (1, M, 4) of all classes, scores (1, C, M) -> boxes (M, 4), scores (C, M), row of the box of each score.

    Source: detection/multiclass_nms_op.cc, MultiClassNMS.
    """
    class_scores = op.Squeeze(scores, [0])
    rows = op.Range(0, op.Squeeze(op.Shape(boxes)[1:2]), 1)
    return op.Squeeze(boxes, [0]), class_scores, op.Expand(rows, op.Shape(class_scores))


@script(PADDLE, default_opset=op)
def boxes_per_class(boxes: FLOAT, scores: FLOAT):
    """Boxes (M, C, 4), scores (M, C) -> boxes (M * C, 4), scores (C, M), row of the box of each score.

    Source: detection/multiclass_nms_op.cc, SliceOneClass.
    """
    rows = op.Reshape(op.Range(0, op.Size(scores), 1), op.Shape(scores))
    return op.Reshape(boxes, [-1, 4]), op.Transpose(scores), op.Transpose(rows)


@script(PADDLE, default_opset=op)
def hide_background(scores: FLOAT, background_label: int, score_threshold: float) -> FLOAT:
    """Scores (C, M), the background's, if there is one, below the threshold. Source: detection/multiclass_nms_op.cc."""
    labels = op.Range(0, op.Squeeze(op.Shape(scores)[0:1]), 1)
    return op.Where(op.Unsqueeze(labels, [1]) == background_label, score_threshold - 1.0, scores)


@script(PADDLE, default_opset=op)
def class_nms(
    boxes: FLOAT,
    scores: FLOAT,
    rows: INT64,
    score_threshold: float,
    nms_top_k: int,
    background_label: int = 0,
    nms_threshold: float = 0.3,
    normalized: int = 1,
):
    """Label, row of `boxes` and score, all (S,), of what NMS keeps in each class: classes in turn, best first.

    boxes: (B, 4) xyxy; scores, rows: (C, M). Where boxes count pixels, `nms_pixels` tells the difference to Paddle.
    Source: detection/multiclass_nms_op.cc, NMSFast.
    """
    shown = hide_background(scores, background_label=background_label, score_threshold=score_threshold)
    best, column = op.TopK(shown, at_most(op.Shape(shown)[1:2], limit=nms_top_k), axis=1)
    candidates = op.GatherElements(rows, column, axis=1)
    low, high = op.Split(op.Gather(boxes, candidates), axis=2)
    corners = op.Concat(low, high + (1.0 - op.Cast(normalized, to=FLOAT.dtype)), axis=2)
    most = op.Shape(best)[1:2]
    overlap = op.Reshape(nms_threshold, [1])
    picked = op.NonMaxSuppression(corners, op.Unsqueeze(best, [1]), most, overlap, op.Reshape(score_threshold, [1]))
    label = op.Gather(picked, 0, axis=1)
    place = label * most + op.Gather(picked, 2, axis=1)
    return label, op.Gather(op.Reshape(candidates, [-1]), place), op.Gather(op.Reshape(best, [-1]), place)


@script(PADDLE, default_opset=op)
def by_row(boxes: FLOAT, label: INT64, row: INT64, score: FLOAT):
    """Label, row and score, all (S,), by label and then row of boxes (B, 4). Source: detection/multiclass_nms_op.cc."""
    _, order = op.TopK(label * op.Size(boxes) + row, op.Shape(row), largest=0)
    return op.Gather(label, order), op.Gather(row, order), op.Gather(score, order)


@script(PADDLE, default_opset=op)
def best_detections(boxes: FLOAT, label: INT64, row: INT64, score: FLOAT, keep_top_k: int):
    """Out (D, 6): label, score, xyxy; Index (D, 1) int32: row of `boxes`; NmsRoisNum (1,) int32.

    The best keep_top_k remain, in their order. boxes: (B, 4); the others: (S,). Without a detection D is 0, where
    Paddle 1.x returns one row [-1]. Source: detection/multiclass_nms_op.cc, MultiClassNMS.
    """
    _, best = op.TopK(score, at_most(op.Shape(score), limit=keep_top_k))
    place, _ = op.TopK(best, op.Shape(best), largest=0)
    index = op.Gather(row, place)
    labels = op.Cast(op.Gather(label, place), to=FLOAT.dtype)
    heads = op.Concat(op.Unsqueeze(labels, [1]), op.Unsqueeze(op.Gather(score, place), [1]), axis=1)
    out = op.Concat(heads, op.Gather(boxes, index), axis=1)
    return out, op.Cast(op.Unsqueeze(index, [1]), to=INT32.dtype), op.Cast(op.Shape(place), to=INT32.dtype)


# --- Fitting a program, before paddle2onnx ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ProgramOp:
    """What decides the body of an op in a program: attributes, arguments by input slot, shapes by variable."""

    type: str
    attributes: Mapping[str, Any]
    inputs: Mapping[str, Sequence[str]]
    shapes: Mapping[str, Sequence[int]]

    def shape(self, slot: str) -> Sequence[int]:
        """Declared shape of a slot's first variable, -1 where open. Raises: ExportError if there is none."""
        name = self.inputs[slot][0]
        self.require(name in self.shapes, f"{slot} {name} is not declared")
        return self.shapes[name]

    def require(self, condition: bool, reason: str) -> None:
        """Raises: ExportError naming the op unless the condition holds."""
        if not condition:
            raise ExportError(f"op {self.type}: {reason}")

    def require_one_of(self, name: str, *allowed: object) -> object:
        """Value of an attribute, the first allowed one if it is absent. Raises: ExportError for any other value."""
        value = self.attributes.get(name, allowed[0])
        self.require(value in allowed, f"{name} = {value!r} has no ONNX body, only {' or '.join(map(repr, allowed))}")
        return value

    def require_one_image(self, slot: str) -> None:
        """Raises: ExportError where the slot's variable is declared as a batch of several images."""
        batch = self.shape(slot)[0]
        self.require(batch <= 1, f"{slot} has a batch of {batch}, only one image has an ONNX body")

    def require_fixed_threshold(self, eta: str, threshold: str) -> None:
        """Raises: ExportError for adaptive NMS: each box kept lowers a threshold above 0.5 by the factor eta."""
        value = self.attributes.get(eta, 1.0)
        fixed = value >= 1.0 or self.attributes.get(threshold, 0.0) <= 0.5
        self.require(fixed, f"{eta} = {value!r} (adaptive NMS) has no ONNX body, only 1.0")


def _own_name(call: ProgramOp) -> str:
    return call.type


def _affine_channel(call: ProgramOp) -> str:
    rank = len(call.shape("X"))
    last = call.require_one_of("data_layout", "AnyLayout", "NHWC", "NCHW") != "NCHW" or rank == 2
    call.require(last or rank == 4, f"X of rank {rank} has no ONNX body, only 2 or 4")
    return "affine_channel_nhwc" if last else "affine_channel"


def _batch_norm(call: ProgramOp) -> str:
    inference = call.attributes.get("is_test", False) and not call.attributes.get("trainable_statistics", False)
    call.require(inference or call.attributes.get("use_global_stats", False), "is_test = False has no ONNX body")
    last = call.require_one_of("data_layout", "NCHW", "AnyLayout", "NHWC") == "NHWC"
    return "batch_norm_nhwc" if last else "batch_norm"


def _box_coder(call: ProgramOp) -> str:
    code = call.require_one_of("code_type", "encode_center_size", "decode_center_size")
    name = "box_decode" if code == "decode_center_size" else "box_encode"
    return name if "PriorBoxVar" in call.inputs else f"{name}_constant"


def _collect_fpn_proposals(call: ProgramOp) -> str:
    rois, scores = (len(call.inputs[slot]) for slot in ("MultiLevelRois", "MultiLevelScores"))
    call.require(rois == scores, f"{rois} MultiLevelRois, {scores} MultiLevelScores")
    return call.type


def _generate_proposals(call: ProgramOp) -> str:
    call.require_one_image("Scores")
    call.require_fixed_threshold("eta", "nms_thresh")
    call.require(call.attributes.get("nms_thresh", 1.0) > 0.0, "nms_thresh <= 0 (no NMS) has no ONNX body")
    return call.type


def _multiclass_nms(call: ProgramOp) -> str:
    numbers = call.shape("BBoxes")[-1]
    call.require(numbers in {4, -1}, f"BBoxes of {numbers} numbers have no ONNX body, only 4")
    call.require_fixed_threshold("nms_eta", "nms_threshold")
    for limit in ("nms_top_k", "keep_top_k"):
        call.require(call.attributes.get(limit) != 0, f"{limit} = 0 keeps nothing")
    if len(call.shape("Scores")) == 2:
        return "multiclass_nms_per_class"
    call.require_one_image("Scores")
    return "multiclass_nms_shared"


def _nearest_interp(call: ProgramOp) -> str:
    call.require_one_of("data_layout", "NCHW")
    call.require_one_of("interp_method", "nearest")
    names = {"SizeTensor": "to_sides", "OutSize": "to_size", "Scale": "by_scale"}
    return next((f"nearest_interp_{name}" for slot, name in names.items() if slot in call.inputs), "nearest_interp")


def _region(call: ProgramOp) -> str:
    call.require_one_image("X")
    call.require_one_of("aligned", False)
    return call.type


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """How a Paddle op meets a body: slots in the order of its parameters and results, and which body.

    Of the `optional` inputs the first present counts. `implied` inputs tell nothing about one image in inference: they
    are dropped, and so are outputs that are not listed.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    optional: tuple[str, ...] = ()
    implied: frozenset[str] = frozenset()
    body: Callable[[ProgramOp], str] = _own_name


_COUNTS = frozenset({"RoisLod", "RoisNum", "MultiLevelRoIsNum"})
_NMS = Fit(inputs=("BBoxes", "Scores"), outputs=("Out", "Index", "NmsRoisNum"), implied=_COUNTS, body=_multiclass_nms)
_SIZES = ("SizeTensor", "OutSize", "Scale")

BODIES: Mapping[str, Fit] = MappingProxyType(
    {
        "affine_channel": Fit(inputs=("Bias", "Scale", "X"), outputs=("Out",), body=_affine_channel),
        "anchor_generator": Fit(inputs=("Input",), outputs=("Anchors", "Variances")),
        "batch_norm": Fit(
            inputs=("Bias", "Mean", "Scale", "Variance", "X"),
            outputs=("Y",),
            implied=frozenset({"MomentumTensor"}),
            body=_batch_norm,
        ),
        "box_clip": Fit(inputs=("ImInfo", "Input"), outputs=("Output",)),
        "box_coder": Fit(
            inputs=("PriorBox", "PriorBoxVar", "TargetBox"),
            outputs=("OutputBox",),
            optional=("PriorBoxVar",),
            body=_box_coder,
        ),
        "collect_fpn_proposals": Fit(
            inputs=("MultiLevelRois", "MultiLevelScores"),
            outputs=("FpnRois", "RoisNum"),
            implied=_COUNTS,
            body=_collect_fpn_proposals,
        ),
        "distribute_fpn_proposals": Fit(inputs=("FpnRois",), outputs=("MultiFpnRois", "RestoreIndex"), implied=_COUNTS),
        "generate_proposals": Fit(
            inputs=("Anchors", "BboxDeltas", "ImInfo", "Scores", "Variances"),
            outputs=("RpnRois", "RpnRoiProbs", "RpnRoisNum"),
            body=_generate_proposals,
        ),
        "multiclass_nms": _NMS,
        "multiclass_nms2": _NMS,
        "multiclass_nms3": _NMS,
        "nearest_interp": Fit(inputs=(*_SIZES, "X"), outputs=("Out",), optional=_SIZES, body=_nearest_interp),
        "roi_align": Fit(inputs=("ROIs", "X"), outputs=("Out",), implied=_COUNTS, body=_region),
        "roi_pool": Fit(inputs=("ROIs", "X"), outputs=("Out",), implied=_COUNTS, body=_region),
    }
)


def _value(attribute: Any) -> Any:
    """Value of an OpDesc.Attr: its one field beside name and type; a list that is empty has none."""
    return next((value for field, value in attribute.ListFields() if field.name not in {"name", "type"}), [])


def prepare(op_desc: Any, shapes: Mapping[str, Sequence[int]]) -> None:
    """Fit an op of a program, whose type is in `BODIES`, to its body: name and slots change in place.

    shapes: declared shape of each variable of the program, -1 where open.
    Raises: ExportError naming the op and the attribute or slot that no body carries.
    """
    fit = BODIES[op_desc.type]
    inputs = {slot.parameter: list(slot.arguments) for slot in op_desc.inputs if slot.arguments}
    outputs = {slot.parameter: list(slot.arguments) for slot in op_desc.outputs if slot.arguments}
    call = ProgramOp(op_desc.type, {a.name: _value(a) for a in op_desc.attrs}, inputs, shapes)
    chosen = next((slot for slot in fit.optional if slot in inputs), None)
    order = [slot for slot in fit.inputs if slot not in fit.optional or slot == chosen]
    given = [slot for slot in fit.outputs if slot in outputs]
    strange = sorted(inputs.keys() - {*fit.inputs, *fit.implied})
    call.require(not strange, f"input {', '.join(strange)} has no ONNX body")
    call.require(inputs.keys() >= set(order), f"input {', '.join(s for s in order if s not in inputs)} is missing")
    call.require(given == [*fit.outputs[: len(given)]], f"outputs {', '.join(given)} have no ONNX body")
    op_desc.type = PREFIX + fit.body(call)
    for slots, arguments, names in ((op_desc.inputs, inputs, order), (op_desc.outputs, outputs, given)):
        del slots[:]
        for name in names:
            slots.add(parameter=name, arguments=arguments[name])


# --- Lowering a model, after paddle2onnx --------------------------------------------------------------------------

Attributes = Mapping[str, Any]


def _call(body: str, inputs: Sequence[str], outputs: Sequence[str], attributes: Attributes) -> NodeProto:
    """A call of a body: what paddle2onnx adds to the attributes is dropped, absent ones get Paddle's default."""
    proto = FUNCTIONS[body]
    known = {attribute.name: helper.get_attribute_value(attribute) for attribute in proto.attribute_proto}
    known |= {name: value for name, value in attributes.items() if name in known or name in proto.attribute}
    missing = [name for name in proto.attribute if name not in known]
    if missing:
        raise ExportError(f"op {body}: attribute {', '.join(missing)} is missing")
    return helper.make_node(body, inputs, outputs, domain=PADDLE.domain, **known)


def _collect(node: NodeProto, attributes: Attributes) -> Iterator[NodeProto]:
    """Inputs: the boxes of each level, then the scores of each level."""
    levels = len(node.input) // 2
    rois, scores = f"{node.output[0]}.rois", f"{node.output[0]}.scores"
    yield helper.make_node("Concat", node.input[:levels], [rois], axis=0)
    yield helper.make_node("Concat", node.input[levels:], [scores], axis=0)
    yield _call("collect_fpn_proposals", [rois, scores], node.output, attributes)


def _distribute(node: NodeProto, attributes: Attributes) -> Iterator[NodeProto]:
    """Outputs: the boxes of each level, then the restore index."""
    *rois, restore = node.output
    levels = f"{restore}.levels"
    yield _call("fpn_levels", node.input, [levels], attributes)
    if len(rois) != attributes["max_level"] - attributes["min_level"] + 1:
        raise ExportError(f"op {node.op_type}: {len(rois)} MultiFpnRois do not fit min_level and max_level")
    for level, name in enumerate(rois, attributes["min_level"]):
        yield _call("fpn_rois_of_level", [*node.input, levels], [name], {"level": level})
    yield _call("fpn_restore_index", [levels], [restore], attributes)


def _multiclass_nms_nodes(node: NodeProto, attributes: Attributes) -> Iterator[NodeProto]:
    """Inputs: boxes and scores, in one of two layouts; outputs: Out, Index, NmsRoisNum, the last two at will."""
    boxes, scores, rows, *found = (
        f"{node.output[0]}.{part}" for part in ("boxes", "scores", "rows", "label", "row", "score")
    )
    per_class = node.op_type == "multiclass_nms_per_class"
    yield _call("boxes_per_class" if per_class else "shared_boxes", node.input, [boxes, scores, rows], attributes)
    yield _call("class_nms", [boxes, scores, rows], found, attributes)
    if per_class:
        ordered = [f"{name}.ordered" for name in found]
        yield _call("by_row", [boxes, *found], ordered, attributes)
        found = ordered
    yield _call("best_detections", [boxes, *found], node.output, attributes)


def _resize_to_sides(node: NodeProto, attributes: Attributes) -> Iterator[NodeProto]:
    """Inputs: height (1,), width (1,), x."""
    *sides, x = node.input
    size = f"{node.output[0]}.size"
    yield helper.make_node("Concat", sides, [size], axis=0)
    yield _call("nearest_interp_to_size", [size, x], node.output, attributes)


def _roi_align(node: NodeProto, attributes: Attributes) -> Iterator[NodeProto]:
    """Paddle counts points itself where sampling_ratio <= 0, ONNX where it is 0."""
    ratio = max(attributes.get("sampling_ratio", 0), 0)
    yield _call("roi_align", node.input, node.output, {**attributes, "sampling_ratio": ratio})


def _roi_pool(node: NodeProto, attributes: Attributes) -> Iterator[NodeProto]:
    """Two attributes in Paddle, one in ONNX."""
    shape = [attributes.get("pooled_height", 1), attributes.get("pooled_width", 1)]
    yield _call("roi_pool", node.input, node.output, {**attributes, "pooled_shape": shape})


def _function(body: OnnxFunction) -> FunctionProto:
    """The body without CastLike: literals have the type of their partner as they are, and not all runtimes know it."""
    proto = body.to_function_proto()
    casts = {node.output[0]: node.input[0] for node in proto.node if node.op_type == "CastLike"}
    kept = [node for node in proto.node if node.op_type != "CastLike"]
    for node in kept:
        node.input[:] = [casts.get(name, name) for name in node.input]
    del proto.node[:]
    proto.node.extend(kept)
    return proto


FUNCTIONS = {body.name: _function(body) for body in [*globals().values()] if isinstance(body, OnnxFunction)}
EXPANSIONS: Mapping[str, Callable[[NodeProto, Attributes], Iterator[NodeProto]]] = MappingProxyType(
    {
        "collect_fpn_proposals": _collect,
        "distribute_fpn_proposals": _distribute,
        "multiclass_nms_per_class": _multiclass_nms_nodes,
        "multiclass_nms_shared": _multiclass_nms_nodes,
        "nearest_interp_to_sides": _resize_to_sides,
        "roi_align": _roi_align,
        "roi_pool": _roi_pool,
    }
)
CUSTOM_OPS: Mapping[str, str] = MappingProxyType({PREFIX + name: name for name in (*FUNCTIONS, *EXPANSIONS)})


def _expand(node: NodeProto) -> Iterator[NodeProto]:
    """The node itself, or for one of domain Paddle the calls that stand for it."""
    if node.domain != PADDLE.domain:
        yield node
        return
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    if node.op_type in EXPANSIONS:
        yield from EXPANSIONS[node.op_type](node, attributes)
    else:
        yield _call(node.op_type, node.input, node.output, attributes)


def lower(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model paddle2onnx made of a prepared program, with its ops of domain Paddle replaced by standard ones.

    Raises: ExportError naming all ops that have no body, or the op whose attribute is missing, or why the result is not
    valid ONNX.
    """
    nodes = model.graph.node
    unknown = sorted({n.op_type for n in nodes if n.domain == PADDLE.domain and PREFIX + n.op_type not in CUSTOM_OPS})
    if unknown:
        raise ExportError(f"no ONNX body for the Paddle ops {', '.join(unknown)}")
    bodied = onnx.ModelProto()
    bodied.CopyFrom(model)
    del bodied.graph.node[:]
    bodied.graph.node.extend(call for node in nodes for call in _expand(node))
    bodied.functions.extend(FUNCTIONS.values())
    lowered = onnx.inliner.inline_local_functions(bodied)
    imports = [entry for entry in lowered.opset_import if entry.domain != PADDLE.domain]
    del lowered.opset_import[:]
    lowered.opset_import.extend(imports)
    try:
        onnx.checker.check_model(lowered, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"the lowered graph is not valid ONNX: {error}") from error
    return lowered
