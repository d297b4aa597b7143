"""The four networks as Paddle programs; every width, the embedding size and the class count come from variable shapes.

`build` rebuilds a network around a train model's files, `plan` at its published widths, scaled; both are one walk.
Source: PaddlePaddle/Research, CV/landmark/inference/models.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import Literal, NamedTuple, TypeAlias

from landmark_onnx.errors import ExportError
from landmark_onnx.tasks import Task
from landmark_onnx_export.networks.layers import ConvNames, FeatureMap, FoundShapes, Layers, Naming, PlannedShapes
from landmark_onnx_export.paddle.variables import Variable, parse_program, persistable_names


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
            x = net.conv(x, f"conv1_{index + 1}", filters, (3, 3), stride=1 if index else 2)
        x = net.pool(x, "max", 3, 2, 1)
        for stage, count in enumerate(self.blocks):
            for block in range(count):
                x = self._block(net, x, stage, block)
        return x

    def _block(self, net: Layers, x: FeatureMap, stage: int, block: int) -> FeatureMap:
        name, filters = self.block_name(stage, block), self.width << stage
        reduce, spatial, expand, project = (name + role for role in self.roles)
        halve = block == 0 and stage > 0
        y = net.conv(x, reduce, filters)
        y = net.conv(y, spatial, filters, (3, 3), stride=2 if halve else 1, groups=self.groups)
        y = net.conv(y, expand, filters * self.expansion, relu=False, like=x if block else None)
        if self.reduction:
            y = net.squeeze_excite(y, name.replace("conv", "fc"), self.reduction)
        if block == 0:
            x = net.pool(x, "avg", 2, 2) if halve else x
            x = net.conv(x, project, filters * self.expansion, relu=False, like=y)
        return net.add_relu(x, y)


class Conv(NamedTuple):
    """A convolution of `kernel` (height, width). Unless `same`, it is not padded."""

    name: str
    filters: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    same: bool = True


Step: TypeAlias = "Conv | Literal['max', 'avg'] | list[list[Step]]"
"""A convolution, a 3x3 pooling, or branches whose outputs are concatenated."""


def _chain(*names_and_filters: tuple[str, int]) -> list[Step]:
    """Convolutions in a row; a name like 7x1_2 tells the kernel, and anything with `reduce` is 1x1."""
    return [Conv(name, filters, _kernel(name)) for name, filters in names_and_filters]


def _kernel(name: str) -> tuple[int, int]:
    height, width = name.split("_")[0].split("x")
    return (1, 1) if name.endswith("reduce") else (int(height), int(width))


_STEM: list[Step] = [
    Conv("conv1_3x3_s2", 32, (3, 3), stride=2, same=False),
    Conv("conv2_3x3_s1", 32, (3, 3), same=False),
    Conv("conv3_3x3_s1", 64, (3, 3)),
    [["max"], [Conv("inception_stem1_3x3_s2", 96, (3, 3), stride=2, same=False)]],
    [
        [Conv("inception_stem2_3x3_reduce", 64), Conv("inception_stem2_3x3", 96, (3, 3), same=False)],
        [
            Conv("inception_stem2_1x7_reduce", 64),
            Conv("inception_stem2_1x7", 64, (7, 1)),  # named the other way round in the release
            Conv("inception_stem2_7x1", 64, (1, 7)),
            Conv("inception_stem2_3x3_2", 96, (3, 3), same=False),
        ],
    ],
    [[Conv("inception_stem3_3x3_s2", 192, (3, 3), stride=2, same=False)], ["max"]],
]
_A: list[Step] = [
    [
        ["avg", *_chain(("1x1", 96))],
        _chain(("1x1_2", 96)),
        _chain(("3x3_reduce", 64), ("3x3", 96)),
        _chain(("3x3_2_reduce", 64), ("3x3_2", 96), ("3x3_3", 96)),
    ]
]
_REDUCTION_A: list[Step] = [
    [
        ["max"],
        [Conv("3x3", 384, (3, 3), stride=2, same=False)],
        [*_chain(("3x3_2_reduce", 192), ("3x3_2", 224)), Conv("3x3_3", 256, (3, 3), stride=2, same=False)],
    ]
]
_B: list[Step] = [
    [
        ["avg", *_chain(("1x1", 128))],
        _chain(("1x1_2", 384)),
        _chain(("1x7_reduce", 192), ("1x7", 224), ("7x1", 256)),
        _chain(("7x1_2_reduce", 192), ("1x7_2", 192), ("7x1_2", 224), ("1x7_3", 224), ("7x1_3", 256)),
    ]
]
_REDUCTION_B: list[Step] = [
    [
        ["max"],
        [*_chain(("3x3_reduce", 192)), Conv("3x3", 192, (3, 3), stride=2, same=False)],
        [
            *_chain(("1x7_reduce", 256), ("1x7", 256), ("7x1", 320)),
            Conv("3x3_2", 320, (3, 3), stride=2, same=False),
        ],
    ]
]
_C: list[Step] = [
    [
        ["avg", *_chain(("1x1", 256))],
        _chain(("1x1_2", 256)),
        [*_chain(("1x1_3", 384)), [_chain(("1x3", 256)), _chain(("3x1", 256))]],
        [
            *_chain(("1x1_4", 384), ("1x3_2", 448), ("3x1_2", 512)),
            [_chain(("1x3_3", 256)), _chain(("3x1_3", 256))],
        ],
    ]
]
_INCEPTION: list[tuple[str, list[Step]]] = [
    ("", _STEM),
    *((f"inception_a{i}_", _A) for i in range(1, 5)),
    ("reduction_a_", _REDUCTION_A),
    *((f"inception_b{i}_", _B) for i in range(1, 8)),
    ("reduction_b_", _REDUCTION_B),
    *((f"inception_c{i}_", _C) for i in range(1, 4)),
]


def inception_v4(net: Layers, x: FeatureMap) -> FeatureMap:
    """InceptionV4: the rows of `_INCEPTION`, one after another."""
    for prefix, steps in _INCEPTION:
        x = net.concat(_run(net, x, prefix, steps))
    return x


def _run(net: Layers, x: FeatureMap, prefix: str, steps: list[Step]) -> list[FeatureMap]:
    """The outputs of the last step: several after branches, which only then are concatenated."""
    outputs = [x]
    for step in steps:
        x = net.concat(outputs)
        if isinstance(step, list):
            outputs = [output for branch in step for output in _run(net, x, prefix, branch)]
        elif isinstance(step, Conv):
            outputs = [net.conv(x, prefix + step.name, step.filters, step.kernel, stride=step.stride, same=step.same)]
        else:
            outputs = [net.pool(x, step, 3, *((1, 1) if step == "avg" else (2, 0)))]
    return outputs


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """Body, names, and the FCs behind the global mean. fc: number of the first. hidden: sizes before the last."""

    body: Callable[[Layers, FeatureMap], FeatureMap]
    naming: Naming
    fc: int = 0
    hidden: tuple[int, ...] = ()


def _residuals() -> dict[str, Network]:
    blocks = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3), 200: (3, 12, 48, 3)}
    found = {}
    for depth, counts in blocks.items():
        body = ResidualVd(counts, lettered if depth == 50 else numbered)
        found[f"resnet{depth}_vd"] = Network(body=body, naming=resnet_names)
        if depth < 200:
            found[f"resnet{depth}_vd_auto"] = Network(body=body, naming=auto_names)
            found[f"resnet{depth}_vd_fc"] = Network(body=body, naming=resnet_names, hidden=(256,))
    return found


_SE_RESNEXT152 = ResidualVd(
    blocks=(3, 8, 36, 3),
    block_name=lambda stage, block: f"conv{stage + 4}_{block + 1}",
    stem=(64, 64, 128),
    width=256,
    expansion=1,
    groups=64,
    reduction=16,
    roles=("_x1", "_x2", "_x3", "_prj"),
)

NETWORKS: Mapping[str, Network] = MappingProxyType(
    {
        **_residuals(),
        # Two nameless FCs in each of 50 squeezes have counted on.
        "se_resnext152_vd": Network(body=_SE_RESNEXT152, naming=suffix_names, fc=100),
        "inception_v4": Network(body=inception_v4, naming=suffix_names),
    }
)
"""What a card's `source.network` can name. `_auto` and `_fc` are the original's `_v0_embedding` and `_fc`."""


def build(network: str, task: Task, variables: Mapping[str, Variable]) -> bytes:
    """The network around these variables: a serialized ProgramDesc from `image` to embedding or probabilities.

    Its `persistable_names` are the variables that it uses; the others are ignored.
    Raises: ExportError listing missing variables and wrong shapes, or else the convolutions of a deeper network.
    """
    row = _find(network, task)
    count = len(row.hidden) + 1
    if task == "cls":
        while any(name in variables for name in _fc_names(row.fc + count)):
            count += 1
    shapes = FoundShapes(variables)
    program = _walk(row, task, Layers(shapes, row.naming), [1] * count)
    shapes.check(network)
    return program


def plan(network: str, task: Task, *, width: Fraction | float = 1, size: int) -> bytes:
    """As `build`, at `width` times the published widths. size: of the embedding, or the number of classes."""
    row = _find(network, task)
    shapes = PlannedShapes(Fraction(width))
    return _walk(row, task, Layers(shapes, row.naming), [*map(shapes.usual, row.hidden), size])


def write_binary_model(program: bytes, variables: Mapping[str, Variable], folder: Path) -> tuple[Path, Path]:
    """Write `model` and `params` into `folder`, the weights in chunks; returns both paths."""
    model, params = folder / "model", folder / "params"
    names = persistable_names(parse_program(program))
    if missing := [name for name in names if name not in variables]:
        raise ExportError(f"the program wants the variable {missing[0]}, which is missing")
    model.write_bytes(program)
    with params.open("wb") as out:
        for name in names:
            variables[name].copy_stream(out)
    return model, params


def _walk(row: Network, task: Task, net: Layers, sizes: list[int]) -> bytes:
    x = net.global_mean(row.body(net, net.feed("image", 3)))
    for index, size in enumerate(sizes):
        x = net.fc(x, *_fc_names(row.fc + index), size)
    net.program.fetch(net.softmax(x).name if task == "cls" else x.name)
    return net.program.serialize()


def _fc_names(number: int) -> tuple[str, str]:
    return f"fc_{number}.w_0", f"fc_{number}.b_0"


def _find(network: str, task: Task) -> Network:
    if network not in NETWORKS:
        raise ExportError(f"no network is called {network!r}; there are: {', '.join(sorted(NETWORKS))}")
    if task == "det":
        raise ExportError(f"the network {network} is no detector; a detector brings its own program")
    return NETWORKS[network]
