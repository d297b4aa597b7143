"""EfficientNet-Lite0 as a table of blocks, and how torch's state dicts of it name variables.

Source: tensorflow/tpu, models/official/efficientnet/lite/efficientnet_lite_builder.py; the names are those of
lukemelas/EfficientNet-PyTorch, model.py.
"""

from typing import NamedTuple

from landmark_onnx_export.networks.layers import Conv, ConvNames, FeatureMap, Layers


class Group(NamedTuple):
    """Blocks of one width. stride: of the first. expansion: width inside a block over that of its input."""

    repeats: int
    kernel: int
    stride: int
    expansion: int
    width: int


STEM, HEAD = 32, 1280
GROUPS = (
    Group(1, 3, 1, 1, 16),
    Group(2, 3, 2, 6, 24),
    Group(2, 5, 2, 6, 40),
    Group(3, 3, 2, 6, 80),
    Group(3, 5, 1, 6, 112),
    Group(4, 5, 2, 6, 192),
    Group(1, 3, 1, 6, 320),
)
_NORMS = {"_conv_stem": "_bn0", "_conv_head": "_bn1", "_expand_conv": "_bn0", "_depthwise_conv": "_bn1"} | {
    "_project_conv": "_bn2"
}


def efficientnet_names(name: str, _position: int) -> ConvNames:
    """_blocks.0._depthwise_conv -> _blocks.0._depthwise_conv.weight, _blocks.0._bn1.weight, ..."""
    block, dot, role = name.rpartition(".")
    norm = f"{block}{dot}{_NORMS[role]}"
    ends = ("weight", "bias", "running_mean", "running_var")
    return ConvNames(f"{name}.weight", *(f"{norm}.{end}" for end in ends))


def efficientnet_fc_names(number: int) -> tuple[str, str]:
    """The only one has no number."""
    name = f"_fc{number or ''}"
    return f"{name}.weight", f"{name}.bias"


def efficientnet_lite0(net: Layers, x: FeatureMap) -> FeatureMap:
    """From the image to the last convolution: no squeeze and excitation, and no activation behind a block."""
    x = net.conv(x, Conv("_conv_stem", STEM, (3, 3), stride=2))
    width, number = STEM, 0
    for group in GROUPS:
        for repeat in range(group.repeats):
            x = _block(net, x, f"_blocks.{number}", group, width if repeat == 0 else None)
            width, number = group.width, number + 1
    return net.conv(x, Conv("_conv_head", HEAD))


def _block(net: Layers, x: FeatureMap, name: str, group: Group, before: int | None) -> FeatureMap:
    """Expand, depthwise, project, and add the input if it is as wide. before: its width if it is from another group."""
    inside = group.expansion * (before or group.width)
    y = net.conv(x, Conv(f"{name}._expand_conv", inside)) if group.expansion > 1 else x
    kernel, stride = (group.kernel, group.kernel), group.stride if before else 1
    y = net.conv(y, Conv(f"{name}._depthwise_conv", inside, kernel, stride, groups=inside), like=y)
    y = net.conv(y, Conv(f"{name}._project_conv", group.width), relu=False, like=None if before else x)
    return y if before else net.add(x, y)
