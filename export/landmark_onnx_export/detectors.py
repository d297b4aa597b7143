"""Faster R-CNN programs as PaddleDetection saved them in 2019 and 2020, at any width: what synthetic releases ship.

Source: PaddlePaddle/PaddleDetection 0.1-0.4, ppdet/modeling (ResNet 50 with affine channels, FPN, RPN and RoI heads).
"""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from landmark_onnx_export.fluid import INT32
from landmark_onnx_export.layers import Tensor
from landmark_onnx_export.program_builder import ProgramBuilder

CLASSES = 501
"""OpenImages V4's boxable 500, and the background as class 0."""

BLOCKS = (3, 4, 6, 3)
RATIOS = (0.5, 1.0, 2.0)
POOL: dict[str, Any] = {
    "ceil_mode": False,
    "exclusive": True,
    "adaptive": False,
    "data_format": "NCHW",
    "padding_algorithm": "EXPLICIT",
}


def faster_rcnn_c4(width: Fraction) -> bytes:
    """RPN on the fourth stage at stride 16, the fifth stage as head: a serialized ProgramDesc."""
    net = _Detector(width)
    feature = net.stages(net.image, last=4)
    anchors = net.anchors(feature, (32.0, 64.0, 128.0, 256.0, 512.0), 16.0)
    rois, _ = net.rpn(feature, anchors, ("conv_rpn", "rpn_cls_logits", "rpn_bbox_pred"), top=(6000, 1000), lod=True)
    y = net.roi_align(feature, rois, 14, 0, 1 / 16)
    y = net.stage(y, 5)
    y = net.op("pool2d", {"X": y.name}, y, pooling_type="avg", ksize=[7, 7], strides=[1, 1], paddings=[0, 0], **POOL)
    return net.answer(rois, y)


def faster_rcnn_fpn(width: Fraction, *, resize_to_size: bool = False) -> bytes:
    """A feature pyramid of levels 2 to 6, proposals collected and distributed over levels 2 to 5, two FCs as head.

    resize_to_size: the top-down path doubles the size that it reads from the tensor, as in early 2019, not by a factor.
    """
    net = _Detector(width)
    levels = net.pyramid(resize_to_size)
    names = ("conv_rpn_fpn2", "rpn_cls_logits_fpn2", "rpn_bbox_pred_fpn2")
    proposals = []
    for level, feature in levels.items():
        anchors = net.anchors(feature, (8.0 * 2**level,), float(2**level))
        proposals.append(net.rpn(feature, anchors, names, top=(1000, 1000), lod=False))
    rois = net.collect([rois for rois, _ in proposals], [scores for _, scores in proposals])
    *parts, restore = net.distribute(rois)
    crops = [
        net.roi_align(levels[level], part, 7, 2, 1 / 2**level) for level, part in zip(range(2, 6), parts, strict=True)
    ]
    y = net.op("concat", {"X": [crop.name for crop in crops]}, crops[0], axis=0)
    y = net.op("gather", {"X": y.name, "Index": restore}, y)
    for name in ("fc6", "fc7"):
        y = net.fc(y, name, net.scaled(1024), pixels=1 if y.flat else 49)
        y = net.op("relu", {"X": y.name}, y)
    return net.answer(rois, y)


class _Detector:
    """Appends the parts of a detector to a program."""

    def __init__(self, width: Fraction) -> None:
        self.program = ProgramBuilder()
        self._width = width
        self._declared: set[str] = set()
        self.image = Tensor(self.program.feed("image", [-1, 3, 800, 1333]), 3)
        self.im_info = self.program.feed("im_info", [-1, 3])

    def scaled(self, channels: int) -> int:
        return max(1, round(channels * self._width))

    def op(self, kind: str, inputs: dict[str, Any], y: Tensor, slot: str = "Out", **attributes: Any) -> Tensor:
        return y._replace(name=self.program.op(kind, inputs, {slot: y.dims}, **attributes))

    def conv(self, x: Tensor, weights: str, filters: int, kernel: int, stride: int = 1) -> Tensor:
        self._parameter(weights, [filters, x.dims[1], kernel, kernel])
        attributes: dict[str, Any] = {
            "strides": [stride] * 2,
            "paddings": [kernel // 2] * 2,
            "dilations": [1, 1],
            "groups": 1,
        }
        y = Tensor("", filters)
        return self.op("conv2d", {"Input": x.name, "Filter": weights}, y, "Output", data_format="NCHW", **attributes)

    def affine_conv(
        self, x: Tensor, name: str, filters: int, kernel: int, stride: int = 1, *, relu: bool = True
    ) -> Tensor:
        """Convolution and a frozen batch norm, which is a factor and an offset per channel."""
        y = self.conv(x, f"{name}_weights", filters, kernel, stride)
        norm = f"bn_{name}" if name == "conv1" else f"bn{name[3:]}"
        inputs = {"X": y.name, "Scale": f"{norm}_scale", "Bias": f"{norm}_offset"}
        for parameter in (inputs["Scale"], inputs["Bias"]):
            self._parameter(parameter, [filters])
        y = self.op("affine_channel", inputs, y, data_layout="NCHW")
        return self.op("relu", {"X": y.name}, y) if relu else y

    def biased_conv(self, x: Tensor, name: str, filters: int, kernel: int = 1) -> Tensor:
        y = self.conv(x, f"{name}_w", filters, kernel)
        return self._bias(y, name)

    def fc(self, x: Tensor, name: str, size: int, pixels: int = 1) -> Tensor:
        """pixels: height times width of x."""
        self._parameter(f"{name}_w", [x.dims[1] * pixels, size])
        y = Tensor("", size, flat=True)
        inputs = {"X": x.name, "Y": f"{name}_w"}
        return self._bias(self.op("mul", inputs, y, x_num_col_dims=1, y_num_col_dims=1), name)

    def stages(self, x: Tensor, last: int) -> Tensor:
        x = self.stem(x)
        for stage in range(2, last + 1):
            x = self.stage(x, stage)
        return x

    def stem(self, x: Tensor) -> Tensor:
        x = self.affine_conv(x, "conv1", self.scaled(64), 7, 2)
        return self.op(
            "pool2d", {"X": x.name}, x, pooling_type="max", ksize=[3, 3], strides=[2, 2], paddings=[1, 1], **POOL
        )

    def stage(self, x: Tensor, stage: int) -> Tensor:
        """One of ResNet's stages, 2 to 5: the stride is in the first 1x1 convolution."""
        filters = self.scaled(64 << (stage - 2))
        for block in range(BLOCKS[stage - 2]):
            name = f"res{stage}{chr(ord('a') + block)}"
            stride = 2 if block == 0 and stage > 2 else 1
            short = x if block else self.affine_conv(x, f"{name}_branch1", 4 * filters, 1, stride, relu=False)
            y = self.affine_conv(x, f"{name}_branch2a", filters, 1, stride)
            y = self.affine_conv(y, f"{name}_branch2b", filters, 3)
            y = self.affine_conv(y, f"{name}_branch2c", 4 * filters, 1, relu=False)
            y = self.op("elementwise_add", {"X": short.name, "Y": y.name}, y, axis=-1)
            x = self.op("relu", {"X": y.name}, y)
        return x

    def pyramid(self, resize_to_size: bool) -> dict[int, Tensor]:
        """Levels 2 to 6 of a feature pyramid."""
        x, bodies = self.stem(self.image), {}
        for stage in range(2, 6):
            bodies[stage] = x = self.stage(x, stage)
        channels = self.scaled(256)
        inner = self.biased_conv(bodies[5], "fpn_inner_res5_sum", channels)
        levels = {5: self.biased_conv(inner, "fpn_res5_sum", channels, 3)}
        for level in (4, 3, 2):
            lateral = self.biased_conv(bodies[level], f"fpn_inner_res{level}_sum_lateral", channels)
            inner = self.op(
                "elementwise_add", {"X": lateral.name, "Y": self._doubled(inner, resize_to_size)}, inner, axis=-1
            )
            levels[level] = self.biased_conv(inner, f"fpn_res{level}_sum", channels, 3)
        top: dict[str, Any] = {"pooling_type": "max", "ksize": [1, 1], "strides": [2, 2], "paddings": [0, 0]}
        levels[6] = self.op("pool2d", {"X": levels[5].name}, levels[5], **top, **POOL)
        return dict(sorted(levels.items()))

    def anchors(self, x: Tensor, sizes: Sequence[float], stride: float) -> tuple[str, str]:
        dims = [-1, -1, len(sizes) * len(RATIOS), 4]
        names = [self.program.variable(f"{x.name}.{kind}", dims) for kind in ("anchors", "variances")]
        self.program.bare_op(
            "anchor_generator",
            {"Input": x.name},
            {"Anchors": names[0], "Variances": names[1]},
            anchor_sizes=list(sizes),
            aspect_ratios=list(RATIOS),
            variances=[1.0, 1.0, 1.0, 1.0],
            stride=[stride, stride],
            offset=0.5,
        )
        return names[0], names[1]

    def rpn(
        self, x: Tensor, anchors: tuple[str, str], names: tuple[str, str, str], *, top: tuple[int, int], lod: bool
    ) -> tuple[str, str]:
        """Rois and scores. names: of the three convolutions. top: proposals kept before and after NMS.

        lod: with the output that Paddle 1.8 added.
        """
        shape = len(RATIOS) * (5 if top[0] > 1000 else 1)
        y = self.biased_conv(x, names[0], x.dims[1], 3)
        y = self.op("relu", {"X": y.name}, y)
        scores = self.biased_conv(y, names[1], shape)
        scores = self.op("sigmoid", {"X": scores.name}, scores)
        deltas = self.biased_conv(y, names[2], 4 * shape)
        rois = self.program.variable(f"{x.name}.rois", [-1, 4])
        probs = self.program.variable(f"{x.name}.roi_probs", [-1, 1])
        self.program.bare_op(
            "generate_proposals",
            {
                "Scores": scores.name,
                "BboxDeltas": deltas.name,
                "ImInfo": self.im_info,
                "Anchors": anchors[0],
                "Variances": anchors[1],
            },
            {"RpnRois": rois, "RpnRoiProbs": probs}
            | ({"RpnRoisLod": self.program.variable(f"{x.name}.rois_lod", [-1], INT32)} if lod else {}),
            pre_nms_topN=top[0],
            post_nms_topN=top[1],
            nms_thresh=0.7,
            min_size=0.0,
            eta=1.0,
        )
        return rois, probs

    def collect(self, rois: Sequence[str], scores: Sequence[str]) -> str:
        """The best 1,000 proposals of all levels."""
        inputs = {"MultiLevelRois": rois, "MultiLevelScores": scores}
        return self.program.op("collect_fpn_proposals", inputs, {"FpnRois": [-1, 4]}, post_nms_topN=1000)

    def distribute(self, rois: str) -> list[str]:
        """Each level's boxes, by their size, and last where each one was."""
        parts = [self.program.variable(f"{rois}.level{level}", [-1, 4]) for level in range(2, 6)]
        restore = self.program.variable(f"{rois}.restore", [-1, 1], INT32)
        outputs = {"MultiFpnRois": parts, "RestoreIndex": restore}
        levels = {"min_level": 2, "max_level": 5, "refer_level": 4, "refer_scale": 224}
        self.program.bare_op("distribute_fpn_proposals", {"FpnRois": rois}, outputs, **levels)
        return [*parts, restore]

    def roi_align(self, x: Tensor, rois: str, size: int, samples: int, scale: float) -> Tensor:
        """Without the attribute `aligned`, which Paddle 2 added."""
        attributes: dict[str, Any] = {
            "pooled_height": size,
            "pooled_width": size,
            "sampling_ratio": samples,
            "spatial_scale": scale,
        }
        return self.op("roi_align", {"X": x.name, "ROIs": rois}, x, **attributes)

    def answer(self, rois: str, y: Tensor) -> bytes:
        """Fetch rois, class probabilities and box deltas."""
        scores = self.fc(y, "cls_score", CLASSES)
        scores = self.op("softmax", {"X": scores.name}, scores, axis=-1)
        deltas = self.fc(y, "bbox_pred", 4 * CLASSES)
        for name, dims in ((rois, [-1, 4]), (scores.name, scores.dims), (deltas.name, deltas.dims)):
            # Paddle 1.x put this op before each output.
            self.program.fetch(
                self.program.op("scale", {"X": name}, {"Out": dims}, scale=1.0, bias=0.0, bias_after_scale=True)
            )
        return self.program.serialize()

    def _doubled(self, x: Tensor, to_size: bool) -> str:
        inputs = {"X": x.name}
        if to_size:
            inputs["OutSize"] = self._doubled_size(x)
        attributes: dict[str, Any] = {
            "interp_method": "nearest",
            "align_corners": True,
            "align_mode": 1,
            "data_layout": "NCHW",
        }
        unset: dict[str, Any] = {"out_d": -1, "out_h": -1, "out_w": -1}
        return self.op("nearest_interp", inputs, x, scale=2.0, **attributes, **unset).name

    def _doubled_size(self, x: Tensor) -> str:
        names = [self.program.variable(f"{x.name}.size{step}", [4 if step == 0 else 2], INT32) for step in range(3)]
        self.program.bare_op("shape", {"Input": x.name}, {"Out": names[0]})
        self.program.bare_op("slice", {"Input": names[0]}, {"Out": names[1]}, axes=[0], starts=[2], ends=[4])
        self.program.bare_op("scale", {"X": names[1]}, {"Out": names[2]}, scale=2.0, bias=0.0, bias_after_scale=True)
        return names[2]

    def _bias(self, x: Tensor, name: str) -> Tensor:
        self._parameter(f"{name}_b", [x.dims[1]])
        return self.op("elementwise_add", {"X": x.name, "Y": f"{name}_b"}, x, axis=1)

    def _parameter(self, name: str, shape: list[int]) -> None:
        if name not in self._declared:  # the levels of a pyramid share theirs
            self._declared.add(name)
            self.program.variable(name, shape, persistable=True)
