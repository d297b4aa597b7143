"""A rewrite: bins of a RoIAlign that the strided 1x1 convolutions behind it never read are not computed.

Pattern: a `roi_align` of domain Paddle with adaptive sampling whose every reader is a 1x1 convolution of one stride,
without padding, as at the head of a C4 detector. Rewrite: `roi_align_bins` with that stride, convolutions of stride 1.
"""

from collections.abc import Sequence
from typing import Any

import onnx
from onnx import NodeProto, helper

from landmark_onnx_export.ops.bodies import PADDLE

ROI_ALIGN, ROI_ALIGN_BINS = "roi_align", "roi_align_bins"


def skip_unread_bins(graph: onnx.GraphProto) -> None:
    """Apply the rewrite wherever it fits, in place."""
    outputs = {value.name for value in graph.output}
    for node in graph.node:
        if node.op_type == ROI_ALIGN and node.domain == PADDLE.domain and node.output[0] not in outputs:
            readers = [reader for reader in graph.node if node.output[0] in reader.input]
            step = _common_stride(readers, node.output[0])
            if step > 1 and _attributes(node).get("sampling_ratio", 0) <= 0:
                _rewrite(node, readers, step)


def _common_stride(readers: Sequence[NodeProto], name: str) -> int:
    """The stride of all readers, 1 where one of them is not a 1x1 convolution or reads at another stride."""
    strides = {_stride(reader) if reader.input[0] == name else 1 for reader in readers}
    return strides.pop() if len(strides) == 1 else 1


def _stride(node: NodeProto) -> int:
    values = _attributes(node)
    square = values.get("strides", [1, 1])
    plain = (
        node.op_type == "Conv"
        and list(values.get("kernel_shape", [])) == [1, 1]
        and not any(values.get("pads", []))
        and values.get("auto_pad", b"NOTSET") in (b"NOTSET", b"VALID")
        and square[0] == square[1]
    )
    return int(square[0]) if plain else 1


def _rewrite(node: NodeProto, readers: Sequence[NodeProto], step: int) -> None:
    values = _attributes(node)
    pooled = {name: int(values.get(name, 1)) for name in ("pooled_height", "pooled_width")}
    node.op_type = ROI_ALIGN_BINS
    del node.attribute[:]
    sides = {"height": -(-pooled["pooled_height"] // step), "width": -(-pooled["pooled_width"] // step)}
    for name, value in {**pooled, **sides, "step": step, "spatial_scale": values.get("spatial_scale", 1.0)}.items():
        node.attribute.append(helper.make_attribute(name, value))
    for reader in readers:
        for attribute in reader.attribute:
            if attribute.name == "strides":
                attribute.ints[:] = [1, 1]


def _attributes(node: NodeProto) -> dict[str, Any]:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
