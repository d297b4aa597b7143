"""Which layers suffer most from 8 bits: each one alone, fed with what fp32 feeds it."""

from collections.abc import Collection, Iterable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from landmark_onnx.types import Tensors
from landmark_onnx_export.quantization.calibration import plain_session

EIGHT = "eight."
"""Before the names of what belongs to the 8-bit copy of a layer."""


def noise(
    model: Path, quantised: onnx.ModelProto, layers: Collection[str], runs: Iterable[Tensors]
) -> dict[str, float]:
    """Layer -> energy of the error of its output by energy of the output, mean over the images.

    In one graph each layer stands beside a copy of itself in 8 bits, both fed by the fp32 one before it. `model` is the
    fp32 graph of `quantised`, and its folder takes one more file. Layers that are not in 8 bits have no entry.
    """
    doubled = onnx.load(model, load_external_data=False)
    outputs = {node.name: node.output[0] for node in doubled.graph.node if node.name in layers}
    copies = _copies(quantised.graph, layers)
    _add_copies(doubled.graph, quantised.graph, copies)
    names = _compare(doubled.graph, outputs, copies)
    target = model.with_name("doubled.onnx")
    onnx.save(doubled, target)
    session = plain_session(target)
    asked = [name for pair in names.values() for name in pair]
    energies = [np.array(session.run(asked, dict(fed)), np.float64).reshape(-1, 2) for fed in runs]
    shares = [np.divide(e, s, out=np.zeros_like(e), where=s > 0) for e, s in (pair.T for pair in energies)]
    return dict(zip(names, np.mean(shares, axis=0).tolist(), strict=True))


def _copies(graph: onnx.GraphProto, layers: Collection[str]) -> dict[str, list[onnx.NodeProto]]:
    """Layer -> its node in 8 bits, after the nodes that round its input and unpack its weights."""
    makers = {name: node for node in graph.node for name in node.output}

    def rounding(tensor: str) -> list[onnx.NodeProto]:
        node = makers.get(tensor)
        if node is None or node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            return []
        return [*rounding(node.input[0]), node]

    found = {}
    for node in graph.node:
        if node.name in layers and rounding(node.input[0]):
            found[node.name] = [*(before for name in node.input for before in rounding(name)), node]
    return found


def _compare(graph: onnx.GraphProto, outputs: dict[str, str], copies: Collection[str]) -> dict[str, tuple[str, str]]:
    """Add to the graph's outputs each layer's energy of error and of signal; their names."""
    found = {}
    for layer in copies:
        exact, error = outputs[layer], f"{EIGHT}error.{layer}"
        names = f"{error}.energy", f"{EIGHT}signal.{layer}"
        graph.node.append(helper.make_node("Sub", [f"{EIGHT}output.{layer}", exact], [error]))
        for tensor, name in zip((error, exact), names, strict=True):
            graph.node.append(helper.make_node("ReduceSumSquare", [tensor], [name], keepdims=0))
            graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, []))
        found[layer] = names
    return found


def _add_copies(graph: onnx.GraphProto, quantised: onnx.GraphProto, copies: dict[str, list[onnx.NodeProto]]) -> None:
    """Add the copies; a tensor they share is made once."""
    weights = {tensor.name: tensor for tensor in quantised.initializer}
    made: set[str] = set()
    nodes = []
    for layer, chain in copies.items():
        for node in chain:
            if node.output[0] in made and node is not chain[-1]:
                continue
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            copy.name = EIGHT + node.name
            ours = {name for before in chain for name in before.output} | set(weights)
            copy.input[:] = [EIGHT + name if name in ours else name for name in node.input]
            copy.output[0] = f"{EIGHT}output.{layer}" if node is chain[-1] else EIGHT + node.output[0]
            for name in node.input:
                if name in weights and name not in made:
                    tensor = graph.initializer.add()
                    tensor.CopyFrom(weights[name])
                    tensor.name = EIGHT + name
                    made.add(name)
            made.add(node.output[0])
            nodes.append(copy)
    graph.node.extend(nodes)
