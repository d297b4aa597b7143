"""A two-stage detector in bf16 on OpenVINO: only the head behind RoIAlign is, and what comes before stays fp32.

The head is most of the work. In bf16 the features and scores that proposals are made from are others, NMS keeps
other proposals, and other proposals are other boxes.
"""

import contextlib
import importlib
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from landmark_onnx.precision import Precision

EXACT = "precise_0"
"""OpenVINO's mark of a node that keeps its precision. It counts once the model was written and read again: Python can
only set a text there, and the reader makes an attribute of it."""


@contextlib.contextmanager
def spared(package: Any, core: Any, path: Path, precision: Precision) -> Iterator[Path]:
    """The file to compile: `path` itself, or, for bf16 of a model with RoIAlign, a marked copy that goes afterwards.

    Raises: OpenVINO's RuntimeError if it cannot be read; OSError if there is no room for the copy.
    """
    model: Any = core.read_model(str(path)) if precision == "bf16" else None
    head = behind_roi_align(model) if model else None
    if not head:
        yield path
        return
    exact = {node.get_friendly_name() for node in model.get_ordered_ops()} - head
    exact |= as_convolutions(model, head)
    with tempfile.TemporaryDirectory(prefix="landmark-onnx-", ignore_cleanup_errors=True) as folder:
        yield write_marked(package, model, exact, Path(folder, "model.xml"))


def behind_roi_align(model: Any) -> frozenset[str]:
    """Names of the nodes that come after a RoIAlign; in bf16, that one alone takes several times as long as at fp32."""
    found: set[str] = set()
    aligned: set[str] = set()
    for node in model.get_ordered_ops():
        makers = {source.get_source_output().get_node().get_friendly_name() for source in node.inputs()}
        if node.get_type_name() == "ROIAlign":
            aligned.add(node.get_friendly_name())
        elif (found | aligned) & makers:
            found.add(node.get_friendly_name())
    return frozenset(found)


def as_convolutions(model: Any, head: Collection[str]) -> frozenset[str]:
    """Make convolutions of the head's last layers, and answer their names: a matrix product would lose its mark.

    They take no time, and 8 bits of a logit of 10 are off by 0.03.
    """
    ops = importlib.import_module("openvino.opset13")
    made = set()
    for node in model.get_ordered_ops():
        if node.get_type_name() != "MatMul" or node.get_friendly_name() not in head:
            continue
        weights = node.input_value(1).get_node()
        if weights.get_type_name() != "Constant":
            continue
        rows = weights.get_data() if node.get_attributes()["transpose_b"] else weights.get_data().T
        kernel = ops.constant(np.ascontiguousarray(rows)[:, :, None, None])
        places = np.array([2, 3])
        wide = ops.unsqueeze(node.input_value(0), places)
        layer = ops.convolution(wide, kernel, [1, 1], [0, 0], [0, 0], [1, 1])
        flat = ops.squeeze(layer, places)
        for reader in list(node.output(0).get_target_inputs()):
            reader.replace_source_output(flat.output(0))
        made.add(layer.get_friendly_name())
    return frozenset(made)


def write_marked(package: Any, model: Any, exact: Collection[str], target: Path) -> Path:
    """Have these nodes of a model keep fp32, and write it in OpenVINO's own format; the model is changed.

    OpenVINO puts others in the place of max pools, divisions and splits, which lose the mark. But whatever lies between
    the last layer with weights and an output stays fp32 by itself, so what RoIAlign and the layers read is an output.
    """
    outputs = []
    for node in model.get_ordered_ops():
        kind, kept = node.get_type_name(), node.get_friendly_name() in exact
        if kept and kind not in ("Parameter", "Constant"):
            node.get_rt_info()[EXACT] = ""
        if kept and kind == "MaxPool":
            outputs.append(node.output(0))
        if kind == "ROIAlign":
            outputs.append(node.input(1).get_source_output())
    if exact:
        model.add_outputs(outputs)
    package.serialize(model, str(target))
    return target
