import dataclasses
import math

import numpy as np
import pytest

from fakes import CLS, DET, RETRIEVAL, small_card
from landmark_onnx.results import Detections
from landmark_onnx.verification.answers import Likeness, compare, iou, matches


def detections(boxes, classes, scores):
    count = len(boxes)
    return Detections(
        boxes=np.array(boxes, np.float32).reshape(count, 4),
        classes=np.array(classes),
        scores=np.array(scores, np.float32),
        names=(None,) * count,
    )


def test_boxes_match_one_to_one():
    box, near, far = [0, 0, 10, 10], [1, 0, 10, 10], [40, 40, 10, 10]
    wanted = detections([box, near, far], [1, 1, 2], [0.9, 0.8, 0.7])
    assert matches(wanted, wanted) == 3
    assert matches(wanted, detections([box], [1], [0.9])) == 1
    assert matches(wanted, detections([box, near, far], [1, 1, 1], [1, 1, 1])) == 2
    assert matches(wanted, detections([], [], [])) == 0
    assert matches(detections([], [], []), wanted) == 0
    assert iou(np.array(box), np.array([near]))[0] == pytest.approx(9 / 11)


def test_detector_without_boxes_does_not_pass():
    nothing = Likeness(images=3, matched=1.0, extra=0.0, boxes=0)
    assert "nothing to compare" in (nothing.shortfall(small_card(DET), 0.0) or "")
    card = small_card(RETRIEVAL)
    assert Likeness(images=1, cosine=math.nan).shortfall(card, 0.5), "no number"
    assert not Likeness(images=1, cosine=0.5).shortfall(card, 0.5)


@pytest.mark.parametrize(
    ("name", "figures"),
    [
        (RETRIEVAL, {"images": 2, "cosine": 0.8, "cosine_min": 0.6}),
        (CLS, {"images": 2, "cosine": 0.8, "cosine_min": 0.6, "top1": 0.5, "top5_error": 0.4}),
    ],
)
def test_answers_are_compared_photo_by_photo(name, figures):
    first, turned = np.array([1.0, 0.0], np.float32), np.array([0.6, 0.8], np.float32)
    assert compare(small_card(name), [first, first], [first, turned]).to_json() == figures


@pytest.mark.parametrize("logits", [False, True])
def test_the_five_best_classes_keep_their_probabilities(logits):
    card = small_card(CLS)
    card = dataclasses.replace(card, postprocess=dataclasses.replace(card.postprocess, softmax=logits))
    rows = np.array([[0.3, 0.2, 0.15, 0.12, 0.1, 0.08, 0.05], [0.3, 0.23, 0.15, 0.12, 0.1, 0.05, 0.05]])
    moved = np.array([0.3, 0.2, 0.15, 0.12, 0.1, 0.01, 0.12])  # of classes that are none of the five best
    wanted, got, elsewhere = (np.log(row) + 7 if logits else row for row in (*rows, moved))
    assert compare(card, [wanted], [elsewhere]).top5_error == pytest.approx(0, abs=1e-9)
    found = compare(card, [wanted, wanted], [got, wanted])
    assert found.top5_error == pytest.approx(0.015)
    assert found.top1 == 1
    assert found.shortfall(card, 0.9, 0.02) is None
    assert found.shortfall(card, 0.9, 0.01) == "top5_error 0.01500 is above the bound of 0.01"
    assert compare(card, [wanted], [wanted * math.nan]).shortfall(card, 0, 0.9)


def test_two_classes_are_compared_as_well():
    row = np.array([0.25, 0.75])
    assert compare(small_card(CLS), [row], [row[::-1]]).to_json()["top5_error"] == 0.5


def test_boxes_found_again_are_a_share_of_all_photos_boxes():
    one, none = detections([[0, 0, 10, 10]], [1], [0.9]), detections([], [], [])
    two = detections([[0, 0, 10, 10], [40, 40, 10, 10]], [1, 1], [0.9, 0.8])
    found = compare(small_card(DET), [two, none], [one, one]).to_json()
    assert found == {"images": 2, "matched": 0.5, "extra": 0.5, "boxes": 2}
