"""Faster R-CNN's program as PaddleDetection saved it in 2019 and 2020, at any width: what synthetic releases ship.

Source: PaddlePaddle/PaddleDetection 0.1-0.4, ppdet/modeling (ResNet 50 with affine channels, RPN and RoI head).
"""

from fractions import Fraction
from typing import Any

from landmark_onnx_export.networks.layers import FeatureMap
from landmark_onnx_export.paddle.builder import ProgramBuilder
from landmark_onnx_export.paddle.variables import INT32

CLASSES = 501
"""OpenImages V4's boxable 500, and the background as class 0."""

BLOCKS = (3, 4, 6, 3)
SIZES, RATIOS = (32.0, 64.0, 128.0, 256.0, 512.0), (0.5, 1.0, 2.0)
ANCHORS = len(SIZES) * len(RATIOS)
"""Of each place."""
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
    feature = net.stem(net.image)
    for stage in (2, 3, 4):
        feature = net.stage(feature, stage)
    rois = net.rpn(feature, net.anchors(feature))
    y = net.roi_align(feature, rois, 14, 1 / 16)
    y = net.stage(y, 5)
    y = net.op("pool2d", {"X": y.name}, y, pooling_type="avg", ksize=[7, 7], strides=[1, 1], paddings=[0, 0], **POOL)
    return net.answer(rois, y)


class _Detector:
    """Appends the parts of a detector to a program."""

    def __init__(self, width: Fraction) -> None:
        self.program = ProgramBuilder()
        self._width = width
        self.image = FeatureMap(self.program.feed("image", [-1, 3, 800, 1333]), 3)
        self.im_info = self.program.feed("im_info", [-1, 3])

    def scaled(self, channels: int) -> int:
        return max(1, round(channels * self._width))

    def op(self, kind: str, inputs: dict[str, Any], y: FeatureMap, slot: str = "Out", **attributes: Any) -> FeatureMap:
        return y._replace(name=self.program.op(kind, inputs, {slot: y.dims}, **attributes))

    def conv(self, x: FeatureMap, weights: str, filters: int, kernel: int, stride: int = 1) -> FeatureMap:
        self._parameter(weights, [filters, x.dims[1], kernel, kernel])
        attributes: dict[str, Any] = {
            "strides": [stride] * 2,
            "paddings": [kernel // 2] * 2,
            "dilations": [1, 1],
            "groups": 1,
        }
        y = FeatureMap("", filters)
        return self.op("conv2d", {"Input": x.name, "Filter": weights}, y, "Output", data_format="NCHW", **attributes)

    def affine_conv(
        self, x: FeatureMap, name: str, filters: int, kernel: int, stride: int = 1, *, relu: bool = True
    ) -> FeatureMap:
        """Convolution and a frozen batch norm, which is a factor and an offset per channel."""
        y = self.conv(x, f"{name}_weights", filters, kernel, stride)
        norm = f"bn_{name}" if name == "conv1" else f"bn{name[3:]}"
        inputs = {"X": y.name, "Scale": f"{norm}_scale", "Bias": f"{norm}_offset"}
        for parameter in (inputs["Scale"], inputs["Bias"]):
            self._parameter(parameter, [filters])
        y = self.op("affine_channel", inputs, y, data_layout="NCHW")
        return self.op("relu", {"X": y.name}, y) if relu else y

    def biased_conv(self, x: FeatureMap, name: str, filters: int, kernel: int = 1) -> FeatureMap:
        y = self.conv(x, f"{name}_w", filters, kernel)
        return self._bias(y, name)

    def fc(self, x: FeatureMap, name: str, size: int) -> FeatureMap:
        self._parameter(f"{name}_w", [x.dims[1], size])
        y = FeatureMap("", size, flat=True)
        inputs = {"X": x.name, "Y": f"{name}_w"}
        return self._bias(self.op("mul", inputs, y, x_num_col_dims=1, y_num_col_dims=1), name)

    def stem(self, x: FeatureMap) -> FeatureMap:
        x = self.affine_conv(x, "conv1", self.scaled(64), 7, 2)
        return self.op(
            "pool2d", {"X": x.name}, x, pooling_type="max", ksize=[3, 3], strides=[2, 2], paddings=[1, 1], **POOL
        )

    def stage(self, x: FeatureMap, stage: int) -> FeatureMap:
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

    def anchors(self, x: FeatureMap) -> tuple[str, str]:
        names = [self.program.variable(f"{x.name}.{kind}", [-1, -1, ANCHORS, 4]) for kind in ("anchors", "variances")]
        self.program.bare_op(
            "anchor_generator",
            {"Input": x.name},
            {"Anchors": names[0], "Variances": names[1]},
            anchor_sizes=list(SIZES),
            aspect_ratios=list(RATIOS),
            variances=[1.0, 1.0, 1.0, 1.0],
            stride=[16.0, 16.0],
            offset=0.5,
        )
        return names[0], names[1]

    def rpn(self, x: FeatureMap, anchors: tuple[str, str]) -> str:
        """The rois."""
        y = self.biased_conv(x, "conv_rpn", x.dims[1], 3)
        y = self.op("relu", {"X": y.name}, y)
        scores = self.biased_conv(y, "rpn_cls_logits", ANCHORS)
        scores = self.op("sigmoid", {"X": scores.name}, scores)
        deltas = self.biased_conv(y, "rpn_bbox_pred", 4 * ANCHORS)
        rois = self.program.variable(f"{x.name}.rois", [-1, 4])
        probs = self.program.variable(f"{x.name}.roi_probs", [-1, 1])
        lod = self.program.variable(f"{x.name}.rois_lod", [-1], INT32)  # since Paddle 1.8
        self.program.bare_op(
            "generate_proposals",
            {
                "Scores": scores.name,
                "BboxDeltas": deltas.name,
                "ImInfo": self.im_info,
                "Anchors": anchors[0],
                "Variances": anchors[1],
            },
            {"RpnRois": rois, "RpnRoiProbs": probs, "RpnRoisLod": lod},
            pre_nms_topN=6000,
            post_nms_topN=1000,
            nms_thresh=0.7,
            min_size=0.0,
            eta=1.0,
        )
        return rois

    def roi_align(self, x: FeatureMap, rois: str, size: int, scale: float) -> FeatureMap:
        """Without the attribute `aligned`, which Paddle 2 added."""
        attributes: dict[str, Any] = {
            "pooled_height": size,
            "pooled_width": size,
            "sampling_ratio": 0,
            "spatial_scale": scale,
        }
        return self.op("roi_align", {"X": x.name, "ROIs": rois}, x, **attributes)

    def answer(self, rois: str, y: FeatureMap) -> bytes:
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

    def _bias(self, x: FeatureMap, name: str) -> FeatureMap:
        self._parameter(f"{name}_b", [x.dims[1]])
        return self.op("elementwise_add", {"X": x.name, "Y": f"{name}_b"}, x, axis=1)

    def _parameter(self, name: str, shape: list[int]) -> None:
        self.program.variable(name, shape, persistable=True)
