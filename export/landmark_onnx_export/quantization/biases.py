"""Biases that make up for what rounded weights add to the mean of each channel.

Source: Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction (2019), section 4.2, with
the means that real images have.
"""

from collections.abc import Collection, Mapping

import numpy as np
import onnx
from onnx import numpy_helper

from landmark_onnx.types import Array


def convolutions(graph: onnx.GraphProto, nodes: Collection[str]) -> dict[str, tuple[str, Array]]:
    """Of each convolution in `nodes` what it reads and its weights; one without a bias gets a bias of zeros."""
    weights = {tensor.name: tensor for tensor in graph.initializer}
    found = {}
    for node in graph.node:
        if node.op_type == "Conv" and node.name in nodes:
            found[node.name] = node.input[0], numpy_helper.to_array(weights[node.input[1]])
            if len(node.input) == 2:
                node.input.append(f"{node.name}.bias")
                zeros = np.zeros(len(found[node.name][1]), np.float32)
                graph.initializer.append(numpy_helper.from_array(zeros, node.input[2]))
    return found


def correct_biases(graph: onnx.GraphProto, exact: Mapping[str, tuple[str, Array]], means: Mapping[str, Array]) -> None:
    """Change the int32 biases of a graph in 8 bits.

    exact: what `convolutions` said before. means: of tensors, the mean of each channel, (C,); who reads one without
    them is left as it is. Padding counts as an average pixel.
    """
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    unpacked = {node.output[0]: node.input for node in graph.node if node.op_type == "DequantizeLinear"}
    for node in graph.node:
        if node.name not in exact or exact[node.name][0] not in means:
            continue
        source, weights = exact[node.name]
        rounded, scale = (numpy_helper.to_array(tensors[name]) for name in unpacked[node.input[1]][:2])
        lost = (weights - rounded * scale.reshape(-1, *[1] * (weights.ndim - 1))).sum(
            axis=tuple(range(2, weights.ndim))
        )
        groups = len(means[source]) // lost.shape[1]
        shift = np.einsum("goi,gi->go", lost.reshape(groups, -1, lost.shape[1]), means[source].reshape(groups, -1))
        bias, unit = (tensors[name] for name in unpacked[node.input[2]][:2])
        most = np.iinfo(np.int32)
        steps = numpy_helper.to_array(bias) + np.rint(shift.reshape(-1) / numpy_helper.to_array(unit))
        bias.CopyFrom(numpy_helper.from_array(np.clip(steps, most.min, most.max).astype(np.int32), bias.name))
