"""The layers that the networks are made of: parameters asked for by name, checked, and appended to a program.

A walk over a network calls these layers. Where the widths come from is the one thing that differs between walks:
`FoundShapes` takes them from a train model's files, `PlannedShapes` from the published network, scaled.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from landmark_onnx_export.networks.shapes import Dims, Shapes
from landmark_onnx_export.paddle.builder import ProgramBuilder


class FeatureMap(NamedTuple):
    """A value of the program: (N, channels, H, W), or (N, channels) once flat. channels: None after a problem."""

    name: str
    channels: int | None
    flat: bool = False

    @property
    def dims(self) -> list[int]:
        """The shape as a program declares it, -1 where it is open."""
        channels = -1 if self.channels is None else self.channels
        return [-1, channels] if self.flat else [-1, channels, -1, -1]


class ConvNames(NamedTuple):
    """The five parameters of a convolution with its batch norm."""

    weights: str
    scale: str
    offset: str
    mean: str
    variance: str


Naming = Callable[[str, int], ConvNames]
"""Name and position of a convolution -> names of its parameters."""


class Conv(NamedTuple):
    """A convolution of `kernel` (height, width); filters and groups as published. Unless `same`, it is not padded."""

    name: str
    filters: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    same: bool = True
    groups: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """What all layers of a network have in common.

    padding: "EXPLICIT" pads both sides alike; "SAME" as TensorFlow does, with one more at the bottom and right where
    the number is odd. epsilon: of batch norms. out_first: weights of FCs are [out, in], as torch has them.
    """

    padding: Literal["EXPLICIT", "SAME"] = "EXPLICIT"
    activation: Literal["relu", "relu6"] = "relu"
    epsilon: float = 1e-5
    out_first: bool = False


PLAIN = Style()
"""That of the original's networks."""


class Layers:
    """Appends layers to `program` as its methods are called."""

    def __init__(self, shapes: Shapes, naming: Naming, style: Style) -> None:
        self.program = ProgramBuilder()
        self.shapes = shapes
        self._naming = naming
        self._style = style
        self._convs = 0

    def feed(self, name: str, channels: int) -> FeatureMap:
        """An input of any batch, height and width."""
        return FeatureMap(self.program.feed(name, [-1, channels, -1, -1]), channels)

    def conv(self, x: FeatureMap, conv: Conv, *, relu: bool = True, like: FeatureMap | None = None) -> FeatureMap:
        """Convolution without bias, batch norm, the network's activation. like: has the same channels."""
        names = self._naming(conv.name, self._convs)
        self._convs += 1
        channels, groups = self._weights(x, names.weights, (conv.filters, *conv.kernel), conv.groups, like)
        for norm in names[1:]:
            (channels,) = self._parameter(norm, (channels,), (channels or 0,))
        y = FeatureMap("", channels)
        y = self._op(
            "conv2d",
            {"Input": x.name, "Filter": names.weights},
            y,
            slot="Output",
            strides=[conv.stride, conv.stride],
            paddings=[side // 2 if conv.same else 0 for side in conv.kernel],
            dilations=[1, 1],
            groups=groups,
            padding_algorithm=self._style.padding if conv.same else "EXPLICIT",
            data_format="NCHW",
        )
        y = self._batch_norm(y, names)
        return self._op(self._style.activation, {"X": y.name}, y) if relu else y

    def fc(self, x: FeatureMap, weights: str, bias: str, size: int, like: FeatureMap | None = None) -> FeatureMap:
        """Product with weights [in, out] plus bias. size: of the output, where planned. like: has the same channels."""
        wanted, planned = (x.channels, like.channels if like else None), (x.channels or 0, size)
        order = (1, 0) if self._style.out_first else (0, 1)
        dims = self._parameter(weights, [wanted[at] for at in order], [planned[at] for at in order])
        channels = dims[order[1]]
        (channels,) = self._parameter(bias, (channels,), (channels or 0,))
        y = FeatureMap("", channels, flat=True)
        if self._style.out_first:
            y = self._op("matmul_v2", {"X": self.flatten(x).name, "Y": weights}, y, trans_x=False, trans_y=True)
        else:
            y = self._op("mul", {"X": x.name, "Y": weights}, y, x_num_col_dims=1, y_num_col_dims=1)
        return self._op("elementwise_add", {"X": y.name, "Y": bias}, y, axis=1)

    def pool(self, x: FeatureMap, kind: str, size: int, stride: int, padding: int = 0) -> FeatureMap:
        """Max or average ("avg") pooling of size x size pixels; padding is not counted."""
        return self._pool(x, kind, size, stride, padding, everywhere=False)

    def global_mean(self, x: FeatureMap) -> FeatureMap:
        """Mean over height and width, which become 1."""
        return self._pool(x, "avg", 1, 1, 0, everywhere=True)

    def flatten(self, x: FeatureMap) -> FeatureMap:
        """(N, channels) of a map of one pixel."""
        y = FeatureMap("", x.channels, flat=True)
        return x if x.flat else self._op("reshape2", {"X": x.name}, y, shape=[0, -1])

    def concat(self, parts: Sequence[FeatureMap]) -> FeatureMap:
        """The channels of all parts, in order."""
        known = [part.channels for part in parts if part.channels is not None]
        y = FeatureMap("", sum(known) if len(known) == len(parts) else None)
        return self._op("concat", {"X": [part.name for part in parts]}, y, axis=1) if len(parts) > 1 else parts[0]

    def add(self, x: FeatureMap, y: FeatureMap) -> FeatureMap:
        """The sum."""
        return self._op("elementwise_add", {"X": x.name, "Y": y.name}, x, axis=-1)

    def add_relu(self, x: FeatureMap, y: FeatureMap) -> FeatureMap:
        """ReLU of the sum."""
        return self._op("relu", {"X": self.add(x, y).name}, x)

    def squeeze_excite(self, x: FeatureMap, name: str, reduction: int) -> FeatureMap:
        """Each channel times a factor in 0..1 that two FCs make of the means of all channels."""
        size = max(1, (x.channels or 0) // reduction)
        y = self.fc(self.global_mean(x), f"{name}_sqz_weights", f"{name}_sqz_offset", size)
        y = self._op("relu", {"X": y.name}, y)
        y = self.fc(y, f"{name}_exc_weights", f"{name}_exc_offset", x.channels or 0, like=x)
        y = self._op("sigmoid", {"X": y.name}, y)
        return self._op("elementwise_mul", {"X": x.name, "Y": y.name}, x, axis=0)

    def softmax(self, x: FeatureMap) -> FeatureMap:
        """Probabilities over the channels."""
        return self._op("softmax", {"X": x.name}, x, axis=-1)

    def _weights(
        self, x: FeatureMap, name: str, usual: tuple[int, int, int], groups: int, like: FeatureMap | None
    ) -> tuple[int | None, int]:
        """Output channels and groups. usual: published filters, kernel height and width."""
        filters, *kernel = usual
        usual_groups = math.gcd(x.channels or 1, self.shapes.usual(groups)) if groups > 1 else 1
        wanted = (like.channels if like else None, x.channels if groups == 1 else None, *kernel)
        planned = (self.shapes.usual(filters), (x.channels or 0) // usual_groups, *kernel)
        channels, per_group = self._parameter(name, wanted, planned)[:2]
        if groups == 1 or not x.channels or not per_group or not channels:
            return channels, 1
        if x.channels % per_group or channels % (x.channels // per_group):
            self.shapes.refuse(f"{name}: wanted groups that divide {x.channels} channels, got {per_group} in a group")
            return channels, 1
        return channels, x.channels // per_group

    def _batch_norm(self, x: FeatureMap, names: ConvNames) -> FeatureMap:
        channels = x.dims[1]
        saved = [self.program.variable(f"{x.name}.{end}", [channels]) for end in ("saved_mean", "saved_variance")]
        out = self.program.variable(f"{x.name}.norm", x.dims)
        self.program.bare_op(
            "batch_norm",
            {
                "X": x.name,
                "Scale": names.scale,
                "Bias": names.offset,
                "Mean": names.mean,
                "Variance": names.variance,
            },
            {
                "Y": out,
                "MeanOut": names.mean,
                "VarianceOut": names.variance,
                "SavedMean": saved[0],
                "SavedVariance": saved[1],
            },
            epsilon=self._style.epsilon,
            momentum=0.9,
            is_test=True,
            use_global_stats=False,
            data_layout="NCHW",
        )
        return x._replace(name=out)

    def _pool(self, x: FeatureMap, kind: str, size: int, stride: int, padding: int, *, everywhere: bool) -> FeatureMap:
        name = self.program.op(
            "pool2d",
            {"X": x.name},
            {"Out": [*x.dims[:2], 1, 1] if everywhere else x.dims},
            pooling_type=kind,
            ksize=[size, size],
            strides=[stride, stride],
            paddings=[padding, padding],
            global_pooling=everywhere,
            exclusive=True,
            adaptive=False,
            ceil_mode=False,
            padding_algorithm="EXPLICIT",
            data_format="NCHW",
        )
        return x._replace(name=name)

    def _parameter(self, name: str, wanted: Sequence[int | None], usual: Sequence[int]) -> Dims:
        dims = self.shapes.take(name, tuple(wanted), usual)
        self.program.variable(name, [size or -1 for size in dims], persistable=True)
        return dims

    def _op(
        self, kind: str, inputs: Mapping[str, str | Sequence[str]], y: FeatureMap, slot: str = "Out", **attributes: Any
    ) -> FeatureMap:
        return y._replace(name=self.program.op(kind, inputs, {slot: y.dims}, **attributes))
