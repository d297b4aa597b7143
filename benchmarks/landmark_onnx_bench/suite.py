"""Every contest that was asked for: models x batch sizes, each with all that take part."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from landmark_onnx.errors import LandmarkError
from landmark_onnx.files.workfolders import temporary_folder
from landmark_onnx.precision import Precision
from landmark_onnx.tasks import INPUTS
from landmark_onnx_bench.interleaved import Contest, ContestRules, Dropout, Standing
from landmark_onnx_bench.resolve import Entrant, own, peer
from landmark_onnx_bench.targets import Contestant


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SuitePlan:
    """Who takes part in each contest, and its rules. The first provider at the first precision is the baseline."""

    providers: tuple[str, ...] = ("cpu",)
    precisions: tuple[Precision, ...] = ("fp32",)
    peers: tuple[str, ...] = ()
    batch_sizes: tuple[int, ...] = (1,)
    threads: int
    rules: ContestRules


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of all contests."""

    standings: list[Standing]
    dropouts: list[Dropout]


def hold_all(
    plan: SuitePlan, models: Sequence[Entrant], photos: Sequence[Path], *, on_stage: Callable[[str], None]
) -> Outcome:
    """Hold each contest, one after another. on_stage: what is measured now."""
    standings: list[Standing] = []
    dropouts: list[Dropout] = []
    with temporary_folder() as folder:
        for model in models:
            for batch_size in batch_sizes(plan, model):
                contestants = list(_contestants(plan, model, batch_size, folder, dropouts))
                contest = Contest(model, contestants, plan.rules, on_stage=on_stage)
                standings += contest.hold(photos)
                dropouts += contest.dropouts
    return Outcome(standings=standings, dropouts=dropouts)


def batch_sizes(plan: SuitePlan, model: Entrant) -> tuple[int, ...]:
    """Those of the plan, or 1 for a task that takes one image at a time."""
    return plan.batch_sizes if len(INPUTS[model.card.task]) == 1 else (1,)


def _contestants(
    plan: SuitePlan, model: Entrant, batch_size: int, folder: Path, dropouts: list[Dropout]
) -> Iterator[Contestant]:
    yield from own(model, plan.providers, plan.precisions, threads=plan.threads, batch_size=batch_size)
    for name in plan.peers:
        try:
            yield peer(model, name, folder, threads=plan.threads, batch_size=batch_size)
        except LandmarkError as error:
            dropouts.append(Dropout(model=model.name, contestant=name, batch_size=batch_size, error=str(error)))
