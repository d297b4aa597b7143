"""A classifier whose last layer is the centroids of its classes, as that of a trained one nearly is.

Each class is a tile of colours, 16 x 16 pixels: one of some kinds, varied. Its picture is 4 x 4 copies of the tile,
and a view of it has noise on every pixel. The network is a random convolution over tiles, ReLU, the global mean, and
a linear layer: the column of a class points from the mean of all features to its own. With random weights in that
layer the best class would be best by chance, and how often it stays so would say nothing.
"""

import dataclasses
import functools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from landmark_onnx.cards.catalogue import card
from landmark_onnx.cards.schema import ModelCard
from landmark_onnx.inference.preprocess import preprocess
from landmark_onnx.modelfile.metadata import append_metadata
from landmark_onnx.types import Array, Float32, Image
from landmark_onnx.verification.answers import runner
from landmark_onnx.verification.verify import Probe, probe_rule
from landmark_onnx_export.graphs.write import INLINE_LIMIT, Written, store_beside, write_graph

TILE, COPIES = 16, 4
SIDE = TILE * COPIES
BLOCK = 4096
"""Classes that are made at once."""
KIN = 50
"""Classes of a kind, whose tiles are more like each other than like those of other kinds."""
CONTRAST, VARIATION, NOISE = 16.0, 10.0, 110.0
"""Standard deviations, of 255: of the colours of a kind, of a class within its kind, of a pixel of a view."""
SHARPNESS = 100.0
"""The logit of a class where a view of usual strength points straight at it."""


@dataclasses.dataclass(frozen=True, slots=True)
class Classes:
    """count: how many classes. width: of the features that the last layer reads."""

    count: int
    width: int = 2048
    seed: int = 0

    def tiles(self, numbers: Iterable[int]) -> Image:
        """(N, TILE, TILE, 3) uint8 BGR of some classes; each depends on nothing but its number."""
        made = np.stack([self._tile(number) for number in numbers])
        return np.clip(np.rint(made), 0, 255).astype(np.uint8)

    def views(self, count: int, seed: int = 0) -> "tuple[list[int], list[Image]]":
        """(SIDE, SIDE, 3) uint8 BGR pictures with noise of classes drawn at random, and their numbers."""
        random = np.random.default_rng((self.seed, 3, seed))
        numbers = random.integers(self.count, size=count).tolist()
        plain = np.tile(self.tiles(numbers), (1, COPIES, COPIES, 1))
        noisy = np.rint(plain + random.normal(0, NOISE, plain.shape))
        return numbers, list(np.clip(noisy, 0, 255).astype(np.uint8))

    def write_views(self, folder: Path, count: int, seed: int = 0) -> Path:
        """Views as PNG files in `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        for position, view in enumerate(self.views(count, seed)[1]):
            cv2.imwrite(str(folder / f"{position:04d}.png"), view)
        return folder

    def convolution(self) -> tuple[Float32, Float32]:
        """(width, 3, TILE, TILE) weights and (width,) bias."""
        random = np.random.default_rng((self.seed, 0))
        weights = random.normal(size=(self.width, 3, TILE, TILE)) / TILE
        return weights.astype(np.float32), random.normal(0, 0.2, self.width).astype(np.float32)

    def features(self, pictures: Sequence[Image]) -> Float32:
        """(N, width) of (SIDE, SIDE, 3) pictures or of single tiles."""
        weights, bias = self.convolution()
        rule = network_card().preprocess
        side = len(pictures[0])
        rule = dataclasses.replace(rule, size=side, crop=side, multiple=side)
        pixels = np.concatenate([preprocess(rule, picture)["image"] for picture in pictures])
        cells = side // TILE
        patches = pixels.reshape(-1, 3, cells, TILE, cells, TILE).transpose(0, 2, 4, 1, 3, 5)
        rows = patches.reshape(-1, 3 * TILE * TILE) @ weights.reshape(self.width, -1).T + bias
        return np.maximum(rows, 0).reshape(len(pictures), -1, self.width).mean(axis=1)

    def head(self, weights: Float32) -> Float32:
        """Fill (width, count) `weights`, which may lie in a file; the bias (count,)."""
        some = self.features(self.tiles(range(min(self.count, BLOCK))))
        mean = some.mean(axis=0)
        usual = np.linalg.norm(self.features(self.views(64)[1]) - mean, axis=1).mean()
        for start in range(0, self.count, BLOCK):
            numbers = range(start, min(start + BLOCK, self.count))
            apart = self.features(self.tiles(numbers)) - mean
            apart *= SHARPNESS / usual / np.linalg.norm(apart, axis=1, keepdims=True)
            weights[:, start : numbers.stop] = apart.T
        return -(mean @ weights)

    def _tile(self, number: int) -> Array:
        shape = (TILE, TILE, 3)
        kind = np.random.default_rng((self.seed, 1, number // KIN)).normal(128, CONTRAST, shape)
        return kind + np.random.default_rng((self.seed, 2, number)).normal(0, VARIATION, shape)


def network_card() -> ModelCard:
    """The card of a released classifier, with pictures of SIDE pixels."""
    released = card("res152_softmax_v1")
    rule = dataclasses.replace(released.preprocess, size=SIDE, crop=SIDE)
    return dataclasses.replace(released, preprocess=rule)


def write_classifier(classes: Classes, path: Path) -> Path:
    """Write a sealed file as an export is: its last layer lies beside it where it is too large to be inside."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name("weights.tmp")
    weights = np.memmap(scratch, np.float32, "w+", shape=(classes.width, classes.count))
    bias = classes.head(weights)
    model = _model(classes, bias)
    head = TensorProto(name="head", data_type=TensorProto.FLOAT, dims=weights.shape)
    written = Written(path)
    if weights.nbytes > INLINE_LIMIT:
        written = store_beside(path, [head], [functools.partial(_copy, weights)])
    else:
        head.raw_data = weights.tobytes()
    model.graph.initializer.append(head)
    write_graph(model, path)
    del weights
    scratch.unlink()
    _seal(written)
    return path


def _copy(weights: Float32, file: BinaryIO) -> None:
    for row in weights:
        file.write(row.tobytes())


def _model(classes: Classes, bias: Float32) -> onnx.ModelProto:
    weights, shift = classes.convolution()
    nodes = [
        helper.make_node("Conv", ["image", "tiles", "shift"], ["seen"], "conv", strides=[TILE, TILE]),
        helper.make_node("Relu", ["seen"], ["active"], "relu"),
        helper.make_node("GlobalAveragePool", ["active"], ["pooled"], "pool"),
        helper.make_node("Flatten", ["pooled"], ["features"], "flatten"),
        helper.make_node("MatMul", ["features", "head"], ["scores"], "head"),
        helper.make_node("Add", ["scores", "bias"], ["logits"], "bias"),
        helper.make_node("Softmax", ["logits"], ["probability"], "softmax", axis=-1),
    ]
    graph = helper.make_graph(
        nodes,
        "centroids",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, "h", "w"])],
        [helper.make_tensor_value_info("probability", TensorProto.FLOAT, ["n", classes.count])],
        [
            numpy_helper.from_array(value, name)
            for name, value in (("tiles", weights), ("shift", shift), ("bias", bias))
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def _seal(written: Written) -> None:
    model_card = network_card()
    picture = np.random.default_rng(0).integers(0, 256, (48, 40, 3), np.uint8)
    outputs = runner(model_card, written.model)(preprocess(probe_rule(model_card), picture))
    metadata = {"card": model_card.to_dict(), "probe": Probe.ask(picture, outputs).to_json()}
    if written.data:
        metadata["data"] = {"file": written.data.name, "sha256": written.data_sha256}
    with written.model.open("r+b") as file:
        append_metadata(file, metadata)
