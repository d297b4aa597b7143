"""ResNet_vd and SE-ResNeXt_vd, and how their releases name variables.

Source: PaddlePaddle/Research, CV/landmark/inference/models.
"""

from collections.abc import Callable
from dataclasses import dataclass

from landmark_onnx_export.networks.layers import Conv, ConvNames, FeatureMap, Layers


def auto_names(_name: str, position: int) -> ConvNames:
    """Paddle's own counters, in creation order."""
    norm = f"batch_norm_{position}"
    return ConvNames(f"conv2d_{position}.w_0", f"{norm}.w_0", f"{norm}.b_0", f"{norm}.w_1", f"{norm}.w_2")


def resnet_names(name: str, _position: int) -> ConvNames:
    """res2a_branch1 -> res2a_branch1_weights, bn2a_branch1_scale, ..."""
    return _norm_names(name, f"bn{name[3:]}")


def suffix_names(name: str, _position: int) -> ConvNames:
    """conv1_1 -> conv1_1_weights, conv1_1_bn_scale, ..."""
    return _norm_names(name, f"{name}_bn")


def _norm_names(name: str, norm: str) -> ConvNames:
    return ConvNames(f"{name}_weights", f"{norm}_scale", f"{norm}_offset", f"{norm}_mean", f"{norm}_variance")


def lettered(stage: int, block: int) -> str:
    """res2a, res2b, res2c, ..."""
    return f"res{stage + 2}{chr(ord('a') + block)}"


def numbered(stage: int, block: int) -> str:
    """As `lettered`, but res4a, res4b1, res4b2, ... in the long third stage."""
    return f"res4b{block}" if stage == 2 and block else lettered(stage, block)


@dataclass(frozen=True, slots=True)
class ResidualVd:
    """ResNet_vd and its kin: a stem of three convolutions, then four stages of bottleneck blocks.

    width: of the first stage's 3x3 convolutions. expansion: block output over that. reduction: squeeze's, 0 for none.
    roles: what a block's name gets for its 1x1, 3x3, 1x1 and shortcut convolutions.
    """

    blocks: tuple[int, int, int, int]
    block_name: Callable[[int, int], str]
    stem: tuple[int, int, int] = (32, 32, 64)
    width: int = 64
    expansion: int = 4
    groups: int = 1
    reduction: int = 0
    roles: tuple[str, str, str, str] = ("_branch2a", "_branch2b", "_branch2c", "_branch1")

    def __call__(self, net: Layers, x: FeatureMap) -> FeatureMap:
        """From the image to the last stage's output."""
        for index, filters in enumerate(self.stem):
            x = net.conv(x, Conv(f"conv1_{index + 1}", filters, (3, 3), stride=1 if index else 2))
        x = net.pool(x, "max", 3, 2, 1)
        for stage, count in enumerate(self.blocks):
            for block in range(count):
                x = self._block(net, x, stage, block)
        return x

    def _block(self, net: Layers, x: FeatureMap, stage: int, block: int) -> FeatureMap:
        name, filters = self.block_name(stage, block), self.width << stage
        reduce, spatial, expand, project = (name + role for role in self.roles)
        halve = block == 0 and stage > 0
        y = net.conv(x, Conv(reduce, filters))
        y = net.conv(y, Conv(spatial, filters, (3, 3), stride=2 if halve else 1, groups=self.groups))
        y = net.conv(y, Conv(expand, filters * self.expansion), relu=False, like=x if block else None)
        if self.reduction:
            y = net.squeeze_excite(y, name.replace("conv", "fc"), self.reduction)
        if block == 0:
            x = net.pool(x, "avg", 2, 2) if halve else x
            x = net.conv(x, Conv(project, filters * self.expansion), relu=False, like=y)
        return net.add_relu(x, y)
