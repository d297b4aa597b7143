"""ONNX bodies for the Paddle ops that paddle2onnx cannot carry from a 2019 program.

`fitting` prepares a program for them, before paddle2onnx runs; `lowering` puts them in afterwards. A body is an
onnxscript function in domain Paddle, of standard ops of opset 17, for one image (batch 1) and float32, in the order
of operations of the Paddle 1.x CPU kernels. Sources are files below paddle/fluid/operators/ of Paddle 1.8.
"""

import math
from collections.abc import Sequence

from onnx import FunctionProto
from onnxscript import BOOL, DOUBLE, FLOAT, INT32, INT64, script
from onnxscript import opset17 as op
from onnxscript.values import OnnxFunction, Opset

PADDLE = Opset("Paddle", 1)
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
    low, high = op.Split(op.Unsqueeze(prior, op.Reshape(axis, [1])), [2, 2], axis=2)
    size = high - low + extra
    shift, growth = op.Split(op.Unsqueeze(variance, op.Reshape(axis, [1])) * target, [2, 2], axis=2)
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
    low, high = op.Split(op.Unsqueeze(prior, [0]), [2, 2], axis=2)
    size = high - low + extra
    target_low, target_high = op.Split(op.Unsqueeze(target, [1]), [2, 2], axis=2)
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
    low, high = op.Split(anchors, [2, 2], axis=1)
    size = high - low + 1.0
    shift, growth = op.Split(variances * deltas, [2, 2], axis=1)
    centre = shift * size + (low + 0.5 * size)
    half = op.Exp(op.Min(growth, LOG_MAX)) * size / 2.0
    return op.Concat(centre - half, centre + half - 1.0, axis=1)


@script(PADDLE, default_opset=op)
def is_proposal(boxes: FLOAT, im_info: FLOAT, min_size: float) -> BOOL:
    """(K,) whether a box has min_size unscaled pixels and its centre in the image. Source: bbox_util.h, FilterBoxes."""
    low, high = op.Split(boxes, [2, 2], axis=1)
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
    low, high = op.Split(boxes, [2, 2], axis=1)
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


# --- Products -----------------------------------------------------------------------------------------------------


@script(PADDLE, default_opset=op)
def mul(x: FLOAT, y: FLOAT) -> FLOAT:
    """(N, K) @ (K, M) -> (N, M). Source: mul_op.h, x_num_col_dims = 1."""
    return op.MatMul(x, y)


@script(PADDLE, default_opset=op)
def mul_rows(x: FLOAT, y: FLOAT) -> FLOAT:
    """(N, ...) @ (K, M) -> (N, M), K the product of x's other sides. Source: mul_op.h, x_num_col_dims = 1."""
    return op.MatMul(op.Flatten(x, axis=1), y)


@script(PADDLE, default_opset=op)
def mul_columns(x: FLOAT, y: FLOAT, x_num_col_dims: int) -> FLOAT:
    """(A..., B...) @ (K, M) -> (A..., M); A has x_num_col_dims sides, K is the product of B. Source: mul_op.h."""
    sides = op.Concat(op.Shape(x, end=x_num_col_dims), op.Shape(y, start=1), axis=0)
    return op.Reshape(op.MatMul(op.Flatten(x, axis=x_num_col_dims), y), sides)


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
def one_point_a_bin(rois: FLOAT, pooled: FLOAT, spatial_scale: float) -> BOOL:
    """(R,): whether adaptive sampling takes one point in each bin. rois: (R, 4); pooled: (2,) width, height.

    Source: roi_align_op.h, roi_bin_grid_h and roi_bin_grid_w.
    """
    sides = (rois[:, 2:4] - rois[:, 0:2]) * spatial_scale
    return op.Cast(op.ReduceMin(op.Cast(sides <= pooled, to=INT32.dtype), axes=[1], keepdims=0), to=BOOL.dtype)


@script(PADDLE, default_opset=op)
def roi_align_bins(
    rois: FLOAT,
    x: FLOAT,
    pooled_height: int,
    pooled_width: int,
    height: int,
    width: int,
    step: int,
    spatial_scale: float,
) -> FLOAT:
    """Every `step`-th bin a side of `roi_align` with adaptive sampling: (R, C, height, width).

    height, width: pooled_height and pooled_width by `step`, rounded up. Where a bin has one point, a coarser grid moved
    by (step - 1) / 2 bins has it in the same place; larger rois are pooled in full and thinned. Source: roi_align_op.h.
    """
    pooled = op.Cast(op.Concat(op.Reshape(pooled_width, [1]), op.Reshape(pooled_height, [1]), axis=0), to=FLOAT.dtype)
    coarse = op.Cast(op.Concat(op.Reshape(width, [1]), op.Reshape(height, [1]), axis=0), to=FLOAT.dtype)
    stride = op.Cast(step, to=FLOAT.dtype)
    few = one_point_a_bin(rois, pooled, spatial_scale=spatial_scale)
    small, large = op.Compress(rois, few, axis=0), op.Compress(rois, op.Not(few), axis=0)
    bins = op.Max(small[:, 2:4] - small[:, 0:2], 1.0 / spatial_scale) / pooled
    first = small[:, 0:2] - bins * ((stride - 1.0) * 0.5)
    moved = op.Concat(first, first + bins * (coarse * stride), axis=1)
    single = roi_align(
        moved, x, pooled_height=height, pooled_width=width, spatial_scale=spatial_scale, sampling_ratio=1
    )
    full = roi_align(
        large, x, pooled_height=pooled_height, pooled_width=pooled_width, spatial_scale=spatial_scale, sampling_ratio=0
    )
    steps = op.Concat(op.Reshape(step, [1]), op.Reshape(step, [1]), axis=0)
    thinned = op.Slice(full, [0, 0], [2147483647, 2147483647], [2, 3], steps)
    order = op.Concat(op.Squeeze(op.NonZero(few), [0]), op.Squeeze(op.NonZero(op.Not(few)), [0]), axis=0)
    places = op.ScatterElements(order, order, op.Range(0, op.Squeeze(op.Shape(order)), 1), axis=0)
    return op.Gather(op.Concat(single, thinned, axis=0), places, axis=0)


@script(PADDLE, default_opset=op)
def roi_pool(rois: FLOAT, x: FLOAT, pooled_shape: Sequence[int], spatial_scale: float = 1.0) -> FLOAT:
    """Map (1, C, H, W) at rois (R, 4) xyxy -> (R, C, *pooled_shape). Source: roi_pool_op.h."""
    image_rois = op.Pad(rois, [0, 1, 0, 0])  # image 0 in front
    return op.MaxRoiPool(one_image(x), image_rois, pooled_shape=pooled_shape, spatial_scale=spatial_scale)


@script(PADDLE, default_opset=op)
def fpn_levels(rois: FLOAT, min_level: int, max_level: int, refer_level: int, refer_scale: int) -> INT64:
    """(R,) pyramid level of each box (R, 4). Source: detection/distribute_fpn_proposals_op.h.

    The logarithm is double, as one in float32 is not exact enough to floor. Paddle 2 adds 1e-6 before it.
    """
    low, high = op.Split(rois, [2, 2], axis=1)
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
    low, high = op.Split(op.Gather(boxes, candidates), [2, 2], axis=2)
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
"""Every body by name, as a function of domain Paddle."""
