"""`landmark-onnx export`: released Paddle files -> ONNX files in the store."""

import dataclasses
import enum
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from landmark_onnx.cli.model_names import complete_model
from landmark_onnx.cli.options import Output, Quiet, input_file
from landmark_onnx.cli.progress import Reporter
from landmark_onnx.cli.run import reporting
from landmark_onnx.errors import ExportError, LandmarkError, MissingExtraError
from landmark_onnx.extras import extra

if TYPE_CHECKING:
    from landmark_onnx.cards.schema import ModelCard
    from landmark_onnx_export.convert import ExportForm, ExportReport


Release = Annotated[
    Path | None,
    typer.Option(
        "--from",
        metavar="PATH",
        help="A release: its tar, its unpacked folder, a binary model's folder or program file, or a state dict that "
        "torch saved before its files were zips; by default the one that the store has of NAME. With --all: a folder "
        "of releases.",
        show_default=False,
    ),
]
Name = Annotated[
    str | None,
    typer.Argument(
        help="Which model it is; by default what the file or folder is called.",
        autocompletion=complete_model,
        show_default=False,
    ),
]
Every = Annotated[bool, typer.Option("--all", help="Export each release in the folder PATH.")]
Target = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="PATH", help="The .onnx file, or a folder for it; by default the store."),
]
Parity = Annotated[
    bool,
    typer.Option(help="Run the model in Paddle and in ONNX Runtime, and write no file unless both answer alike."),
]
CardFile = Annotated[Path | None, input_file("--card", text="The card of a model of your own.")]


class Input(enum.StrEnum):
    """What the file's image input is: `landmark_onnx.tasks.InputKind` as an option."""

    FLOAT32 = "float32"
    UINT8 = "uint8"


InputOption = Annotated[
    Input,
    typer.Option(
        "--input",
        help="float32: the normalised image. uint8: the resized one; the file normalises it, to the same bits, and a "
        "GPU is sent a quarter of the bytes. Not for detectors.",
    ),
]
Raw = Annotated[
    bool,
    typer.Option(
        "--raw", help="Leave each op as Paddle has it and the weights as released; by default batch norm is folded."
    ),
]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ExportRequest:
    """A release to export. output: the file, None for the store's.

    beside: a folder in which the labels of a user's own card may be.
    """

    card: "ModelCard"
    release: Path
    output: Path | None = None
    form: "ExportForm | None" = None
    parity: bool = True
    beside: Path | None = None


def export_releases(
    source: Release = None,
    name: Name = None,
    every: Every = False,
    output: Target = None,
    parity: Parity = True,
    card: CardFile = None,
    input_kind: InputOption = Input.FLOAT32,
    raw: Raw = False,
    quiet: Quiet = False,
) -> None:
    """Turn a released Paddle model into an ONNX file that needs no Paddle, and check that both answer alike."""
    if every and (name or card or not source):
        raise typer.BadParameter("--all exports whatever is in the folder of --from; give NAME, --card or --all")
    with extra("export"):
        from landmark_onnx_export.convert import ExportForm
    form = ExportForm(raw=raw, input_kind=input_kind.value)
    request = functools.partial(ExportRequest, form=form, parity=parity, beside=card and card.parent)
    releases = _every(source) if every and source else [_one(source, name, card)]
    with reporting(Output(quiet=quiet), bar=True) as report:
        for model, path in releases:
            in_folder = output and (every or output.is_dir())
            target = output / f"{model.name}.onnx" if output and in_folder else output
            try:
                made = export_one(request(card=model, release=path, output=target), report)
            except (LandmarkError, OSError) as error:
                if not every or isinstance(error, MissingExtraError):
                    raise
                report.failure(f"{model.name}: {error}")
                continue
            report.result(f"{model.name}: {made.path} ({facts(made)})")
        if every:
            report.note(f"{len(releases) - report.failures} of {len(releases)} exported")


def _every(folder: Path) -> "list[tuple[ModelCard, Path]]":
    """Each model and its release in a folder. Raises: ExportError if there is none."""
    from landmark_onnx.cards.catalogue import card
    from landmark_onnx.cards.releases import releases_in

    if not folder.is_dir():
        raise ExportError(f"{folder}: there is no such folder")
    found = [(card(name), path) for name, path in releases_in(folder)]
    if not found:
        raise ExportError(f"{folder}: no release here: wanted <name>.tar or a folder <name> of a known model")
    return found


def _one(source: Path | None, name: str | None, card_file: Path | None) -> "tuple[ModelCard, Path]":
    """The model and its release: the one named, or the store's. Raises: ExportError, UnknownModelError, CardError."""
    from landmark_onnx.cards.catalogue import read_card
    from landmark_onnx.cards.releases import card_of, said_card
    from landmark_onnx.hub.checksums import check_source
    from landmark_onnx.store.catalogue import source_path

    said = said_card(name, read_card(card_file) if card_file else None, card_file)
    if source:
        return card_of(source, said), source
    if said is None:
        raise typer.BadParameter("give --from PATH, or NAME of a model whose release is in the store")
    if not source_path(said.name).is_file():
        what = "no release of it in the store: give --from PATH, or landmark-onnx models add PATH"
        raise ExportError(f"{said.name}: {what}")
    return said, check_source(said)


def export_one(request: ExportRequest, report: Reporter) -> "ExportReport":
    """Export one release, telling `report` each stage."""
    from landmark_onnx.store.catalogue import exported_path
    from landmark_onnx.store.locks import file_locked

    with extra("export"):
        from landmark_onnx_export.convert import ExportForm, export_model
        from landmark_onnx_export.paddle.runtime import paddle_folder

        paddle_folder()
    card = request.card
    target = request.output or exported_path(card.name)

    def on_stage(stage: str) -> None:
        report.stage(f"{card.name}: {stage}")

    with file_locked(target, on_wait=lambda: on_stage("waiting for another process")):
        return export_model(
            card,
            request.release,
            target,
            request.form or ExportForm(),
            check_parity=request.parity,
            beside=request.beside,
            on_stage=on_stage,
        )


def facts(made: "ExportReport") -> str:
    """What was made, in brief."""
    parity = "parity not checked"
    if found := made.agreement:
        same = f"{found.matched:.1%} of rois" if made.card.task == "det" else f"cosine {found.cosine:.7f}"
        parity = f"parity with Paddle: {same}, max abs error {found.max_abs:.1e}"
    return f"{made.path.stat().st_size / 1e6:.1f} MB, {made.seconds:.1f} s; {parity}"
