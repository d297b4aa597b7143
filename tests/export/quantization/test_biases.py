"""Biases after rounding: each channel keeps its mean."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from landmark_onnx_export.quantization import qdq

CHANNELS = 8
IMAGES = 4096


def convolution(folder, groups, bias):
    """A file of one convolution, (N, 8, 3, 3) -> (N, 8, 1, 1), and images for it whose pixels are whole numbers."""
    random = np.random.default_rng(0)
    values = {"w": random.normal(size=(CHANNELS, CHANNELS // groups, 3, 3)).astype(np.float32)}
    if bias:
        values["b"] = random.normal(size=CHANNELS).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", *values], ["y"], "only", group=groups)],
        "convolution",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", CHANNELS, 3, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", CHANNELS, 1, 1])],
        [numpy_helper.from_array(value, name) for name, value in values.items()],
    )
    path = folder / "convolution.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9), path)
    lightest = random.integers(50, 256, size=(1, CHANNELS, 1, 1))
    return path, np.rint(lightest * random.random((IMAGES, 1, 1, 1)) * np.ones((1, 1, 3, 3))).astype(np.float32)


def answers(model, images):
    return ReferenceEvaluator(model).run(None, {"x": images})[0].reshape(IMAGES, CHANNELS)


@pytest.mark.parametrize(("groups", "bias"), [(1, True), (2, True), (CHANNELS, True), (1, False), (CHANNELS, False)])
def test_each_channel_keeps_its_mean(tmp_path, groups, bias):
    path, images = convolution(tmp_path, groups, bias)
    exact = answers(onnx.load(path), images)
    most = float(np.abs(exact).max())
    ranges = {"x": (0.0, 255.0), "y": (-most, most)}

    def error(means):
        made = qdq.quantise(path, ranges, means, ["only"], {}, reduce_range=False)
        onnx.checker.check_model(made)
        return np.abs((answers(made, images) - exact).mean(axis=0)) / (2 * most / 255)

    plain, corrected = error({}), error({"x": images.mean(axis=(0, 2, 3))})
    assert (corrected < 0.05).all(), "of a step of the answer, which is rounded, too"
    assert plain.max() > 5 * corrected.max()
