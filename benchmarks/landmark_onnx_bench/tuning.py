"""The fastest form of a model on this machine: contests with the default, and a last one that must confirm the first.

Providers and precisions come first, then batch sizes, then threads, of the form that leads; the default takes part in
each contest, so that all ratios are of the same rounds. What leads in the end meets the default once more, in rounds
that had no part in choosing it: the best of many that are alike would else be the luckiest.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

from landmark_onnx.errors import LandmarkError
from landmark_onnx.precision import FLOORS, Precision
from landmark_onnx.runtime.cpu import available_cores
from landmark_onnx.runtime.tuned import TunedChoice, TunedProvider
from landmark_onnx.verification.answers import Likeness, floor_of
from landmark_onnx_bench.accuracy import likeness_json
from landmark_onnx_bench.interleaved import Admission, Contest, ContestRules, Standing
from landmark_onnx_bench.resolve import Entrant
from landmark_onnx_bench.statistics import STABLE_LIMIT, STABLE_WINDOWS, Ratio, digits
from landmark_onnx_bench.targets import Contestant, Workload
from landmark_onnx_bench.tuned_forms import (
    DEFAULT,
    batch_forms,
    default_form,
    forms,
    plainness,
    short_name,
    thread_forms,
)

ROUNDS = 5
"""Of a contest, if it is not stable before."""
WORTH = 0.97
"""Of the default's time: less of a gain is no reason to leave it."""
SHARES = (0.35, 0.2, 0.15, 0.1)
"""Of the time there is: for the contests of forms, of batch sizes, of threads, and for one that confirms."""
WINDOWS = 150
"""How many windows fit the time there is, if they are not limited by `LONGEST_WINDOW` seconds."""
LONGEST_WINDOW = 1.0

Verdict: TypeAlias = Literal["chosen", "default", "faster", "as fast", "behind", "slower", "refused"]
"""behind: so far behind the best one that it lost its turns. as fast: as the default, or not beyond noise."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TuningPlan:
    """What is tried, and for how long.

    providers: short names, first the one that "auto" takes. floor: the least likeness to fp32, in the measure of the
    task; None for what `quantize` wants of each precision. seconds: of all contests, about: loading comes on top, and
    each has three rounds at least. pause: seconds between turns.
    """

    providers: tuple[str, ...]
    precisions: tuple[Precision, ...]
    floor: float | None = None
    seconds: float = 180.0
    pause: float = ContestRules().pause


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TriedForm:
    """A form that was tried, and what came of it. reason: why it was refused. ms: of an image, median."""

    model: Entrant
    form: Contestant
    provider: str
    verdict: Verdict
    ms: float | None
    ratio: Ratio | None
    likeness: Likeness | None
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """JSON-ready data."""
        return {
            "model": self.model.name,
            "provider": self.provider,
            "precision": self.form.precision,
            "threads": self.form.threads,
            "batch_size": self.form.batch_size,
            "ms": None if self.ms is None else digits(self.ms),
            "ratio": self.ratio.to_json() if self.ratio else None,
            "likeness": likeness_json(self.model.card, self.likeness),
            "verdict": self.verdict,
            "reason": self.reason,
        }


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TuningOutcome:
    """What was chosen, and all that was tried, the default first."""

    choice: TunedChoice
    tried: list[TriedForm]


class Tuning:
    """The search for one model."""

    def __init__(
        self, model: Entrant, photos: Sequence[Path], plan: TuningPlan, *, on_stage: Callable[[str], None]
    ) -> None:
        """photos: that can be read. on_stage: what is measured now."""
        self._model, self._photos, self._plan, self._on_stage = model, photos, plan, on_stage
        self._default = default_form(model)
        self._tried: dict[str, Contestant] = {}
        self._standings: dict[str, Standing] = {}
        self._reasons: dict[str, str] = {}
        self._likenesses: dict[tuple[str, Precision], Likeness] = {}

    def run(self) -> TuningOutcome:
        """Hold the contests. Raises: LandmarkError if the default itself does not run."""
        leaders = [self._lead(0, self._default, forms(self._model, self._plan.providers, self._plan.precisions))]
        if self._takes_batches(leaders[-1]):
            leaders.append(self._lead(1, leaders[-1], batch_forms(self._explicit(leaders[-1]))))
        leaders.append(self._lead(2, leaders[-1], thread_forms(self._explicit(leaders[-1]), available_cores())))
        chosen = self._confirmed(leaders[::-1])
        return TuningOutcome(choice=self._choice(chosen), tried=[self._told(each, chosen) for each in self._in_order()])

    def _lead(self, stage: int, leader: Contestant, challengers: Iterable[Contestant]) -> Contestant:
        """Who leads after a contest; a later one is left out if nobody challenges."""
        field = {each.label: each for each in (self._default, leader, *challengers)}
        if stage and field.keys() <= {DEFAULT, leader.label}:
            return leader
        rules = dataclasses.replace(self._rules(stage), targets=("model",), hopeless=STABLE_LIMIT)
        return best(self._hold([*field.values()], rules, None if stage else self._admit)).contestant

    def _confirmed(self, leaders: Sequence[Contestant]) -> Contestant:
        """The first of the leaders that is faster than the default once more, and not slower from file to answer."""
        for leader in dict.fromkeys(each.label for each in leaders if each.label != DEFAULT):
            form = self._tried[leader]
            standings = self._hold([self._default, form], self._rules(3), None)
            if confirmed(form, standings):
                return form
            self._reasons[leader] = "a last contest did not confirm it"
        return self._default

    def _hold(self, field: list[Contestant], rules: ContestRules, admit: Admission | None) -> list[Standing]:
        """A contest; what it shows of the network alone is remembered."""
        contest = Contest(self._model, field, rules, on_stage=self._on_stage, admit=admit)
        standings = contest.hold(self._photos)
        self._tried |= {each.label: each for each in field}
        self._reasons |= {each.contestant: each.error for each in contest.dropouts}
        if DEFAULT not in {each.contestant.label for each in standings}:
            raise LandmarkError(self._reasons.get(DEFAULT, f"{self._model.name}: the default was not measured"))
        self._standings |= {each.contestant.label: each for each in standings if each.target == "model"}
        return standings

    def _admit(self, form: Contestant, likeness: Likeness | None) -> bool:
        """Whether a form answers enough like fp32 by default."""
        if form.label == DEFAULT:
            return True
        if likeness is None:
            nothing = "nothing to compare with the answers by default on these photos: give others with --images"
            self._reasons.setdefault(form.label, nothing)
            return False
        self._likenesses[form.provider, form.precision] = likeness
        card, floor = self._model.card, self._plan.floor
        if floor is None:  # of fp32 on another provider nothing else is said than what fp16 must do
            floor = floor_of(card, FLOORS.get(form.precision, FLOORS["fp16"]))
        if reason := likeness.shortfall(card, floor):
            self._reasons[form.label] = reason
        return not reason

    def _rules(self, stage: int) -> ContestRules:
        return ContestRules(
            work=Workload(seconds=min(LONGEST_WINDOW, self._plan.seconds / WINDOWS)),
            max_windows=ROUNDS,
            pause=self._plan.pause,
            agree=False,
            enough=SHARES[stage] * self._plan.seconds,
        )

    def _takes_batches(self, leader: Contestant) -> bool:
        """Whether images of the task, and in this file, run together."""
        return self._default.batch_size > 1 and self._standings[leader.label].facts["batch_size"] == leader.batch_size

    def _provider(self, form: Contestant) -> str:
        """What runs a form, by its short name: of the default, what "auto" took."""
        if form.label != DEFAULT:
            return form.provider
        return short_name(self._standings[DEFAULT].facts["providers"][0])

    def _explicit(self, form: Contestant) -> Contestant:
        return dataclasses.replace(form, provider=self._provider(form))

    def _in_order(self) -> list[Contestant]:
        """All that was tried, the default first, then by what it costs; what was not measured last."""

        def key(form: Contestant) -> tuple[bool, float]:
            ratio = self._ratio(form)
            return form.label != DEFAULT, ratio.median if ratio else float("inf")

        return sorted(self._tried.values(), key=key)

    def _ratio(self, form: Contestant) -> Ratio | None:
        standing = self._standings.get(form.label)
        return standing.ratio if standing else None

    def _told(self, form: Contestant, chosen: Contestant) -> TriedForm:
        standing = self._standings.get(form.label)
        windows = standing.windows if standing else ()
        return TriedForm(
            model=self._model,
            form=form,
            provider=self._provider(form),
            verdict=self._verdict(form, chosen),
            ms=1000 * sorted(window.cost for window in windows)[len(windows) // 2] if windows else None,
            ratio=self._ratio(form),
            likeness=self._likenesses.get((form.provider, form.precision)),
            reason=self._reasons.get(form.label, ""),
        )

    def _verdict(self, form: Contestant, chosen: Contestant) -> Verdict:
        if form.label == chosen.label:
            return "chosen"
        if form.label == DEFAULT:
            return "default"
        standing = self._standings.get(form.label)
        if standing is None or standing.ratio is None:
            return "refused"
        if standing.ratio.low > 1:
            return "slower"
        if standing.ratio.rounds < STABLE_WINDOWS:
            return "behind"
        return "faster" if gains(standing.ratio) else "as fast"

    def _choice(self, form: Contestant) -> TunedChoice:
        ratio, likeness = self._ratio(form), self._likenesses.get((form.provider, form.precision))
        return TunedChoice(
            provider=cast("TunedProvider", self._provider(form)),
            precision=form.precision,
            threads=form.threads,
            batch_size=form.batch_size,
            ratio=ratio.median if ratio else 1.0,
            likeness=likeness.value(self._model.card) if likeness else None,
        )


def gains(ratio: Ratio) -> bool:
    """Whether it is beyond noise that time is gained, and enough to be worth it."""
    return ratio.rounds >= STABLE_WINDOWS and ratio.high < 1 and ratio.median <= WORTH


def beats(one: Standing, other: Standing) -> bool:
    """Whether one is faster than another in each round that both had, and by enough to be worth it."""
    pairs = list(zip(one.ratios, other.ratios, strict=False))
    return bool(pairs) and gains(Ratio.of(*zip(*pairs, strict=True)))


def best(standings: Sequence[Standing]) -> Standing:
    """The fastest of a contest, whose first is the default; where none is beyond noise, the plainer one."""
    default, *others = standings
    leader = default
    for each in sorted(others, key=lambda standing: plainness(standing.contestant)):
        if beats(each, leader):
            leader = each
    return leader


def confirmed(form: Contestant, standings: Sequence[Standing]) -> bool:
    """Whether a form beats the default with the network alone, and is not slower beyond noise from file to answer."""
    default = next(each for each in standings if each.contestant.label == DEFAULT)
    own = {each.target: each for each in standings if each.contestant.label == form.label}
    if set(own) != {"model", "file"} or not beats(own["model"], default):
        return False
    ratio = own["file"].ratio
    return ratio is not None and ratio.low <= 1
