"""`landmark-onnx index`: make an index of embedded images, change it, and say what it is."""

import contextlib
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from landmark_onnx.cli.index_kind import IndexKind
from landmark_onnx.cli.model_names import IDS_HELP
from landmark_onnx.cli.options import Output, Quiet, unfolded
from landmark_onnx.cli.output import Column, View
from landmark_onnx.cli.progress import Reporter
from landmark_onnx.cli.run import emit, reporting
from landmark_onnx.files.lists import STDIN, read_list
from landmark_onnx.images.ids import IdRule, image_id

if TYPE_CHECKING:
    from landmark_onnx.embedding.feature_folder import Features
    from landmark_onnx.search.ensemble import Ensemble
    from landmark_onnx.search.feature_rows import Feed
    from landmark_onnx.search.open import AnyIndex

app = typer.Typer()

MADE = "What vectors are made of"
FACTS = View(
    (Column("fact"), Column("value")),
    lambda record: [{"fact": key, "value": value} for key, value in record.items()],
)

Folders = Annotated[
    list[Path],
    typer.Argument(metavar="FEATURES", help="Folders that landmark-onnx embed has made.", show_default=False),
]
There = Annotated[Path, typer.Argument(metavar="INDEX", help="Folder of the index.", show_default=False)]
Described = Annotated[
    Path, typer.Argument(metavar="INDEX", help="Folder of an index, or of features.", show_default=False)
]
Replace = Annotated[
    bool, typer.Option("--replace", help="Take the place of what is there; those who read it keep what they opened.")
]
Destination = Annotated[
    Path, typer.Option("--output", "-o", metavar="INDEX", file_okay=False, help="Folder of the index.")
]
Verify = Annotated[
    bool, typer.Option("--verify", help="Read all files first: does each still have the SHA-256 it was written with?")
]
Unwanted = Annotated[
    list[str], typer.Argument(metavar="ID", help="Ids, or - for a list on standard input.", show_default=False)
]
Ids = Annotated[IdRule, typer.Option(help=f"{IDS_HELP} Here: what is made of each ID before it is looked for.")]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MadeOf:
    """What the vectors of an index are made of."""

    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            metavar="NAME",
            help="A model of the features; repeat for an ensemble. By default all of them.",
            rich_help_panel=MADE,
        ),
    ] = None
    weight: Annotated[
        list[float] | None,
        typer.Option(
            "--weight",
            "-w",
            help="Of each --model, in their order; counts squared in scores. By default 1.",
            rich_help_panel=MADE,
        ),
    ] = None
    pca: Annotated[
        int | None,
        typer.Option(min=1, metavar="DIMS", help="Whiten to so many dimensions by PCA.", rich_help_panel=MADE),
    ] = None
    pca_from: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FEATURES", help="Fit the PCA to these; by default to what is indexed.", rich_help_panel=MADE
        ),
    ] = None
    ensemble: Annotated[
        Path | None,
        typer.Option(
            "--ensemble",
            metavar="FOLDER",
            help="Take models, weights and PCA from here: another index, or a folder with ensemble.json.",
            rich_help_panel=MADE,
        ),
    ] = None

    def __post_init__(self) -> None:
        if self.ensemble and (self.model or self.weight or self.pca):
            raise typer.BadParameter("has models, weights and PCA already", param_hint="--ensemble")
        if self.pca_from and not self.pca:
            raise typer.BadParameter("says what --pca DIMS is fitted to", param_hint="--pca-from")

    def choose(self, feed: "Feed") -> "Ensemble":
        """The ensemble for what is indexed, its PCA fitted. Raises: SearchError, FeatureError."""
        from landmark_onnx.search.feature_rows import choose
        from landmark_onnx.search.open import open_ensemble
        from landmark_onnx.search.whitening import check_dims

        first = feed.folders[0]
        ensemble = open_ensemble(self.ensemble) if self.ensemble else choose(first, self.model or [], self.weight or [])
        feed.check(ensemble, str(self.ensemble or first.folder))
        if self.pca is None:
            return ensemble
        source = _feed(self.pca_from) if self.pca_from else feed
        source.check(ensemble, str(first.folder))
        check_dims(self.pca, source.count, ensemble.width)
        return ensemble.fit((batch.vectors for batch in source.batches(ensemble)), self.pca)


@app.command("build")
@unfolded
def build_index(
    features: Folders,
    output: Destination,
    made_of: MadeOf,
    kind: IndexKind,
    replace: Replace = False,
    quiet: Quiet = False,
) -> None:
    """Make an index of embedded images. Killed at any moment, what was there before is there still."""
    with Reporter(quiet=quiet) as report:
        make = kind.builder(output, replace=replace)
        feed = _feed(features)
        ensemble = made_of.choose(feed)
        make(ensemble, feed.batches(ensemble, _refusing(report)))
        _finish(output, report)


@app.command("add")
def add_rows(index: There, features: Folders, replace: Replace = False, quiet: Quiet = False) -> None:
    """Add embedded images to an index. --replace: images of ids that are there take their place."""
    from landmark_onnx.search.open import open_index

    with Reporter(quiet=quiet) as report:
        feed = _feed(features)
        with contextlib.closing(open_index(index)) as opened:
            feed.check(opened.ensemble, str(index))
            before, known = len(opened), next(iter(opened.ids), "")
            opened.add(feed.batches(opened.ensemble, _refusing(report)), replace=replace)
        if replace and before:
            _tell_replaced(index, feed, before, known, report)
        _finish(index, report)


@app.command("remove")
def remove_rows(index: There, unwanted: Unwanted, ids: Ids = IdRule.PATH, quiet: Quiet = False) -> None:
    """Remove images from an index by their ids: all of them, or none if one is not there."""
    from landmark_onnx.search.open import open_index

    names = [image_id(name, ids) for each in unwanted for name in (read_list(STDIN) if each == STDIN else [each])]
    with Reporter(quiet=quiet) as report:
        with contextlib.closing(open_index(index)) as opened:
            opened.remove(names)
        _finish(index, report)


@app.command("info")
@unfolded
def describe_index(index: Described, output: Output, verify: Verify = False) -> None:
    """Say what an index holds, or a folder of features: rows, models, whitening, recall of the approximate index."""
    with reporting(output, bar=verify) as report, contextlib.closing(_any_folder(index)) as opened:
        if verify:
            opened.verify(lambda done, total: report.progress(f"{done:,} of {total:,} bytes", done, total))
            report.note(f"{index}: every byte is as it was written")
        emit([opened], FACTS, output, report)


def _any_folder(folder: Path) -> "AnyIndex | Features":
    from landmark_onnx.embedding.feature_folder import open_features
    from landmark_onnx.embedding.manifest import FILE
    from landmark_onnx.search.open import open_index

    return open_features(folder) if (folder / FILE).exists() else open_index(folder)


def _feed(folders: list[Path]) -> "Feed":
    from landmark_onnx.embedding.feature_folder import open_features
    from landmark_onnx.search.feature_rows import Feed

    return Feed([open_features(folder) for folder in folders])


def _refusing(report: Reporter) -> Callable[[str, str], None]:
    return lambda name, reason: report.failure(f"{name}: left out: {reason}")


def _tell_replaced(folder: Path, feed: "Feed", before: int, known: str, report: Reporter) -> None:
    """Say how many rows gave way; if none did, ids may be of another form. before, known: rows, and the id of one."""
    from landmark_onnx.search.open import open_index

    added = feed.count - report.failures
    with contextlib.closing(open_index(folder)) as index:
        replaced = before + added - len(index)
    text = f"{replaced:,} of {added:,} images took the place of those of their ids"
    if added and not replaced:
        new = next(name for features in feed.folders for name in features.ids())
        text += f"; an id of the new ones is {new!r}, and one that was there {known!r}"
    report.note(text)


def _finish(folder: Path, report: Reporter) -> None:
    """Say what the index is now; a row that was left out makes the exit code 1."""
    from landmark_onnx.search.open import open_index

    with contextlib.closing(open_index(folder)) as index:
        report.note(f"{folder}: {index.describe()}")
    if report.failures:
        raise typer.Exit(1)
