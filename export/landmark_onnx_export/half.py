"""Half precision: weights and activations in fp16, inputs and outputs as they were, a detector's geometry in fp32."""

from pathlib import Path

import onnx
from onnx import TensorProto

from landmark_onnx_export.geometry import ROIS, geometry
from landmark_onnx_export.made import Made


def halve(path: Path, rois: str = ROIS) -> Made:
    """The model of a folded file, whose nodes have names of their own, in fp16. rois: as of `geometry`.

    Weights below fp16's least number become that number, those above its largest that one: `convert_float_to_float16`
    of onnxruntime.transformers.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16

    # Types are inferred without the weights, which may be more than protobuf takes; casts go where types change.
    model = onnx.shape_inference.infer_shapes(onnx.load(path, load_external_data=False))
    onnx.load_external_data_for_model(model, str(path.parent))
    kept = sorted(geometry(model.graph, rois))
    made: onnx.ModelProto = convert_float_to_float16(
        model, keep_io_types=True, disable_shape_infer=True, node_block_list=kept
    )
    _straighten(made.graph)
    return Made(model=made, method=None, excluded=dict.fromkeys(kept, "geometry"), layers=0)


def _straighten(graph: onnx.GraphProto) -> None:
    """Have what is cast to fp16 and straight back stay fp32: the converter does that between any two nodes it kept."""
    makers = {name: node for node in graph.node for name in node.output}
    outputs = {value.name for value in graph.output}
    origins = {}
    for node in graph.node:
        before = makers.get(node.input[0]) if _casts_to(node, TensorProto.FLOAT) else None
        if before is not None and _casts_to(before, TensorProto.FLOAT16):
            origins[node.output[0]] = before.input[0]
            if node.output[0] in outputs:
                node.CopyFrom(onnx.helper.make_node("Identity", [before.input[0]], [node.output[0]], node.name))
    for node in graph.node:
        node.input[:] = [_origin(name, origins) for name in node.input]
    read = outputs | {name for node in graph.node for name in node.input}
    while dead := [node for node in graph.node if node.op_type == "Cast" and node.output[0] not in read]:
        for node in dead:
            graph.node.remove(node)
        read = outputs | {name for node in graph.node for name in node.input}


def _casts_to(node: onnx.NodeProto, kind: int) -> bool:
    return node.op_type == "Cast" and any(each.name == "to" and each.i == kind for each in node.attribute)


def _origin(name: str, origins: dict[str, str]) -> str:
    while name in origins:
        name = origins[name]
    return name
