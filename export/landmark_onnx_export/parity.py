"""The written file against Paddle: the same seeded inputs through Paddle Inference and through ONNX Runtime."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from landmark_onnx.cards.geometry import fixed_sides
from landmark_onnx.cards.schema import ModelCard
from landmark_onnx.errors import ExportError
from landmark_onnx.inference.preprocess import coloured, normalise, preprocess
from landmark_onnx.runtime.detector_outputs import conform_boxes
from landmark_onnx.tasks import InputKind, Task
from landmark_onnx.types import Array, Image, Tensors
from landmark_onnx.verification.tolerance import Agreement, agreement, worst
from landmark_onnx.verification.verify import Probe, probe_rule
from landmark_onnx_export.paddle import interface
from landmark_onnx_export.workers.run import run_child

SEED = 2019
SIZES: Mapping[Task, tuple[tuple[int, int], ...]] = {
    "retrieval": ((224, 224), (160, 256)),
    "cls": ((224, 224), (160, 256)),
    "det": ((96, 128), (128, 160)),
}
"""Height, width in pixels. The probe adds the card's own size; a detector's head takes as long for each of its rois."""
BATCHES = (1, 3)
PROBE_SIZE = (48, 64)


@dataclasses.dataclass(frozen=True, slots=True)
class Parity:
    """agreement: the worst of all runs. runs: each one's figures by name. probe: what `verify` asks again later."""

    agreement: Agreement
    runs: Mapping[str, Agreement]
    probe: Probe

    def to_json(self) -> dict[str, Any]:
        """JSON-ready data."""
        return {name: figures.to_json() for name, figures in self.runs.items()}


@dataclasses.dataclass(frozen=True, slots=True)
class PaddleModel:
    """A binary model on disk, and its own names of our tensors."""

    program: Path
    params: Path
    names: interface.Tensors


def measure(
    card: ModelCard, paddle: PaddleModel, model: Path, folder: Path, input_kind: InputKind = "float32"
) -> Parity:
    """Run both sides, each in a process of its own. Raises: ExportError if they do not agree."""
    asked = _ask(card, "float32", folder)
    names = {**dataclasses.asdict(paddle.names), "runs": list(asked.values())}
    run_child("paddle", {"program": str(paddle.program), "params": str(paddle.params), **names})
    ours = asked if input_kind == "float32" else _ask(card, input_kind, folder)
    run_child("onnxruntime", {"model": str(model), "card": card.to_dict(), "runs": list(ours.values())})
    measured = {}
    for name, run in asked.items():
        measured[name] = agreement(card.task, _answers(card, run, "paddle"), _answers(card, ours[name], "onnx"))
        if reason := measured[name].shortfall(card.task):
            raise ExportError(f"{card.name}: ONNX Runtime does not answer as Paddle does on {name}: {reason}")
    probe = Probe.ask(_probe_image(), _answers(card, asked["probe"], "paddle"))
    return Parity(worst(list(measured.values())), measured, probe)


def _ask(card: ModelCard, input_kind: InputKind, folder: Path) -> dict[str, str]:
    """Write every question's tensors; run name -> path without the tensor's number."""
    probe = preprocess(probe_rule(card), _probe_image(), as_uint8=input_kind == "uint8")
    runs = {}
    for name, tensors in {**questions(card, input_kind), "probe": probe}.items():
        runs[name] = str(folder / f"run-{input_kind}-{name}")
        for position, ours in enumerate(card.input_keys()):
            np.save(f"{runs[name]}.{position}.npy", tensors[ours])
    return runs


def _probe_image() -> Image:
    return seeded_image(*PROBE_SIZE, seed=SEED)


def questions(card: ModelCard, input_kind: InputKind = "float32") -> dict[str, Tensors]:
    """The seeded inputs by run name: two sizes, and for tasks that batch, batches of 1 and 3."""
    found: dict[str, Tensors] = {}
    rows = card.postprocess.decoder == "rows"
    fixed = fixed_sides(card.preprocess)
    for height, width in [fixed] if rows and fixed else SIZES[card.task]:
        for batch in BATCHES if card.task != "det" else BATCHES[:1]:
            images = [seeded_image(height, width, seed) for seed in range(SEED, SEED + batch)]
            rule = card.preprocess
            pixels = [
                coloured(rule, image)[np.newaxis] if input_kind == "uint8" else normalise(rule, image)
                for image in images
            ]
            tensors: dict[str, Array] = {"image": np.concatenate(pixels)}
            if card.task == "det":
                tensors["im_info"] = np.array([[height, width, 1]], np.float32)
                tensors["im_shape"] = np.array([[height, width]], np.float32)
                tensors["scale_factor"] = np.array([[0.5, 2]], np.float32)
            found[f"{batch}x3x{height}x{width}"] = tensors
    return found


def seeded_image(height: int, width: int, seed: int) -> Image:
    """(H, W, 3) BGR uint8 that has large shapes, edges and grain, as photos do; the same for the same seed."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (5, 7, 3), dtype=np.uint8)
    blocks = random.integers(0, 256, (11, 13, 3), dtype=np.uint8)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.float32)
    edges = cv2.resize(blocks, (width, height), interpolation=cv2.INTER_NEAREST).astype(np.float32)
    grain = random.normal(0, 12, (height, width, 3)).astype(np.float32)
    return np.clip(0.6 * smooth + 0.4 * edges + grain, 0, 255).astype(np.uint8)


def _answers(card: ModelCard, run: str, side: str) -> Tensors:
    """What a side answered, as a session gives it."""
    rows = card.postprocess.decoder == "rows"
    if rows and side == "paddle":
        return conform_boxes(card, (0, 0), [np.load(f"{run}.{side}.0.npy")], "Paddle")
    names = ("rois", "probability", "classes") if rows else card.output_keys()
    return {name: np.load(f"{run}.{side}.{position}.npy") for position, name in enumerate(names)}
