import math

import numpy as np
import pytest

from landmark_onnx.verification.tolerance import Agreement, agreement, values_agreement, worst

RNG = np.random.default_rng(0)
VECTOR = RNG.normal(size=(3, 512)).astype(np.float32)
ROIS = np.column_stack([np.arange(200), np.arange(200), np.arange(200) + 20, np.arange(200) + 30]).astype(np.float32)
PROBABILITY = RNG.dirichlet(np.ones(11), 200).astype(np.float32)
DETECTOR = {"rois": ROIS, "probability": PROBABILITY}


def test_equal_values_agree():
    measured = agreement("retrieval", {"embedding": VECTOR}, {"embedding": VECTOR.copy()})
    assert (measured.max_abs, measured.max_rel, measured.matched) == (0, 0, 1)
    assert measured.cosine == pytest.approx(1, abs=1e-12)
    assert measured.shortfall("retrieval") is None


def test_figures():
    wanted = np.array([[100, 1, 0.001], [3, 4, 0]], np.float32)
    got = np.array([[101, 1, 0.002], [4, 3, 0]], np.float32)
    measured = values_agreement(wanted, got)
    assert measured.max_abs == pytest.approx(1)
    assert measured.max_rel == pytest.approx(1 / 3), (
        "0.001 is below a thousandth of 100, so its error counts as that of 0.1"
    )
    assert measured.cosine == pytest.approx(24 / 25), "the worst row's"


@pytest.mark.parametrize(("angle", "good"), [(0.0044, True), (0.0046, False)])
def test_the_cosine_must_reach_its_limit(angle, good):
    wanted = np.array([[1, 0]], np.float32)
    got = np.array([[math.cos(angle), math.sin(angle)]])
    for task in ("retrieval", "cls"):
        reason = values_agreement(wanted, got).shortfall(task)
        assert (reason is None) == good
        assert good or reason.startswith("cosine 0.99998")


@pytest.mark.parametrize("got", [VECTOR[:2], VECTOR[:, :9], np.full_like(VECTOR, np.nan), 0 * VECTOR, -VECTOR])
def test_answers_that_are_no_answer_do_not_agree(got):
    for task, name in (("retrieval", "embedding"), ("cls", "probability")):
        assert agreement(task, {name: VECTOR}, {name: got}).shortfall(task) is not None


def test_one_bad_row_is_enough():
    got = VECTOR.copy()
    got[1, :40] *= -1
    assert values_agreement(VECTOR, got).shortfall("retrieval") is not None


def test_nothing_agrees_with_nothing():
    empty = np.zeros((0, 5), np.float32)
    assert values_agreement(empty, empty) == Agreement(max_abs=0, max_rel=0, cosine=1)


def test_rois_match_in_any_order():
    order = RNG.permutation(len(ROIS))
    got = {"rois": ROIS[order] + 0.09, "probability": PROBABILITY[order]}
    measured = agreement("det", DETECTOR, got)
    assert measured.matched == 1
    assert measured.max_abs == 0
    assert measured.shortfall("det") is None


@pytest.mark.parametrize(("moved", "good"), [(2, True), (3, False)])
def test_enough_rois_must_match(moved, good):
    rois = ROIS.copy()
    rois[:moved] += 0.2
    measured = agreement("det", DETECTOR, {"rois": rois, "probability": PROBABILITY})
    assert measured.matched == pytest.approx(1 - moved / 200)
    assert measured.shortfall("det") == (None if good else "98.50% of the rois match, wanted 99%")


def test_probabilities_of_rois_that_do_not_match_do_not_count():
    rois, probability = ROIS.copy(), PROBABILITY.copy()
    rois[0] += 50.5
    probability[0] = 0
    measured = agreement("det", DETECTOR, {"rois": rois, "probability": probability})
    assert measured.max_abs == 0
    assert measured.shortfall("det") is None


@pytest.mark.parametrize(("error", "good"), [(0.9e-3, True), (1.1e-3, False), (math.nan, False)])
def test_probabilities_of_matched_rois_must_be_near(error, good):
    probability = PROBABILITY.copy()
    probability[7, 3] += error
    reason = agreement("det", DETECTOR, {"rois": ROIS, "probability": probability}).shortfall("det")
    assert (reason is None) == good
    assert good or "probabilities of matched rois differ by" in reason


@pytest.mark.parametrize("share", [0.5, 2])
def test_too_few_or_too_many_rois(share):
    order = np.resize(np.arange(200), int(200 * share))
    measured = agreement("det", DETECTOR, {"rois": ROIS[order], "probability": PROBABILITY[order]})
    assert measured.matched == pytest.approx(0.5, abs=0.01)
    assert measured.shortfall("det") is not None


def test_no_rois():
    nothing = {"rois": ROIS[:0], "probability": PROBABILITY[:0]}
    assert agreement("det", nothing, nothing).shortfall("det") is None
    assert agreement("det", nothing, DETECTOR).shortfall("det") is not None
    assert agreement("det", DETECTOR, nothing).shortfall("det") is not None


def test_no_roi_matches():
    measured = agreement("det", DETECTOR, {"rois": ROIS + 1000, "probability": PROBABILITY})
    assert measured.matched == 0
    assert measured.shortfall("det") is not None


def test_the_worst_of_several_runs():
    runs = [
        Agreement(max_abs=1, max_rel=5, cosine=0.9, matched=1),
        Agreement(max_abs=2, max_rel=4, cosine=1.0, matched=0.5),
    ]
    assert worst(runs) == Agreement(max_abs=2, max_rel=5, cosine=0.9, matched=0.5)
    lost = Agreement(max_abs=math.nan, max_rel=0, cosine=math.nan)
    for order in ([runs[0], lost], [lost, runs[0]]):
        assert math.isnan(worst(order).cosine)
        assert worst(order).shortfall("cls") is not None


def test_json_has_two_digits():
    measured = Agreement(max_abs=0.00012345, max_rel=1.999, cosine=0.123456789, matched=0.98765)
    assert measured.to_json() == {"max_abs": 0.00012, "max_rel": 2.0, "cosine": 0.1234568, "matched": 0.9877}
