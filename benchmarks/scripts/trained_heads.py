"""The last layers of the synthetic detector, fitted so that it detects: its scores are spread out like a trained one's.

With random last layers a thousand proposals have nearly the same score, none is background, and hundreds of boxes are
over the threshold at scores that differ in the third digit. Which hundred of them are kept is chance, and any rounding
changes it: boxes found again at a reduced precision say nothing there. So some windows of the two photos that
everything is cut from are taken for objects, each a class. The random network below stays as it is; objectness and
classes are logistic regressions and boxes ridge regressions of what it answers to cuts, and never to those that judge.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from made import PHOTO_SIZE, Frame, Workshop, framed, say, source_photos
from onnx import TensorProto, helper
from sklearn.linear_model import LogisticRegression, Ridge

from landmark_onnx.cards.catalogue import card as card_of
from landmark_onnx.cards.schema import ModelCard
from landmark_onnx.inference.preprocess import preprocess
from landmark_onnx.types import Array, Float32, Tensors
from landmark_onnx_export.graphs.detector import ancestors, name_nodes
from landmark_onnx_export.quantization.calibration import plain_session
from landmark_onnx_export.synthetic.detectors import ANCHORS, CLASSES, RATIOS, SIZES
from landmark_onnx_export.synthetic.release import write_release

SCENES = 8
"""Cuts that the layers are fitted to."""
OBJECTS = 12
"""Windows of each photo that are objects."""
HEIGHTS = (0.18, 0.5)
"""Of an object, as a share of the photo's."""
APART = 0.15
"""Intersection over union that two objects have at most."""
SEEN = 0.6
"""Share of an object that a cut must show."""
SEED = 5
STRIDE = 16
OBJECT, NO_OBJECT = 0.5, 0.35
"""Intersection over union with an object: from which an anchor or a proposal is one, below which an anchor is none."""
FEWEST = 20
"""Examples that a regression needs."""
PENALTY = 0.1
"""`C` of the logistic regressions. The one of the classes had least loss on held-out cuts at 0.1 (of 1, 0.1, 0.01 and
less); with weaker penalties it is surer than it is right, and makes more of any noise in what it reads."""
NEVER = -12.0
"""The logit of a class that is no object here."""


def fitted(shop: Workshop, name: str) -> Workshop:
    """A workshop within `shop` where the detector `name` has fitted last layers.

    Those of the RPN come first, because the others read its proposals.
    """
    half, whole = (dataclasses.replace(shop, folder=shop.folder / kind) for kind in ("rpn-fitted", "fitted"))
    heads: dict[str, Float32] = {}
    for before, after, fit in ((shop, half, rpn_heads), (half, whole, box_heads)):
        folder = after.folder / "releases"
        saved = folder / "heads.npz"
        if not saved.is_file():
            say(f"{name}: {fit.__name__}")
            heads |= fit(card_of(name), before.model(name).path, SCENES)
            write_release(card_of(name), folder, width=shop.width, heads=heads)
            np.savez(saved, allow_pickle=False, **heads)
        heads = dict(np.load(saved))
    return whole


@dataclasses.dataclass(frozen=True, slots=True)
class Scene:
    """What the network is fed, and the objects in it: (N, 4) xyxy boxes in pixels of the input, and their classes."""

    feeds: Tensors
    boxes: Array
    classes: Array


def scenes(card: ModelCard, count: int) -> Iterator[Scene]:
    """Seeded cuts that are not those of `made.cuts`."""
    windows = objects()
    for frame, image in framed(count, SEED):
        feeds = preprocess(card.preprocess, image)
        boxes, classes = _in_frame(frame, windows[frame.photo])
        yield Scene(feeds, boxes * float(feeds["im_info"][0, 2]), classes + 1 + frame.photo * OBJECTS)


def objects() -> list[Array]:
    """(OBJECTS, 4) xyxy windows of each photo."""
    random = np.random.default_rng(SEED)
    found = []
    for photo in source_photos():
        height, width = photo.shape[:2]
        kept = np.zeros((0, 4))
        while len(kept) < OBJECTS:
            size = height * np.exp(random.uniform(*np.log(HEIGHTS)))
            sides = size * np.exp(random.uniform(-0.5, 0.5) * np.array([1, -1]))
            corner = random.uniform(0, 1, 2) * np.maximum([width, height] - sides, 0)
            window = np.concatenate([corner, corner + sides])[None]
            if (sides < [width, height]).all() and (ious(window, kept) < APART).all():
                kept = np.concatenate([kept, window])
        found.append(kept)
    return found


def rpn_heads(card: ModelCard, model: Path, count: int) -> dict[str, Float32]:
    """Objectness and boxes of the anchors, fitted to `count` scenes."""
    reads = _input_of(model, "rpn_cls_logits_w")
    rows, labels, targets = [], [], []
    given = list(scenes(card, count))
    for scene, (features,) in zip(given, _outputs(model, [reads], (each.feeds for each in given)), strict=True):
        anchors = anchor_boxes(*features.shape[2:])
        shared = ious(anchors, scene.boxes)
        label = np.where(shared.max(1) >= OBJECT, 1, np.where(shared.max(1) < NO_OBJECT, 0, -1))
        label[shared.argmax(0)] = 1
        rows.append(features[0].reshape(features.shape[1], -1).T)
        labels.append(label.reshape(-1, ANCHORS))
        targets.append(encoded(anchors, scene.boxes[shared.argmax(1)]).reshape(-1, ANCHORS, 4))
    scale = _Scale.of(np.concatenate(rows))
    x, y, t = scale.rows, np.concatenate(labels), np.concatenate(targets)
    score, delta = _Layer.zeros(x.shape[1], ANCHORS, NEVER), _Layer.zeros(x.shape[1], 4 * ANCHORS, 0.0)
    for anchor in range(ANCHORS):
        one, known = y[:, anchor] == 1, y[:, anchor] >= 0
        if one.sum() >= FEWEST:
            score.fit(slice(anchor, anchor + 1), _logistic(x[known], y[known, anchor]))
            delta.fit(slice(4 * anchor, 4 * anchor + 4), Ridge(x.shape[1]).fit(x[one], t[one, anchor]))
    weights = scale.undo(score), scale.undo(delta)
    names = "rpn_cls_logits", "rpn_bbox_pred"
    return {
        key: values
        for name, (weight, bias) in zip(names, weights, strict=True)
        for key, values in ((f"{name}_w", np.ascontiguousarray(weight.T)[:, :, None, None]), (f"{name}_b", bias))
    }


def box_heads(card: ModelCard, model: Path, count: int) -> dict[str, Float32]:
    """Classes and boxes of the proposals that `model`, with its RPN fitted, makes of the same scenes."""
    reads = _input_of(model, "cls_score_w")
    rows, labels, targets = [], [], []
    given = list(scenes(card, count))
    for scene, (rois, pooled) in zip(given, _outputs(model, ["rois", reads], (s.feeds for s in given)), strict=True):
        shared = ious(rois, scene.boxes)
        nearest = shared.argmax(1)
        rows.append(pooled)
        labels.append(np.where(shared.max(1) >= OBJECT, scene.classes[nearest], 0))
        targets.append(encoded(rois, scene.boxes[nearest]) / np.array(card.postprocess.variances))
    scale = _Scale.of(np.concatenate(rows))
    x, y, t = scale.rows, np.concatenate(labels), np.concatenate(targets)
    score, delta = _Layer.zeros(x.shape[1], CLASSES, NEVER), _Layer.zeros(x.shape[1], 4 * CLASSES, 0.0)
    fitted = _logistic(x, y)
    score.fit(fitted.classes_, fitted)
    for number in fitted.classes_[1:]:
        if (y == number).sum() >= FEWEST:
            model_of = Ridge(x.shape[1]).fit(x[y == number], t[y == number])
            delta.fit(slice(4 * number, 4 * number + 4), model_of)
    (score_w, score_b), (delta_w, delta_b) = scale.undo(score), scale.undo(delta)
    return {"cls_score_w": score_w, "cls_score_b": score_b, "bbox_pred_w": delta_w, "bbox_pred_b": delta_b}


def anchor_boxes(rows: int, columns: int) -> Array:
    """(rows * columns * ANCHORS, 4) xyxy. Source: Paddle detection/anchor_generator_op.h."""
    y, x = (places * STRIDE + 0.5 * (STRIDE - 1) for places in np.mgrid[:rows, :columns])
    found = []
    for ratio in RATIOS:
        base = round(STRIDE / np.sqrt(ratio))
        for size in SIZES:
            half = [(size / STRIDE * side - 1) / 2 for side in (base, round(base * ratio))]
            found.append(np.stack([x - half[0], y - half[1], x + half[0], y + half[1]], axis=-1))
    return np.stack(found, axis=2).reshape(-1, 4)


def encoded(boxes: Array, wanted: Array) -> Array:
    """(N, 4) xyxy each -> (N, 4) dx, dy, dw, dh that lead from one to the other: what `decode_boxes` undoes."""
    sizes, others = (each[:, 2:] - each[:, :2] + 1 for each in (boxes, wanted))
    shift = (wanted[:, :2] + others / 2 - boxes[:, :2] - sizes / 2) / sizes
    return np.concatenate([shift, np.log(others / sizes)], axis=1)


def ious(boxes: Array, others: Array) -> Array:
    """(N, 4) against (M, 4) xyxy -> (N, M) intersection over union."""
    corner = np.maximum(boxes[:, None, :2], others[None, :, :2])
    common = np.clip(np.minimum(boxes[:, None, 2:], others[None, :, 2:]) - corner, 0, None).prod(axis=2)
    areas = [(each[:, 2:] - each[:, :2]).prod(axis=1) for each in (boxes, others)]
    return np.asarray(common / (areas[0][:, None] + areas[1][None] - common))


class _Layer:
    """A linear layer, column by column: weights (inputs, outputs), bias (outputs,)."""

    def __init__(self, weights: Array, bias: Array) -> None:
        self.weights, self.bias = weights, bias

    @classmethod
    def zeros(cls, inputs: int, outputs: int, bias: float) -> "_Layer":
        return cls(np.zeros((inputs, outputs)), np.full(outputs, bias))

    def fit(self, columns: Any, fitted: Any) -> None:
        """Take over what a regression found."""
        self.weights[:, columns], self.bias[columns] = fitted.coef_.T, fitted.intercept_


@dataclasses.dataclass(frozen=True, slots=True)
class _Scale:
    """rows: (N, D) features, brought to mean 0 and deviation 1, by which a penalty is fair to all of them."""

    rows: Float32
    mean: Array
    deviation: Array

    @classmethod
    def of(cls, rows: Array) -> "_Scale":
        mean, deviation = rows.mean(axis=0), rows.std(axis=0) + 1e-6
        return cls(((rows - mean) / deviation).astype(np.float32), mean, deviation)

    def undo(self, layer: _Layer) -> tuple[Float32, Float32]:
        """Weights and bias for features as they come."""
        weights = layer.weights / self.deviation[:, None]
        return weights.astype(np.float32), (layer.bias - self.mean @ weights).astype(np.float32)


def _logistic(x: Float32, y: Array) -> Any:
    return LogisticRegression(C=PENALTY, max_iter=150, tol=1e-4).fit(x, y)


def _in_frame(frame: Frame, windows: Array) -> tuple[Array, Array]:
    """The windows that a cut shows, in its pixels, and which they are."""
    area = (windows[:, 2:] - windows[:, :2]).prod(axis=1)
    moved = np.clip(windows - [frame.left, frame.top] * 2, 0, [frame.columns, frame.rows] * 2)
    (shown,) = np.nonzero((moved[:, 2:] - moved[:, :2]).prod(axis=1) > SEEN * area)
    moved = moved[shown]
    if frame.mirrored:
        moved[:, [0, 2]] = frame.columns - moved[:, [2, 0]]
    height, width = PHOTO_SIZE
    return moved * ([width / frame.columns, height / frame.rows] * 2), shown


def _input_of(model: Path, weights: str) -> str:
    """The tensor that the layer with these weights reads."""
    graph = onnx.load(model, load_external_data=False).graph
    return str(next(node.input[0] for node in graph.node if weights in node.input))


def _outputs(model: Path, names: Sequence[str], runs: Iterable[Tensors]) -> Iterator[list[Array]]:
    """Tensors of the graph, whether they are its outputs or not; nothing is run that they do not need."""
    whole = onnx.load(model)
    graph = whole.graph
    name_nodes(graph)
    needed = ancestors(graph, names)
    nodes = [node for node in graph.node if node.name in needed]
    read = {name for node in nodes for name in node.input}
    kept: Mapping[str, Any] = {
        "node": nodes,
        "initializer": [tensor for tensor in graph.initializer if tensor.name in read],
        "input": [value for value in graph.input if value.name in read],
        "output": [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names],
    }
    part = onnx.ModelProto(ir_version=whole.ir_version, opset_import=whole.opset_import)
    for field, values in kept.items():
        getattr(part.graph, field).extend(values)
    part.graph.name = graph.name
    path = model.with_name("part.onnx")
    onnx.save(part, path)
    session = plain_session(path)
    inputs = {value.name for value in session.get_inputs()}
    for feeds in runs:
        yield session.run(list(names), {name: feeds[name] for name in inputs})
    path.unlink()
