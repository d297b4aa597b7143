"""The large last layer of a classifier in 8 bits, quantised from file to file: it is never in memory whole.

200,000 classes of 2,048 features are 1.7 GB, of which ONNX Runtime's quantiser would hold several copies. The form is
that of all other layers: QuantizeLinear and DequantizeLinear around it, and a bias of 32 bits, without which ONNX
Runtime unpacks the weights at each run.
"""

import dataclasses
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import ExternalDataInfo

from landmark_onnx.types import Array, Float32, Float64
from landmark_onnx_export.quantization.calibration import LEVELS, Range

BLOCK_BYTES = 16 << 20
"""Of weights that are in memory at once."""

WEIGHT_LEVELS = 127
"""Steps from zero to the largest weight of a class."""

BIAS_LIMIT = 2.0**30
"""A bias is so many steps at most, of the 2^31 that 32 bits hold."""


@dataclasses.dataclass(frozen=True, slots=True)
class LargeLayer:
    """A layer whose weights were quantised. weights: int8, in a file beside the model. axis: of the classes.

    scales: (classes,) float32, what one step of a class is worth.
    """

    weights: TensorProto
    axis: int
    scales: Float32


def set_aside(graph: onnx.GraphProto, layers: Collection[str]) -> dict[str, TensorProto]:
    """Make the weights of these nodes inputs of the graph, so that nothing reads them; node -> what was there."""
    names = {node.name: node.input[1] for node in graph.node if node.name in layers}
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    kept = [tensor for tensor in graph.initializer if tensor.name not in names.values()]
    aside = {layer: tensors[name] for layer, name in names.items()}
    for tensor in {tensor.name: tensor for tensor in aside.values()}.values():
        graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    del graph.initializer[:]
    graph.initializer.extend(kept)
    return aside


def put_back(
    graph: onnx.GraphProto,
    aside: Mapping[str, TensorProto],
    made: Mapping[str, LargeLayer],
    ranges: Mapping[str, Range],
) -> None:
    """Undo `set_aside`: the layers of `made` in 8 bits, the others as they were. ranges: of what the layers read."""
    names = {tensor.name for tensor in aside.values()}
    inputs = [value for value in graph.input if value.name not in names]
    del graph.input[:]
    graph.input.extend(inputs)
    plain = {tensor.name: tensor for layer, tensor in aside.items() if layer not in made}
    graph.initializer.extend(plain.values())
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.name in made:
            nodes += _around(graph, node, made[node.name], ranges[node.input[0]])
        nodes.append(node)
    ordered = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(ordered)
    read = {name for node in ordered for name in node.input} | {value.name for value in graph.output}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in read]:
        graph.initializer.remove(tensor)


def quantise_layers(
    model: Path, layers: Collection[str], seen: Mapping[str, float], *, reduce_range: bool
) -> dict[str, LargeLayer]:
    """Write the weights of these nodes of a file as int8 into files beside it.

    seen: what the activations' finest step is worth, by tensor. reduce_range: 7 bits.
    """
    graph = onnx.load(model, load_external_data=False).graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    levels = WEIGHT_LEVELS // 2 if reduce_range else WEIGHT_LEVELS
    found: dict[str, LargeLayer] = {}
    for node in graph.node:
        if node.name not in layers:
            continue
        weights = _values(tensors[node.input[1]], model.parent)
        axis = 0 if _attribute(node, "transB", 0) else weights.ndim - 1
        bias = _bias(graph, node, weights.shape[axis], model.parent)
        least = 0.0 if bias is None else np.abs(bias) / (BIAS_LIMIT * seen[node.input[0]])
        scales = steps(weights, axis, levels, least)
        data = model.with_name(f"large{len(found)}.data")
        with data.open("wb") as file:
            write_rounded(weights, axis, scales, levels, file)
        made = TensorProto(name=f"{node.name}.weights", data_type=TensorProto.INT8, dims=weights.shape)
        made.data_location = TensorProto.EXTERNAL
        for key, value in {"location": data.name, "offset": 0, "length": data.stat().st_size}.items():
            made.external_data.add(key=key, value=str(value))
        found[node.name] = LargeLayer(made, axis, scales)
    return found


def steps(weights: Float32, axis: int, levels: int, least: "Float64 | float" = 0.0) -> Float32:
    """(classes,) float32: what one step of a class is worth, so that `levels` of them reach its largest weight.

    least: what it must be worth at least, so that the bias fits.
    """
    most = np.zeros(weights.shape[axis], np.float32)
    for start, block in _blocks(weights):
        if axis == 0:
            most[start : start + len(block)] = np.abs(block).max(axis=1)
        else:
            np.maximum(most, np.abs(block).max(axis=0), out=most)
    return np.maximum(np.maximum(most / levels, least), np.finfo(np.float32).tiny).astype(np.float32)


def write_rounded(weights: Float32, axis: int, scales: Float32, levels: int, file: BinaryIO) -> None:
    """Write each weight as the nearest number of steps, int8."""
    for start, block in _blocks(weights):
        step = scales[start : start + len(block), None] if axis == 0 else scales
        file.write(np.clip(np.rint(block / step), -levels, levels).astype(np.int8).tobytes())


def activation(bounds: Range) -> tuple[np.float32, np.uint8]:
    """Scale and zero point of uint8 values between `bounds`."""
    scale = max((bounds[1] - bounds[0]) / LEVELS, float(np.finfo(np.float32).tiny))
    return np.float32(scale), np.uint8(round(-bounds[0] / scale))


def _blocks(weights: Float32) -> Iterator[tuple[int, Float32]]:
    """Some rows at a time, and the number of the first."""
    rows = max(1, BLOCK_BYTES // (weights[:1].nbytes or 1))
    for start in range(0, len(weights), rows):
        yield start, np.asarray(weights[start : start + rows])


def _around(graph: onnx.GraphProto, node: onnx.NodeProto, layer: LargeLayer, bounds: Range) -> list[onnx.NodeProto]:
    """What comes before a node in 8 bits; its inputs become theirs."""
    scale, zero = activation(bounds)
    names = {key: f"{node.name}.{key}" for key in ("scale", "zero", "steps", "zeros", "rounded", "read", "real")}
    values: dict[str, Array] = {
        "scale": np.array(scale),
        "zero": np.array(zero),
        "steps": layer.scales,
        "zeros": np.zeros(len(layer.scales), np.int8),
    }
    bias = _bias(graph, node, len(layer.scales), Path())
    graph.initializer.append(layer.weights)
    graph.initializer.extend(numpy_helper.from_array(value, names[key]) for key, value in values.items())
    rule, each = [names["scale"], names["zero"]], [names["steps"], names["zeros"]]
    made = [
        helper.make_node("QuantizeLinear", [node.input[0], *rule], [names["rounded"]], names["rounded"]),
        helper.make_node("DequantizeLinear", [names["rounded"], *rule], [names["read"]], names["read"]),
        helper.make_node(
            "DequantizeLinear", [layer.weights.name, *each], [names["real"]], names["real"], axis=layer.axis
        ),
    ]
    node.input[0], node.input[1] = names["read"], names["real"]
    if bias is not None:
        made.append(_rounded_bias(graph, node, bias, layer.scales.astype(np.float64) * float(scale)))
    return made


def _rounded_bias(graph: onnx.GraphProto, node: onnx.NodeProto, bias: Float64, worth: Float64) -> onnx.NodeProto:
    """The bias in 32 bits. worth: (classes,), of one step."""
    names = [f"{node.name}.bias", f"{node.name}.bias_steps", f"{node.name}.bias_zeros"]
    worth = np.maximum(worth, np.finfo(np.float32).tiny).astype(np.float32)
    whole = np.clip(np.rint(bias / worth), -(2**31 - 1), 2**31 - 1).astype(np.int32)
    values: list[Array] = [whole, worth, np.zeros(len(bias), np.int32)]
    graph.initializer.extend(numpy_helper.from_array(*pair) for pair in zip(values, names, strict=True))
    node.input[2] = f"{node.name}.real_bias"
    return helper.make_node("DequantizeLinear", names, [node.input[2]], node.input[2], axis=0)


def _bias(graph: onnx.GraphProto, node: onnx.NodeProto, classes: int, folder: Path) -> Float64 | None:
    """(classes,) of a Gemm that adds it as it is; None without one. folder: where the graph's files are."""
    if len(node.input) < 3 or _attribute(node, "alpha", 1.0) != 1 or _attribute(node, "beta", 1.0) != 1:
        return None
    found = next((tensor for tensor in graph.initializer if tensor.name == node.input[2]), None)
    if found is None or np.prod(found.dims) != classes:
        return None
    return _values(found, folder).reshape(-1).astype(np.float64)


def _attribute(node: onnx.NodeProto, name: str, default: float) -> float:
    return next((float(helper.get_attribute_value(each)) for each in node.attribute if each.name == name), default)


def _values(tensor: TensorProto, folder: Path) -> Array:
    """The weights, mapped where they lie in a file."""
    if tensor.data_location != TensorProto.EXTERNAL:
        return numpy_helper.to_array(tensor)
    place = ExternalDataInfo(tensor)
    kind = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    return np.memmap(folder / place.location, kind, "r", place.offset or 0, tuple(tensor.dims))
