"""`landmark-onnx models`: the store: what is in it, and how models come into it and leave it."""

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated

import typer

from landmark_onnx.cli.commands.verify import VIEW as VERIFIED
from landmark_onnx.cli.commands.verify import Refusal, verified
from landmark_onnx.cli.loader import pull_progress, settle
from landmark_onnx.cli.model_names import complete_model
from landmark_onnx.cli.options import ExecutionOptions, Format, Output, Quiet, input_file, unfolded
from landmark_onnx.cli.output import Column, Record, View
from landmark_onnx.cli.progress import Reporter
from landmark_onnx.cli.run import Printable, emit, reporting
from landmark_onnx.errors import LandmarkError, shown

app = typer.Typer()

Names = Annotated[
    list[str],
    typer.Argument(metavar="NAME", help="Names of models.", autocompletion=complete_model, show_default=False),
]
Json = Annotated[bool, typer.Option("--json", help="A JSON array on standard output, an object a line.")]
Offline = Annotated[bool, typer.Option("--offline", help="Download nothing; export what the store has.")]
CardFile = Annotated[Path | None, input_file("--card", text="The model's card; it joins your cards.")]


def _megabytes(record: Record, key: str) -> float | None:
    return record[key] / 1e6 if record[key] else None


def _models(record: Record) -> list[Record]:
    sizes = {"exported": "bytes", "source": "source_bytes", "download": "download_bytes"}
    shown = {f"{name}_MB": _megabytes(record, key) for name, key in sizes.items()}
    shown["licence"] = record["licence"].partition(";")[0]
    return [{**record, **shown, "proved": record["proved"] or "never"}]


def _files(record: Record) -> list[Record]:
    return [{"path": record["path"], "MB": _megabytes(record, "bytes")}]


MODELS = View(
    (
        Column("model"),
        Column("task"),
        Column("state"),
        Column("exported_MB", ".1f"),
        Column("source_MB", ".1f"),
        Column("download_MB", ".1f"),
        Column("licence"),
        Column("proved"),
    ),
    _models,
)
GOLDEN = View(
    (Column("model"), Column("provider"), Column("difference", ".1e"), Column("line")), lambda record: [dict(record)]
)
FILES = View((Column("path"), Column("MB", ".1f")), _files)


@app.command("list")
def list_models(as_json: Json = False) -> None:
    """List every known model: what the store has of it, its size and that of its download, and its licence.

    nothing, source, exported, verified, stale (of reduced precision, made from another model), damaged.
    proved: the day on which a person pulled it from its address and compared its golden answer.
    """
    from landmark_onnx.store.status import stored_models

    def listed(report: Reporter) -> Iterator[Printable]:
        for found in stored_models():
            if found.note:
                report.note(f"{found.name}: {found.note}")
            yield found

    _tell(listed, MODELS, as_json=as_json)


@app.command("pull")
def pull_models(names: Names, offline: Offline = False, as_json: Json = False, quiet: Quiet = False) -> None:
    """Download models' releases and export them; what the store has already is not done again.

    $LANDMARK_ONNX_MIRROR, a URL or a file:// folder, is asked before the release's own host.
    """
    from landmark_onnx.hub.pull import pull
    from landmark_onnx.store.status import stored_model

    def pulled(name: str, report: Reporter) -> Printable:
        pull(name, offline=offline, progress=pull_progress(name, report))
        return stored_model(name)

    _tell(lambda report: _each(names, pulled, report), MODELS, as_json=as_json, quiet=quiet)


@app.command("add")
def add_file(
    file: Annotated[
        Path,
        typer.Argument(
            help="A release (a tar or a folder of Paddle files), an exported .onnx file, or one of others with --card.",
            show_default=False,
        ),
    ],
    name: Annotated[
        str | None,
        typer.Option(help="Which model it is; by default what the file is called.", autocompletion=complete_model),
    ] = None,
    card: CardFile = None,
    replace: Annotated[
        bool,
        typer.Option(
            "--replace",
            help="Put it in the place of another model or card of that name; what was made from that model, as its "
            "int8 file, goes with it.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Copy a file of your own into the store, after it is checked."""
    from landmark_onnx.hub.add import add

    def added(report: Reporter) -> Iterator[Printable]:
        yield add(file, name, card_file=card, replace=replace, on_note=report.note)

    _tell(added, MODELS, as_json=as_json)


@app.command("path")
def print_path(
    name: Annotated[str, typer.Argument(help="Name of a model.", autocompletion=complete_model, show_default=False)],
    as_json: Json = False,
) -> None:
    """Print where the exported model is; exit code 1 if it is not there yet."""
    from landmark_onnx.errors import ModelFileError
    from landmark_onnx.store.catalogue import exported_path
    from landmark_onnx.store.status import stored_model

    found = stored_model(name)
    if not found.model:
        raise ModelFileError(f"{name} is not at {exported_path(name)} yet; run: landmark-onnx models pull {name}")
    if as_json:
        _tell(lambda report: [found], MODELS, as_json=True)
    else:
        # A program that reads it wants the very bytes.
        typer.echo(shown(str(found.model)) if sys.stdout.isatty() else os.fsencode(found.model))


@app.command("verify")
@unfolded
def verify_models(
    names: Names,
    engine: ExecutionOptions,
    golden: Annotated[
        bool,
        typer.Option(
            "--golden",
            help="Instead ask for the golden answer of the card: pull the model if need be, fetch the image, compare, "
            "and print a line for the card.",
        ),
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Check exported models as the command verify does; the store remembers which have passed."""

    def asked(name: str, report: Reporter) -> Printable:
        from landmark_onnx.hub.fetching import Fetching
        from landmark_onnx.hub.golden import ask_golden
        from landmark_onnx.hub.pull import ensure

        progress = pull_progress(name, report)
        path = ensure(name, engine.stored(), progress=progress)
        how = settle(engine, path)
        return ask_golden(path, how.request, Fetching(name=name, progress=progress), threads=how.threads)

    if golden:
        _tell(lambda report: _each(names, asked, report), GOLDEN, as_json=as_json, quiet=quiet)
        return
    _tell(lambda report: verified(names, engine, report), VERIFIED, as_json=as_json, quiet=quiet)


@app.command("rm")
def remove_models(
    names: Names,
    source: Annotated[bool, typer.Option(help="Remove the release it is exported from.")] = True,
    exported: Annotated[bool, typer.Option(help="Remove the exported model.")] = True,
    forget: Annotated[
        bool, typer.Option("--forget", help="Also forget the release's first hash, to trust another one.")
    ] = False,
    card: Annotated[bool, typer.Option("--card", help="Also remove the model's card from your cards.")] = False,
    as_json: Json = False,
) -> None:
    """Remove models' files from the store."""
    from landmark_onnx.hub.remove import remove
    from landmark_onnx.store.status import stored_model

    for name in names:
        stored_model(name)

    def removed(report: Reporter) -> Iterator[Printable]:
        for name in names:
            yield from remove(name, source=source, model=exported, forget=forget, card=card)

    _tell(removed, FILES, as_json=as_json)


@app.command("prune")
def prune_store(as_json: Json = False) -> None:
    """Remove what killed programs and broken downloads left, in the store and in the temporary folder.

    Never what is in use. What a killed bundle or export left beside its target goes with the next one there.
    """
    from landmark_onnx.hub.remove import prune

    _tell(lambda report: prune(), FILES, as_json=as_json)


def _each(names: list[str], work: Callable[[str, Reporter], Printable], report: Reporter) -> Iterator[Printable]:
    """What `work` answers for each name; one that fails stops no other."""
    for name in names:
        try:
            yield work(name, report)
        except LandmarkError as error:
            yield Refusal(name, error)


def _tell(
    answers: Callable[[Reporter], Iterable[Printable]], view: View, *, as_json: bool, quiet: bool = False
) -> None:
    output = Output(format=Format.JSON if as_json else Format.TABLE, quiet=quiet)
    with reporting(output, bar=True) as report:
        emit(answers(report), view, output, report)
