"""Put the bodies of `ops` into a model that paddle2onnx made, so that only standard ops are left."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import onnx
import onnx.inliner
from onnx import NodeProto, helper

from landmark_onnx.errors import ExportError
from landmark_onnx_export.graphs.io import check
from landmark_onnx_export.ops.bodies import FUNCTIONS, PADDLE
from landmark_onnx_export.ops.roi_align_stride import skip_unread_bins
from landmark_onnx_export.ops.signatures import PREFIX

Attributes = Mapping[str, Any]


def _call(body: str, inputs: Sequence[str], outputs: Sequence[str], attributes: Attributes) -> NodeProto:
    """A call of a body: what paddle2onnx adds to the attributes is dropped, absent ones get Paddle's default."""
    proto = FUNCTIONS[body]
    known = {attribute.name: helper.get_attribute_value(attribute) for attribute in proto.attribute_proto}
    known |= {name: value for name, value in attributes.items() if name in known or name in proto.attribute}
    missing = [name for name in proto.attribute if name not in known]
    if missing:
        raise ExportError(f"op {body}: attribute {', '.join(missing)} is missing")
    return helper.make_node(body, inputs, outputs, domain=PADDLE.domain, **known)


def _collect(node: NodeProto, attributes: Attributes) -> Iterator[NodeProto]:
    """Inputs: the boxes of each level, then the scores of each level."""
    levels = len(node.input) // 2
    rois, scores = f"{node.output[0]}.rois", f"{node.output[0]}.scores"
    yield helper.make_node("Concat", node.input[:levels], [rois], axis=0)
    yield helper.make_node("Concat", node.input[levels:], [scores], axis=0)
    yield _call("collect_fpn_proposals", [rois, scores], node.output, attributes)


def _distribute(node: NodeProto, attributes: Attributes) -> Iterator[NodeProto]:
    """Outputs: the boxes of each level, then the restore index."""
    *rois, restore = node.output
    levels = f"{restore}.levels"
    yield _call("fpn_levels", node.input, [levels], attributes)
    if len(rois) != attributes["max_level"] - attributes["min_level"] + 1:
        raise ExportError(f"op {node.op_type}: {len(rois)} MultiFpnRois do not fit min_level and max_level")
    for level, name in enumerate(rois, attributes["min_level"]):
        yield _call("fpn_rois_of_level", [*node.input, levels], [name], {"level": level})
    yield _call("fpn_restore_index", [levels], [restore], attributes)


def _multiclass_nms_nodes(node: NodeProto, attributes: Attributes) -> Iterator[NodeProto]:
    """Inputs: boxes and scores, in one of two layouts; outputs: Out, Index, NmsRoisNum, the last two at will."""
    boxes, scores, rows, *found = (
        f"{node.output[0]}.{part}" for part in ("boxes", "scores", "rows", "label", "row", "score")
    )
    per_class = node.op_type == "multiclass_nms_per_class"
    yield _call("boxes_per_class" if per_class else "shared_boxes", node.input, [boxes, scores, rows], attributes)
    yield _call("class_nms", [boxes, scores, rows], found, attributes)
    if per_class:
        ordered = [f"{name}.ordered" for name in found]
        yield _call("by_row", [boxes, *found], ordered, attributes)
        found = ordered
    yield _call("best_detections", [boxes, *found], node.output, attributes)


def _resize_to_sides(node: NodeProto, attributes: Attributes) -> Iterator[NodeProto]:
    """Inputs: height (1,), width (1,), x."""
    *sides, x = node.input
    size = f"{node.output[0]}.size"
    yield helper.make_node("Concat", sides, [size], axis=0)
    yield _call("nearest_interp_to_size", [size, x], node.output, attributes)


def _roi_align(node: NodeProto, attributes: Attributes) -> Iterator[NodeProto]:
    """Paddle counts points itself where sampling_ratio <= 0, ONNX where it is 0."""
    ratio = max(attributes.get("sampling_ratio", 0), 0)
    yield _call("roi_align", node.input, node.output, {**attributes, "sampling_ratio": ratio})


def _roi_pool(node: NodeProto, attributes: Attributes) -> Iterator[NodeProto]:
    """Two attributes in Paddle, one in ONNX."""
    shape = [attributes.get("pooled_height", 1), attributes.get("pooled_width", 1)]
    yield _call("roi_pool", node.input, node.output, {**attributes, "pooled_shape": shape})


EXPANSIONS: Mapping[str, Callable[[NodeProto, Attributes], Iterator[NodeProto]]] = MappingProxyType(
    {
        "collect_fpn_proposals": _collect,
        "distribute_fpn_proposals": _distribute,
        "multiclass_nms_per_class": _multiclass_nms_nodes,
        "multiclass_nms_shared": _multiclass_nms_nodes,
        "nearest_interp_to_sides": _resize_to_sides,
        "roi_align": _roi_align,
        "roi_pool": _roi_pool,
    }
)
CUSTOM_OPS: Mapping[str, str] = MappingProxyType({PREFIX + name: name for name in (*FUNCTIONS, *EXPANSIONS)})


def _expand(node: NodeProto) -> Iterator[NodeProto]:
    """The node itself, or for one of domain Paddle the calls that stand for it."""
    if node.domain != PADDLE.domain:
        yield node
        return
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    if node.op_type in EXPANSIONS:
        yield from EXPANSIONS[node.op_type](node, attributes)
    else:
        yield _call(node.op_type, node.input, node.output, attributes)


def lower(model: onnx.ModelProto, *, raw: bool = False) -> onnx.ModelProto:
    """The model paddle2onnx made of a prepared program, with its ops of domain Paddle replaced by standard ones.

    raw: op by op, without the rewrite of `strides`.
    Raises: ExportError naming all ops that have no body, or the op whose attribute is missing, or why the result is not
    valid ONNX.
    """
    own = [node for node in model.graph.node if node.domain == PADDLE.domain]
    unknown = sorted({node.op_type for node in own if PREFIX + node.op_type not in CUSTOM_OPS})
    if unknown:
        raise ExportError(f"no ONNX body for the Paddle ops {', '.join(unknown)}")
    bodied = onnx.ModelProto()
    bodied.CopyFrom(model)
    # Noted for Paddle's ops; those that stand for them may have others on the way.
    del bodied.graph.value_info[:]
    if not raw:
        skip_unread_bins(bodied.graph)
    nodes = [call for node in bodied.graph.node for call in _expand(node)]
    del bodied.graph.node[:]
    bodied.graph.node.extend(nodes)
    bodied.functions.extend(FUNCTIONS.values())
    lowered = onnx.inliner.inline_local_functions(bodied)
    imports = [entry for entry in lowered.opset_import if entry.domain != PADDLE.domain]
    del lowered.opset_import[:]
    lowered.opset_import.extend(imports)
    check(lowered, "the lowered graph")
    return lowered
