"""Our names and symbolic sizes on the tensors that cross the border of a converted graph."""

from collections.abc import Iterable, Mapping

import onnx
from onnx import TensorProto, helper

from landmark_onnx.errors import ExportError
from landmark_onnx_export.paddle.variables import Variable

DIMS: Mapping[str, tuple[str | int, ...]] = {
    "image": ("batch", 3, "height", "width"),
    "im_info": ("batch", 3),
    "im_shape": ("batch", 2),
    "scale_factor": ("batch", 2),
    "embedding": ("batch", "dimension"),
    "probability": ("batch", "class"),
    "rois": ("roi", 4),
    "deltas": ("roi", "delta"),
    "rows": ("row", 6),
}
"""Dimensions of our inputs and outputs; the converter's own number of channels, or of the last one, is kept."""


def name_tensors(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Give inputs and outputs our names (old -> new) and sizes, and forget those the program was saved with.

    Outputs that have none of our names go.
    """
    _rename(graph, names)
    del graph.value_info[:]
    kept = [value for value in graph.output if value.name in names.values()]
    del graph.output[:]
    graph.output.extend(kept)
    for value in [*graph.input, *graph.output]:
        if value.name in names.values():
            value.CopyFrom(helper.make_tensor_value_info(value.name, TensorProto.FLOAT, _dims(value)))


def declare_weights(graph: onnx.GraphProto, weights: Iterable[Variable]) -> None:
    """Make inputs of weights that nodes name and nothing defines."""
    for weight in weights:
        kind = helper.np_dtype_to_tensor_dtype(weight.dtype)
        graph.input.append(helper.make_tensor_value_info(weight.name, kind, weight.shape))


def weight_names(graph: onnx.GraphProto) -> list[str]:
    """The inputs that are not ours: weights, which the converter saw as inputs."""
    return sorted(value.name for value in graph.input if value.name not in DIMS)


def check(model: onnx.ModelProto, what: str) -> None:
    """Raises: ExportError if `what`, as the message calls it, is not valid ONNX."""
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"{what} is not valid ONNX: {error}") from error


def _dims(value: onnx.ValueInfoProto) -> list[str | int]:
    dims = list(DIMS[value.name])
    known = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
    axis = 1 if value.name == "image" else -1
    if known and known[axis] > 0:
        dims[axis] = known[axis]
    return dims


def _rename(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Rename tensors; another one that bears a new name makes room."""
    taken = {name: f"{name}.paddle" for name in names.values() if name not in names}
    renames = {**taken, **names}
    for value in [*graph.input, *graph.output]:
        value.name = renames.get(value.name, value.name)
    for node in graph.node:
        for field in (node.input, node.output):
            for position, name in enumerate(field):
                field[position] = renames.get(name, name)
