"""`landmark-onnx export`: released Paddle files -> ONNX files in the store."""

import enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from landmark_onnx.cli.model_names import complete_model
from landmark_onnx.cli.options import Output, Quiet
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
        help="A release: its tar, its unpacked folder, or a binary model's folder or program file; by default the one "
        "that the store has of NAME. With --all: a folder of releases.",
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
CardFile = Annotated[
    Path | None,
    typer.Option("--card", metavar="FILE", exists=True, dir_okay=False, help="The card of a model of your own."),
]


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
    own = _own_card(card, name)
    with extra("export"):
        from landmark_onnx_export.convert import ExportForm
    form = ExportForm(raw=raw, input_kind=input_kind.value)
    releases = _every(source) if every and source else [_one(source, name, own)]
    with reporting(Output(quiet=quiet), bar=True) as report:
        for model, path in releases:
            try:
                made = export_one(
                    model,
                    path,
                    output,
                    form,
                    folder=every,
                    parity=parity,
                    report=report,
                    own=own,
                    beside=card and card.parent,
                )
            except (LandmarkError, OSError) as error:
                if not every or isinstance(error, MissingExtraError):
                    raise
                report.failure(f"{model}: {error}")
                continue
            report.result(f"{model}: {made.path} ({facts(made)})")
        if every:
            report.note(f"{len(releases) - report.failures} of {len(releases)} exported")


def _every(folder: Path) -> list[tuple[str, Path]]:
    """Each model and its release in a folder. Raises: ExportError if there is none."""
    from landmark_onnx.cards.releases import releases_in

    if not folder.is_dir():
        raise ExportError(f"{folder}: there is no such folder")
    found = releases_in(folder)
    if not found:
        raise ExportError(f"{folder}: no release here: wanted <name>.tar or a folder <name> of a known model")
    return found


def _one(source: Path | None, name: str | None, own: "ModelCard | None") -> tuple[str, Path]:
    """The model and its release: the one named, or the store's. Raises: ExportError that lists the names there are."""
    from landmark_onnx.cards.catalogue import card, cards
    from landmark_onnx.cards.releases import recognised
    from landmark_onnx.hub.checksums import check_source
    from landmark_onnx.store.catalogue import source_path

    name = own.name if own else name
    if source:
        if name := name or recognised(source):
            return name, source
        raise ExportError(f"{source}: which model is it? Give NAME before --from; there are: {', '.join(cards())}")
    if name is None:
        raise typer.BadParameter("give --from PATH, or NAME of a model whose release is in the store")
    known = own or card(name)
    if not source_path(name).is_file():
        raise ExportError(f"{name}: no release of it in the store: give --from PATH, or landmark-onnx models add PATH")
    return name, check_source(known)


def _own_card(path: Path | None, name: str | None) -> "ModelCard | None":
    from landmark_onnx.cards.catalogue import read_card

    own = read_card(path) if path else None
    if own and name and name != own.name:
        raise typer.BadParameter(f"the card is called {own.name!r}, not {name!r}")
    return own


def export_one(
    name: str,
    source: Path,
    output: Path | None,
    form: "ExportForm | None" = None,
    *,
    parity: bool,
    report: Reporter,
    folder: bool = False,
    own: "ModelCard | None" = None,
    beside: Path | None = None,
) -> "ExportReport":
    """Export one release, telling `report` each stage.

    folder: `output` is one even if it is not there yet. own: the card, where it is none of the known ones; beside: the
    folder where it lies, and its labels may lie.
    """
    from landmark_onnx.cards.catalogue import card
    from landmark_onnx.store.catalogue import exported_path
    from landmark_onnx.store.locks import file_locked

    with extra("export"):
        from landmark_onnx_export.convert import ExportForm, export_model
        from landmark_onnx_export.paddle.runtime import paddle_folder

        paddle_folder()
    target = output or exported_path(name)
    if output and (folder or output.is_dir()):
        target = output / f"{name}.onnx"

    def say(stage: str) -> None:
        report.stage(f"{name}: {stage}")

    with file_locked(target, waiting=lambda: say("waiting for another process")):
        return export_model(
            own or card(name), source, target, form or ExportForm(), check_parity=parity, beside=beside, say=say
        )


def facts(made: "ExportReport") -> str:
    """What was made, in brief."""
    parity = "parity not checked"
    if found := made.agreement:
        same = f"{found.matched:.1%} of rois" if made.card.task == "det" else f"cosine {found.cosine:.7f}"
        parity = f"parity with Paddle: {same}, max abs error {found.max_abs:.1e}"
    return f"{made.path.stat().st_size / 1e6:.1f} MB, {made.seconds:.1f} s; {parity}"
