"""Models of older opsets, as others made them, brought to one that quantisation per channel knows."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper

from landmark_onnx.errors import ExportError, reason_of

LEAST = 13
"""The first opset whose QuantizeLinear has an axis. Our own exports are beyond it."""

IR_VERSION = 8


def modernise(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model in opset `LEAST`, or itself if it is no older. Weights in files beside it stay there.

    Raises: ExportError if onnx cannot convert one of its ops.
    """
    if all(entry.version >= LEAST for entry in model.opset_import if entry.domain in ("", "ai.onnx")):
        return model
    graph = model.graph
    beside = [tensor for tensor in graph.initializer if tensor.data_location == TensorProto.EXTERNAL]
    inside = [tensor for tensor in graph.initializer if tensor.data_location != TensorProto.EXTERNAL]
    known = {value.name for value in graph.input}
    # The converter would read what lies beside; as inputs they pass through.
    stand_ins = [
        helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
        for tensor in beside
        if tensor.name not in known
    ]
    names = {value.name for value in stand_ins}
    # Before version 4 each weight had to be an input, and those that folding made are none.
    model.ir_version = max(model.ir_version, IR_VERSION)
    _replace(graph.initializer, inside)
    graph.input.extend(stand_ins)
    try:
        made = onnx.version_converter.convert_version(model, LEAST)
    except Exception as error:  # onnx's C++ errors have no public base class
        version = min(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
        raise ExportError(f"opset {version} cannot be brought to {LEAST}: {reason_of(error)}") from error
    _replace(made.graph.input, [value for value in made.graph.input if value.name not in names])
    made.graph.initializer.extend(beside)
    made.ir_version = max(made.ir_version, IR_VERSION)
    return made


def with_constants(source: Path, folder: Path) -> Path:
    """`source`, or a copy in `folder` whose weights are no inputs, as they were before version 4 of the format.

    An input may be fed, so ONNX Runtime folds nothing into such a weight.
    """
    model = onnx.load(source, load_external_data=False)
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    if len(inputs) == len(model.graph.input):
        return source
    _replace(model.graph.input, inputs)
    model.ir_version = max(model.ir_version, IR_VERSION)
    onnx.save(model, folder / "constants.onnx")
    return folder / "constants.onnx"


def _replace(field: Any, items: Sequence[Any]) -> None:
    del field[:]
    field.extend(items)
