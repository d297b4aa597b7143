"""Small convolutional networks with random weights, sealed as exports are: something to quantise and to halve."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from fakes import CLS, DET, RETRIEVAL, seal_model, small_card

CHANNELS, SIZE = 16, 96


def make_network(path: Path, task: str = "retrieval", *, seed: int = 0, wild: bool = False) -> Path:
    """Three residual blocks behind a stem; wild: channels of weights and activations that differ a thousandfold."""
    network = _Network(seed, wild)
    features = network.conv("image", 3, stride=2)
    for _ in range(3):
        features = network.block(features)
    if task == "det":
        model = network.detector(features)
        return seal_model(model, path, small_card(DET, size=SIZE, max_side=2 * SIZE))
    name, classes = ("embedding", 32) if task == "retrieval" else ("probability", 11)
    pooled = network.node("GlobalAveragePool", [features])
    flat = network.node("Flatten", [pooled])
    scores = network.node("MatMul", [flat, network.weight((CHANNELS, classes), 1.0)])
    network.node("Softmax" if task == "cls" else "Identity", [scores], name)
    model = network.model({"image": ["n", 3, "h", "w"]}, {name: ["n", classes]})
    return seal_model(model, path, small_card(CLS if task == "cls" else RETRIEVAL))


class _Network:
    def __init__(self, seed: int, wild: bool) -> None:
        self.random = np.random.default_rng(seed)
        self.wild = wild
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[TensorProto] = []

    def node(self, op: str, inputs: list[str], output: str = "", **attributes: object) -> str:
        name = f"{op}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [output or f"{name}.out"], name, **attributes))
        return output or f"{name}.out"

    def constant(self, values: np.ndarray) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def weight(self, shape: tuple[int, ...], scale: float) -> str:
        return self.constant((self.random.normal(size=shape) * scale).astype(np.float32))

    def conv(self, tensor: str, inputs: int, *, stride: int = 1, relu: bool = True) -> str:
        weights = self.random.normal(size=(CHANNELS, inputs, 3, 3)) / np.sqrt(4.5 * inputs)
        if self.wild:
            weights *= 10 ** self.random.uniform(-1.5, 1.5, (CHANNELS, 1, 1, 1))
        inputs_of = [tensor, self.constant(weights.astype(np.float32)), self.weight((CHANNELS,), 0.1)]
        made = self.node("Conv", inputs_of, pads=[1] * 4, strides=[stride] * 2)
        return self.node("Relu", [made]) if relu else made

    def block(self, tensor: str) -> str:
        branch = self.conv(self.conv(tensor, CHANNELS), CHANNELS, relu=False)
        return self.node("Relu", [self.node("Add", [tensor, branch])])

    def detector(self, features: str) -> onnx.ModelProto:
        """Rois at fixed shares of the image, moved a little by what a convolution of the features says."""
        start = self.random.uniform(0, 0.5, (12, 2))
        shares = np.concatenate([start, start + self.random.uniform(0.3, 0.5, (12, 2))], axis=1)
        sides = self.node("Gather", ["im_info", self.constant(np.array([1, 0, 1, 0]))], axis=1)
        moved = self.node("GlobalAveragePool", [self.conv(features, CHANNELS)])
        moved = self.node("ReduceMean", [moved], keepdims=0)
        corners = self.node("Mul", [self.constant(shares.astype(np.float32)), sides])
        self.node("Add", [corners, self.node("Tanh", [moved])], "rois")
        where = self.constant(np.zeros(12, np.int64))
        cut = self.node(
            "RoiAlign", [features, "rois", where], output_height=7, output_width=7, spatial_scale=0.5, sampling_ratio=2
        )
        flat = self.node("Flatten", [self.node("GlobalAveragePool", [self.block(cut)])])
        logits = self.node("MatMul", [flat, self.weight((CHANNELS, 5), 2.0)])
        self.node("Softmax", [logits], "probability")
        self.node("MatMul", [flat, self.weight((CHANNELS, 20), 0.1)], "deltas")
        outputs = {"rois": [12, 4], "probability": [12, 5], "deltas": [12, 20]}
        return self.model({"image": [1, 3, "h", "w"], "im_info": [1, 3]}, outputs)

    def model(self, inputs: dict[str, list[object]], outputs: dict[str, list[object]]) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "network",
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
            self.weights,
        )
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        onnx.checker.check_model(made)
        return made
