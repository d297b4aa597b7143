"""The whole run: is there a GPU, which models, which steps in which order, and each in a child process of its own."""

import dataclasses
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from landmark_onnx.doctor.diagnose import TIMEOUT, examine
from landmark_onnx.doctor.provider_trial import try_provider
from landmark_onnx.errors import LandmarkError, SessionError
from landmark_onnx.extras import versions
from landmark_onnx.files.atomic import check_writable
from landmark_onnx.files.child_process import ask_child, death, last_line
from landmark_onnx.files.workfolders import temporary_folder
from landmark_onnx.modelfile.metadata import read_seal
from landmark_onnx.precision import STORED, precision_file
from landmark_onnx.runtime.providers import TENSORRT, onnxruntime
from landmark_onnx.store.catalogue import find_model
from landmark_onnx.store.status import stored_models
from landmark_onnx_bench.environment import machine
from landmark_onnx_bench.gpu.device import card_facts
from landmark_onnx_bench.gpu.forms import STEPS, step_batches
from landmark_onnx_bench.gpu.made_up import made_up_models
from landmark_onnx_bench.gpu.records import GpuRecords, StepRecord, key_of
from landmark_onnx_bench.gpu.work import StepWork
from landmark_onnx_bench.resolve import Entrant, entry
from landmark_onnx_bench.sample_photos import write_photos

PHOTOS, HEIGHT, WIDTH = 32, 533, 800
"""The photos that are asked about: as many as a worker keeps, of the size that the original's times were taken of."""

QUICK_WINDOWS, QUICK_SECONDS = 3, 0.5
"""Of the steps of the first table: three windows are the fewest that can be stable."""

LIBRARIES = ("tensorrt", "tensorrt-cu12", "tensorrt-cu13", "torch")
"""Packages that some steps depend on, and no other."""

Place = tuple[str, str, int]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class GpuRequest:
    """What the user asked for. output: a folder, None for one by the card's name. models: names or files."""

    output: Path | None
    models: tuple[str, ...]
    made_up: tuple[str, ...]
    rehearsal: bool
    only: tuple[str, ...]
    batch_sizes: tuple[int, ...]
    windows: int
    seconds: float
    threads: int


def measure(request: GpuRequest, say: Callable[[str], None]) -> int:
    """Run every step that is not done yet -> the exit code. say: takes a line of progress.

    Raises: LandmarkError if there is no GPU, no model, or a folder of another card's records.
    """
    say("looking for the GPU" if not request.rehearsal else "no GPU: a rehearsal")
    environment = surroundings(request)
    folder = request.output or Path("out", "gpu", _slug(environment["identity"]["card"].get("name", "rehearsal")))
    check_writable(folder / "gpu.json")
    records = GpuRecords(folder, environment)
    models = entrants(request, folder, say)
    records.write()
    with temporary_folder() as photos_folder:
        photos = [str(path) for path in write_photos(photos_folder, PHOTOS, HEIGHT, WIDTH)]
        for place, model, work in planned(request, models, photos):
            key = _key(work, model, environment)
            if records.done(place, key):
                continue
            say(f"{model.name}: {STEPS[place[0]].title}, batch {place[2]}")
            record = run_step(place, key, work, environment["tensorrt"])
            if record.error:
                say(f"  failed: {record.error}")
            records.add(record)
    say(f"wrote {records.path} and {records.path.with_suffix('.md').name}")
    return 1 if records.failures else 0


def surroundings(request: GpuRequest) -> dict[str, Any]:
    """Card, machine and providers. Raises: SessionError, in one line with its remedy, if models do not run there."""
    diagnosis = examine("cpu" if request.rehearsal else "cuda", timeout=TIMEOUT)
    if not diagnosis.runs:
        finding = next(each for each in diagnosis.findings if each.level == "error")
        raise SessionError(f"no GPU to measure: {finding.name}: {finding.text}; {finding.remedy}")
    facts = machine()
    card = {} if request.rehearsal else card_facts()
    tensorrt = "" if request.rehearsal else _tensorrt()
    torch = versions("torch").get("torch")
    return {
        "identity": {"rehearsal": request.rehearsal, "card": card, "versions": facts["versions"]},
        "machine": facts,
        "command": ["python", "-m", "landmark_onnx_bench.gpu", *sys.argv[1:]],
        "providers": {finding.name: finding.text for finding in diagnosis.findings if finding.part in _PARTS},
        "libraries": versions(*LIBRARIES),
        "tensorrt": tensorrt,
        "torch": f"torch {torch} reads no ONNX graph, and a network written again would not be the same graph"
        if torch
        else "torch is not installed",
    }


_PARTS = ("providers", "nvidia")
_REDUCED = tuple(f".{precision}" for precision in STORED)


def _tensorrt() -> str:
    """Why TensorRT does not run here, or nothing."""
    if TENSORRT not in onnxruntime().get_available_providers():
        return f"{TENSORRT} is not part of the installed ONNX Runtime"
    trial = try_provider(TENSORRT, timeout=TIMEOUT)
    return "" if trial.state == "runs" else f"TensorRT {trial.state}: {trial.reason}"


def entrants(request: GpuRequest, folder: Path, say: Callable[[str], None]) -> list[Entrant]:
    """The models, smallest first. Raises: LandmarkError if there is none, with what brings some."""
    paths = [find_model(name) for name in request.models]
    paths += made_up_models(request.made_up, folder / "models", say)
    if not paths:
        paths = [each.model for each in stored_models() if each.model and not each.name.endswith(_REDUCED)]
    if not paths:
        raise LandmarkError(
            "no model in the store: pull one (landmark-onnx models pull NAME), set LANDMARK_ONNX_HOME to a bundle from "
            "another machine (landmark-onnx bundle), or take random weights with --made-up NAME"
        )
    found = [entry(path) for path in sorted(paths, key=lambda path: path.stat().st_size)]
    names = [each.name for each in found]
    if twice := {name for name in names if names.count(name) > 1}:
        raise LandmarkError(f"two files of one model: {', '.join(sorted(twice))}; name one of them with --models")
    return found


def planned(
    request: GpuRequest, models: Sequence[Entrant], photos: Sequence[str]
) -> Iterator[tuple[Place, Entrant, StepWork]]:
    """What there is to do, in order: each step with its model, and what its child is given; all quick steps first."""
    for name in (each for each in STEPS if each in request.only):
        quick = STEPS[name].quick
        for model in models:
            for size in step_batches(name, model, request.batch_sizes):
                work = StepWork(
                    step=name,
                    model=str(model.path),
                    batch_size=size,
                    photos=photos,
                    threads=request.threads,
                    windows=min(request.windows, QUICK_WINDOWS) if quick else request.windows,
                    seconds=min(request.seconds, QUICK_SECONDS) if quick else request.seconds,
                    rehearsal=request.rehearsal,
                )
                yield (name, model.name, size), model, work


def run_step(place: Place, key: str, work: StepWork, tensorrt: str) -> StepRecord:
    """Have a step done by a child process; whatever happens to it is in the record. tensorrt: why there is none."""
    name, model, size = place
    begun, start = datetime.now(UTC).isoformat(timespec="seconds"), time.perf_counter()
    absent = {"dropouts": [{"model": model, "contestant": name, "batch_size": size, "error": tensorrt}]}
    answer: dict[str, Any] = absent if name == "tensorrt" and tensorrt else _asked(work)
    return StepRecord(
        step=name,
        model=model,
        batch_size=size,
        key=key,
        begun=begun,
        seconds=round(time.perf_counter() - start, 1),
        error=answer.get("error", ""),
        rows=tuple(answer.get("rows", ())),
        dropouts=tuple(answer.get("dropouts", ())),
        facts=answer.get("facts", {}),
    )


def _asked(work: StepWork) -> dict[str, Any]:
    limit = STEPS[work.step].limit
    ended = ask_child("landmark_onnx_bench.gpu.work", work.step, given=dataclasses.asdict(work), timeout=limit)
    if ended.answer is not None:
        return ended.answer
    if ended.code is None:
        return {"error": f"not done within {limit:g} s"}
    return {"error": f"its process died ({death(ended.code)}): {last_line(ended.words)}"}


def _key(work: StepWork, model: Entrant, environment: dict[str, Any]) -> str:
    """Of all that a step's figures depend on: the files that may run, the rules, the card, the versions."""
    files = [model.path, *(precision_file(model.path, precision) for precision in STORED)]
    seals = [read_seal(file) for file in files if file.is_file()]
    depends = {name: value for name, value in dataclasses.asdict(work).items() if name not in ("photos", "model")}
    libraries = [environment["libraries"], environment["tensorrt"]] if work.step == "tensorrt" else []
    return key_of(
        files=[seal.sha256 for seal in seals if seal],
        libraries=libraries,
        identity=environment["identity"],
        **depends,
    )


def _slug(name: str) -> str:
    """A card's name as a folder is called."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
