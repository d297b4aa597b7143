"""How a network is brought to 8 bits: which cut of the ranges, and which layers stay fp32 because they suffer most."""

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import onnx

from landmark_onnx.cards import ModelCard
from landmark_onnx.errors import ExportError
from landmark_onnx_export import qdq
from landmark_onnx_export.held_out import Photo, feeds
from landmark_onnx_export.likeness import Answer, Likeness, answers, compare, runner
from landmark_onnx_export.made import Made
from landmark_onnx_export.ranges import METHODS, Histogram, Range, observe
from landmark_onnx_export.sensitivity import noise

TRIALS: Mapping[str, int] = {"retrieval": 6, "cls": 8, "det": 2}
"""Calibration images that choices are made with, by task."""

STEP, BUDGET = 0.03, 0.12
"""Shares of the layers: how many leave 8 bits at a time, and how many may at most."""

MARGIN = 0.1
"""Of the way from the floor to 1: by how much the calibration images must do better than the floor."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What stays the same from trial to trial.

    model: the folded fp32 file; its folder takes the trials. floor: what the measure of the card's task must reach.
    exclude: layers that stay fp32 at the user's wish. reduce_range: weights of 7 bits. say: told of each stage.
    """

    card: ModelCard
    model: Path
    photos: Sequence[Photo]
    floor: float
    exclude: Sequence[str]
    reduce_range: bool
    say: Callable[[str], None]


@dataclasses.dataclass(frozen=True, slots=True)
class _Trial:
    """One way to do it, and how it did on calibration images."""

    model: onnx.ModelProto
    method: str
    likeness: Likeness


def search(task: Task) -> Made:
    """Try every cut of the ranges and keep the best; then, layer by layer, until the floor holds or BUDGET is spent.

    Raises: ExportError if there is nothing to quantise, or a layer to exclude is not there.
    """
    graph = onnx.load(task.model, load_external_data=False).graph
    nodes = qdq.candidates(graph)
    layers = qdq.layers(graph, nodes)
    if unknown := [name for name in task.exclude if name not in layers]:
        raise ExportError(
            f"{task.card.name}: no layer to quantise is called {unknown[0]!r}; there are: {_some(layers)}"
        )
    excluded = dict.fromkeys(task.exclude, "asked for")
    if len(excluded) == len(layers):
        raise ExportError(f"{task.card.name}: no layer is left that could be quantised")
    task.say("calibrate")
    seen = observe(task.model, qdq.tensors(graph, nodes), feeds(task.card, task.photos))
    photos = task.photos[: TRIALS[task.card.task]]
    exact = answers(task.card, photos, runner(task.card, task.model))

    def attempt(method: str) -> _Trial:
        task.say(f"try {method}" + (f", {len(excluded)} of {len(layers)} layers in fp32" if excluded else ""))
        kept = [name for name in nodes if name not in excluded]
        made = qdq.quantise(task.model, _cut(seen, method), kept, reduce_range=task.reduce_range)
        return _Trial(made, method, _judge(task, made, photos, exact))

    best = max(map(attempt, METHODS), key=lambda trial: _rank(task.card, trial.likeness))
    wanted = task.floor + (1 - task.floor) * MARGIN
    if best.likeness.value(task.card) < wanted:
        task.say("rank layers")
        harm = noise(task.model, best.model, layers, feeds(task.card, photos))
        worst = sorted(harm, key=lambda name: -harm[name])[: int(len(layers) * BUDGET)]
        step = max(1, round(len(layers) * STEP))
        for start in range(0, len(worst), step):
            leaving = worst[start : start + step]
            excluded |= {name: f"error {harm[name]:.2%} of its output's energy" for name in leaving}
            best = attempt(best.method)
            if best.likeness.value(task.card) >= wanted:
                break
    return Made(model=best.model, method=best.method, excluded=excluded, layers=len(layers))


def _judge(task: Task, made: onnx.ModelProto, photos: Sequence[Photo], exact: Sequence[Answer]) -> Likeness:
    """How the trial compares with fp32."""
    folder = task.model.parent / "trial"
    folder.mkdir(exist_ok=True)
    for stale in folder.iterdir():
        stale.unlink()
    copy = onnx.ModelProto()
    copy.CopyFrom(made)
    onnx.save(copy, folder / "trial.onnx", save_as_external_data=True, location="trial.data")
    return compare(task.card, exact, answers(task.card, photos, runner(task.card, folder / "trial.onnx")))


def _rank(card: ModelCard, likeness: Likeness) -> tuple[float, float]:
    """Better is more; a few images have few values of top-1, so the cosine decides between equals."""
    return likeness.value(card), likeness.cosine or 0.0


def _cut(seen: Mapping[str, Histogram], method: str) -> dict[str, Range]:
    return {name: METHODS[method](histogram) for name, histogram in seen.items()}


def _some(names: Collection[str]) -> str:
    shown = list(names)[:8]
    return ", ".join(shown) + (f" and {len(names) - len(shown)} more" if len(names) > len(shown) else "")
