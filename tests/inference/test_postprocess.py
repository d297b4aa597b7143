"""Postprocessing against a loop over classes, written again from `get_dt_res_common` of infer_recognition.py."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from landmark_onnx.cards.schema import Postprocess
from landmark_onnx.errors import SessionError
from landmark_onnx.inference import postprocess
from landmark_onnx.inference.postprocess import (
    cosine,
    decode_boxes,
    decode_rois,
    nms,
    to_classification,
    to_embedding,
)

RULE = Postprocess()
f32 = np.float32


def original_nms(dets: np.ndarray, threshold: float) -> list[int]:
    x1, y1, x2, y2 = dets[:, 0], dets[:, 1], dets[:, 2], dets[:, 3]
    areas = (x2 - x1 + 1) * (y2 - y1 + 1)
    order = np.arange(len(dets))
    keep = []
    while order.size > 0:
        i = order[0]
        keep.append(i)
        w = np.maximum(f32(0), np.minimum(x2[i], x2[order[1:]]) - np.maximum(x1[i], x1[order[1:]]) + 1)
        h = np.maximum(f32(0), np.minimum(y2[i], y2[order[1:]]) - np.maximum(y1[i], y1[order[1:]]) + 1)
        with np.errstate(all="ignore"):
            overlap = w * h / (areas[i] + areas[order[1:]] - w * h)
        order = order[np.where(overlap <= f32(threshold))[0] + 1]
    return keep


def original_decoder(deltas: np.ndarray, rois: np.ndarray, variances: tuple[float, ...]) -> np.ndarray:
    widths = rois[:, 2] - rois[:, 0] + f32(1)
    heights = rois[:, 3] - rois[:, 1] + f32(1)
    ctr_x = rois[:, 0] + f32(0.5) * widths
    ctr_y = rois[:, 1] + f32(0.5) * heights
    clip_value = f32(np.log(1000.0 / 16.0))
    dx, dy, dw, dh = (deltas[:, i::4] * f32(variances[i]) for i in range(4))
    dw, dh = np.minimum(dw, clip_value), np.minimum(dh, clip_value)
    pred_ctr_x = dx * widths[:, np.newaxis] + ctr_x[:, np.newaxis]
    pred_ctr_y = dy * heights[:, np.newaxis] + ctr_y[:, np.newaxis]
    pred_w = np.exp(dw) * widths[:, np.newaxis]
    pred_h = np.exp(dh) * heights[:, np.newaxis]
    boxes = np.zeros(deltas.shape, deltas.dtype)
    boxes[:, 0::4] = pred_ctr_x - f32(0.5) * pred_w
    boxes[:, 1::4] = pred_ctr_y - f32(0.5) * pred_h
    boxes[:, 2::4] = pred_ctr_x + f32(0.5) * pred_w - f32(1)
    boxes[:, 3::4] = pred_ctr_y + f32(0.5) * pred_h - f32(1)
    return boxes


def original_detections(
    im_info: np.ndarray, rois: np.ndarray, probability: np.ndarray, deltas: np.ndarray, rule: Postprocess = RULE
) -> list[tuple[int, list[float], float]]:
    """Class, [x, y, w, h], score of each box. Equal scores keep the order of their rois, which NumPy left open."""
    if len(rois) == 0:
        return []
    height, width, scale = im_info[0]
    boxes = original_decoder(deltas, rois, rule.variances)
    for i, side in enumerate((width, height, width, height)):
        boxes[:, i::4] = np.maximum(np.minimum(boxes[:, i::4], side - 1), 0)
    boxes = boxes / scale
    per_class = {}
    for j in range(1, probability.shape[1]):
        inds = np.where(probability[:, j] >= f32(rule.score))[0]
        dets = np.hstack((boxes[inds, j * 4 : (j + 1) * 4], probability[inds, j][:, np.newaxis])).astype(f32)
        dets = dets[np.argsort(-dets[:, -1], kind="stable")]
        per_class[j] = dets[original_nms(dets, rule.iou)]
    scores = np.hstack([dets[:, -1] for dets in per_class.values()])
    if len(scores) > rule.keep:
        least = np.sort(scores)[-rule.keep]
        per_class = {j: dets[np.where(dets[:, -1] >= least)[0]] for j, dets in per_class.items()}
    return [
        (j, [x1, y1, x2 - x1 + f32(1), y2 - y1 + f32(1)], score)
        for j, dets in per_class.items()
        for x1, y1, x2, y2, score in dets
    ]


def detect(im_info, rois, probability, deltas, rule=RULE, names=None):
    return decode_rois(
        rule, {"im_info": im_info}, {"rois": rois, "probability": probability, "deltas": deltas}, names or {}
    )


def check_equal(im_info, rois, probability, deltas, rule=RULE) -> int:
    """That both give the same boxes to the bit; how many."""
    got = detect(im_info, rois, probability, deltas, rule)
    wanted = original_detections(im_info, rois, probability, deltas, rule)
    np.testing.assert_array_equal(got.classes, [j for j, _, _ in wanted])
    np.testing.assert_array_equal(got.scores, np.array([score for _, _, score in wanted], f32))
    np.testing.assert_array_equal(got.boxes, np.array([box for _, box, _ in wanted], f32).reshape(-1, 4))
    assert got.boxes.dtype == got.scores.dtype == f32
    assert got.classes.dtype == np.int64
    return len(wanted)


def random_outputs(seed: int, rois: int, classes: int, *, steps: int = 0, spread: float = 1.0, copies: int = 1):
    """steps: of the scores, so that many are equal; 0 for any. copies: rois that are the same."""
    rng = np.random.default_rng(seed)
    scale = rng.choice([0.37, 1.0, 1.66625, 2.5])
    im_info = np.array([[600, 800, scale]], f32)
    corners = rng.uniform(0, 500, (-(-rois // copies), 2))
    boxes = np.hstack([corners, corners + rng.uniform(-1, 300, corners.shape)])
    boxes = np.tile(boxes, (copies, 1))[:rois].astype(f32)
    deltas = rng.normal(0, spread, (rois, 4 * classes)).astype(f32)
    if steps:
        deltas = np.round(deltas * 2) / 2
        probability = rng.integers(0, steps + 1, (rois, classes)) / f32(steps)
    else:
        logits = rng.normal(0, 2, (rois, classes))
        probability = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return im_info, boxes, probability.astype(f32), deltas


@settings(max_examples=150)
@given(st.integers(0, 10_000), st.integers(0, 60), st.integers(2, 7), st.booleans(), st.sampled_from([1, 3, 60]))
def test_detections_are_the_originals_to_the_bit(seed, rois, classes, ties, copies):
    check_equal(*random_outputs(seed, rois, classes, steps=10 * ties, copies=copies))


@pytest.mark.parametrize("steps", [0, 4, 10])
@pytest.mark.parametrize("spread", [0.0, 0.5, 30.0])
def test_detections_of_many_rois_and_classes(steps, spread):
    count = check_equal(*random_outputs(7, 300, 21, steps=steps, spread=spread))
    assert count >= 100
    if steps == 4:
        assert count > 100, "equal scores at the limit are all kept"


@settings(max_examples=30)
@given(st.integers(0, 999), st.integers(1, 40), st.floats(0, 1), st.floats(0, 1))
def test_detections_follow_the_rule(seed, keep, score, iou):
    rule = Postprocess(score=score, iou=iou, keep=keep, variances=(0.3, 0.2, 0.1, 0.05))
    check_equal(*random_outputs(seed, 50, 4, steps=10), rule)


INFO = np.array([[100, 100, 1]], f32)


def plain(rois, scores, info=INFO, rule=RULE):
    """One class, no deltas: the boxes are the rois."""
    rois, scores = np.array(rois, f32).reshape(-1, 4), np.array(scores, f32)
    probability = np.stack([1 - scores, scores], axis=1).astype(f32)
    outputs = info, rois, probability, np.zeros((len(rois), 8), f32)
    check_equal(*outputs, rule)
    return detect(*outputs, rule)


def test_a_score_at_the_threshold_counts():
    at, below = f32(0.1), np.nextafter(f32(0.1), f32(0))
    assert plain([[0, 0, 9, 9], [50, 50, 59, 59]], [at, below]).scores.tolist() == [at]


def test_an_overlap_at_the_threshold_is_no_duplicate():
    half = [[0, 0, 9, 9], [0, 0, 9, 19]]  # 100 pixels of 200
    assert len(plain(half, [0.9, 0.8]).scores) == 2
    more = [[0, 0, 9, 10], [0, 0, 9, 19]]  # 110 of 200
    assert plain(more, [0.8, 0.9]).boxes.tolist() == [[0, 0, 10, 20]]


def test_of_identical_boxes_the_best_and_of_equal_scores_the_first_is_left():
    same = plain([[1, 2, 30, 40]] * 3, [0.5, 0.9, 0.7])
    assert same.scores.tolist() == [f32(0.9)]
    equal = plain([[0, 0, 20, 20], [0, 0, 21, 21]], [0.5, 0.5])
    assert equal.boxes.tolist() == [[0, 0, 21, 21]]


def test_a_box_reaches_its_last_pixel_and_stays_in_the_image():
    got = plain([[-20, 10, 3, 200]], [0.9])
    assert got.boxes.tolist() == [[0, 10, 4, 90]]
    assert got.to_json()["detections"] == [
        {"category_id": 1, "name": None, "bbox": [0.0, 10.0, 4.0, 90.0], "score": pytest.approx(0.9)}
    ]


def test_boxes_are_clipped_in_the_scaled_frame_and_then_scaled_back():
    got = plain([[10, 20, 500, 500]], [0.9], info=np.array([[100, 200, 2]], f32))
    assert got.boxes.tolist() == [[5, 10, (199 - 10) / 2 + 1, (99 - 20) / 2 + 1]]


def test_nothing_found():
    assert len(plain([], []).scores) == 0
    assert len(plain([[0, 0, 9, 9]], [0.05]).scores) == 0
    assert plain([], []).to_json()["detections"] == []


def test_background_is_no_class():
    probability = np.array([[0.9, 0.05, 0.05]], f32)
    got = detect(INFO, np.array([[0, 0, 9, 9]], f32), probability, np.zeros((1, 12), f32))
    assert len(got.scores) == 0


@pytest.mark.parametrize("count", [99, 100, 101])
def test_at_most_a_hundred_unless_scores_are_equal(count):
    rois = [[12 * (i % 20), 12 * (i // 20), 12 * (i % 20) + 9, 12 * (i // 20) + 9] for i in range(count)]
    info = np.array([[400, 400, 1]], f32)
    assert len(plain(rois, np.linspace(0.2, 0.9, count), info).scores) == min(count, 100)
    assert len(plain(rois, np.full(count, 0.5), info).scores) == count


def test_boxes_without_an_area_are_no_reason_to_warn():
    """A box may shrink to nothing: its area with the +1 convention is 0, and of two such the overlap is 0 / 0."""
    rois = np.array([[10, 10, 20, 20]] * 3, f32)
    deltas = np.full((3, 8), -4000, f32)
    deltas[:, [0, 1, 4, 5]] = 0
    probability = np.array([[0, 0.9], [0, 0.8], [0, 0.7]], f32)
    assert check_equal(INFO, rois, probability, deltas) == 1


def test_names_are_those_of_the_classes():
    probability = np.array([[0, 0.9, 0.8, 0.7]], f32)
    got = detect(INFO, np.array([[0, 0, 9, 9]], f32), probability, np.zeros((1, 16), f32), names={1: "Tower", 3: "Car"})
    assert got.names == ("Tower", None, "Car")


@pytest.mark.parametrize("name", ["rois", "probability", "deltas"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_an_error(name, value):
    outputs = {
        "rois": np.array([[0, 0, 9, 9]], f32),
        "probability": np.array([[0.1, 0.9]], f32),
        "deltas": np.zeros((1, 8), f32),
    }
    outputs[name][0, -1] = value
    with pytest.raises(SessionError, match=f"the model's {name} has values that are not finite"):
        decode_rois(RULE, {"im_info": INFO}, outputs, {})


def test_a_delta_grows_a_box_no_more_than_the_original_allows():
    got = decode_boxes(np.array([[0, 0, 9, 9]], f32), np.array([[0, 0, 50, 1]], f32))
    width, height = (got[0, 2:] - got[0, :2] + 1).tolist()
    assert width == pytest.approx(10 * 1000 / 16, rel=1e-5)
    assert height == pytest.approx(10 * math.e, rel=1e-5)


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    count=st.integers(0, 80),
    groups=st.integers(1, 5),
    steps=st.sampled_from([1, 3, 1000]),
    keep=st.sampled_from([1, 5, 1000]),
    iou=st.sampled_from([0.0, 0.3, 0.5, 0.7, 1.0]),
    block=st.sampled_from([1, 3, 16, 128]),
)
def test_nms_of_all_groups_at_once_is_that_of_each(seed, count, groups, steps, keep, iou, block):
    rng = np.random.default_rng(seed)
    corners = rng.integers(0, 12, (count, 2))
    boxes = np.hstack([corners, corners + rng.integers(-1, 12, (count, 2))]).astype(f32)
    group = rng.integers(0, groups, count)
    scores = np.sort(rng.integers(1, steps + 1, count) / f32(steps)).astype(f32)[::-1]
    wanted = []
    for each in range(groups):
        (members,) = np.where(group == each)
        wanted += members[original_nms(boxes[members], iou)].tolist()
    least = sorted(scores[wanted])[-keep] if len(wanted) > keep else 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(postprocess, "BLOCK", block)
        got = nms(boxes, group, scores, dataclasses.replace(RULE, iou=iou, keep=keep))
    assert got.tolist() == [position for position in sorted(wanted) if scores[position] >= least]


@pytest.mark.parametrize("classes", [1, 9, 400])
def test_detections_of_a_full_head(classes):
    """1,000 rois by 501 classes, thousands of which pass."""
    im_info, rois, _, deltas = random_outputs(3, 1000, 501, spread=0.5)
    rng = np.random.default_rng(3)
    logits = rng.normal(size=(1000, 501))
    for _ in range(3):
        logits[np.arange(1000), rng.integers(1, classes + 1, 1000)] = rng.normal(10, 0.3, 1000)
    probability = (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)).astype(f32)
    assert (probability[:, 1:] >= 0.1).sum() >= 1000
    assert check_equal(im_info, rois, probability, deltas) == 100


def test_classes_come_best_first_and_of_equal_ones_the_lower():
    probability = np.array([[0.1, 0.3, 0.1, 0.3, 0.2]], f32)
    got = to_classification(RULE, {"probability": probability}, 4, {3: "three"})
    assert got.indices.tolist() == [1, 3, 4, 0]
    assert got.indices.dtype == np.int64
    assert got.scores.dtype == f32
    np.testing.assert_array_equal(got.scores, probability[0, got.indices])
    assert got.names == (None, "three", None, None)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=40), st.integers(1, 50))
def test_top_is_a_stable_sort(steps, top):
    got = to_classification(RULE, {"probability": np.array([steps], f32) / 10}, top, {})
    assert got.indices.tolist() == sorted(range(len(steps)), key=lambda index: (-steps[index], index))[:top]


def test_logits_become_probabilities():
    logits = np.array([[2.0, -1.0, 700.0, 699.0]], f32)
    got = to_classification(dataclasses.replace(RULE, softmax=True), {"probability": logits}, 2, {})
    assert got.indices.tolist() == [2, 3]
    np.testing.assert_allclose(got.scores, [1 / (1 + np.exp(-1)), 1 / (1 + np.exp(1))], rtol=1e-6)


def test_more_classes_than_there_are():
    assert len(to_classification(RULE, {"probability": np.ones((1, 3), f32)}, 5, {}).indices) == 3


@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_a_probability_or_embedding_that_is_not_finite_is_an_error(value):
    values = np.array([[0.5, value]], f32)
    with pytest.raises(SessionError, match="probability has values that are not finite"):
        to_classification(RULE, {"probability": values}, 1, {})
    with pytest.raises(SessionError, match="embedding has values that are not finite"):
        to_embedding(RULE, {"embedding": values})


def test_an_embedding_is_left_as_it_is_or_divided_by_its_length():
    outputs = {"embedding": np.array([[3, 4]], np.float16)}
    plain_vector = to_embedding(RULE, outputs).vector
    assert plain_vector.tolist() == [3, 4]
    assert plain_vector.dtype == f32
    unit = to_embedding(Postprocess(normalise=True), outputs).vector
    np.testing.assert_allclose(unit, [0.6, 0.8], rtol=1e-6)
    assert unit.dtype == f32
    zero = to_embedding(Postprocess(normalise=True), {"embedding": np.zeros((1, 2), f32)}).vector
    assert zero.tolist() == [0, 0]


def test_cosine_is_clamped():
    a, b = np.array([1, 0], f32), np.array([1, 1], f32)
    assert cosine(a, a) == 1.0
    assert cosine(a, b) == pytest.approx(math.sqrt(0.5))
    assert cosine(a, -b) == 0.0
    assert cosine(a, 0 * a) == 0.0
    assert cosine(0 * a, 0 * a) == 0.0


@given(st.integers(0, 10_000), st.floats(1e-18, 1e18))
def test_cosine_is_that_of_float64_at_any_length(seed, length):
    a, b = np.random.default_rng(seed).normal(size=(2, 512)).astype(f32)
    wanted = np.dot(a.astype(float), b.astype(float)) / math.sqrt(
        float((a.astype(float) ** 2).sum()) * float((b.astype(float) ** 2).sum())
    )
    assert cosine(a * f32(length), b) == pytest.approx(min(max(wanted, 0), 1), abs=1e-5)
    assert 0 <= cosine(a, a * f32(length)) <= 1
    assert cosine(a, a * f32(length)) == pytest.approx(1, abs=1e-5)


def test_what_is_computed_of_half_precision_is_computed_in_float32():
    """Exponentials of 100,000 classes sum to more than half precision knows; so do the squares of large values."""
    logits = np.r_[np.float16(9), np.ones(99_999, np.float16)][np.newaxis]
    found = to_classification(Postprocess(softmax=True), {"probability": logits}, 1, {})
    assert found.scores[0] == pytest.approx(np.exp(8) / (np.exp(8) + 99_999), rel=1e-5)
    vector = to_embedding(Postprocess(normalise=True), {"embedding": np.full((1, 64), 60_000, np.float16)}).vector
    np.testing.assert_allclose(vector, 0.125, rtol=1e-6)
    assert vector.dtype == np.float32


def test_a_norm_does_not_overflow():
    vector = to_embedding(Postprocess(normalise=True), {"embedding": np.full((1, 64), 1e30, np.float32)}).vector
    np.testing.assert_allclose(vector, 0.125, rtol=1e-6)
