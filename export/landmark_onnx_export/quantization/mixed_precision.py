"""How a network is brought to 8 bits: which cut of the ranges, and which layers stay fp32 because they suffer most."""

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import onnx

from landmark_onnx.cards.schema import ModelCard
from landmark_onnx.errors import ExportError
from landmark_onnx.verification.answers import Answer, Likeness, Photo, answers, compare, feeds, opened, runner
from landmark_onnx_export.graphs.detector import rois_of
from landmark_onnx_export.quantization import qdq
from landmark_onnx_export.quantization.calibration import METHODS, Observed, observe
from landmark_onnx_export.quantization.large_layers import LargeLayer, activation, quantise_layers
from landmark_onnx_export.quantization.reduced_network import ReducedNetwork
from landmark_onnx_export.quantization.sensitivity import noise

TRIALS: Mapping[str, int] = {"retrieval": 10, "cls": 12, "det": 2}
TRIAL_SHARE = 8
"""Calibration images that choices are made with: so many by task, or of many one in so many, but at most a third of
them; ranges come from the others."""

STEP = 0.03
"""Share of the layers that leave 8 bits at a time."""

MARGIN = 0.3
"""Of the way from the floor to 1: by how much the calibration images must do better than the floor."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What stays the same from trial to trial.

    model: the folded fp32 file; its folder takes the trials. floor: what the measure of the card's task must reach.
    exclude: layers that stay fp32 at the user's wish. spare: share of the layers that may beside these. reduce_range:
    weights of 7 bits. on_stage: the name of each stage.
    """

    card: ModelCard
    model: Path
    photos: Sequence[Photo]
    floor: float
    exclude: Sequence[str]
    spare: float
    reduce_range: bool
    on_stage: Callable[[str], None]


@dataclasses.dataclass(frozen=True, slots=True)
class _Trial:
    """One way to do it, and how it did on calibration images."""

    model: onnx.ModelProto
    method: str
    likeness: Likeness


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Bench:
    """What every trial needs. nodes: that may be quantised. large: of the large layers among them, what they become.

    exact: what fp32 answers to `photos`.
    """

    task: Task
    nodes: Sequence[str]
    layers: Sequence[str]
    large: Mapping[str, LargeLayer]
    seen: Mapping[str, Observed]
    photos: Sequence[Photo]
    exact: Sequence[Answer]

    def attempt(self, method: str, excluded: Collection[str]) -> _Trial:
        """Quantise all but what is excluded, with ranges cut by `method`, and compare with fp32."""
        some = f", {len(excluded)} of {len(self.layers)} layers in fp32" if excluded else ""
        self.task.on_stage(f"try {method}{some}")
        cuts = {name: METHODS[method](seen.histogram) for name, seen in self.seen.items()}
        means = {name: seen.total / seen.images for name, seen in self.seen.items() if seen.total is not None}
        nodes = [name for name in self.nodes if name not in excluded]
        made = qdq.quantise(self.task.model, cuts, means, nodes, self.large, reduce_range=self.task.reduce_range)
        trial = self.task.model.parent / "trial.onnx"
        trial.with_name("trial.data").unlink(missing_ok=True)  # onnx appends to what is there
        copy = onnx.ModelProto()
        copy.CopyFrom(made)
        onnx.save(copy, trial, save_as_external_data=True, location="trial.data")
        got = answers(self.task.card, self.photos, runner(self.task.card, trial))
        return _Trial(made, method, compare(self.task.card, self.exact, got))


def search(task: Task) -> ReducedNetwork:
    """Try every cut of the ranges and keep the best; then, layer by layer, until the floor holds or no more may leave.

    Raises: ExportError if there is nothing to quantise, or a layer to exclude is not there.
    """
    bench = _prepare(task)
    excluded = dict.fromkeys(task.exclude, "asked for")
    trials = (bench.attempt(method, excluded) for method in METHODS)
    best = max(trials, key=lambda trial: _rank(task.card, trial.likeness))
    wanted = task.floor + (1 - task.floor) * MARGIN
    if best.likeness.value(task.card) < wanted:
        best, excluded = _spare_the_worst(bench, best, excluded, wanted)
    return ReducedNetwork(model=best.model, method=best.method, excluded=excluded, layers=len(bench.layers))


def _prepare(task: Task) -> _Bench:
    graph = onnx.load(task.model, load_external_data=False).graph
    nodes = qdq.candidates(graph, rois_of(task.card))
    layers = qdq.layers(graph, nodes)
    if unknown := [name for name in task.exclude if name not in layers]:
        raise ExportError(
            f"{task.card.name}: no layer to quantise is called {unknown[0]!r}; there are: {_some(layers)}"
        )
    if len(set(task.exclude)) == len(layers):
        raise ExportError(f"{task.card.name}: no layer is left that could be quantised")
    task.on_stage("calibrate")
    # Ranges fit the images they were taken from, so what chooses between them must be others.
    count = min(max(TRIALS[task.card.task], len(task.photos) // TRIAL_SHARE), max(1, len(task.photos) // 3))
    photos, ranging = task.photos[:count], task.photos[count:] or task.photos
    session = opened(task.card, task.model)
    seen = observe(task.model, qdq.tensors(graph, nodes), map(session.file_feeds, feeds(task.card, ranging)))
    exact = answers(task.card, photos, session.run)
    large = _large_layers(task, graph, nodes, seen)
    return _Bench(task=task, nodes=nodes, layers=layers, large=large, seen=seen, photos=photos, exact=exact)


def _large_layers(
    task: Task, graph: onnx.GraphProto, nodes: Sequence[str], seen: Mapping[str, Observed]
) -> dict[str, LargeLayer]:
    """Quantise the weights of large layers, once for all trials."""
    names = qdq.large_layers(graph, nodes)
    inputs = {node.input[0] for node in graph.node if node.name in names}
    finest = {name: min(float(activation(cut(seen[name].histogram))[0]) for cut in METHODS.values()) for name in inputs}
    return quantise_layers(task.model, names, finest, reduce_range=task.reduce_range)


def _spare_the_worst(
    bench: _Bench, best: _Trial, excluded: Mapping[str, str], wanted: float
) -> tuple[_Trial, dict[str, str]]:
    """Leave the layers that suffer most in fp32, STEP by STEP, until the images agree or no more may be spared.

    Errors of layers may cancel each other, so that more layers in fp32 agree less: the best attempt counts.
    """
    task, count = bench.task, len(bench.layers)
    task.on_stage("rank layers")
    fed = map(opened(task.card, task.model).file_feeds, feeds(task.card, bench.photos))
    harm = noise(task.model, best.model, bench.layers, fed)
    worst = sorted(harm, key=lambda name: -harm[name])[: min(int(count * task.spare), len(harm) - 1)]
    step = max(1, round(count * STEP))
    found, spared = (best, dict(excluded)), dict(excluded)
    for start in range(0, len(worst), step):
        spared |= {name: f"error {harm[name]:.2%} of its output's energy" for name in worst[start : start + step]}
        trial = bench.attempt(best.method, spared)
        if _rank(task.card, trial.likeness) > _rank(task.card, found[0].likeness):
            found = trial, dict(spared)
        if trial.likeness.value(task.card) >= wanted:
            break
    return found


def _rank(card: ModelCard, likeness: Likeness) -> tuple[float, float]:
    """Better is more; a few images have few values of top-1, so the cosine decides between equals."""
    return likeness.value(card), likeness.cosine or 0.0


def _some(names: Collection[str]) -> str:
    shown = list(names)[:8]
    return ", ".join(shown) + (f" and {len(names) - len(shown)} more" if len(names) > len(shown) else "")
