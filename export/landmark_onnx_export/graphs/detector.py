"""The part of a graph that decides where things are: it stays fp32 at every precision.

A detector's proposals, box decoding, NMS and the coordinates of RoIAlign turn small errors into other boxes: pixels at
half precision are off by up to 0.5 beyond 512, and a score that moves changes what NMS keeps.
"""

from collections.abc import Iterable

import onnx

from landmark_onnx.cards.schema import ModelCard

ROIS = "rois"
"""What we call a detector's boxes before they are decoded."""


def rois_of(card: ModelCard) -> str:
    """What the card's file calls them; a name that no output has where it is no detector's."""
    return dict(zip(card.output_keys(), card.output_names(), strict=True)).get(ROIS, "")


def geometry(graph: onnx.GraphProto, rois: str = ROIS) -> frozenset[str]:
    """Names of the nodes that make the output `rois`, but not the features they are cut from, and of RoIAlign itself.

    Nothing for a graph without that output.
    """
    if rois not in {value.name for value in graph.output}:
        return frozenset()
    aligned = [node for node in graph.node if node.op_type == "RoiAlign"]
    features = ancestors(graph, [node.input[0] for node in aligned])
    coordinates = ancestors(graph, [rois, *(name for node in aligned for name in node.input[1:])])
    return (coordinates - features) | {node.name for node in aligned}


def ancestors(graph: onnx.GraphProto, tensors: Iterable[str]) -> frozenset[str]:
    """Names of the nodes that `tensors` come from."""
    makers = {name: node for node in graph.node for name in node.output}
    found: set[str] = set()
    waiting = list(tensors)
    while waiting:
        node = makers.get(waiting.pop())
        if node is not None and node.name not in found:
            found.add(node.name)
            waiting.extend(node.input)
    return frozenset(found)


def descendants(graph: onnx.GraphProto, tensors: Iterable[str]) -> frozenset[str]:
    """Names of the nodes that `tensors` go into, at any remove; the graph is in order, as ONNX wants it."""
    reached = set(tensors)
    found = set()
    for node in graph.node:
        if reached.intersection(node.input):
            found.add(node.name)
            reached.update(node.output)
    return frozenset(found)


def name_nodes(graph: onnx.GraphProto) -> None:
    """Give each node that has no name, or another's, one of its own: its type and its place."""
    taken: set[str] = set()
    for position, node in enumerate(graph.node):
        if not node.name or node.name in taken:
            node.name = f"{node.op_type}#{position}"
        taken.add(node.name)
