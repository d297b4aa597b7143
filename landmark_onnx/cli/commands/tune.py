"""`landmark-onnx tune`: what runs a model fastest here, kept for `--precision auto`."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from landmark_onnx.cli.bench_options import PHOTOS, Measurement, readable
from landmark_onnx.cli.model_names import MODEL_HELP, complete_model
from landmark_onnx.cli.options import IMAGES, FollowLinks, Output, unfolded
from landmark_onnx.cli.output import Column, Record, View
from landmark_onnx.cli.progress import Reporter
from landmark_onnx.cli.run import emit, reporting

if TYPE_CHECKING:
    from landmark_onnx_bench.resolve import Entrant
    from landmark_onnx_bench.tuning import TuningOutcome, TuningPlan


def _rows(record: Record) -> list[Record]:
    ratio, likeness = record["ratio"] or {}, record["likeness"] or {}
    return [
        {
            **record,
            "threads": record["threads"] or "default",
            "batch": record["batch_size"],
            "ratio": ratio.get("median"),
            "low": ratio.get("low"),
            "high": ratio.get("high"),
            "rounds": ratio.get("rounds"),
            "like fp32": likeness.get("value"),
        }
    ]


VIEW = View(
    (
        Column("provider"),
        Column("precision"),
        Column("threads"),
        Column("batch", "d"),
        Column("ms", ".4g"),
        Column("ratio", ".3f"),
        Column("low", ".3f"),
        Column("high", ".3f"),
        Column("rounds", "d"),
        Column("like fp32", ".5f"),
        Column("verdict"),
        Column("reason"),
    ),
    _rows,
)

Model = Annotated[
    str, typer.Argument(metavar="MODEL", help=MODEL_HELP, autocompletion=complete_model, show_default=False)
]
Floor = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=1,
        help="Take nothing that agrees less with fp32: mean cosine of embeddings, share of equal best classes, or of "
        "boxes matched.",
        show_default="as of quantize",
    ),
]
Photos = Annotated[
    list[str] | None,
    typer.Option(
        metavar="IMAGE",
        help=f"Photos like those to come: folders, files, patterns; repeat for more. Default: {PHOTOS} made up.",
        rich_help_panel=IMAGES,
    ),
]
Seconds = Annotated[
    float, typer.Option(min=1, help="How long to measure, about: loading comes on top, and each has three turns.")
]


@unfolded
def tune_model(
    model: Model,
    output: Output,
    floor: Floor = None,
    images: Photos = None,
    follow_links: FollowLinks = False,
    seconds: Seconds = 180.0,
) -> None:
    """Find what runs a model fastest here, of all that answers enough like fp32, and keep it for --precision auto.

    Providers and precisions that can run here, batch sizes and thread counts meet the default in turns, as of bench.
    One is taken if it is faster beyond noise, in a last contest too; else the default is. A precision is tried if
    quantize has made its file.
    """
    with reporting(output, bar=True) as report:
        photos = Measurement(images=images, follow_links=follow_links)
        emit(_tuned(model, photos, floor, seconds, report).tried, VIEW, output, report)


def _tuned(name: str, photos: Measurement, floor: float | None, seconds: float, report: Reporter) -> "TuningOutcome":
    from landmark_onnx.cli.loader import pull_progress
    from landmark_onnx.files.atomic import check_writable
    from landmark_onnx.files.workfolders import temporary_folder
    from landmark_onnx.hub.pull import ensure
    from landmark_onnx.runtime.tuned import choice_path, write_choice
    from landmark_onnx_bench.resolve import entry
    from landmark_onnx_bench.tuned_forms import precisions_here, providers_here
    from landmark_onnx_bench.tuning import Tuning, TuningPlan

    path = ensure(name, progress=pull_progress(name, report))
    model = entry(path)
    _check_fp32(model)
    check_writable(choice_path(path))
    report.stage("what can run here")
    providers = providers_here()
    precisions, missing = precisions_here(model, providers)
    for text in [*missing, *_busy()]:
        report.note(text)
    plan = TuningPlan(providers=providers, precisions=precisions, floor=floor, seconds=seconds)
    with _as_they_are(model, plan, report), temporary_folder() as folder:
        found = readable(photos.photos(folder, report), report)
        outcome = Tuning(model, found, plan, on_stage=report.stage).run()
        kept = write_choice(path, outcome.choice)
    report.note(f"{model.name}: {outcome.choice.words()}")
    report.note(f"kept in {kept}; --precision auto takes it")
    return outcome


def _busy() -> Iterator[str]:
    """Whether others keep this machine busy, which fewer threads suit better than they will when it is quiet."""
    from landmark_onnx.runtime.cpu import available_cores
    from landmark_onnx_bench.environment import load_average

    load = load_average()
    if load is not None and load > available_cores():
        yield f"this machine is busy (load {load:g}, {available_cores()} cores): what is chosen suits such a time"


def _check_fp32(model: "Entrant") -> None:
    """Raises: ModelFileError for a file of reduced precision."""
    from landmark_onnx.errors import ModelFileError
    from landmark_onnx.precision import precision_of

    if (precision := precision_of(model.metadata, model.path)) != "fp32":
        raise ModelFileError(f"{model.path}: wanted the fp32 file, beside which others are found, got {precision}")


@contextlib.contextmanager
def _as_they_are(model: "Entrant", plan: "TuningPlan", report: Reporter) -> Iterator[None]:
    """Nobody changes the files that take part, until their choice is kept."""
    from landmark_onnx.precision import precision_file
    from landmark_onnx.store.locks import file_locked

    files: dict[Path, None] = dict.fromkeys(
        [model.path, *(precision_file(model.path, each) for each in plan.precisions)]
    )
    with contextlib.ExitStack() as stack:
        for file in files:
            stack.enter_context(file_locked(file, on_wait=lambda: report.stage("waiting for another process")))
        yield
