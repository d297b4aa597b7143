"""`landmark-onnx bundle`: models in a folder for a machine without Paddle, or for Triton Inference Server."""

import dataclasses
import enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from landmark_onnx.cli.model_names import complete_model
from landmark_onnx.cli.options import ExecutionOptions, Output, Quiet, unfolded
from landmark_onnx.cli.progress import Reporter
from landmark_onnx.cli.run import reporting

if TYPE_CHECKING:
    from landmark_onnx.deploy.triton import Serving

TRITON = "Triton"


class Kind(enum.StrEnum):
    """What Triton runs instances of a model on."""

    CPU = "cpu"
    GPU = "gpu"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Triton:
    """Whether Triton is to serve the models, and how."""

    triton: Annotated[
        bool, typer.Option("--triton", help="Make a model repository for Triton.", rich_help_panel=TRITON)
    ] = False
    instances: Annotated[Kind, typer.Option(help="What each model's instances run on.", rich_help_panel=TRITON)] = (
        Kind.CPU
    )
    count: Annotated[int, typer.Option(min=1, help="Instances of each model.", rich_help_panel=TRITON)] = 1
    max_batch: Annotated[
        int, typer.Option(min=1, help="Most images of one batch; detectors take one.", rich_help_panel=TRITON)
    ] = 8

    def serving(self) -> "Serving | None":
        """The same, as `landmark_onnx.deploy.bundle` takes it."""
        from landmark_onnx.deploy.triton import Serving

        kind: Literal["cpu", "gpu"] = "gpu" if self.instances is Kind.GPU else "cpu"
        return Serving(kind=kind, count=self.count, max_batch=self.max_batch) if self.triton else None


Models = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="MODEL...",
        help="Names of exported models in the store, or paths to .onnx files.",
        autocompletion=complete_model,
        show_default=False,
    ),
]
Target = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="DIR", file_okay=False, help="The bundle; an older one is replaced."),
]
Checked = Annotated[
    Path | None, typer.Option(metavar="DIR", exists=True, file_okay=False, help="Hash a bundle's files again instead.")
]


@unfolded
def make_bundle(
    engine: ExecutionOptions,
    triton: Triton,
    models: Models = None,
    folder: Target = None,
    check: Checked = None,
    quiet: Quiet = False,
) -> None:
    """Copy exported models, with their cards and a lock file, into a folder that runs without Paddle.

    Each model is run once first. Then, anywhere: LANDMARK_ONNX_HOME=DIR landmark-onnx retrieval -m NAME ...
    """
    if check and not models and not folder:
        with reporting(Output(quiet=quiet), bar=True) as report:
            _check(check, report)
        return
    if check or not models or not folder:
        raise typer.BadParameter("wanted MODEL... and --output DIR, or --check DIR alone")
    from landmark_onnx.deploy.bundle import bundle

    with reporting(Output(quiet=quiet), bar=True) as report:
        lock = bundle(
            models,
            folder,
            provider=engine.request(),
            threads=engine.threads,
            serving=triton.serving(),
            on_stage=report.stage,
        )
        for model in lock.models:
            answer = "answers as at its export" if model.agreement else "has no stored answer to compare with"
            name = model.name if model.precision == "fp32" else f"{model.name} at {model.precision}"
            report.result(f"{name}: {folder / model.file} ({answer}, on {model.provider})")
        report.note(f"{sum(file.size for file in lock.files.values()) / 1e6:.1f} MB in {folder}")


def _check(folder: Path, report: Reporter) -> None:
    from landmark_onnx.deploy.bundle import check_bundle

    report.stage("hash")
    lock, problems = check_bundle(folder)
    for problem in problems:
        report.failure(problem)
    if not problems:
        report.result(f"{folder}: {len(lock.files)} files are as they were: {', '.join(m.name for m in lock.models)}")
