"""Outputs that are not what the task says: refused in one line where they are declared, run or added."""

import dataclasses

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import fakes
from landmark_onnx.deploy.bundle import bundle, card_toml
from landmark_onnx.deploy.triton import Serving
from landmark_onnx.errors import ModelFileError, SessionError
from landmark_onnx.hub.add import add
from landmark_onnx.model import Classifier, Detector, Retriever
from landmark_onnx.runtime.backend import Port
from landmark_onnx.runtime.outputs import MOST_VALUES, check_declared, conform
from landmark_onnx.runtime.session import Session
from landmark_onnx.verification.verify import verify

RETRIEVAL, CLS, DET = (fakes.small_card(name) for name in (fakes.RETRIEVAL, fakes.CLS, fakes.DET))
MINE = {card.task: dataclasses.replace(card, name=f"my_{card.task}") for card in (RETRIEVAL, CLS, DET)}
FLOAT = "float32"


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("LANDMARK_ONNX_HOME", str(tmp_path / "store"))
    monkeypatch.setenv("LANDMARK_ONNX_CARDS", str(tmp_path / "cards"))
    (tmp_path / "cards").mkdir()


def foreign(path, nodes, output, *, task="retrieval", kind=TensorProto.FLOAT, batch="n", **tensors):
    """Somebody else's model, image (batch, 3, h, w) in, with nodes behind its block averages "flat" (N, 12)."""
    name = {"retrieval": "embedding", "cls": "probability"}[task]
    pool = [
        helper.make_node("Resize", ["image", "", "", "eight"], ["small"], mode="linear"),
        helper.make_node("AveragePool", ["small"], ["blocks"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Flatten", ["blocks"], ["flat"]),
    ]
    tensors |= {"eight": np.array([1, 3, 8, 8])}
    if batch != 1:
        sizes = [
            helper.make_node("Shape", ["image"], ["sides"], start=0, end=2),
            helper.make_node("Concat", ["sides", "eights"], ["eight"], axis=0),
        ]
        tensors = {key: value for key, value in tensors.items() if key != "eight"} | {"eights": np.array([8, 8])}
        pool = [*sizes, *pool]
    graph = helper.make_graph(
        [*pool, *nodes],
        "foreign",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 3, "h", "w"])],
        [helper.make_tensor_value_info(name, kind, output)],
        [numpy_helper.from_array(np.asarray(value), key) for key, value in tensors.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def node(op, *inputs, to, **attributes):
    return helper.make_node(op, list(inputs), [to], **attributes)


def adopt(path, task="retrieval"):
    card = path.with_suffix(".toml")
    card.write_text(card_toml(MINE[task]))
    return add(path, card_file=card)


UNFIT = {
    "a map": ([node("Identity", "small", to="embedding")], ["n", 3, 8, 8], FLOAT),
    "a map that does not say so": ([node("Identity", "small", to="embedding")], None, FLOAT),
    "tokens": ([node("Reshape", "flat", "shape", to="embedding")], ["n", 4, 3], FLOAT),
    "tokens that do not say so": ([node("Reshape", "flat", "shape", to="embedding")], None, FLOAT),
    "no batch": ([node("Reshape", "flat", "line", to="embedding")], None, FLOAT),
    "a batch of one, fixed inside": ([node("Reshape", "flat", "one", to="embedding")], ["n", 12], FLOAT),
    "the batch behind": ([node("Transpose", "flat", to="embedding", perm=[1, 0])], [12, "n"], FLOAT),
    "a number": ([node("ReduceMean", "flat", to="embedding", keepdims=0)], [], FLOAT),
    "whole numbers": ([node("Cast", "flat", to="embedding") for _ in "."], ["n", 12], "int64"),
    "too large": ([node("Tile", "flat", "much", to="embedding")], ["n", "d"], FLOAT),
    "nothing": ([node("Slice", "flat", "none", "none", "ones", to="embedding")], None, FLOAT),
}
CONSTANTS = {
    "shape": np.array([0, 4, 3]),
    "line": np.array([-1]),
    "one": np.array([1, -1]),
    "much": np.array([1, 1 + MOST_VALUES // 12]),
    "none": np.array([0]),
    "ones": np.array([1]),
}


@pytest.mark.parametrize("name", UNFIT)
def test_what_is_no_embedding_is_refused_when_it_is_added(tmp_path, name):
    nodes, output, kind = UNFIT[name]
    if kind == "int64":
        nodes[0].attribute.append(helper.make_attribute("to", TensorProto.INT64))
    used = {tensor: CONSTANTS[tensor] for each in nodes for tensor in each.input if tensor in CONSTANTS}
    if "none" in used:
        used["ones"] = CONSTANTS["ones"]
    path = foreign(
        tmp_path / "m.onnx", nodes, output, kind=getattr(TensorProto, kind.upper().replace("32", "")), **used
    )
    with pytest.raises((ModelFileError, SessionError)) as caught:
        adopt(path)
    assert str(caught.value).isprintable()
    assert "wanted" in str(caught.value)
    assert not list((tmp_path / "store").glob("models/*.onnx"))


def test_a_fixed_batch_inside_is_no_wrong_answer(tmp_path):
    """Alone each image has its answer; a batch is an error, never a row of all."""
    nodes = [node("Reshape", "flat", "one", to="embedding")]
    path = foreign(tmp_path / "m.onnx", nodes, ["n", 12], one=CONSTANTS["one"])
    alone = Retriever(path, card=MINE["retrieval"], batch_size=1)
    photos = [fakes.photo(seed=seed) for seed in range(2)]
    assert [answer.vector.shape for answer in alone(photos)] == [(12,), (12,)]
    with pytest.raises(SessionError, match=r"got \(1, 24\) for 2 images; its batch axis is fixed inside"):
        fakes.ask(alone.session, MINE["retrieval"], {"image": np.zeros((2, 3, 64, 64), np.float32)})


MIXED = {
    "turned": [node("Transpose", "flat", to="turned", perm=[1, 0]), node("Reshape", "turned", "rows", to="embedding")],
    "each the mean": [
        node("ReduceMean", "flat", to="mean", axes=[0], keepdims=1),
        node("Mul", "flat", "zero", to="nothing"),
        node("Add", "nothing", "mean", to="embedding"),
    ],
    "much the same, and swapped": [
        node("Slice", "flat", "end", "start", "axis", "back", to="swapped"),
        node("Add", "swapped", "much", to="embedding"),
    ],
}
MIXING = {
    "rows": np.array([-1, 12]),
    "zero": np.float32(0),
    "end": np.array([-1]),
    "start": np.array([-(2**31)]),
    "axis": np.array([0]),
    "back": np.array([-1]),
    "much": np.full((1, 12), 100, np.float32),
}


@pytest.mark.parametrize("how", MIXED)
def test_rows_that_are_mixed_in_a_batch_are_refused(tmp_path, how):
    """As many rows as images, but not each its own."""
    used = {name: MIXING[name] for each in MIXED[how] for name in each.input if name in MIXING}
    path = foreign(tmp_path / "m.onnx", MIXED[how], ["n", 12], **used)
    with pytest.raises(ModelFileError, match=r"an image's answer in a batch of 2 is not the one that it has alone"):
        adopt(path)


def test_a_length_that_depends_on_the_image_is_an_error(tmp_path):
    nodes = [
        node("AveragePool", "image", to="map", kernel_shape=[8, 8], strides=[8, 8]),
        node("Flatten", "map", to="embedding"),
    ]
    path = foreign(tmp_path / "m.onnx", nodes, ["n", "d"])
    with pytest.raises(SessionError, match="its size depends on the image's"):
        adopt(path)
    first, second = Retriever(path, card=MINE["retrieval"])([fakes.photo(90, 120), fakes.photo(64, 200)])
    assert first.vector.shape == (3 * 8 * 8,)
    assert "its size depends on the image's" in second.error


@pytest.mark.parametrize("task", ["retrieval", "cls"])
@pytest.mark.parametrize("batch", ["n", 1])
def test_a_pool_that_nothing_flattens_is_right_everywhere(tmp_path, task, batch):
    """(N, C, 1, 1), as SqueezeNet of ONNX's model zoo ends."""
    name = {"retrieval": "embedding", "cls": "probability"}[task]
    flat = foreign(tmp_path / "flat.onnx", [node("Identity", "flat", to=name)], ["n", 12], task=task, batch=batch)
    nodes = [node("Reshape", "flat", "pooled", to=name)]
    path = foreign(
        tmp_path / "m.onnx", nodes, [batch, 12, 1, 1], task=task, batch=batch, pooled=np.array([0, 12, 1, 1])
    )
    assert adopt(path, task).name == MINE[task].name
    verify(MINE[task].name)
    bundle([MINE[task].name], tmp_path / "bundle")
    bundle([MINE[task].name], tmp_path / "triton", serving=Serving())
    photos = [fakes.photo(seed=seed) for seed in range(3)]
    kind = Retriever if task == "retrieval" else Classifier
    for got, wanted in zip(kind(MINE[task].name)(photos), kind(flat, card=MINE[task])(photos), strict=True):
        if task == "retrieval":
            np.testing.assert_allclose(got.vector, wanted.vector, rtol=0, atol=1e-5)
        else:
            np.testing.assert_array_equal(got.indices, wanted.indices)


SICK = {
    "values that are not finite": [node("Log", "minus", to="embedding")],
    "nothing but zeros": [node("Mul", "flat", "zero", to="embedding")],
    "answers the same, to the bit": [
        node("Mul", "flat", "zero", to="none"),
        node("Add", "none", "more", to="embedding"),
    ],
}


@pytest.mark.parametrize("reason", SICK)
def test_a_model_that_is_blind_is_refused_when_it_is_added_and_verified(tmp_path, reason):
    constants = {"zero": np.float32(0), "more": np.arange(12, dtype=np.float32)}
    nodes = [node("Abs", "flat", to="size"), node("Neg", "size", to="minus"), *SICK[reason]]
    path = foreign(tmp_path / "m.onnx", nodes, ["n", 12], **constants)
    with pytest.raises(ModelFileError, match=reason):
        adopt(path)
    fakes.seal_model(onnx.load(path), tmp_path / "sealed.onnx", MINE["retrieval"])
    with pytest.raises(ModelFileError, match=f"{reason}|does not answer as"):
        verify(tmp_path / "sealed.onnx")


def test_a_detector_that_finds_nothing_is_sound(tmp_path):
    verify(fakes.make_det(tmp_path / "d.onnx", rois=0))
    verify(fakes.make_det(tmp_path / "e.onnx"))


@pytest.mark.parametrize(
    "shapes",
    [
        [(3, 5), (3, 2), (3, 8)],
        [(3, 4), (2, 2), (3, 8)],
        [(3, 4), (3, 2), (3, 4)],
        [(3, 4), (3, 2, 1), (3, 8)],
        [(1, 3, 4), (1, 3, 2), (1, 3, 8)],
        [(5000, 4), (5000, 5000), (5000, 20000)],
    ],
)
def test_a_detectors_outputs_belong_together(shapes):
    values = [np.broadcast_to(np.float32(1), shape) for shape in shapes]
    with pytest.raises(SessionError, match=r"wanted rois \(R, 4\), probability \(R, C\), deltas"):
        conform(DET, 1, values, "m.onnx")


def test_what_is_no_array_is_no_output():
    for value in ([{1: 0.5}], np.array(["a"]), np.zeros((1, 4), np.int64), np.float32(1)):
        with pytest.raises(SessionError, match="wanted floating-point values"):
            conform(CLS, 1, [value], "m.onnx")


@pytest.mark.parametrize(
    ("card", "shape", "kind", "fits"),
    [
        (CLS, (None, 7), FLOAT, True),
        (CLS, (1, 7), FLOAT, True),
        (CLS, (None, None, 1, None), "float16", True),
        (CLS, (), FLOAT, True),
        (CLS, (None, 0), FLOAT, False),
        (CLS, (None, MOST_VALUES + 1), FLOAT, False),
        (CLS, (None, 7, 2, 1), FLOAT, False),
        (CLS, (7,), FLOAT, False),
        (CLS, (None, 7), "seq(map(int64,tensor(float)))", False),
        (CLS, (None, 7), "bfloat16", False),
    ],
)
def test_what_a_file_declares(card, shape, kind, fits):
    ports = {"probability": Port(shape, kind)}
    if fits:
        check_declared(card, ports, "m.onnx")
    else:
        with pytest.raises(ModelFileError, match=r"^m\.onnx: probability: wanted "):
            check_declared(card, ports, "m.onnx")


def test_a_file_that_declares_it_is_refused_when_it_is_loaded(tmp_path):
    path = foreign(tmp_path / "m.onnx", UNFIT["a map"][0], ["n", 3, 8, 8])
    with pytest.raises(ModelFileError, match=r"embedding: wanted \(N, D\).*, got \(\?, 3, 8, 8\)"):
        Retriever(path, card=MINE["retrieval"])


def half(path, out):
    """The same model, its outputs in half precision."""
    model = fakes.unsealed(path)
    for value in model.graph.output:
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
        for each in model.graph.node:
            each.output[:] = [f"wide_{name}" if name == value.name else name for name in each.output]
        model.graph.node.append(node("Cast", f"wide_{value.name}", to=value.name, to_=0))
        del model.graph.node[-1].attribute[:]
        model.graph.node[-1].attribute.append(helper.make_attribute("to", TensorProto.FLOAT16))
    onnx.save(model, out)
    return out


def test_half_precision_is_widened_before_anything_is_computed(tmp_path):
    """100,000 logits of 1: in half precision their exponentials sum to infinity, and each score is 0."""
    path = foreign(
        tmp_path / "m.onnx",
        [
            node("ReduceMean", "flat", to="mean", axes=[1], keepdims=1),
            node("Mul", "mean", "zeros", to="none"),
            node("Add", "none", "logits", to="probability"),
        ],
        ["n", 100_000],
        task="cls",
        zeros=np.zeros((1, 100_000), np.float32),
        logits=np.r_[np.float32(9), np.ones(99_999, np.float32)][np.newaxis],
    )
    logits = dataclasses.replace(MINE["cls"], postprocess=dataclasses.replace(MINE["cls"].postprocess, softmax=True))
    answer = Classifier(half(path, tmp_path / "h.onnx"), card=logits)(fakes.photo())
    assert answer.scores.dtype == np.float32
    assert answer.scores[0] == pytest.approx(np.exp(8) / (np.exp(8) + 99_999), rel=1e-5)


def test_a_detector_in_half_precision(tmp_path):
    exact = fakes.make_det(tmp_path / "d.onnx")
    found = Detector(half(exact, tmp_path / "h.onnx"), card=DET)(fakes.photo())
    wanted = Detector(exact)(fakes.photo())
    assert (found.boxes.dtype, found.scores.dtype) == (np.float32, np.float32)
    np.testing.assert_allclose(found.boxes, wanted.boxes, rtol=0, atol=0.5)


def test_runs_are_float32_whatever_the_file_says(tmp_path):
    session = Session(half(fakes.make_retrieval(tmp_path / "r.onnx"), tmp_path / "h.onnx"))
    assert (
        fakes.ask(session, RETRIEVAL, {"image": np.ones((2, 3, 64, 64), np.float32)})["embedding"].dtype == np.float32
    )
