"""Half precision: weights and activations in fp16, inputs and outputs as they were, a detector's geometry in fp32."""

from pathlib import Path

import onnx
from onnx import TensorProto

from landmark_onnx_export.graphs.detector import ROIS, geometry
from landmark_onnx_export.quantization.reduced_network import ReducedNetwork


def halve(path: Path, rois: str = ROIS) -> ReducedNetwork:
    """The model of a folded file, whose nodes have names of their own, in fp16. rois: as of `geometry`.

    Weights below fp16's least number become that number, those above its largest that one: `convert_float_to_float16`
    of onnxruntime.transformers.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16

    # Types are inferred without the weights, which may be more than protobuf takes; casts go where types change.
    model = onnx.shape_inference.infer_shapes(onnx.load(path, load_external_data=False))
    onnx.load_external_data_for_model(model, str(path.parent))
    kept = sorted(geometry(model.graph, rois))
    own = frozenset(node.name for node in model.graph.node)
    made: onnx.ModelProto = convert_float_to_float16(
        model, keep_io_types=True, disable_shape_infer=True, node_block_list=kept
    )
    _straighten(made.graph, own)
    return ReducedNetwork(model=made, method=None, excluded=dict.fromkeys(kept, "geometry"), layers=0)


def _straighten(graph: onnx.GraphProto, own: frozenset[str]) -> None:
    """Have what is cast to fp16 and straight back stay fp32: the converter does that between any two nodes it kept.

    own: names of the nodes that are not the converter's. A graph with graphs inside stays as it is.
    """
    if any(attribute.HasField("g") for node in graph.node for attribute in node.attribute):
        return
    makers = {name: node for node in graph.node for name in node.output}
    outputs = {value.name for value in graph.output}
    origins: dict[str, str] = {}
    for node in graph.node:
        before = makers.get(node.input[0]) if _casts_to(node, TensorProto.FLOAT, own) else None
        if before is not None and _casts_to(before, TensorProto.FLOAT16, own):
            origins[node.output[0]] = before.input[0]
    called: dict[str, str] = {}
    for name in sorted(outputs & set(origins)):
        origin = _origin(name, origins)
        if origin in makers and origin not in called | dict.fromkeys(outputs):
            called[origin] = name
            makers[name].output[0] = f"{name}_unread"
    for node in graph.node:
        origin_of = [_origin(name, origins) for name in node.input]
        node.input[:] = [called.get(name, name) for name in origin_of]
        node.output[:] = [called.get(name, name) for name in node.output]
    while dead := _unread(graph, outputs, own):
        for node in dead:
            graph.node.remove(node)


def _unread(graph: onnx.GraphProto, outputs: set[str], own: frozenset[str]) -> list[onnx.NodeProto]:
    """The converter's casts that nothing reads."""
    read = outputs | {name for node in graph.node for name in node.input}
    return [node for node in graph.node if node.name not in own and node.output[0] not in read]


def _casts_to(node: onnx.NodeProto, kind: int, own: frozenset[str]) -> bool:
    """Whether the converter put it there, to make half precision of fp32 or the other way round."""
    made = node.op_type == "Cast" and node.name not in own
    return made and any(each.name == "to" and each.i == kind for each in node.attribute)


def _origin(name: str, origins: dict[str, str]) -> str:
    while name in origins:
        name = origins[name]
    return name
