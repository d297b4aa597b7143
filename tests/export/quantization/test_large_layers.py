"""Large last layers in 8 bits, whose weights go from file to file."""

import dataclasses
import io
import json
import sys
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from onnx import TensorProto, helper, numpy_helper

from fakes import photo
from landmark_onnx import cli
from landmark_onnx.cards.schema import ModelCard
from landmark_onnx.inference.preprocess import preprocess
from landmark_onnx.modelfile.metadata import read_metadata
from landmark_onnx.precision import FLOORS
from landmark_onnx.runtime.providers import ProviderRequest
from landmark_onnx.verification.answers import Photo, measure, runner
from landmark_onnx.verification.verify import verify
from landmark_onnx_export.graphs import saving
from landmark_onnx_export.quantization import large_layers, qdq, quantize
from landmark_onnx_export.quantization.large_layers import quantise_layers, steps, write_rounded
from networks import make_network

SCRIPTS = Path(__file__).parents[3] / "benchmarks" / "scripts"
SHAPES = arrays.array_shapes(min_dims=2, max_dims=2, max_side=9)
FINITE = st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=False)


@pytest.fixture
def centroids(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPTS)
    monkeypatch.delitem(sys.modules, "centroids", raising=False)
    import centroids

    return centroids


@given(
    weights=arrays.arrays(np.float32, SHAPES, elements=FINITE),
    axis=st.sampled_from([0, 1]),
    levels=st.sampled_from([63, 127]),
    rows=st.integers(1, 4),
)
def test_no_weight_is_off_by_more_than_half_a_step(weights, axis, levels, rows):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(large_layers, "BLOCK_BYTES", rows * weights[:1].nbytes)
        scales = steps(weights, axis, levels)
        file = io.BytesIO()
        write_rounded(weights, axis, scales, levels, file)
    whole = np.frombuffer(file.getvalue(), np.int8).reshape(weights.shape)
    assert scales.shape == (weights.shape[axis],)
    assert np.abs(whole).max() <= levels
    step = scales.astype(np.float64)
    step = step[:, None] if axis == 0 else step
    assert (np.abs(whole * step - weights) <= step * 0.5 * (1 + 1e-5)).all()
    most = np.abs(weights).max(axis=1 - axis)
    reached = np.abs(whole).max(axis=1 - axis)
    assert (reached[most > 1e-30] == levels).all(), "the largest weight of a class takes the last step"


def layer(folder, op, *, alpha=1.0, bias=None, transposed=False, nothing=False):
    """A file of one large layer, 12 features of values 0 to 4 -> 40 classes, weights beside it; and inputs."""
    random = np.random.default_rng(0)
    weights = random.normal(size=(12, 40)).astype(np.float32) * random.uniform(0.01, 10, 40).astype(np.float32)
    weights[:, 3] = 0 if nothing else weights[:, 3]
    values = {"w": np.ascontiguousarray(weights.T) if transposed else weights}
    if bias is not None:
        values["b"] = bias
    attributes = {"alpha": alpha, "transB": int(transposed)} if op == "Gemm" else {}
    graph = helper.make_graph(
        [helper.make_node(op, ["x", *values], ["y"], "last", **attributes)],
        "layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 12])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 40])],
        [numpy_helper.from_array(value, name) for name, value in values.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path = folder / "plain.onnx"
    onnx.save(model, path, save_as_external_data=True, location="plain.data", size_threshold=0)
    return path, weights, random.uniform(0, 4, (5, 12)).astype(np.float32)


def in_eight_bits(path, nodes=("last",)):
    """The file's large layer quantised, in a file beside it."""
    large = quantise_layers(path, ["last"], {"x": 4 / 255}, reduce_range=False)
    made = qdq.quantise(path, {"x": (0.0, 4.0)}, {}, nodes, large, reduce_range=False)
    written = saving.save_model(made, path.with_name("made.onnx"))
    onnx.checker.check_model(onnx.load(written.model))
    return written.model


BIAS = np.random.default_rng(1).normal(size=40).astype(np.float32)


@pytest.mark.parametrize(
    ("op", "how"),
    [
        ("MatMul", {}),
        ("Gemm", {}),
        ("Gemm", {"bias": BIAS}),
        ("Gemm", {"bias": BIAS.reshape(1, 40), "transposed": True}),
        ("Gemm", {"bias": BIAS * 1e9, "nothing": True}),
        ("Gemm", {"bias": BIAS[:1]}),
        ("Gemm", {"bias": BIAS, "alpha": 0.5}),
    ],
)
def test_a_layer_answers_as_it_did(tmp_path, op, how):
    path, weights, x = layer(tmp_path, op, **how)
    ort = pytest.importorskip("onnxruntime")
    wanted, got = (
        ort.InferenceSession(file, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
        for file in (path, in_eight_bits(path))
    )
    half = np.abs(weights).max(axis=0) / 127 / 2
    off = x.sum(axis=1, keepdims=True) * half + 12 * (4 / 255 / 2) * (np.abs(weights).max(axis=0) + half)
    bias = np.abs(how.get("bias", np.zeros(1))).reshape(-1)
    assert (np.abs(got - wanted) <= off * 1.01 + bias * 1e-6 + 1e-6).all()
    assert not np.array_equal(got, wanted)


def test_a_layer_that_stays_fp32_is_what_it_was(tmp_path):
    path, _, x = layer(tmp_path, "Gemm", bias=BIAS)
    ort = pytest.importorskip("onnxruntime")
    wanted, got = (
        ort.InferenceSession(file, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
        for file in (path, in_eight_bits(path, nodes=()))
    )
    np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("limit", [1 << 30, 0])
def test_weights_in_other_files_go_where_they_belong(tmp_path, monkeypatch, limit):
    monkeypatch.setattr(saving, "INLINE_LIMIT", limit)
    monkeypatch.setattr(saving, "SMALL", 1)
    monkeypatch.setattr(saving, "CHUNK", 100)
    path, weights, _ = layer(tmp_path, "Gemm", bias=BIAS)
    written = saving.save_model(onnx.load(path, load_external_data=False), tmp_path / "copy.onnx")
    assert (written.data is None) == (limit > 0)
    (tmp_path / "plain.data").unlink()
    found = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(written.model).graph.initializer}
    np.testing.assert_array_equal(found["w"], weights)
    np.testing.assert_array_equal(found["b"], BIAS)


def run_quantize(model, photos, *options):
    with pytest.raises(SystemExit) as left:
        cli.main(["quantize", str(model), "--calibrate", str(photos), "--json", *options])
    return left.value.code


def like_fp32(classes, model, folder, count, provider="cpu"):
    """How far the int8 file beside `model` agrees over `count` views that it has not seen."""
    card = ModelCard.from_dict(read_metadata(model)["card"], "card")
    views = [Photo(path, "") for path in sorted(classes.write_views(folder, count, seed=1).iterdir())]
    request = ProviderRequest(name=provider)
    return measure(card, views, runner(card, model), runner(card, model.with_name(f"{model.stem}.int8.onnx"), request))


def test_centroids_of_2000_classes(centroids, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(qdq, "LARGE_LAYER", 2000 * 256)
    monkeypatch.setattr(centroids, "NOISE", 40.0)
    classes = centroids.Classes(2000, width=256)
    model = centroids.write_classifier(classes, tmp_path / "centroids.onnx")
    numbers, views = classes.views(20, seed=2)
    run = runner(centroids.network_card(), model)
    best = [run(preprocess(centroids.network_card().preprocess, view))["probability"].argmax() for view in views]
    assert np.mean(np.equal(best, numbers)) >= 0.5, "the classifier knows its classes"
    assert run_quantize(model, classes.write_views(tmp_path / "views", 40)) == 0
    (report,) = json.loads(capsys.readouterr().out)
    made = tmp_path / "centroids.int8.onnx"
    recipe = read_metadata(made)["recipe"]
    assert report["layers"] == 2
    assert (recipe["bound"], report["bound"]) == (0.05, 0.05)
    assert report["agreement"]["top5_error"] <= 0.05
    kinds = {tensor.data_type for tensor in onnx.load(made).graph.initializer if np.prod(tensor.dims) >= 2000 * 256}
    assert kinds == {TensorProto.INT8}
    found = like_fp32(classes, model, tmp_path / "others", 60)
    assert found.top1 is not None
    assert found.top1 >= 0.95
    assert verify(made).agreement.cosine > 0.9999


def test_above_the_bound_nothing_is_written(tmp_path, monkeypatch, capsys):
    strict = dataclasses.replace(FLOORS["int8"], top5_error=-1.0)  # which no file holds
    monkeypatch.setattr(quantize, "FLOORS", {"int8": strict})
    model = make_network(tmp_path / "small.onnx", "cls")
    (tmp_path / "photos").mkdir()
    for seed in range(4):
        cv2.imwrite(str(tmp_path / "photos" / f"{seed}.png"), photo(96, 96, seed))
    assert run_quantize(model, tmp_path / "photos", "--floor", "0.1") == 1
    assert "is above the bound of -1" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "small.int8.onnx").exists()
    assert run_quantize(model, tmp_path / "photos", "--floor", "0.1", "--force") == 0
    recipe = read_metadata(tmp_path / "small.int8.onnx")["recipe"]
    assert (recipe["forced"], recipe["bound"]) == (True, -1)


def test_a_large_layer_is_ranked_among_the_others(centroids, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(qdq, "LARGE_LAYER", 300 * 64)
    classes = centroids.Classes(300, width=64)
    model = centroids.write_classifier(classes, tmp_path / "few.onnx")
    monkeypatch.setattr(large_layers, "WEIGHT_LEVELS", 3)  # coarse steps hurt it more than anything else
    options = ["--floor", "1", "--force", "--spare", "0.6"]
    assert run_quantize(model, classes.write_views(tmp_path / "views", 12), *options) == 0
    (excluded,) = json.loads(capsys.readouterr().out)[0]["excluded"]
    assert excluded.startswith("head")
    made = tmp_path / "few.int8.onnx"
    assert verify(made).agreement.cosine > 0.9999
    kinds = {tensor.data_type for tensor in onnx.load(made).graph.initializer if list(tensor.dims) == [64, 300]}
    assert kinds == {TensorProto.FLOAT}


@pytest.mark.slow
@pytest.mark.parametrize("provider", ["cpu", "openvino"])
def test_centroids_of_many_landmarks(centroids, tmp_path, provider, capsys):
    """A twentieth of a released classifier's: all of them take minutes, and are in benchmarks/results/*/class-head."""
    count = 10_000
    pytest.importorskip(provider) if provider == "openvino" else None
    classes = centroids.Classes(count)
    model = centroids.write_classifier(classes, tmp_path / "centroids.onnx")
    assert run_quantize(model, classes.write_views(tmp_path / "views", 160)) == 0
    assert json.loads(capsys.readouterr().out)[0]["bytes"] < 0.3 * count * 2048 * 4
    found = like_fp32(classes, model, tmp_path / "others", 250, provider)
    assert found.top1 is not None
    assert found.top1 >= 0.98
