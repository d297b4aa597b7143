"""Tiny sealed ONNX models that carry a card: real files for ONNX Runtime, small enough to make in every test."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from landmark_onnx.cards.catalogue import card
from landmark_onnx.cards.schema import ModelCard
from landmark_onnx.inference.preprocess import preprocess
from landmark_onnx.modelfile.metadata import append_metadata, read_metadata, read_seal
from landmark_onnx.runtime.providers import ProviderRequest
from landmark_onnx.runtime.session import Session
from landmark_onnx.verification.verify import Probe, probe_rule

RETRIEVAL, CLS, DET = "res152_arcmargin", "res152_softmax_v1", "res50_oid_v4_detector"


def small_card(name: str, **preprocess: Any) -> ModelCard:
    """The shipped card `name` with inputs of about 64 pixels, so that a run takes no time."""
    shipped = card(name)
    sizes: dict[str, dict[str, Any]] = {
        "retrieval": {"size": 64},
        "cls": {"size": 64, "crop": 64},
        "det": {"size": 64, "max_side": 128},
    }
    small = dataclasses.replace(shipped.preprocess, **(sizes[shipped.task] | preprocess))
    return dataclasses.replace(shipped, preprocess=small)


def photo(height: int = 90, width: int = 120, seed: int = 0) -> np.ndarray:
    """A BGR uint8 image with something to see: smooth colours, edges and a little noise."""
    y, x = np.mgrid[:height, :width]
    waves = [127 + 120 * np.sin((x * a + y * b) / 17 + seed) for a, b in ((1, 2), (3, -1), (-2, 1))]
    noise = np.random.default_rng(seed).normal(0, 4, (height, width, 3))
    return np.clip(np.stack(waves, axis=-1) + noise + 60 * ((x // 20 + y // 20) % 2)[..., None], 0, 255).astype(
        np.uint8
    )


def make_retrieval(path: Path, *, model_card: ModelCard | None = None, dim: int = 512, seed: int = 0) -> Path:
    """image (N, 3, H, W) -> embedding (N, dim): 4 x 4 block averages, mixed at random."""
    nodes = [*_pooled(), helper.make_node("MatMul", ["flat", "weights"], ["embedding"])]
    weights = np.random.default_rng(seed).normal(size=(3, dim))
    model = _model(nodes, {"weights": weights}, {"embedding": ["n", dim]})
    return seal_model(model, path, model_card or small_card(RETRIEVAL))


def make_cls(
    path: Path,
    classes: int = 7,
    *,
    model_card: ModelCard | None = None,
    labels: dict[int, str] | None = None,
    seed: int = 1,
) -> Path:
    """image (N, 3, H, W) -> probability (N, classes)."""
    nodes = [
        *_pooled(),
        helper.make_node("MatMul", ["flat", "weights"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probability"], axis=-1),
    ]
    weights = np.random.default_rng(seed).normal(size=(3, classes))
    model = _model(nodes, {"weights": weights}, {"probability": ["n", classes]})
    return seal_model(model, path, model_card or small_card(CLS), labels=labels)


def make_det(
    path: Path,
    *,
    classes: int = 5,
    rois: int = 12,
    model_card: ModelCard | None = None,
    labels: dict[int, str] | None = None,
    seed: int = 2,
) -> Path:
    """image (1, 3, H, W), im_info (1, 3) -> rois (R, 4), probability (R, classes), deltas (R, 4 x classes).

    The rois are fixed shares of the scaled image, so that boxes follow its size; rois=0 finds nothing.
    """
    rng = np.random.default_rng(seed)
    start = rng.uniform(0, 0.5, (rois, 2))
    corners = np.concatenate([start, start + rng.uniform(0.2, 0.5, (rois, 2))], axis=1)
    nodes = [
        *_pooled(),
        helper.make_node("Gather", ["im_info", "whwh"], ["sides"], axis=1),
        helper.make_node("Mul", ["corners", "sides"], ["rois"]),
        helper.make_node("MatMul", ["flat", "colours"], ["shift"]),
        helper.make_node("Add", ["scores", "shift"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probability"], axis=-1),
        helper.make_node("Identity", ["shifts"], ["deltas"]),
    ]
    weights = {
        "corners": corners,
        "scores": rng.normal(0, 2, (rois, classes)),
        "colours": rng.normal(0, 0.5, (3, classes)),
        "shifts": rng.normal(0, 0.5, (rois, 4 * classes)),
    }
    shapes = {"rois": [rois, 4], "probability": [rois, classes], "deltas": [rois, 4 * classes]}
    model = _model(nodes, weights, shapes, whwh=np.array([1, 0, 1, 0]))
    return seal_model(model, path, model_card or small_card(DET), labels=labels)


def seal_model(
    model: onnx.ModelProto, path: Path, model_card: ModelCard, *, labels: dict[int, str] | None = None
) -> Path:
    """Write a model with its card, a probe of its own answer and, where given, labels; sealed as an export is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    image = photo(40, 48, seed=9)
    session = Session(path, ProviderRequest(name="cpu"), threads=1)
    outputs = ask(session, model_card, preprocess(probe_rule(model_card), image))
    metadata: dict[str, Any] = {"card": model_card.to_dict(), "probe": Probe.ask(image, outputs).to_json()}
    if labels:
        metadata["labels"] = {str(index): name for index, name in labels.items()}
    write_sealed(path, metadata)
    return path


def make_reduced(
    model: Path, precision: str = "int8", make: Callable[..., Path] = make_retrieval, **settings: Any
) -> Path:
    """The file of reduced precision beside a model of the kind that `make` makes, as far as it says."""
    path = model.with_name(f"{model.stem}.{precision}.onnx")
    onnx.save(unsealed(make(path, **settings)), path)
    seal = read_seal(model)
    assert seal is not None
    metadata = dict(read_metadata(model) or {}) | {"precision": precision, "recipe": {"of": seal.sha256}}
    metadata.pop("data", None)
    write_sealed(path, metadata)
    return path


def write_sealed(path: Path, metadata: dict[str, Any]) -> None:
    """Append metadata and a seal to an ONNX file that has none."""
    with path.open("r+b") as file:
        append_metadata(file, metadata)


def unsealed(path: Path) -> onnx.ModelProto:
    """The model of a file, without what `append_metadata` added."""
    model = onnx.load(path)
    del model.metadata_props[:]
    return model


def _pooled() -> list[onnx.NodeProto]:
    return [
        helper.make_node("GlobalAveragePool", ["image"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
    ]


def _model(
    nodes: list[onnx.NodeProto], weights: dict[str, np.ndarray], outputs: dict[str, list[Any]], **constants: np.ndarray
) -> onnx.ModelProto:
    detector = "deltas" in outputs
    inputs = {"image": [1 if detector else "n", 3, "h", "w"]} | ({"im_info": [1, 3]} if detector else {})
    tensors = {name: value.astype(np.float32) for name, value in weights.items()} | constants
    graph = helper.make_graph(
        nodes,
        "fake",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in tensors.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model


def bound(session, card):
    session.bind(card)
    return session


def ask(session, card, feeds):
    """What a session answers under a card's names."""
    return bound(session, card).run(feeds)
