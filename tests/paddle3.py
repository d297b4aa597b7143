"""`python paddle3.py FOLDER`: models that Paddle 3 itself saves as `inference.json`, and what it answers with them."""

import sys
from pathlib import Path

import numpy as np
import paddle
import paddle.nn.functional as F  # noqa: N812
from paddle import nn

QUESTIONS = ((2, 3, 224, 224), (1, 3, 160, 256))


def conv_bn(inputs, outputs, kernel, stride=1, groups=1):
    conv = nn.Conv2D(inputs, outputs, kernel, stride, (kernel - 1) // 2, groups=groups, bias_attr=False)
    return nn.Sequential(conv, nn.BatchNorm2D(outputs))


class Classifier(nn.Layer):
    """What a first lesson saves: convolutions with bias, pooling, softmax."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2D(3, 8, 7, stride=4, padding=3)
        self.norm = nn.BatchNorm2D(8)
        self.fc = nn.Linear(8, 16)

    def forward(self, image):
        y = F.max_pool2d(F.relu(self.norm(self.conv(image))), 3, 2, 1)
        y = F.adaptive_avg_pool2d(y, 1)
        return F.softmax(self.fc(paddle.flatten(y, 1)))


class Bottleneck(nn.Layer):
    """ResNet-vd: the shortcut of a strided block is pooled before its 1x1 convolution."""

    def __init__(self, inputs, width, stride, first):
        super().__init__()
        self.convs = nn.LayerList(
            [conv_bn(inputs, width, 1), conv_bn(width, width, 3, stride), conv_bn(width, 4 * width, 1)]
        )
        self.pool = nn.AvgPool2D(2, 2, ceil_mode=True) if stride > 1 else nn.Identity()
        self.shortcut = conv_bn(inputs, 4 * width, 1) if first else None

    def forward(self, x):
        y = F.relu(self.convs[1](F.relu(self.convs[0](x))))
        short = x if self.shortcut is None else self.shortcut(self.pool(x))
        return F.relu(self.convs[2](y) + short)


class ResNet50VD(nn.Layer):
    """ResNet50_vd of an eighth of the width, with an embedding of length 1."""

    def __init__(self, width=8, embedding=64):
        super().__init__()
        half = width // 2
        self.stem = nn.LayerList([conv_bn(3, half, 3, 2), conv_bn(half, half, 3), conv_bn(half, width, 3)])
        self.blocks, inputs = nn.LayerList(), width
        for stage, depth in enumerate((3, 4, 6, 3)):
            for number in range(depth):
                size, stride = width << stage, 2 if stage and not number else 1
                self.blocks.append(Bottleneck(inputs, size, stride, first=not number))
                inputs = 4 * size
        self.embedding = nn.Linear(inputs, embedding)

    def forward(self, y):
        for conv in self.stem:
            y = F.relu(conv(y))
        y = F.max_pool2d(y, 3, 2, 1)
        for block in self.blocks:
            y = block(y)
        y = paddle.flatten(F.adaptive_avg_pool2d(y, 1), 1)
        return F.normalize(self.embedding(y), axis=1)


class LCNetBlock(nn.Layer):
    """PPLCNetV2: depthwise convolutions of two kernels side by side, squeeze and excitation, pointwise."""

    def __init__(self, inputs, outputs, stride, squeezed, act):
        super().__init__()
        self.wide = conv_bn(inputs, inputs, 5, stride, groups=inputs)
        self.narrow = conv_bn(inputs, inputs, 3, stride, groups=inputs)
        self.squeeze = nn.Conv2D(inputs, inputs // 4, 1) if squeezed else None
        self.excite = nn.Conv2D(inputs // 4, inputs, 1) if squeezed else None
        self.point = conv_bn(inputs, outputs, 1)
        self.act, self.kept = act, inputs == outputs and stride == 1

    def forward(self, x):
        y = self.act(self.wide(x) + self.narrow(x))
        if self.squeeze is not None:
            gate = F.relu(self.squeeze(F.adaptive_avg_pool2d(y, 1)))
            y = y * F.hardsigmoid(self.excite(gate))
        y = self.act(self.point(y))
        return x + y if self.kept else y


class LCNetV2(nn.Layer):
    """PPLCNetV2-like: narrow, with a batch norm as the embedding's neck."""

    def __init__(self, width=16, embedding=64):
        super().__init__()
        self.stem = conv_bn(3, width, 3, 2)
        self.blocks = nn.Sequential(
            LCNetBlock(width, 2 * width, 2, squeezed=False, act=F.relu),
            LCNetBlock(2 * width, 2 * width, 1, squeezed=False, act=F.hardswish),
            LCNetBlock(2 * width, 4 * width, 2, squeezed=True, act=F.hardswish),
        )
        self.last = nn.Conv2D(4 * width, 8 * width, 1, bias_attr=False)
        self.dropout = nn.Dropout(0.2)
        self.fc = nn.Linear(8 * width, embedding)
        self.neck = nn.BatchNorm1D(embedding)

    def forward(self, image):
        y = self.blocks(F.hardswish(self.stem(image)))
        y = F.hardswish(self.last(F.adaptive_avg_pool2d(y, 1)))
        return self.neck(self.fc(self.dropout(paddle.flatten(y, 1))))


class HalfParameters(nn.Layer):
    """Parameters in float16 that are widened where they are used, as a CPU can have them."""

    def __init__(self):
        super().__init__()
        zero = nn.initializer.Constant(0.0)
        self.kernel = self.create_parameter([16, 3, 3, 3], dtype="float16", default_initializer=zero)
        self.matrix = self.create_parameter([16, 32], dtype="float16", default_initializer=zero)

    def forward(self, image):
        y = F.relu(F.conv2d(image, self.kernel.astype("float32"), stride=2, padding=1))
        return paddle.mean(y, axis=[2, 3]) @ self.matrix.astype("float32")


class Fixed(nn.Layer):
    """A linear layer as long as the whole map of one image size."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2D(3, 4, 3, stride=8, padding=1)
        self.fc = nn.Linear(4 * 28 * 28, 5)

    def forward(self, image):
        return self.fc(paddle.flatten(self.conv(image), 1))


class Unknown(nn.Layer):
    """With an op that paddle2onnx has no form of."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 4)

    def forward(self, image):
        return paddle.digamma(self.fc(paddle.mean(image, axis=[2, 3])))


NETWORKS = {
    "classifier": (Classifier, [None, 3, 224, 224]),
    "resnet50_vd": (ResNet50VD, [None, 3, None, None]),
    "pplcnet_v2": (LCNetV2, [None, 3, 224, 224]),
    "half": (HalfParameters, [None, 3, 224, 224]),
}
"""Name -> the network, and the shape that it is saved for."""

REFUSED = {"fixed": (Fixed, [None, 3, 224, 224]), "unknown": (Unknown, [None, 3, 224, 224])}


def settle(network, seed=0):
    """Give each tensor of a network values as training might leave them: batch norms that are not the identity."""
    random = np.random.default_rng(seed)
    for name, value in network.state_dict().items():
        if name.endswith("_variance"):
            array = random.uniform(0.5, 1.5, value.shape)
        elif value.ndim == 1:
            array = random.normal(1 if "weight" in name else 0, 0.1, value.shape)
        else:
            fan_in = np.prod(value.shape[1:] if value.ndim == 4 else value.shape[:1])
            array = random.normal(0, fan_in**-0.5, value.shape)
        value.set_value(array.astype("float16" if value.dtype == paddle.float16 else "float32"))


def save(network, shape, folder):
    spec = paddle.static.InputSpec(shape, "float32", "x")
    paddle.jit.save(network, str(folder / "inference"), input_spec=[spec])


def main(folder):
    for name, (make, shape) in NETWORKS.items():
        network = make()
        settle(network)
        network.eval()
        answers = {}
        for number, sizes in enumerate(QUESTIONS):
            question = np.random.default_rng(number).normal(0, 1, sizes).astype(np.float32)
            answers[f"question{number}"] = question
            answers[f"answer{number}"] = network(paddle.to_tensor(question)).numpy()
        save(network, shape, folder / name)
        np.savez(folder / f"{name}.npz", **answers)
    for name, (make, shape) in REFUSED.items():
        network = make()
        network.eval()
        save(network, shape, folder / name)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
