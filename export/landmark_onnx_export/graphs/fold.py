"""A converted graph, made lean for any machine: ONNX Runtime's basic level folds what is constant, and nothing else.

Batch norm and affine_channel go into the convolutions, constants are computed and shared, chains of Shape and Slice and
identities disappear. The basic level knows no hardware: standard ops in, standard ops out.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from landmark_onnx_export.graphs import io as graph
from landmark_onnx_export.graphs.write import weight_size, write_model
from landmark_onnx_export.paddle.variables import Variable
from landmark_onnx_export.workers.run import run_child

HELD_BYTES = 64 << 20
"""A weight beyond this is a classifier's last layer: nothing folds into it, so it is spared the trip."""


def lean_model(
    model: onnx.ModelProto, variables: Mapping[str, Variable], folder: Path
) -> tuple[onnx.ModelProto, Mapping[str, Variable]]:
    """The optimised model, weights still among its inputs, and those weights, which lie in `folder`.

    Raises: ExportError if a weight is missing or the graph is not valid ONNX.
    """
    held = {name for name in graph.weight_names(model.graph) if weight_size(variables, name) > HELD_BYTES}
    written = write_model(model, variables, folder / "plain.onnx", held=held)
    made, data = folder / "lean.onnx", folder / "lean.data"
    run_child("optimise", {"model": str(written.model), "output": str(made), "data": data.name})
    for path in filter(None, (written.model, written.data)):
        path.unlink()
    lean = onnx.load(made, load_external_data=False)
    standard_imports(lean)
    _share_constants(lean.graph)
    graph.name_tensors(lean.graph, {name: name for name in graph.DIMS})
    return lean, {name: variables[name] for name in held} | _lift(lean.graph, data)


def standard_imports(model: onnx.ModelProto) -> None:
    """Forget the domains that ONNX Runtime lists and no node is of."""
    used = {node.domain for node in model.graph.node}
    kept = [entry for entry in model.opset_import if entry.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)


def _share_constants(lean: onnx.GraphProto) -> None:
    """Keep one of each value that is inside the model; the basic level shares scalars of some readers alone."""
    first: dict[tuple[int, tuple[int, ...], bytes], str] = {}
    renames = {}
    for tensor in lean.initializer:
        if tensor.data_location != TensorProto.EXTERNAL:
            value = numpy_helper.to_array(tensor)
            renames[tensor.name] = first.setdefault((tensor.data_type, value.shape, value.tobytes()), tensor.name)
    for node in lean.node:
        node.input[:] = [renames.get(name, name) for name in node.input]
    kept = [tensor for tensor in lean.initializer if renames.get(tensor.name, tensor.name) == tensor.name]
    del lean.initializer[:]
    lean.initializer.extend(kept)


def _lift(lean: onnx.GraphProto, data: Path) -> dict[str, Variable]:
    """Turn the initializers whose values are in the file `data` into inputs, as `write_model` takes them."""
    found = {}
    small = []
    for tensor in lean.initializer:
        if tensor.data_location != TensorProto.EXTERNAL:
            small.append(tensor)
            continue
        place = {entry.key: entry.value for entry in tensor.external_data}
        dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type))
        offset, shape = int(place.get("offset", 0)), tuple(tensor.dims)
        found[tensor.name] = Variable(tensor.name, dtype, shape, data, offset, offset, int(place["length"]))
        lean.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, shape))
    del lean.initializer[:]
    lean.initializer.extend(small)
    return found
