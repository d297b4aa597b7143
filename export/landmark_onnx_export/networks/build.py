"""The networks as Paddle programs; every width, the embedding size and the class count come from variable shapes.

`build` rebuilds a network around a train model's files, `plan` at its published widths, scaled; both are one walk.
Source: PaddlePaddle/Research, CV/landmark/inference/models; of EfficientNet-Lite, its own module.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from types import MappingProxyType

from landmark_onnx.errors import ExportError
from landmark_onnx.tasks import Task
from landmark_onnx_export.networks.efficientnet import efficientnet_fc_names, efficientnet_lite0, efficientnet_names
from landmark_onnx_export.networks.inception import inception_v4
from landmark_onnx_export.networks.layers import PLAIN, FeatureMap, Layers, Naming, Style
from landmark_onnx_export.networks.resnet import (
    ResidualVd,
    auto_names,
    lettered,
    numbered,
    resnet_names,
    suffix_names,
)
from landmark_onnx_export.networks.shapes import FoundShapes, PlannedShapes
from landmark_onnx_export.paddle.variables import Variable


def _fc_names(number: int) -> tuple[str, str]:
    return f"fc_{number}.w_0", f"fc_{number}.b_0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """Body, names, and the FCs behind the global mean.

    fc: number of the first. fc_names: number -> weights and bias. hidden: sizes before the last.
    pooled: the embedding is the global mean itself, and only a classifier has FCs.
    """

    body: Callable[[Layers, FeatureMap], FeatureMap]
    naming: Naming
    style: Style = PLAIN
    fc: int = 0
    fc_names: Callable[[int], tuple[str, str]] = _fc_names
    hidden: tuple[int, ...] = ()
    pooled: bool = False


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
        "efficientnet_lite0": Network(
            body=efficientnet_lite0,
            naming=efficientnet_names,
            style=Style(padding="SAME", activation="relu6", epsilon=1e-3, out_first=True),
            fc_names=efficientnet_fc_names,
            pooled=True,
        ),
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
        while any(name in variables for name in row.fc_names(row.fc + count)):
            count += 1
    shapes = FoundShapes(variables)
    program = _walk(row, task, Layers(shapes, row.naming, row.style), [1] * count)
    shapes.check(network)
    return program


def plan(network: str, task: Task, *, width: Fraction | float = 1, size: int) -> bytes:
    """As `build`, at `width` times the published widths. size: of the embedding, or the number of classes.

    A pooled embedding is as wide as the last convolution.
    """
    row = _find(network, task)
    shapes = PlannedShapes(Fraction(width))
    return _walk(row, task, Layers(shapes, row.naming, row.style), [*map(shapes.usual, row.hidden), size])


def _walk(row: Network, task: Task, net: Layers, sizes: list[int]) -> bytes:
    x = net.global_mean(row.body(net, net.feed("image", 3)))
    if row.pooled and task == "retrieval":
        x, sizes = net.flatten(x), []
    for index, size in enumerate(sizes):
        x = net.fc(x, *row.fc_names(row.fc + index), size)
    net.program.fetch(net.softmax(x).name if task == "cls" else x.name)
    return net.program.serialize()


def _find(network: str, task: Task) -> Network:
    if network not in NETWORKS:
        raise ExportError(f"no network is called {network!r}; there are: {', '.join(sorted(NETWORKS))}")
    if task == "det":
        raise ExportError(f"the network {network} is no detector; a detector brings its own program")
    return NETWORKS[network]
