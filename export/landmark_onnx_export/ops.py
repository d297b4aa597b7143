"""ONNX bodies for the Paddle ops that paddle2onnx cannot carry from a 2019 program.

`prepare` fits an op of a program to its body, before paddle2onnx runs; `lower` puts the bodies in afterwards. A body is
an onnxscript function in domain Paddle, of standard ops of opset 17, for one image (batch 1) and float32, in the order of
operations of the Paddle 1.x CPU kernels. Sources are named below paddle/fluid/operators/ of Paddle 1.8.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import onnx
import onnx.inliner
from onnx import NodeProto, helper
from onnxscript import BOOL, DOUBLE, FLOAT, INT32, INT64, script
from onnxscript import opset17 as op
from onnxscript.values import OnnxFunction, Opset

from landmark_onnx.errors import ExportError

PADDLE = Opset("Paddle", 1)
PREFIX = "landmark_"  # hides an op from paddle2onnx's own mapper of the same name
LOG_MAX = math.log(1000.0 / 16.0)
LOG_2 = math.log(2.0)

# --- Normalisation and resizing -----------------------------------------------------------------------------------


@script(PADDLE, default_opset=op)
def affine_channel(bias: FLOAT, scale: FLOAT, x: FLOAT) -> FLOAT:
    """x * scale + bias per channel. x: (N, C, H, W); scale, bias: (C,). Source: affine_channel_op.cc."""
    return x * op.Unsqueeze(scale, [1, 2]) + op.Unsqueeze(bias, [1, 2])


@script(PADDLE, default_opset=op)
def affine_channel_nhwc(bias: FLOAT, scale: FLOAT, x: FLOAT) -> FLOAT:
    """x * scale + bias. x: (..., C); scale, bias: (C,). Source: affine_channel_op.cc."""
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

    Source: interpolate_op.h, NearestNeighborInterpolate: the ratio is float32, the added half is double.
    """
    inner = op.Cast(op.Max(new - align_corners, 1), to=FLOAT.dtype)
    ratio = op.Cast(old - align_corners, to=FLOAT.dtype) / inner
    steps = op.Cast(op.Range(0, op.Squeeze(new), 1), to=FLOAT.dtype)
    half = op.Cast(align_corners, to=DOUBLE.dtype) * 0.5
    return op.Cast(op.Cast(ratio * steps, to=DOUBLE.dtype) + half, to=INT64.dtype)


@script(PADDLE, default_opset=op)
def nearest_resize(x: FLOAT, size: INT64, align_corners: int) -> FLOAT:
    """x: (N, C, H, W) -> (N, C, size[0], size[1]); size: (2,). Source: interpolate_op.h."""
    shape = op.Shape(x)
    rows = nearest_index(shape[2:3], size[0:1], align_corners=align_corners)
    columns = nearest_index(shape[3:4], size[1:2], align_corners=align_corners)
    return op.Gather(op.Gather(x, rows, axis=2), columns, axis=3)


@script(PADDLE, default_opset=op)
def nearest_interp(x: FLOAT, scale: float = 0.0, out_h: int = -1, out_w: int = -1, align_corners: int = 1) -> FLOAT:
    """x: (N, C, H, W) scaled by `scale` where it is positive, else to (out_h, out_w). Source: interpolate_op.h."""
    scaled = op.Cast(op.Cast(op.Shape(x)[2:4], to=FLOAT.dtype) * scale, to=INT64.dtype)
    given = op.Concat(op.Reshape(out_h, [1]), op.Reshape(out_w, [1]), axis=0)
    return nearest_resize(x, op.Where(scale > 0.0, scaled, given), align_corners=align_corners)


@script(PADDLE, default_opset=op)
def nearest_interp_to_size(size: INT32, x: FLOAT, align_corners: int = 1) -> FLOAT:
    """x: (N, C, H, W); size: (2,) height and width. Source: interpolate_op.h, OutSize and SizeTensor."""
    return nearest_resize(x, op.Cast(size, to=INT64.dtype), align_corners=align_corners)


@script(PADDLE, default_opset=op)
def nearest_interp_by_scale(scale: FLOAT, x: FLOAT, align_corners: int = 1) -> FLOAT:
    """x: (N, C, H, W); scale: (1,), positive. Source: interpolate_op.h, Scale."""
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
    """boxes: (..., 4) xyxy -> [0, side - 1]; size: (1, 2) height, width. Source: bbox_util.h, ClipTiledBoxes."""
    last = op.Gather(size, [1, 0, 1, 0], axis=1) - 1.0
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
    """Boxes from deltas: prior (M, 4), variance (M, 4) or (1, 4), target (R, M, 4) -> (R, M, 4); R and M swap if axis is 1.

    Source: detection/box_coder_op.h, DecodeCenterSize.
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
    """Deltas from boxes: prior (M, 4), variance (M, 4) or (1, 4), target (R, 4) -> (R, M, 4).

    Source: detection/box_coder_op.h, EncodeCenterSize.
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
def at_most(limit: int, count: INT64) -> INT64:
    """(1,) the smaller of both, or `count` where there is no limit: limit < 0. count: (1,)."""
    return op.Where(limit < 0, count, op.Min(limit, count))


@script(PADDLE, default_opset=op)
def nms_pixels(boxes: FLOAT, scores: FLOAT, most: INT64, nms_thresh: float) -> INT64:
    """Rows of boxes (K, 4), best score (K,) first, that greedy NMS keeps; at most `most`.

    Side lengths count pixels (+1). Unlike Paddle, boxes less than a pixel apart overlap: this matters only between
    boxes narrower than a pixel. Source: detection/nms_util.h, NMS and JaccardOverlap.
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
    Of equal scores the later cell goes first, as in Paddle below 17 candidates; above, Paddle has no order for them.
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
