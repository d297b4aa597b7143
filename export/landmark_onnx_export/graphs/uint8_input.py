"""The variant of a graph that takes resized pixels: normalisation as ONNX ops, a quarter of the bytes to a GPU."""

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from landmark_onnx.cards.schema import ModelCard, Preprocess
from landmark_onnx.errors import ExportError
from landmark_onnx.inference.preprocess import byte_tables

IMAGE = "image"


def check_card(card: ModelCard) -> None:
    """Raises: ExportError for a detector, which resizes after it has normalised: its pixels are no bytes by then."""
    if card.task == "det":
        raise ExportError(f"{card.name}: a detector's image is resized as floats, so it has no uint8 input")


def take_pixels(graph: onnx.GraphProto, rule: Preprocess) -> None:
    """Replace the float input "image" (N, 3, H, W) by (N, H, W, C) uint8 in BGR order, in place.

    Each byte's value is looked up in a table of what the host makes of it, so the tensor is the host's to the bit.
    """
    inside = f"{IMAGE}.normalised"
    for node in graph.node:
        node.input[:] = [inside if name == IMAGE else name for name in node.input]
    tables = byte_tables(rule)
    order = list(range(rule.channels))[:: -1 if rule.colour == "rgb" else 1]
    constants: dict[str, npt.NDArray[Any]] = {
        "table": tables.reshape(-1),
        "order": np.array(order, np.int64),
        "offsets": np.arange(rule.channels, dtype=np.int32).reshape(1, -1, 1, 1) * np.int32(tables.shape[1]),
    }
    names = {key: f"{IMAGE}.{key}" for key in (*constants, "planes", "ordered", "bytes", "indices")}
    graph.initializer.extend(numpy_helper.from_array(value, names[key]) for key, value in constants.items())
    steps = [
        helper.make_node("Transpose", [IMAGE], [names["planes"]], perm=[0, 3, 1, 2]),
        helper.make_node("Gather", [names["planes"], names["order"]], [names["ordered"]], axis=1),
        helper.make_node("Cast", [names["ordered"]], [names["bytes"]], to=TensorProto.INT32),
        helper.make_node("Add", [names["bytes"], names["offsets"]], [names["indices"]]),
        helper.make_node("Gather", [names["table"], names["indices"]], [inside]),
    ]
    nodes = [*steps, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    pixels = helper.make_tensor_value_info(IMAGE, TensorProto.UINT8, ["batch", "height", "width", rule.channels])
    inputs = [pixels if value.name == IMAGE else value for value in graph.input]
    copies = [type(value).FromString(value.SerializeToString()) for value in inputs]
    del graph.input[:]
    graph.input.extend(copies)
