"""A two-stage detector in bf16 on OpenVINO: only the head behind RoIAlign is, and what comes before stays fp32.

The head is most of the work. In bf16 the features and scores that proposals are made from are others, NMS keeps
other proposals, and other proposals are other boxes.
"""

import contextlib
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

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
    names = {node.get_friendly_name() for node in model.get_ordered_ops()}
    with tempfile.TemporaryDirectory(prefix="landmark-onnx-", ignore_cleanup_errors=True) as folder:
        yield write_marked(package, model, names - head, Path(folder, "model.xml"))


def behind_roi_align(model: Any) -> frozenset[str]:
    """Names of the nodes that come after a RoIAlign, and of RoIAlign itself."""
    found: set[str] = set()
    for node in model.get_ordered_ops():
        makers = {source.get_source_output().get_node().get_friendly_name() for source in node.inputs()}
        if node.get_type_name() == "ROIAlign" or found & makers:
            found.add(node.get_friendly_name())
    return frozenset(found)


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
