"""Others' files with image inputs of many kinds: each answers as the same network with the usual input does."""

import dataclasses
import itertools

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import fakes
from landmark_onnx.cards.schema import ModelCard, Postprocess, Preprocess
from landmark_onnx.errors import ModelFileError
from landmark_onnx.hub.adopt import Adoption, adopt
from landmark_onnx.model import Retriever
from landmark_onnx.runtime.backend import Port
from landmark_onnx.runtime.inputs import ImageInput, filled
from landmark_onnx.verification.verify import verify

SIDE, DIM = 32, 6
RULE = Preprocess(resize="exact", size=SIDE, interpolation="linear")
GRAY = dataclasses.replace(RULE, colour="gray", mean=(0.5,), std=(0.25,))
KINDS = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16, "uint8": TensorProto.UINT8}


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("LANDMARK_ONNX_HOME", str(tmp_path / "store"))
    monkeypatch.setenv("LANDMARK_ONNX_CARDS", str(tmp_path / "cards"))
    (tmp_path / "cards").mkdir()


def card(rule=RULE, **more):
    return ModelCard(name="mine", task="retrieval", summary="", preprocess=rule, **more)


def network(path, rule=RULE, *, kind="float32", last=False, batch="n", opset=17, outputs=()):
    """Block means times weights, (N, 6); a file that takes bytes normalises them itself, in the rule's colour order."""
    channels = rule.channels
    shape = [batch, SIDE, SIDE, channels] if last else [batch, channels, SIDE, SIDE]
    planes = (1, channels, 1, 1)
    mean, std = np.zeros(channels), np.ones(channels)
    if kind == "uint8":
        mean, std = 255 * np.array(rule.mean), 255 * np.array(rule.std)
    weights = np.random.default_rng(3).normal(size=(channels * 16, DIM))
    tensors = {
        "mean": mean.reshape(planes),
        "std": std.reshape(planes),
        "weights": weights,
    }
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["pixels"], ["floats"], to=TensorProto.FLOAT),
            *([helper.make_node("Transpose", ["floats"], ["planes"], perm=[0, 3, 1, 2])] if last else []),
            helper.make_node("Sub", ["planes" if last else "floats", "mean"], ["centred"]),
            helper.make_node("Div", ["centred", "std"], ["normalised"]),
            helper.make_node("AveragePool", ["normalised"], ["blocks"], kernel_shape=[8, 8], strides=[8, 8]),
            helper.make_node("Flatten", ["blocks"], ["flat"]),
            helper.make_node("MatMul", ["flat", "weights"], ["features"]),
        ],
        "theirs",
        [helper.make_tensor_value_info("pixels", KINDS[kind], shape)],
        [
            *(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs),
            helper.make_tensor_value_info("features", TensorProto.FLOAT, [batch, DIM]),
        ],
        [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in tensors.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path)
    return path


NAMES = {"inputs": {"image": "pixels"}, "outputs": {"embedding": "features"}}
PHOTOS = [fakes.photo(50 + 7 * seed, 60, seed=seed) for seed in range(5)]


def vectors(path, facts, **options):
    return np.stack([answer.vector for answer in Retriever(path, card=facts, **options)(PHOTOS)])


@pytest.mark.parametrize(
    ("rule", "kind", "last", "batch"),
    [*itertools.product([RULE, GRAY, dataclasses.replace(RULE, colour="bgr")], KINDS, [False, True], ["n", 3])],
    ids=lambda value: value.colour if isinstance(value, Preprocess) else str(value),
)
def test_each_kind_of_input_gives_the_usual_answer(rule, kind, last, batch, tmp_path):
    facts = card(rule, **NAMES)
    wanted = vectors(network(tmp_path / "usual.onnx", rule), facts)
    path = network(tmp_path / "theirs.onnx", rule, kind=kind, last=last, batch=batch)
    tolerance = 2e-3 if kind == "float16" else 1e-5
    np.testing.assert_allclose(vectors(path, facts), wanted, rtol=0, atol=tolerance * np.abs(wanted).max())
    adopt(path, Adoption(card=facts))
    assert verify("mine").agreement.cosine > 0.999_99
    adopted = np.stack([answer.vector for answer in Retriever("mine")(PHOTOS)])
    np.testing.assert_allclose(adopted, vectors(path, facts), rtol=0, atol=1e-5)


@pytest.mark.parametrize("opset", range(9, 24))
def test_each_opset(opset, tmp_path):
    facts = card(**NAMES)
    path = network(tmp_path / "theirs.onnx", opset=opset)
    adopt(path, Adoption(card=facts))
    np.testing.assert_allclose(vectors(path, facts), vectors(network(tmp_path / "usual.onnx"), facts), atol=1e-5)


@pytest.mark.parametrize("kind", ["float16", "uint8"])
def test_openvino_takes_them_too(kind, tmp_path):
    pytest.importorskip("openvino")
    facts = card(**NAMES)
    path = network(tmp_path / "theirs.onnx", kind=kind, last=True, batch=2)
    wanted = vectors(path, facts, provider="cpu")
    np.testing.assert_allclose(vectors(path, facts, provider="openvino"), wanted, rtol=0, atol=5e-3)


def test_an_output_is_picked_by_name_among_several(tmp_path):
    path = network(tmp_path / "theirs.onnx", outputs=["blocks", "flat"])
    facts = card(inputs=NAMES["inputs"], outputs={"embedding": "flat"})
    assert vectors(path, facts).shape == (5, 48)
    wanted = vectors(network(tmp_path / "one.onnx"), card(**NAMES))
    np.testing.assert_allclose(vectors(path, card(**NAMES)), wanted, rtol=0, atol=1e-5)


def test_a_fixed_batch_is_filled():
    image = np.arange(7)[:, None, None, None]
    runs = [run["image"].ravel().tolist() for run in filled({"image": image}, 3)]
    assert runs == [[0, 1, 2], [3, 4, 5], [6, 6, 6]]
    assert [len(run["image"]) for run in filled({"image": image[:6]}, 3)] == [3, 3]


@pytest.mark.parametrize(
    ("made", "said", "message"),
    [
        (
            {},
            dataclasses.replace(RULE, size=40),
            r"the card's preprocess makes \(40, 40\), the file takes \(32, 32\)",
        ),
        (
            {},
            Preprocess(resize="short_side_floor", size=32, interpolation="linear"),
            r"preprocess\.resize 'short_side_floor' makes images of many sizes, the file takes \(32, 32\) alone",
        ),
        (
            {},
            GRAY,
            r"wanted \(N, 1, H, W\) or \(N, H, W, 1\) for preprocess\.colour 'gray', got \(\?, 3, 32, 32\)",
        ),
        (
            {"rule": GRAY, "last": True},
            RULE,
            r"wanted \(N, 3, H, W\) or \(N, H, W, 3\) for preprocess\.colour 'rgb', got \(\?, 32, 32, 1\)",
        ),
    ],
)
def test_what_the_card_says_and_the_file_contradicts_names_both(made, said, message, tmp_path):
    path = network(tmp_path / "theirs.onnx", **made)
    with pytest.raises(ModelFileError, match=rf"theirs\.onnx: pixels: .*{message}"):
        adopt(path, Adoption(card=card(said, **NAMES)))
    assert not list((tmp_path / "store").rglob("*.onnx"))


def test_a_type_that_is_none(tmp_path):
    path = network(tmp_path / "theirs.onnx")
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.DOUBLE
    onnx.save(model, path)
    with pytest.raises(ModelFileError, match="pixels: wanted values of float32, float16, uint8, got float64"):
        adopt(path, Adoption(card=card(**NAMES)))


def test_a_detector_runs_one_by_one():
    ports = {"image": Port((2, 3, None, None), "float32"), "im_info": Port((2, 3), "float32")}
    with pytest.raises(ModelFileError, match="image: wanted a batch of 1 or a free one for task det, got 2"):
        ImageInput.of(fakes.small_card(fakes.DET), ports, own=False, origin="det.onnx")


def tokens(path, shape=("n", 5, 4)):
    """(N, 5, 4): 20 of the block means, five tokens of four values."""
    sized = [0, *(side for side in shape[1:] if isinstance(side, int))]
    graph = helper.make_graph(
        [
            helper.make_node("AveragePool", ["image"], ["blocks"], kernel_shape=[8, 8], strides=[8, 8]),
            helper.make_node("Flatten", ["blocks"], ["flat"]),
            helper.make_node("Slice", ["flat", "start", "end", "axis"], ["some"]),
            helper.make_node("Reshape", ["some", "shape"], ["embedding"]),
        ],
        "tokens",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, list(shape))],
        [
            numpy_helper.from_array(np.array(value, np.int64), name)
            for name, value in {"start": [0], "end": [20], "axis": [1], "shape": sized}.items()
        ],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_tokens_are_pooled_as_the_card_says(tmp_path):
    path = tokens(tmp_path / "theirs.onnx")
    flat = vectors(tokens(tmp_path / "flat.onnx", ("n", 20)), card()).reshape(5, 5, 4)
    first = vectors(path, card(postprocess=Postprocess(pool="cls", dimension=4)))
    np.testing.assert_array_equal(first, flat[:, 0])
    mean = vectors(path, card(postprocess=Postprocess(pool="mean")))
    np.testing.assert_allclose(mean, flat.mean(axis=1), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "rule", "message"),
    [
        (
            ("n", 5, 4),
            Postprocess(),
            r'wanted \(N, D\).*got \(\?, 5, 4\); of tokens, postprocess\.pool = "cls" or "mean"',
        ),
        (("n", 20), Postprocess(pool="cls"), r"postprocess\.pool 'cls': wanted \(N, T, D\).*, got \(\?, 20\)"),
        (("n", 20), Postprocess(dimension=21), r"postprocess\.dimension: wanted 21, got 20 values"),
        (("n", 5, 4), Postprocess(pool="mean", dimension=5), r"postprocess\.dimension: wanted 5, got 4 values"),
    ],
)
def test_outputs_that_the_card_contradicts(shape, rule, message, tmp_path):
    with pytest.raises(ModelFileError, match=rf"theirs\.onnx: embedding: .*{message}"):
        adopt(tokens(tmp_path / "theirs.onnx", shape), Adoption(card=card(postprocess=rule)))


def test_a_batch_of_none_is_refused():
    with pytest.raises(ModelFileError, match=r"theirs\.onnx: image: wanted a batch of 1 or more, or a free one, got 0"):
        ImageInput.of(card(), {"image": Port((0, 3, SIDE, SIDE), "float32")}, own=False, origin="theirs.onnx")
