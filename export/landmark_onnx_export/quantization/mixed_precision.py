"""How a network is brought to 8 bits: which cut of the ranges, and which layers stay fp32, by what the answers lose."""

import dataclasses
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
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

TRIALS: Mapping[str, int] = {"retrieval": 10, "cls": 12, "det": 2}
TRIAL_SHARE = 8
"""Calibration images that choices are made with: so many by task, or of many one in so many, but at most a third of
them; ranges come from the others."""

MARGIN = 0.3
"""Of the way from the floor to 1: by how much the calibration images must do better than the floor."""

ENOUGH = 0.998
"""Cosine from which nothing more is looked for."""

PAYS, HELPS = 0.25, 0.1
"""Share of the error that layers must take with them to stay fp32: above the floor, and below it."""

KEEPS = 0.8
"""Share of what a run of layers gains from which a part of the run does as well."""

FINEST = 0.02
"""Share of the layers that are not told apart."""


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
    """What every trial needs.

    graph: of the fp32 file. nodes: of it that may be quantised. large: of the large layers among them, what they
    become. exact: what fp32 answers to `photos`.
    """

    task: Task
    graph: onnx.GraphProto
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
        nodes = qdq.without(self.graph, self.nodes, excluded)
        made = qdq.quantise(self.task.model, cuts, means, nodes, self.large, reduce_range=self.task.reduce_range)
        trial = self.task.model.parent / "trial.onnx"
        trial.with_name("trial.data").unlink(missing_ok=True)  # onnx appends to what is there
        copy = onnx.ModelProto()
        copy.CopyFrom(made)
        onnx.save(copy, trial, save_as_external_data=True, location="trial.data")
        got = answers(self.task.card, self.photos, runner(self.task.card, trial))
        return _Trial(made, method, compare(self.task.card, self.exact, got))


def search(task: Task) -> ReducedNetwork:
    """Try every cut of the ranges and keep the best; then leave layers in fp32 while that pays.

    Raises: ExportError if there is nothing to quantise, or a layer to exclude is not there.
    """
    bench = _prepare(task)
    excluded = dict.fromkeys(task.exclude, "asked for")
    trials = (bench.attempt(method, excluded) for method in METHODS)
    best, excluded = _spare(bench, min(trials, key=_error), excluded)
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
    return _Bench(
        task=task, graph=graph, nodes=nodes, layers=layers, large=large, seen=seen, photos=photos, exact=exact
    )


def _large_layers(
    task: Task, graph: onnx.GraphProto, nodes: Sequence[str], seen: Mapping[str, Observed]
) -> dict[str, LargeLayer]:
    """Quantise the weights of large layers, once for all trials."""
    names = qdq.large_layers(graph, nodes)
    inputs = {node.input[0] for node in graph.node if node.name in names}
    finest = {name: min(float(activation(cut(seen[name].histogram))[0]) for cut in METHODS.values()) for name in inputs}
    return quantise_layers(task.model, names, finest, reduce_range=task.reduce_range)


def _spare(bench: _Bench, best: _Trial, excluded: Mapping[str, str]) -> tuple[_Trial, dict[str, str]]:
    """Leave runs of layers in fp32, each the one that the answers gain most by, while it pays and more may be spared.

    The answers are asked because a layer's own output tells little: the first two of EfficientNet-Lite0 lose a
    ten-thousandth of its energy, and make more than half of what the embedding loses. Runs, because what lies between
    two layers is rounded unless neither has 8 bits. Each begins with the last layer of the one before, so that no pair
    is in none.
    """
    task, found = bench.task, dict(excluded)
    wanted = task.floor + (1 - task.floor) * MARGIN
    open_ = [name for name in bench.layers if name not in found]
    left = min(int(len(bench.layers) * task.spare), len(open_) - 1)  # one layer in 8 bits, at the least
    shared = min(1, left - 1)
    starts = range(0, len(open_) - shared, left - shared) if left > 0 else ()
    runs: list[Sequence[str]] = [open_[start : start + left] for start in starts]
    while runs and left > 0:
        short = best.likeness.value(task.card) < wanted
        if not short and (best.likeness.cosine is None or best.likeness.cosine >= ENOUGH):
            break
        needed = _error(best) * (HELPS if short else PAYS)
        run, trial, runs = _costliest_run(bench, best, runs, needed, found)
        gain = _error(best) - _error(trial)
        if gain <= 0 or gain < needed:
            break
        found |= dict.fromkeys(
            run, f"the error is {gain / _error(best):.0%} less without 8 bits from {run[0]} to {run[-1]}"
        )
        best, left = trial, left - len(run)
        rest = ([name for name in each if name not in found][:left] for each in runs)
        runs = [each for each in rest if each]
    return best, found


def _costliest_run(
    bench: _Bench, best: _Trial, runs: Sequence[Sequence[str]], needed: float, excluded: Mapping[str, str]
) -> tuple[Sequence[str], _Trial, list[Sequence[str]]]:
    """The run without which the error is least, or a part of it that does nearly as well; and the runs to try next.

    best: the trial with all of them in 8 bits. needed: what is gained at the least where parts are worth a trial. Next
    are those that gained half of it.
    """

    def trials(runs: Iterable[Sequence[str]]) -> Iterator[tuple[float, Sequence[str], _Trial]]:
        for run in runs:
            trial = bench.attempt(best.method, {*excluded, *run})
            yield _error(best) - _error(trial), run, trial

    tried = []
    gain, run, trial = -math.inf, runs[0], best
    for each in trials(runs):
        tried.append(each[:2])
        if each[0] > gain:
            gain, run, trial = each
    whole = gain
    least = max(1, round(len(bench.layers) * FINEST))
    while len(run) > least and whole >= needed:
        half = -(-len(run) // 2)
        starts = sorted({0, (len(run) - half) // 2, len(run) - half})
        gain, part, other = max(trials(run[start : start + half] for start in starts), key=lambda each: each[0])
        if gain < KEEPS * whole:
            break
        run, trial = part, other
    return run, trial, [each for gain, each in tried if gain >= needed / 2]


def _error(trial: _Trial) -> float:
    """What is lost: of the cosine, which a few images tell more finely than a share of them, where there is one."""
    return 1 - (trial.likeness.matched or 0.0 if trial.likeness.cosine is None else trial.likeness.cosine)


def _some(names: Collection[str]) -> str:
    shown = list(names)[:8]
    return ", ".join(shown) + (f" and {len(names) - len(shown)} more" if len(names) > len(shown) else "")
