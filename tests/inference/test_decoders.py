"""Detectors of each decoder against formulas of their own, from a photo to boxes on it, through real files."""

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

import fakes
from landmark_onnx.cards.schema import ModelCard, Postprocess, Preprocess
from landmark_onnx.errors import ModelFileError, SessionError
from landmark_onnx.hub.adopt import Adoption, adopt
from landmark_onnx.inference.decoders import to_detections
from landmark_onnx.inference.preprocess import preprocess
from landmark_onnx.model import Detector
from landmark_onnx.recognition.recognizer import FramingDetector
from landmark_onnx.runtime.detector_outputs import conform_boxes
from landmark_onnx.verification.verify import verify

SIZE, WIDTH = 32, 48
PAIR = {"im_shape": [1, 2], "scale_factor": [1, 2]}
RESIZES = {
    "exact": Preprocess(resize="exact", size=SIZE, width=WIDTH, interpolation="linear"),
    "corner": Preprocess(resize="letterbox", size=SIZE, width=WIDTH, interpolation="linear", pad_place="corner"),
    "centre": Preprocess(resize="letterbox", size=SIZE, width=WIDTH, interpolation="linear"),
    "crop": Preprocess(resize="exact", size=SIZE + 16, interpolation="linear", crop=SIZE),
}


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("LANDMARK_ONNX_HOME", str(tmp_path / "store"))
    monkeypatch.setenv("LANDMARK_ONNX_CARDS", str(tmp_path / "cards"))
    (tmp_path / "cards").mkdir()


def card(decoder, rule=RESIZES["exact"], *, inputs=(), **post):
    named = {name: name for name in inputs}
    post = Postprocess(decoder=decoder, **post)
    return ModelCard(name="mine", task="det", summary="", preprocess=rule, postprocess=post, inputs=named)


def detector(path, outputs, *, inputs=(), sides=(SIZE, WIDTH)):
    """A file that answers constants, each with a trace of the image's mean, so that photos have unlike answers."""
    nodes = [
        helper.make_node("ReduceMean", ["image"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "tiny"], ["trace"]),
    ]
    tensors = {"tiny": np.array(1e-6, np.float32)}
    values = []
    for name, value in outputs.items():
        tensors[f"{name}.value"] = value
        if value.dtype == np.float32:
            nodes.append(helper.make_node("Add", [f"{name}.value", "trace"], [name]))
        else:
            nodes.append(helper.make_node("Identity", [f"{name}.value"], [name]))
        values.append(helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape))
    graph = helper.make_graph(
        nodes,
        "detector",
        [
            helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, *sides]),
            *(helper.make_tensor_value_info(name, TensorProto.FLOAT, PAIR[name]) for name in inputs),
        ],
        values,
        [numpy_helper.from_array(value, name) for name, value in tensors.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def by_hand(rule, height, width, box):
    """One box x1, y1, x2, y2 of the network's image -> x, y, width, height on a photo, a number at a time."""
    if rule.resize == "letterbox":
        scale = min(SIZE / height, WIDTH / width)
        rows, columns = int(height * scale + 0.5), int(width * scale + 0.5)
        top, left = ((SIZE - rows) // 2, (WIDTH - columns) // 2) if rule.pad_place == "centre" else (0, 0)
    else:
        rows, columns = (SIZE, WIDTH) if not rule.crop else (SIZE + 16, SIZE + 16)
        top = left = 0 if not rule.crop else -8
    x1, x2 = (min(max((x - left) * width / columns, 0), width) for x in (box[0], box[2]))
    y1, y2 = (min(max((y - top) * height / rows, 0), height) for y in (box[1], box[3]))
    return x1, y1, x2 - x1, y2 - y1


BOXES = np.array([[4, 5, 20, 17], [0, 0, 47, 31], [10, 9, 30, 29], [-5, 3, 60, 40]], np.float32)
SCORES = np.array([0.9, 0.05, 0.4, 0.7], np.float32)
CLASSES = np.array([3, 1, 0, 3], np.int64)


def wanted(rule, photo, boxes=BOXES, scores=SCORES, classes=CLASSES, least=0.1):
    """By class, then by falling score."""
    found = [
        (int(kind), float(score), by_hand(rule, *photo.shape[:2], box))
        for kind, score, box in zip(classes, scores, boxes, strict=True)
        if score >= least
    ]
    return sorted(found, key=lambda each: (each[0], -each[1]))


def check(answer, expected):
    assert answer.classes.tolist() == [each[0] for each in expected]
    np.testing.assert_allclose(answer.scores, [each[1] for each in expected], rtol=0, atol=1e-5)
    np.testing.assert_allclose(answer.boxes, [each[2] for each in expected], rtol=0, atol=1e-3)


def made(decoder):
    """The outputs of a decoder that say `BOXES`, `SCORES` and `CLASSES`, or for detr the same boxes by queries."""
    if decoder == "boxes":
        return {"boxes": BOXES[np.newaxis], "scores": SCORES[np.newaxis], "classes": CLASSES[np.newaxis]}
    if decoder == "rows":
        rows = np.concatenate([CLASSES[:, np.newaxis], SCORES[:, np.newaxis], BOXES], axis=1).astype(np.float32)
        return {"rows": np.concatenate([rows, np.full((2, 6), -1, np.float32)])}
    centres, sizes = (BOXES[:, :2] + BOXES[:, 2:]) / 2, BOXES[:, 2:] - BOXES[:, :2]
    boxes = np.concatenate([centres, sizes], axis=1) / np.array([WIDTH, SIZE, WIDTH, SIZE], np.float32)
    logits = np.full((4, 5), -20, np.float32)
    logits[np.arange(4), CLASSES] = np.log(SCORES / (1 - SCORES))
    return {"logits": logits[np.newaxis], "boxes": boxes[np.newaxis].astype(np.float32)}


@pytest.mark.parametrize("place", RESIZES)
@pytest.mark.parametrize("decoder", ["boxes", "rows", "detr"])
def test_from_a_photo_to_boxes_on_it(decoder, place, tmp_path):
    rule = RESIZES[place]
    outputs = made(decoder)
    if decoder == "detr" and place == "crop":  # of 0..1 of a square
        outputs["boxes"] = outputs["boxes"] * np.array([WIDTH / SIZE, 1, WIDTH / SIZE, 1], np.float32)
    path = detector(tmp_path / "theirs.onnx", outputs, sides=(SIZE, SIZE) if place == "crop" else (SIZE, WIDTH))
    facts = card(decoder, rule)
    adopt(path, Adoption(card=facts))
    assert verify("mine").agreement.matched == 1
    model = Detector("mine")
    for height, width in ((90, 60), (33, 200), (SIZE, WIDTH)):
        photo = fakes.photo(height, width)
        check(model(photo), wanted(rule, photo))


def test_rows_of_the_photo_itself(tmp_path):
    """Paddle's detectors take the scale and put boxes back themselves."""
    path = detector(tmp_path / "theirs.onnx", made("rows"), inputs=["scale_factor", "im_shape"])
    photo = fakes.photo(90, 60)
    expected = [
        (kind, score, (x1, y1, min(x2, 60) - x1, min(y2, 90) - y1))
        for kind, score, (x1, y1, x2, y2) in ((0, 0.4, BOXES[2]), (3, 0.9, BOXES[0]), (3, 0.7, np.maximum(BOXES[3], 0)))
    ]
    check(Detector(path, card=card("rows", inputs=["scale_factor", "im_shape"]))(photo), expected)


@given(st.integers(2, 500), st.integers(2, 500), st.sampled_from(sorted(RESIZES)))
@settings(max_examples=40, deadline=None)
def test_what_paddles_detectors_are_told_of_the_image(height, width, place):
    rule = RESIZES[place]
    feeds = preprocess(rule, np.zeros((height, width, 3), np.uint8))
    (rows, columns), (down, across) = feeds["im_shape"][0], feeds["scale_factor"][0]
    assert (down, across) == (np.float32(rows) / np.float32(height), np.float32(columns) / np.float32(width))
    if place == "exact":
        assert (rows, columns) == (SIZE, WIDTH)
    elif rule.resize == "letterbox":
        scale = min(SIZE / height, WIDTH / width)
        assert (rows, columns) == (max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5)))


@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.integers(1, 6))
@settings(max_examples=40, deadline=None)
def test_detr_by_its_own_formula(seed, queries, classes):
    """A query may be of several classes; the best `keep` of all pairs stay."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(1, queries, classes)).astype(np.float32)
    boxes = rng.uniform(0.1, 0.9, (1, queries, 4)).astype(np.float32)
    facts = card("detr", score=0.5, keep=7)
    photo = np.zeros((77, 131, 3), np.uint8)
    outputs = conform_boxes(facts, (SIZE, WIDTH), [logits, boxes], "here")
    answer = to_detections(facts, preprocess(facts.preprocess, photo), outputs, {2: "two"})
    pairs = [
        (1 / (1 + np.exp(-float(logits[0, q, c]))), c, boxes[0, q]) for q in range(queries) for c in range(classes)
    ]
    best = sorted((pair for pair in pairs if pair[0] >= 0.5), key=lambda pair: -pair[0])[:7]
    best.sort(key=lambda pair: (pair[1], -pair[0]))
    assert answer.classes.tolist() == [pair[1] for pair in best]
    assert answer.names == tuple("two" if pair[1] == 2 else None for pair in best)
    for got, (_, _, (x, y, w, h)) in zip(answer.boxes, best, strict=True):
        left, right = max((x - w / 2) * 131, 0), min((x + w / 2) * 131, 131)
        top, bottom = max((y - h / 2) * 77, 0), min((y + h / 2) * 77, 77)
        np.testing.assert_allclose(got, [left, top, right - left, bottom - top], rtol=0, atol=1e-2)


@pytest.mark.parametrize("decoder", ["boxes", "rows", "detr"])
def test_a_detector_of_any_decoder_says_how_large_the_photo_is(decoder, tmp_path):
    path = detector(tmp_path / "theirs.onnx", made(decoder))
    photo = fakes.photo(90, 60)
    found = FramingDetector(path, card=card(decoder))(photo)
    assert found.frame == (60, 90)
    check(found, wanted(RESIZES["exact"], photo))


def test_nothing_found_is_an_answer(tmp_path):
    path = detector(tmp_path / "theirs.onnx", made("rows") | {"rows": np.full((3, 6), -1, np.float32)})
    assert Detector(path, card=card("rows"))(fakes.photo()).boxes.shape == (0, 4)


@pytest.mark.parametrize(
    ("decoder", "name", "value", "message"),
    [
        ("boxes", "boxes", np.zeros((1, 4, 5), np.float32), r"wants boxes \(R, 4\), scores .*, got \(1, 4, 5\)"),
        ("rows", "rows", np.zeros((7,), np.float32), r"wants rows \(R, 6\): class, .*, got \(7\)"),
        ("detr", "logits", np.zeros((2, 3, 4, 5), np.float32), r"wants logits \(Q, C\), .*, got \(2, 3, 4, 5\)"),
        ("boxes", "scores", CLASSES, "wanted float16, float32, float64, got int64"),
    ],
)
def test_outputs_of_another_decoder_are_refused_where_they_are_added(decoder, name, value, message, tmp_path):
    path = detector(tmp_path / "theirs.onnx", made(decoder) | {name: value})
    with pytest.raises(ModelFileError, match=rf"theirs\.onnx: {name}: .*{message}"):
        adopt(path, Adoption(card=card(decoder)))


@pytest.mark.parametrize(
    "values",
    [
        [BOXES, SCORES[:3], CLASSES],
        [np.stack([BOXES, BOXES]), SCORES, CLASSES],
        [BOXES, SCORES, np.array(["a", "b", "c", "d"])],
    ],
)
def test_runs_that_do_not_fit_are_errors(values):
    with pytest.raises(SessionError, match=r"here: postprocess\.decoder 'boxes' wants boxes"):
        conform_boxes(card("boxes"), (SIZE, WIDTH), values, "here")


def test_a_value_that_is_not_finite_is_an_error(tmp_path):
    broken = made("rows")
    broken["rows"][0, 2] = np.inf
    with pytest.raises(SessionError, match="boxes has values that are not finite"):
        Detector(detector(tmp_path / "theirs.onnx", broken), card=card("rows"))(fakes.photo())


@pytest.mark.parametrize("decoder", ["boxes", "rows"])
def test_a_class_that_is_no_number_is_an_error(decoder, tmp_path):
    broken = made(decoder)
    if decoder == "rows":
        broken["rows"][0, 0] = np.nan
    else:
        broken["classes"] = broken["classes"].astype(np.float32)
        broken["classes"][0, 0] = np.nan
    with pytest.raises(SessionError, match="classes has values that are not finite"):
        Detector(detector(tmp_path / "theirs.onnx", broken), card=card(decoder))(fakes.photo())
