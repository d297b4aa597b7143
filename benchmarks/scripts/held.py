"""A contest held for the sake of its figures, and what a figure is."""

import contextlib
import dataclasses
import json
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from made import Workshop, say

from landmark_onnx.errors import LandmarkError
from landmark_onnx_bench.accuracy import likeness_json
from landmark_onnx_bench.interleaved import Contest, ContestRules, Standing
from landmark_onnx_bench.resolve import Entrant, own, peer
from landmark_onnx_bench.statistics import Ratio, digits, stable
from landmark_onnx_bench.targets import OWN, Contestant, Workload
from landmark_onnx_bench.worker import MAX_FEEDS


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """How the figures are taken. providers: of this package, of which the best counts."""

    shop: Workshop
    providers: tuple[str, ...]
    threads: int
    windows: int
    seconds: float
    batch_size: int
    photos: int

    def rules(self, *targets: str, queries: int = 0, agree: bool = False) -> ContestRules:
        """Of a contest."""
        work = Workload(seconds=self.seconds, queries=queries)
        return ContestRules(work=work, targets=targets, max_windows=self.windows, agree=agree)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One figure of one model. wanted: "<= 1.00" or ">= 0.95". measured: None if it could not be had.

    by: who was measured. detail: whatever else explains the number.
    """

    name: str
    model: str
    wanted: str
    measured: float | None
    by: str = ""
    detail: str = ""

    @property
    def holds(self) -> bool:
        """Whether it is reached."""
        sign, limit = self.wanted.split()
        if self.measured is None:
            return False
        return self.measured <= float(limit) if sign == "<=" else self.measured >= float(limit)

    def to_json(self) -> dict[str, Any]:
        """JSON-ready data."""
        return {**dataclasses.asdict(self), "holds": self.holds}


class Held:
    """A contest that was held, and figures of it; iterates over the labels of those who finished."""

    def __init__(
        self, bench: Bench, model: Entrant, precisions: Sequence[str], peers: Sequence[str], rules: ContestRules
    ) -> None:
        self._model = model
        ours = list(own(model, bench.providers, precisions, threads=bench.threads, batch_size=1))
        self._reasons: dict[str, str] = {}
        rivals: list[Contestant] = []
        for name in peers:
            with self._noting(name):
                folder = bench.shop.folder / "paddle"
                rivals.append(peer(model, name, folder, threads=bench.threads, batch_size=1))
        # The first one is in every group, should memory part them.
        contest = Contest(model, [*rivals, *ours], rules, on_stage=say)
        self._standings: dict[str, Standing] = {
            each.contestant.label: each for each in contest.hold(bench.shop.photos(MAX_FEEDS))
        }
        self._reasons |= {dropout.contestant: dropout.error for dropout in contest.dropouts}
        self.rows = [each.to_json() for each in self._standings.values()]

    def __iter__(self) -> Iterator[str]:
        return iter(self._standings)

    def cost(self, label: str) -> float:
        """Median cost in seconds."""
        return statistics.median(window.cost for window in self._standings[label].windows)

    def alike(self, label: str) -> float:
        """Likeness to fp32, 0 where it is not known."""
        likeness = self._standings[label].likeness
        return likeness.value(self._model.card) if likeness else 0.0

    def figure(self, name: str, wanted: str, precision: str, rival: str, *, detail: str = "") -> Figure:
        """The ratio of our best provider at `precision` to a rival, window by window."""
        labels = [label for label in self if label.startswith(OWN) and label.endswith(precision)]
        known = [(self._ratio(label, rival), label) for label in labels] if rival in self else []
        if not known:
            # Where the file was refused, that it is missing says nothing more.
            told = [label for label in self._reasons if label == rival or (label.endswith(precision) and not detail)]
            reason = "; ".join(filter(None, [detail, *(self._reasons[label] for label in told)]))
            return Figure(name=name, model=self._model.name, wanted=wanted, measured=None, detail=reason)
        ratio, label = min(known, key=lambda pair: pair[0].median)
        others = [f"{other} {digits(each.median)}" for each, other in known if other != label]
        unstable = [each for each in (label, rival) if not stable(self._standings[each].windows)]
        notes = [
            f"{ratio.low:.3f} to {ratio.high:.3f} in {ratio.rounds} rounds; {1000 * self.cost(label):.5g} against "
            f"{1000 * self.cost(rival):.5g} ms of {rival}",
            *others,
            *([f"not stable: {', '.join(unstable)}"] if unstable else []),
            detail,
        ]
        return Figure(
            name=name,
            model=self._model.name,
            wanted=wanted,
            measured=digits(ratio.median),
            by=label,
            detail="; ".join(filter(None, notes)),
        )

    def likeness(self, name: str, wanted: str, label: str) -> Figure:
        """How like fp32 the answers of `label` are."""
        standing = self._standings.get(label)
        found = likeness_json(self._model.card, standing.likeness) if standing else None
        detail = f"{found['measure']}, {found['photos']} photos" if found else "not known"
        value = found["value"] if found else None
        return Figure(name=name, model=self._model.name, wanted=wanted, measured=value, by=label, detail=detail)

    def _ratio(self, label: str, rival: str) -> Ratio:
        """Of windows in the order of the rounds; a rival in another group of a parted contest has other rounds."""
        costs = [[window.cost for window in self._standings[each].windows] for each in (label, rival)]
        rounds = min(map(len, costs))
        return Ratio.of(*(values[:rounds] for values in costs))

    @contextlib.contextmanager
    def _noting(self, label: str) -> Iterator[None]:
        try:
            yield
        except LandmarkError as error:
            self._reasons[label] = str(error)


def read_part(path: Path) -> tuple[list[Figure], dict[str, Any]]:
    """The figures of a part that was measured before, and the whole of it."""
    part = json.loads(path.read_text(encoding="utf-8"))
    return [Figure(**{key: value for key, value in each.items() if key != "holds"}) for each in part["figures"]], part
