"""Static 8-bit quantisation of a folded graph, as QuantizeLinear and DequantizeLinear around the nodes that take part.

Activations are uint8 with a zero point, weights int8, symmetric and per output channel: what the kernels of ONNX
Runtime, oneDNN (OpenVINO) and TensorRT have in common. What takes part was chosen by measurement: see `PARTS`.
"""

import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from landmark_onnx.types import Array
from landmark_onnx_export.graphs.detector import ROIS, descendants, geometry
from landmark_onnx_export.quantization.biases import convolutions, correct_biases
from landmark_onnx_export.quantization.calibration import Range
from landmark_onnx_export.quantization.large_layers import LargeLayer, put_back, set_aside

PARTS = frozenset({"Conv", "Relu", "Clip", "Add", "Mul", "MaxPool", "Concat"})
"""Ops that take part. Global pools, the small layers of squeeze-and-excitation and the last layers do not: they cost no
time, and in 8 bits they took SE-ResNeXt152's cosine from 0.992 to 0.980. AveragePool does not: ONNX Runtime's 8-bit
kernel is so slow that Inception v4 took 0.47 of the fp32 time with it and 0.29 without."""

LARGE_LAYER = 1 << 22
"""Weights from which a matrix product takes part after all: reading them is what it takes, and a classifier of 200,000
classes has 400 million."""


def candidates(graph: onnx.GraphProto, rois: str = ROIS) -> tuple[str, ...]:
    """Names of the nodes that may be quantised, in the graph's order. rois: the output of that name, see `geometry`.

    Of a detector only the head behind RoIAlign, from its first convolutions on: it is most of the work, and noise in
    the features that proposals are made from gives other proposals.
    """
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    barred = geometry(graph, rois)
    found = tuple(node for node in graph.node if node.name not in barred and _takes_part(node, shapes))
    aligned = [name for node in graph.node if node.op_type == "RoiAlign" for name in node.output]
    if aligned:
        behind = descendants(graph, aligned)
        first = [node for node in found if node.name in behind and node.op_type == "Conv"]
        head = {node.name for node in first} | descendants(graph, [name for node in first for name in node.output])
        found = tuple(node for node in found if node.name in head)
    return tuple(node.name for node in found)


def _takes_part(node: onnx.NodeProto, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    if node.op_type in ("MatMul", "Gemm"):
        return math.prod(shapes.get(node.input[1], (0,))) >= LARGE_LAYER
    if node.op_type == "Conv":
        return node.input[1] in shapes
    data = node.input[:1] if node.op_type == "Clip" else node.input  # its bounds are constants
    return node.op_type in PARTS and not any(name in shapes for name in data)


def layers(graph: onnx.GraphProto, nodes: Collection[str]) -> tuple[str, ...]:
    """Those of `nodes` that have weights: what is left out when 8 bits are too few."""
    return tuple(node.name for node in graph.node if node.name in nodes and node.op_type in ("Conv", "MatMul", "Gemm"))


def without(graph: onnx.GraphProto, nodes: Collection[str], excluded: Collection[str]) -> list[str]:
    """`nodes` less the excluded layers and less what works on their outputs: these are not rounded for an addition."""
    exact: set[str] = set()
    left = []
    for node in graph.node:
        if node.name in excluded:
            exact.update(node.output)
        elif node.name in nodes:
            if node.op_type in PARTS - {"Conv"} and not exact.isdisjoint(node.input):
                exact.update(node.output if node.op_type in ("Relu", "Clip", "MaxPool") else ())
            else:
                left.append(node.name)
    return left


def tensors(graph: onnx.GraphProto, nodes: Collection[str]) -> tuple[str, ...]:
    """The activations that `nodes` read and write: each needs a range."""
    weights = {tensor.name for tensor in graph.initializer}
    found: dict[str, None] = {}
    for node in graph.node:
        if node.name in nodes:
            outputs = node.output if node.op_type in PARTS else ()
            found |= dict.fromkeys(name for name in (*node.input, *outputs) if name and name not in weights)
    hidden = _under_activation(graph, nodes)
    return tuple(name for name in found if name not in hidden)


def large_layers(graph: onnx.GraphProto, nodes: Collection[str]) -> tuple[str, ...]:
    """Those of `nodes` that take part for their size alone."""
    return tuple(node.name for node in graph.node if node.name in nodes and node.op_type in ("MatMul", "Gemm"))


def quantise(
    model: Path,
    ranges: Mapping[str, Range],
    means: Mapping[str, Array],
    nodes: Collection[str],
    large: Mapping[str, LargeLayer],
    *,
    reduce_range: bool,
) -> onnx.ModelProto:
    """The model with `nodes` in 8 bits; weights of large layers stay in files beside `model`.

    means: of the maps that convolutions read, the mean of each channel, (C,) float64.
    large: the large layers among all that may be in `nodes`.
    reduce_range: weights of 7 bits, for CPUs without VNNI, whose 16-bit sums of two products may overflow.
    """
    from onnxruntime.quantization.onnx_model import ONNXModel

    given = onnx.load(model, load_external_data=False)
    aside = set_aside(given.graph, large)
    onnx.load_external_data_for_model(given, str(model.parent))
    small = [name for name in nodes if name not in large]
    made = _quantised(given, ranges, means, small, reduce_range=reduce_range) if small else given
    put_back(made.graph, aside, {name: layer for name, layer in large.items() if name in nodes}, ranges)
    # The quantiser appends its nodes, and ONNX wants each behind what it reads.
    ONNXModel(made).topological_sort()
    return made


def _quantised(
    given: onnx.ModelProto,
    ranges: Mapping[str, Range],
    means: Mapping[str, Array],
    nodes: Collection[str],
    *,
    reduce_range: bool,
) -> onnx.ModelProto:
    from onnxruntime.quantization import QDQQuantizer, QuantType
    from onnxruntime.quantization.calibrate import TensorData

    known = dict(ranges) | {name: ranges[output] for name, output in _under_activation(given.graph, nodes).items()}
    bounds = {name: TensorData(lowest=np.float32(a), highest=np.float32(b)) for name, (a, b) in known.items()}
    kinds = sorted({node.op_type for node in given.graph.node if node.name in nodes})
    weights, activations = QuantType.QInt8, QuantType.QUInt8
    exact = convolutions(given.graph, nodes)
    options: dict[str, Any] = {}
    quantizer = QDQQuantizer(given, True, reduce_range, weights, activations, bounds, sorted(nodes), [], kinds, options)
    made: onnx.ModelProto = quantizer.quantize_model()
    correct_biases(made.graph, exact, means)
    return made


def _under_activation(graph: onnx.GraphProto, nodes: Collection[str]) -> dict[str, str]:
    """Tensors that only a Relu or Clip of `nodes` reads -> its output: 8 bits cut off by themselves what it does."""
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    makers = {name for node in graph.node if node.name in nodes for name in node.output}
    return {
        name: users[0].output[0]
        for name, users in readers.items()
        if name in makers and len(users) == 1 and users[0].op_type in ("Relu", "Clip") and users[0].name in nodes
    }
