"""A contest: contestants of one model take turns, window by window, until each is stable."""

import contextlib
import dataclasses
import itertools
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from landmark_onnx.errors import LandmarkError, ModelFileError
from landmark_onnx.files.workfolders import temporary_folder
from landmark_onnx.modelfile.external_data import external_data
from landmark_onnx.precision import precision_file
from landmark_onnx.verification.answers import Likeness
from landmark_onnx_bench.accuracy import PHOTOS, likeness, likeness_json, stored_likeness
from landmark_onnx_bench.environment import available_bytes
from landmark_onnx_bench.resolve import Entrant
from landmark_onnx_bench.statistics import STABLE_WINDOWS, Ratio, Window, digits, stable, summary
from landmark_onnx_bench.targets import Contestant, Scenario, Target, Workload
from landmark_onnx_bench.worker_process import Child

SERVER_LOAD = 0.8
"""Of what the slowest contestant can do: more, and its queue would grow for as long as the window lasts."""

MEMORY_SHARE = 0.8
MEMORY_FACTOR = 4
"""Memory that a contestant may take, in sizes of its files: weights, their packed copies, activations."""

HOPELESS_ROUNDS = 2

Admission: TypeAlias = Callable[[Contestant, Likeness | None], bool]
"""Whether a contestant may compete, by how much its answers are like those at fp32, where that is known."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ContestRules:
    """How a contest goes.

    max_windows: of each contestant and target, if it is not stable before. pause: seconds between turns, because the
    OpenMP threads of the last one keep spinning for up to 0.2. agree: whether answers are compared too.
    enough: seconds after which no further round of a target begins, once there are three. hopeless: who costs more than
    so many times the best one's in each round, of two at least, has no more turns; the first contestant has all.
    """

    work: Workload = dataclasses.field(default_factory=Workload)
    targets: tuple[Target, ...] = ("model", "file")
    max_windows: int = 10
    pause: float = 0.25
    agree: bool = True
    enough: float = math.inf
    hopeless: float = math.inf


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What one contestant showed at one target.

    facts: of its child process. ratio: to the contest's first contestant, None for that one itself; ratios: the same of
    each round. likeness: of its answers with those of the first contestant at fp32, where that is known.
    """

    model: Entrant
    contestant: Contestant
    target: Target
    work: Workload
    facts: dict[str, Any]
    peak_bytes: int | None
    windows: tuple[Window, ...]
    ratio: Ratio | None
    ratios: tuple[float, ...]
    likeness: Likeness | None

    def to_json(self) -> dict[str, Any]:
        """JSON-ready data: a row of a report."""
        return {
            "model": self.model.name,
            "task": self.model.card.task,
            "contestant": self.contestant.label,
            "runtime": self.contestant.runtime,
            "precision": self.contestant.precision,
            "threads": self.contestant.threads,
            "target": self.target,
            "scenario": str(self.work.scenario),
            "target_qps": digits(self.work.target_qps),
            **self.facts,
            "peak_bytes": self.peak_bytes,
            **summary(self.windows),
            "ratio": self.ratio.to_json() if self.ratio else None,
            "likeness": likeness_json(self.model.card, self.likeness),
            "windows": [window.to_json() for window in self.windows],
        }


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Dropout:
    """A contestant that did not finish, and why."""

    model: str
    contestant: str
    batch_size: int
    error: str

    def to_json(self) -> dict[str, Any]:
        """JSON-ready data."""
        return dataclasses.asdict(self)


class Contest:
    """One model and its contestants at one batch size."""

    def __init__(
        self,
        model: Entrant,
        contestants: Sequence[Contestant],
        rules: ContestRules,
        *,
        on_stage: Callable[[str], None],
        admit: Admission | None = None,
    ) -> None:
        """contestants: the first one is what the ratios of the others are taken of. on_stage: what is measured now.

        admit: if given, answers are compared before the rounds, and who is not admitted has no turn and no standing.
        """
        self.dropouts: list[Dropout] = []
        self._model, self._contestants, self._rules = model, contestants, rules
        self._on_stage, self._admit = on_stage, admit

    def hold(self, paths: Sequence[Path]) -> list[Standing]:
        """Let them compete on these photos; who fails is in `dropouts` and stops nobody else.

        The first contestant's standing comes once, also where memory made it run with the others one by one.
        """
        standings: list[Standing] = []
        for group in groups(self._contestants, available_bytes()):
            found = self._hold_together(group, paths)
            known = {(standing.contestant.label, standing.target) for standing in standings}
            standings += [each for each in found if (each.contestant.label, each.target) not in known]
        return standings

    def _hold_together(self, contestants: Sequence[Contestant], paths: Sequence[Path]) -> list[Standing]:
        with contextlib.ExitStack() as stack:
            children: list[Child] = []
            for contestant in contestants:
                self._on_stage(f"{self._model.name}: {contestant.label}: load")
                with self._dropping(contestant):
                    children.append(stack.enter_context(Child(contestant, paths)))
            likenesses: dict[str, Likeness] = {}
            if admit := self._admit:
                likenesses = self._likenesses(children)
                children = [each for each in children if admit(each.contestant, likenesses.get(each.contestant.label))]
            windows: dict[Target, dict[str, list[Window]]] = {}
            works: dict[Target, Workload] = {}
            for target in self._rules.targets:
                works[target] = self._workload(children, target)
                windows[target] = self._rounds(children, target, works[target])
                children = [child for child in children if child.contestant.label in windows[target]]
            if self._rules.agree and not admit:
                likenesses = self._likenesses(children)
            return list(self._standings(children, works, windows, likenesses))

    def _workload(self, children: Sequence[Child], target: Target) -> Workload:
        """The rules' own; for scenario "server" with a load that the slowest contestant can bear, the same for all."""
        work = self._rules.work
        if work.scenario is not Scenario.SERVER or work.target_qps:
            return work
        rates = []
        for child in children:
            with self._dropping(child.contestant):
                rates.append(child.rate(target))
        return dataclasses.replace(work, target_qps=SERVER_LOAD * min(rates, default=1.0))

    def _rounds(self, children: Sequence[Child], target: Target, work: Workload) -> dict[str, list[Window]]:
        """Turn by turn until all are stable; who fails in between is left out."""
        windows: dict[str, list[Window]] = {child.contestant.label: [] for child in children}
        stopped: set[str] = set()
        begun = time.monotonic()
        for number in range(self._rules.max_windows):
            if number >= STABLE_WINDOWS and time.monotonic() - begun >= self._rules.enough:
                break
            for child in children:
                label = child.contestant.label
                if label not in windows or label in stopped:
                    continue
                self._on_stage(
                    f"{self._model.name}: {label}: batch {child.facts['batch_size']}, {target}, round {number + 1}"
                )
                finished = False
                with self._dropping(child.contestant):
                    time.sleep(self._rules.pause)
                    windows[label].append(child.window(target, work))
                    finished = True
                if not finished:
                    del windows[label]
            stopped = hopeless(windows, self._rules.hopeless) - {self._contestants[0].label}
            if all(stable(each) for label, each in windows.items() if label not in stopped):
                break
        return windows

    def _likenesses(self, children: Sequence[Child]) -> dict[str, Likeness]:
        """Of each with the first one of precision fp32."""
        with temporary_folder() as folder:
            files = {}
            for number, child in enumerate(children):
                self._on_stage(f"{self._model.name}: {child.contestant.label}: answers")
                with self._dropping(child.contestant):
                    file = folder / f"{number}.npz"
                    child.outputs(PHOTOS[self._model.card.task], file)
                    files[child.contestant.label] = file
            exact = next((c.contestant.label for c in children if c.contestant.precision == "fp32"), None)
            if exact not in files:
                return {}
            others = {label: file for label, file in files.items() if label != exact}
            found = {label: likeness(self._model.card, files[exact], file) for label, file in others.items()}
        return {label: each for label, each in found.items() if each}

    def _standings(
        self,
        children: Sequence[Child],
        works: dict[Target, Workload],
        windows: dict[Target, dict[str, list[Window]]],
        likenesses: dict[str, Likeness],
    ) -> Iterator[Standing]:
        for target, child in itertools.product(self._rules.targets, children):
            label = child.contestant.label
            own, first = windows[target][label], windows[target].get(self._contestants[0].label, [])
            ratio = None
            costs = [[window.cost for window in each[: len(own)]] for each in (own, first)]
            if first and own and label != self._contestants[0].label:
                ratio = Ratio.of(*costs)
            yield Standing(
                model=self._model,
                contestant=child.contestant,
                target=target,
                work=works[target],
                facts=child.facts,
                peak_bytes=child.peak_bytes,
                windows=tuple(own),
                ratio=ratio,
                ratios=tuple(ours / theirs for ours, theirs in zip(*costs, strict=bool(first))),
                likeness=likenesses.get(label) or stored_likeness(self._model, child.contestant),
            )

    @contextlib.contextmanager
    def _dropping(self, contestant: Contestant) -> Iterator[None]:
        """What fails in this block is told once, and is no more than that contestant's end."""
        try:
            yield
        except LandmarkError as error:
            dropout = Dropout(
                model=self._model.name,
                contestant=contestant.label,
                batch_size=contestant.batch_size,
                error=str(error),
            )
            if dropout not in self.dropouts:
                self.dropouts.append(dropout)


def hopeless(windows: Mapping[str, Sequence[Window]], limit: float) -> set[str]:
    """Who cost more than `limit` times the best one's in each round that both had, and had `HOPELESS_ROUNDS`."""
    costs = {label: [window.cost for window in each] for label, each in windows.items() if each}
    if not costs or limit == math.inf:
        return set()
    best = costs[min(costs, key=lambda label: statistics.median(costs[label]))]
    return {
        label
        for label, own in costs.items()
        if len(own) >= HOPELESS_ROUNDS and all(a > limit * b for a, b in zip(own, best, strict=False))
    }


def groups(contestants: Sequence[Contestant], available: int | None) -> list[list[Contestant]]:
    """Who is in memory together: all, or, where that is too small, the first contestant with one other at a time."""
    needed = sum(MEMORY_FACTOR * file_bytes(contestant) for contestant in contestants)
    if available is None or needed <= MEMORY_SHARE * available or len(contestants) < 3:
        return [list(contestants)]
    return [[contestants[0], other] for other in contestants[1:]]


def file_bytes(contestant: Contestant) -> int:
    """The size of the files that a contestant loads: of its precision, and with the weights beside them."""
    path = precision_file(Path(contestant.path), contestant.precision)
    files = [path, *path.parent.glob(f"{path.name}.data*")]
    with contextlib.suppress(ModelFileError):  # what is wrong with a file is told when it is loaded
        files += filter(None, [external_data(path)])
    if "params" in contestant.options:
        files.append(Path(contestant.options["params"]))
    return sum(file.stat().st_size for file in files if file.is_file())
