"""The child process of one step, so that whatever the step does, crashing and hanging too, ends with it."""

import dataclasses
import json
import logging
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from landmark_onnx.errors import LandmarkError
from landmark_onnx.files.child_process import reply
from landmark_onnx_bench.gpu.device import MemoryWatch
from landmark_onnx_bench.gpu.forms import STEPS
from landmark_onnx_bench.interleaved import Contest, ContestRules
from landmark_onnx_bench.resolve import Entrant, entry
from landmark_onnx_bench.statistics import digits
from landmark_onnx_bench.targets import Contestant, Workload

logger = logging.getLogger(__name__)

HOST_SECONDS = 2.0
"""Of the window in which the host prepares photos on one core, at most."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class StepWork:
    """What the child is given. model: the fp32 file. windows, seconds: of the contest's rules. threads: of the CPU."""

    step: str
    model: str
    batch_size: int
    photos: Sequence[str]
    threads: int
    windows: int
    seconds: float
    rehearsal: bool


def hold(work: StepWork) -> dict[str, Any]:
    """Hold the contest of a step -> its rows, its dropouts, and other facts; JSON-ready."""
    facts, entrant = STEPS[work.step], entry(Path(work.model))
    contestants = [
        form.contestant(entrant, work.batch_size, work.threads, rehearsal=work.rehearsal) for form in facts.forms
    ]
    rules = ContestRules(
        work=Workload(seconds=work.seconds), targets=facts.targets, max_windows=work.windows, agree=facts.agree
    )
    held: dict[str, Any] = {"rows": [], "dropouts": [], "facts": {}}
    paths = [Path(path) for path in work.photos]
    for group in [[each] for each in contestants] if facts.alone else [contestants]:
        with MemoryWatch() as watch:
            rows, dropouts = _contest(entrant, group, rules, paths)
        if facts.alone:
            rows = [{**row, "device_peak_bytes": watch.peak_bytes} for row in rows]
        held["rows"] += rows
        held["dropouts"] += dropouts
    if facts.host:
        held["facts"] = _cores(held["rows"], host_rate(entrant, contestants[0], paths, min(work.seconds, HOST_SECONDS)))
    return held


def _contest(
    model: Entrant, contestants: list[Contestant], rules: ContestRules, photos: list[Path]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    contest = Contest(model, contestants, rules, on_stage=logger.info)
    rows = [standing.to_json() for standing in contest.hold(photos)]
    return rows, [dropout.to_json() for dropout in contest.dropouts]


def host_rate(model: Entrant, contestant: Contestant, photos: list[Path], seconds: float) -> float:
    """Photos per second that one core reads and prepares, in a plain window of the bench."""
    import cv2

    from landmark_onnx.images.decode import read_image
    from landmark_onnx.inference.preprocess import preprocess
    from landmark_onnx_bench.peers import takes_bytes
    from landmark_onnx_bench.single_stream import single_stream

    cv2.setNumThreads(1)
    as_uint8 = takes_bytes(contestant)

    def prepare(samples: Sequence[int]) -> Iterator[int]:
        for sample in samples:
            preprocess(model.card.preprocess, read_image(photos[sample]), as_uint8=as_uint8)
            yield 1

    return single_stream(Workload(seconds=seconds), prepare, 1, len(photos)).rate


def _cores(rows: list[dict[str, Any]], rate: float) -> dict[str, Any]:
    """How many cores prepare photos as fast as the network takes them, by contestant."""
    takes = {row["contestant"]: row["images_per_second"] for row in rows if row["target"] == "model"}
    return {
        "host_images_per_second_of_a_core": digits(rate),
        "cores_that_feed": {label: math.ceil(each / rate) for label, each in takes.items()},
    }


def main() -> None:
    """The child's side."""
    path, _ = sys.argv[1:]
    given = json.load(sys.stdin)
    reply(path, lambda: hold(StepWork(**given)), (LandmarkError, OSError))


if __name__ == "__main__":
    main()
