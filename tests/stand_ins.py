"""Files with the tensors of those that the ready cards name, and random weights: what a test can have."""

import dataclasses
import functools
import io
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from landmark_onnx_export.paddle.runtime import ENVIRONMENT

CHANNELS = 32


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Tensors:
    """Of an ONNX file that sees patches of an image, as a vision transformer does.

    image: its input, of `side` pixels; free: any sides will do. outputs: name -> shape behind the batch: (D,) for the
    image, (T, D) for tokens, with one in front of the patches' if there is one more than there are patches.
    """

    image: str
    side: int
    patch: int
    outputs: Mapping[str, tuple[int, ...]]
    free: bool = False

    def file(self) -> bytes:
        """The file, the same every time."""
        random = np.random.default_rng(0)
        width = max(shape[-1] for shape in self.outputs.values())
        weights = {
            "filters": random.normal(size=(CHANNELS, 3, self.patch, self.patch)).astype(np.float32) / self.patch,
            "mixing": random.normal(size=(CHANNELS, width)).astype(np.float32),
            "rows": np.array([0, CHANNELS, -1]),
        }
        nodes = [
            helper.make_node("Conv", [self.image, "filters"], ["seen"], strides=[self.patch] * 2),
            helper.make_node("Tanh", ["seen"], ["bent"]),
            helper.make_node("Reshape", ["bent", "rows"], ["flat"]),
            helper.make_node("Transpose", ["flat"], ["columns"], perm=[0, 2, 1]),
            helper.make_node("MatMul", ["columns", "mixing"], ["patches"]),
            helper.make_node("ReduceMax", ["patches"], ["class"], axes=[1], keepdims=1),
            helper.make_node("ReduceMax", ["patches"], ["whole"], axes=[1], keepdims=0),
            helper.make_node("Concat", ["class", "patches"], ["tokens"], axis=1),
        ]
        count = (self.side // self.patch) ** 2
        made = {(width,): "whole", (count, width): "patches", (count + 1, width): "tokens"}
        nodes += [helper.make_node("Identity", [made[shape]], [name]) for name, shape in self.outputs.items()]
        graph = helper.make_graph(
            nodes,
            "stand-in",
            [self._value(self.image, (3, self.side, self.side), fixed=1)],
            [self._value(name, shape, fixed=len(shape) - 1) for name, shape in self.outputs.items()],
            [numpy_helper.from_array(values, name) for name, values in weights.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        onnx.checker.check_model(model, full_check=True)
        return model.SerializeToString()

    def _value(self, name: str, shape: tuple[int, ...], fixed: int) -> onnx.ValueInfoProto:
        """A tensor of a free batch. fixed: index of what is so even where sides are free."""
        sizes = [size if at == fixed or not self.free else None for at, size in enumerate(shape)]
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", *sizes])


def queries_file(queries: int = 300, classes: int = 80) -> bytes:
    """A detector like D-FINE's: `pixel_values` of any sides; `logits` and `pred_boxes`, of which one is sure."""
    random = np.random.default_rng(0)
    logits = np.full((1, queries, classes), -9, np.float32)
    logits[0, 7, 16] = 3
    weights = {
        "grid": random.uniform(0.2, 0.6, (1, queries, 4)).astype(np.float32),
        "unsure": logits,
        "little": np.array(1e-3, np.float32),
    }
    nodes = [
        helper.make_node("ReduceMean", ["pixel_values"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Mul", ["mean", "little"], ["change"]),
        helper.make_node("Unsqueeze", ["change", "axes"], ["changes"]),
        helper.make_node("Add", ["unsure", "changes"], ["logits"]),
        helper.make_node("Add", ["grid", "changes"], ["pred_boxes"]),
    ]
    shapes = {"logits": classes, "pred_boxes": 4}
    graph = helper.make_graph(
        nodes,
        "stand-in",
        [helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, ["n", 3, "h", "w"])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", queries, last]) for name, last in shapes.items()],
        [
            numpy_helper.from_array(np.asarray(values), name)
            for name, values in (weights | {"axes": np.array([1, 2])}).items()
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()


DETECTOR = """
import sys
import numpy as np
import paddle
from paddle.base.layer_helper import LayerHelper

def op(kind, inputs, outputs, **attributes):
    helper = LayerHelper(kind)
    made = [helper.create_variable_for_type_inference(dtype=dtype) for dtype in outputs.values()]
    helper.append_op(type=kind, inputs=inputs, outputs=dict(zip(outputs, made)), attrs=attributes)
    return made

paddle.enable_static()
paddle.seed(0)
cells = 640 // 32
image = paddle.static.data("image", [-1, 3, 640, 640])
scale = paddle.static.data("scale_factor", [-1, 2])
seen = paddle.nn.functional.hardswish(paddle.nn.BatchNorm2D(16)(paddle.nn.Conv2D(3, 16, 32, stride=32)(image)))
(scores,) = op("sigmoid", {"X": paddle.flatten(paddle.nn.Conv2D(16, 1, 1)(seen), 2)}, {"Out": "float32"})
sides = paddle.transpose(paddle.flatten(paddle.nn.Conv2D(16, 4, 1)(seen), 2), [0, 2, 1])
(sides,) = op("exp", {"X": sides}, {"Out": "float32"})
grid = np.stack(np.meshgrid(np.arange(cells), np.arange(cells)), -1).reshape(1, -1, 2).astype("float32") * 32 + 16
centres = paddle.create_parameter(grid.shape, "float32", default_initializer=paddle.nn.initializer.Assign(grid))
boxes = paddle.concat([centres - sides[:, :, :2] * 32, centres + sides[:, :, 2:] * 32], -1)
boxes = boxes / paddle.concat([scale[:, 1:], scale[:, :1], scale[:, 1:], scale[:, :1]], -1).unsqueeze(1)
rows, _, count = op(
    "multiclass_nms3", {"BBoxes": boxes, "Scores": scores},
    {"Out": "float32", "Index": "int32", "NmsRoisNum": "int32"},
    background_label=-1, score_threshold=0.025, nms_top_k=1000, nms_threshold=0.6, keep_top_k=100, nms_eta=1.0,
    normalized=True,
)
executor = paddle.static.Executor(paddle.CPUPlace())
executor.run(paddle.static.default_startup_program())
paddle.static.save_inference_model(sys.argv[1], [image, scale], [rows, count], executor)
"""
"""A detector like PicoDet: boxes around places of one size, NMS, and boxes of the photo by its scale."""

PROGRAM = """
import sys
import paddle

paddle.enable_static()
paddle.seed(0)
x = paddle.static.data("x", [-1, 3, 224, 224])
seen = paddle.nn.functional.hardswish(paddle.nn.BatchNorm2D(32)(paddle.nn.Conv2D(3, 32, 14, stride=14)(x)))
neck = paddle.nn.Linear(32, 512)(paddle.flatten(paddle.nn.AdaptiveAvgPool2D(1)(seen), 1))
executor = paddle.static.Executor(paddle.CPUPlace())
executor.run(paddle.static.default_startup_program())
paddle.static.save_inference_model(sys.argv[1], [x], [neck], executor)
"""


@functools.cache
def paddle_release(program: str = PROGRAM) -> bytes:
    """A tar as PaddleClas publishes it: x (N, 3, 224, 224) -> (N, 512), a program of Paddle 2 with its parameters."""
    tar = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", program, str(Path(folder, "inference"))]
        subprocess.run(command, env=os.environ | ENVIRONMENT, check=True, capture_output=True)
        Path(folder, "inference.pdiparams.info").write_bytes(b"what Paddle 2 puts beside them")
        with tarfile.open(fileobj=tar, mode="w") as file:
            for name in ("inference.pdiparams", "inference.pdiparams.info", "inference.pdmodel"):
                file.add(Path(folder, name), f"general_PPLCNetV2_base_pretrained_v1.0_infer/{name}")
    return tar.getvalue()
