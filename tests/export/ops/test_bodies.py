"""The ONNX bodies without Paddle: eager, in a graph and in NumPy they agree; what `lower` does to a model."""

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from graphs import paddle_model, paddle_node, run
from landmark_onnx.errors import ExportError

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
ops = pytest.importorskip("landmark_onnx_export.ops.bodies")
lowering = pytest.importorskip("landmark_onnx_export.ops.lower")
helper = onnx.helper

few = settings(max_examples=15, deadline=None, derandomize=True, database=None)
Array = np.ndarray[Any, Any]


def agree(body: Any, arrays: list[Array], want: Any, atol: float = 0.0, **attrs: Any) -> None:
    """The first result of a body, called eagerly and inlined in a graph, is `want`."""
    inputs = {f"x{i}": array for i, array in enumerate(arrays)}
    node = paddle_node(body.name, list(inputs), ["y"], **attrs)
    [in_graph] = run(lowering.lower(paddle_model([node], inputs, {"y": np.asarray(want)})), inputs)
    eager = body(*arrays, **attrs)
    eager = eager[0] if isinstance(eager, tuple) else eager
    eager = getattr(eager, "value", eager)  # of a body without inputs it is a tensor
    assert in_graph.dtype == eager.dtype == np.asarray(want).dtype
    np.testing.assert_allclose(eager, want, rtol=0, atol=atol)
    np.testing.assert_allclose(in_graph, want, rtol=0, atol=atol)


def floats(*values: Any) -> Array:
    return np.array(values, np.float32)


def ints(*values: int) -> Array:
    return np.array(values, np.int64)


# --- Rules --------------------------------------------------------------------------------------------------------


def test_rounding_goes_away_from_zero() -> None:
    agree(ops.round_half_away, [floats(0.5, 1.5, 2.5, 2.4999998, 3.0)], floats(1, 2, 3, 2, 3))


@pytest.mark.parametrize(("limit", "want"), [(-1, 5), (0, 5), (1, 1), (4, 4), (5, 5), (6, 5)])
def test_a_limit_below_one_is_none(limit: int, want: int) -> None:
    agree(ops.at_most, [ints(5)], ints(want), limit=limit)


@few
@example(old=2, new=83, align_corners=1)  # the middle is at 0.49999997: plus 0.5 it is below 1 in double alone
@given(old=st.integers(1, 300), new=st.integers(1, 300), align_corners=st.integers(0, 1))
def test_nearest_index(old: int, new: int, align_corners: int) -> None:
    """float32 ratio and product, double sum, truncated: as the C++ of Paddle 1.8 promotes them."""
    ratio = np.float32(old - align_corners) / np.float32(max(new - align_corners, 1))
    products = np.arange(new, dtype=np.float32) * ratio
    want = (products.astype(np.float64) + 0.5 * align_corners).astype(np.int64)
    agree(ops.nearest_index, [ints(old), ints(new)], want, align_corners=align_corners)


def test_nearest_takes_in_over_out_for_a_ratio() -> None:
    """6 columns times 1.7 are 10: the ratio is 6 / 10, as in Paddle 1.x, and not 1 / 1.7, as in Paddle 2."""
    x = np.arange(6, dtype=np.float32).reshape(1, 1, 1, 6)
    want = floats(0, 0, 1, 1, 2, 3, 3, 4, 4, 5).reshape(1, 1, 1, 10)
    agree(ops.nearest_interp, [x], want, scale=float(np.float32(1.7)), align_corners=0, out_h=4, out_w=4)
    agree(ops.nearest_interp_by_scale, [floats(1.7), x], want, align_corners=0)


def test_anchors_are_those_of_faster_rcnn() -> None:
    """Stride 16, sizes 128 to 512, as published with the paper's code."""
    attrs = {"anchor_sizes": [128.0, 256.0, 512.0], "aspect_ratios": [0.5, 1.0, 2.0], "stride": [16.0, 16.0]}
    first = [
        [-84, -40, 99, 55],
        [-176, -88, 191, 103],
        [-360, -184, 375, 199],
        [-56, -56, 71, 71],
        [-120, -120, 135, 135],
        [-248, -248, 263, 263],
        [-36, -80, 51, 95],
        [-80, -168, 95, 183],
        [-168, -344, 183, 359],
    ]
    agree(ops.base_anchors, [], floats(*first) - 7.5, **attrs)
    rows, columns = np.mgrid[:2, :3]
    shifts = 16 * np.stack([columns, rows, columns, rows], axis=-1)
    want = (np.array(first) + shifts[:, :, None]).astype(np.float32)
    agree(ops.anchor_generator, [np.zeros((1, 8, 2, 3), np.float32)], want, variances=[1.0] * 4, **attrs)


def test_box_clip_rounds_the_unscaled_side() -> None:
    """45 / 2 = 22.5 is 23 pixels wide, 33 / 2 = 16.5 is 17 high; boxes inside stay."""
    boxes = floats([-1, -2, 100, 100], [3, 4, 5, 6], [22, 16, 22.5, 16.5])
    agree(ops.box_clip, [floats([33, 45, 2]), boxes], floats([0, 0, 22, 16], [3, 4, 5, 6], [22, 16, 22, 16]))


@few
@given(seed=st.integers(0, 999))
def test_decode_proposals(seed: int) -> None:
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 50, (6, 2))
    anchors = np.concatenate([low, low + rng.uniform(1, 50, (6, 2))], axis=1).astype(np.float32)
    deltas, variances = rng.normal(0, 3, (6, 4)).astype(np.float32), rng.uniform(0.5, 2, (6, 4)).astype(np.float32)
    size = anchors[:, 2:] - anchors[:, :2] + 1
    centre = anchors[:, :2] + size / 2 + variances[:, :2] * deltas[:, :2] * size
    half = np.exp(np.minimum(variances[:, 2:] * deltas[:, 2:], np.float32(np.log(62.5)))) * size / 2
    want = np.concatenate([centre - half, centre + half - 1], axis=1).astype(np.float32)
    agree(ops.decode_proposals, [anchors, deltas, variances], want, atol=2e-3)


def test_is_proposal() -> None:
    """At scale 2, 31 pixels count 16. The last three: too low, centre right of the image, centre below it.

    A box that is upside down has less than one pixel, which is the least whatever min_size.
    """
    boxes = floats([0, 0, 30, 30], [50, 50, 99, 99], [0, 0, 30, 28], [90, 0, 130, 30], [0, 90, 30, 130])
    want = np.array([True, True, False, False, False])
    agree(ops.is_proposal, [boxes, floats([100, 100, 2])], want, min_size=16.0)
    agree(ops.is_proposal, [boxes, floats([111, 111, 2])], np.ones(5, bool), min_size=0.0)
    agree(ops.is_proposal, [floats([5, 5, 4.5, 9]), floats([111, 111, 2])], np.array([False]), min_size=0.0)


def greedy(boxes: Array, scores: Array, threshold: float) -> list[int]:
    """Plain NMS with pixel areas, best first."""
    kept: list[int] = []
    for row in np.argsort(-scores, kind="stable"):
        sides = [np.minimum(boxes[row, 2:], boxes[k, 2:]) - np.maximum(boxes[row, :2], boxes[k, :2]) + 1 for k in kept]
        shared = [max(w, 0) * max(h, 0) for w, h in sides]
        areas = [np.prod(boxes[k, 2:] - boxes[k, :2] + 1) for k in [*kept, row]]
        if all(s / (a + areas[-1] - s) <= threshold for s, a in zip(shared, areas, strict=False)):
            kept.append(int(row))
    return kept


@few
@given(seed=st.integers(0, 999), nms_thresh=st.sampled_from([0.3, 0.5, 0.75]), most=st.sampled_from([2, 30]))
def test_nms_pixels(seed: int, nms_thresh: float, most: int) -> None:
    rng = np.random.default_rng(seed)
    low = rng.integers(0, 20, (30, 2))
    boxes = np.concatenate([low, low + rng.integers(0, 20, (30, 2))], axis=1).astype(np.float32)
    scores = rng.permutation(30).astype(np.float32)
    want = ints(*greedy(boxes, scores, nms_thresh)[:most])
    agree(ops.nms_pixels, [boxes, scores, ints(most)], want, nms_thresh=nms_thresh)


def test_fpn_levels_at_powers_of_two() -> None:
    """112, 224, 448 pixels begin a level; nothing goes below the lowest or above the highest."""
    sides = [1, 111, 112, 223, 224, 447, 448, 5000]
    rois = floats(*[[0, 0, side - 1, side - 1] for side in sides], [3, 3, 2, 2])
    attrs = {"min_level": 2, "max_level": 5, "refer_level": 4, "refer_scale": 224}
    agree(ops.fpn_levels, [rois], ints(2, 2, 3, 3, 4, 4, 5, 5, 2), **attrs)


def test_fpn_levels_of_the_floats_around_powers_of_two() -> None:
    """A float32 logarithm that is off by one bit would put some of them into another level than C++ log2 does."""
    powers = np.exp2(np.arange(1, 9)).astype(np.float32)
    bits = powers.view(np.int32)[:, None] + np.arange(-20, 21, dtype=np.int32)
    last = bits.view(np.float32).reshape(-1, 1) - 1
    rois = np.concatenate([np.zeros_like(last), np.zeros_like(last), last, last], axis=1)
    sides = np.sqrt((last + 1) * (last + 1))[:, 0]
    want = np.floor(np.log2(sides.astype(np.float64)).astype(np.float32) + np.float32(4)).astype(np.int64)
    agree(ops.fpn_levels, [rois], want, min_level=0, max_level=99, refer_level=4, refer_scale=1)


@few
@given(levels=st.lists(st.integers(2, 5), min_size=1, max_size=30))
def test_fpn_restore_index_undoes_the_distribution(levels: list[int]) -> None:
    restore = np.argsort(np.argsort(levels, kind="stable")).astype(np.int32)
    agree(ops.fpn_restore_index, [ints(*levels)], restore[:, None])


def test_hide_background() -> None:
    scores = floats([0.9, 0.1], [0.2, 0.3])
    agree(ops.hide_background, [scores], floats([-0.5, -0.5], [0.2, 0.3]), background_label=0, score_threshold=0.5)
    agree(ops.hide_background, [scores], scores, background_label=-1, score_threshold=0.5)


# --- Lowering -----------------------------------------------------------------------------------------------------

X = np.ones((1, 2, 6, 6), np.float32)
ROIS = floats([0, 0, 3, 3])


@pytest.mark.parametrize("function", ops.FUNCTIONS.values(), ids=lambda function: function.name)
def test_a_body_says_where_it_is_from_and_needs_standard_ops_alone(function: Any) -> None:
    assert {node.domain for node in function.node} <= {"", "Paddle"}
    assert all(node.op_type in ops.FUNCTIONS for node in function.node if node.domain)
    assert "CastLike" not in {node.op_type for node in function.node}
    doc = getattr(ops, function.name).function.__doc__
    assert "Source: " in doc or function.name in {"round_half_away", "at_most", "one_image"}


def test_lower_names_all_ops_without_a_body() -> None:
    nodes = [paddle_node("yolo_box", ["x"], ["y"]), paddle_node("matrix_nms", ["y"], ["z"])]
    with pytest.raises(ExportError, match="no ONNX body for the Paddle ops matrix_nms, yolo_box"):
        lowering.lower(paddle_model(nodes, {"x": X}, {"z": X}))


def test_lower_names_a_missing_attribute() -> None:
    node = paddle_node("anchor_generator", ["x"], ["y", "z"], anchor_sizes=[1.0], stride=[1.0, 1.0])
    with pytest.raises(ExportError, match="op anchor_generator: attribute aspect_ratios, variances is missing"):
        lowering.lower(paddle_model([node], {"x": X}, {"y": X, "z": X}))


def test_lower_wants_a_result_for_every_level() -> None:
    attrs = {"min_level": 2, "max_level": 5, "refer_level": 4, "refer_scale": 224}
    node = paddle_node("distribute_fpn_proposals", ["rois"], ["a", "b", "restore"], **attrs)
    with pytest.raises(ExportError, match="2 MultiFpnRois do not fit"):
        lowering.lower(paddle_model([node], {"rois": ROIS}, {"a": ROIS, "b": ROIS, "restore": ROIS}))


def test_lower_refuses_a_result_that_no_body_has() -> None:
    nodes = [
        paddle_node("roi_align", ["rois", "x"], ["y"]),
        helper.make_node("Neg", ["argmax"], ["z"]),
    ]
    with pytest.raises(ExportError, match=r"not valid ONNX.*argmax"):
        lowering.lower(paddle_model(nodes, {"x": X, "rois": ROIS}, {"y": X, "z": X}))


def test_lower_gives_absent_attributes_the_defaults_of_paddle() -> None:
    """roi_align of 2019: no `aligned`, and a negative sampling_ratio, which ONNX writes as 0."""
    inputs = {"rois": ROIS, "x": X}
    node = paddle_node("roi_align", list(inputs), ["y"], sampling_ratio=-1)
    model = lowering.lower(paddle_model([node], inputs, {"y": X}))
    [align] = [node for node in model.graph.node if node.op_type == "RoiAlign"]
    attrs = {attribute.name: helper.get_attribute_value(attribute) for attribute in align.attribute}
    assert attrs == {
        "coordinate_transformation_mode": b"output_half_pixel",
        "output_height": 1,
        "output_width": 1,
        "sampling_ratio": 0,
        "spatial_scale": 1.0,
    }


def test_lower_leaves_standard_nodes_and_the_given_model_alone() -> None:
    node = helper.make_node("Neg", ["x"], ["y"])
    inputs = {"x": X, "im_info": floats([9, 9, 1]), "rois": ROIS}
    model = paddle_model([node, paddle_node("box_clip", ["im_info", "rois"], ["z"])], inputs, {"y": X, "z": ROIS})
    before = model.SerializeToString()
    lowered = lowering.lower(model)
    assert model.SerializeToString() == before
    assert lowered.graph.node[0] == node
    assert [(entry.domain, entry.version) for entry in lowered.opset_import] == [("", 17)]
    assert not lowered.functions


def test_proposals_and_what_follows_run_when_none_is_left() -> None:
    """One zero box comes, its features go through the head, and no detection is the result."""
    rng = np.random.default_rng(0)
    inputs = {
        "anchors": rng.random((2, 3, 1, 4), np.float32),
        "deltas": rng.random((1, 4, 2, 3), np.float32),
        "im_info": floats([32, 48, 1]),
        "scores": rng.random((1, 1, 2, 3), np.float32),
        "variances": np.ones((2, 3, 1, 4), np.float32),
        "x": rng.random((1, 2, 2, 3), np.float32),
    }
    limits = {"pre_nms_topN": 100, "post_nms_topN": 10, "nms_thresh": 0.7, "min_size": 500.0}
    nms = {"score_threshold": 2.0, "nms_top_k": 5, "keep_top_k": 5}
    nodes = [
        paddle_node("generate_proposals", list(inputs)[:5], ["rois", "probs"], **limits),
        paddle_node("roi_align", ["rois", "x"], ["features"], pooled_height=2, pooled_width=2),
        helper.make_node("ReduceMean", ["features"], ["classes"], axes=[2, 3], keepdims=0),
        helper.make_node("Concat", ["rois", "rois"], ["pairs"], axis=1),
        helper.make_node("Constant", [], ["layout"], value_ints=[-1, 2, 4]),
        helper.make_node("Reshape", ["pairs", "layout"], ["boxes"]),
        paddle_node("multiclass_nms_per_class", ["boxes", "classes"], ["out"], **nms),
    ]
    outputs = {"rois": ROIS, "features": X, "out": ROIS}
    rois, features, out = run(lowering.lower(paddle_model(nodes, inputs, outputs)), inputs)
    np.testing.assert_array_equal(rois, np.zeros((1, 4)))
    assert features.shape == (1, 2, 2, 2)
    assert out.shape == (0, 6)
