"""`landmark-onnx search`: the nearest images of an index to each query."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from landmark_onnx.cli.inputs import IMAGES_HELP, expand
from landmark_onnx.cli.loader import Loader
from landmark_onnx.cli.model_names import MODEL_HELP, model_option
from landmark_onnx.cli.moved import MOVED_HELP, OLD_NEW, moves
from landmark_onnx.cli.options import (
    OUTPUT,
    ExecutionOptions,
    Images,
    ModelSource,
    Output,
    check_destination,
    output_file,
    unfolded,
)
from landmark_onnx.cli.output import Column, Record, View
from landmark_onnx.cli.progress import Reporter
from landmark_onnx.cli.run import emit, reporting
from landmark_onnx.cli.votes import Labels

if TYPE_CHECKING:
    from landmark_onnx.results import Failure
    from landmark_onnx.search.answers import Answer
    from landmark_onnx.search.ensemble import Ensemble
    from landmark_onnx.search.open import AnyIndex
    from landmark_onnx.search.queries import Queries
    from landmark_onnx.search.rerank.state import Step


def _rows(record: Record) -> list[Record]:
    once = {"image": record["image"], "labels": record.get("labels")}
    return [{**once, **neighbour} for neighbour in record["neighbours"]]


COLUMNS = (Column("image", once=True), Column("rank", "d"), Column("score", ".6f"), Column("id"), Column("source"))
VIEW = View(COLUMNS, _rows)
LABELLED = View((*COLUMNS[:3], Column("landmark"), *COLUMNS[3:], Column("labels", once=True)), _rows)

Queried = Annotated[list[str] | None, typer.Argument(metavar="QUERY", help=IMAGES_HELP, show_default=False)]
Folder = Annotated[Path, typer.Option("--index", "-i", metavar="INDEX", help="Folder of the index.")]
Top = Annotated[int, typer.Option(min=1, help="Neighbours of each query.")]
Features = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER", help="Queries that landmark-onnx embed has embedded already, in place of images."),
]
Models = Annotated[
    list[str] | None,
    model_option(
        "--model",
        "-m",
        text=f"{MODEL_HELP} By default those that the index names; anything else must be the same files.",
    ),
]
Approximate = Annotated[
    bool, typer.Option("--approximate", help="By the approximate index: faster, but neighbours may be missed.")
]
Steps = Annotated[
    list[str] | None,
    typer.Option(
        metavar="STEP",
        help="What is done around the search, in this order; repeat for more: dba, alpha-qe, k-reciprocal, diffusion, "
        "superglobal (made for networks with its pooling, which no released one has); NAME:key=value,key=value.",
    ),
]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """The contact sheet of the answers."""

    html: Annotated[
        Path | None,
        output_file(
            "--html",
            text="Also write a contact sheet: one self-contained page with thumbnails of the 50 nearest of each query.",
            rich_help_panel=OUTPUT,
        ),
    ] = None
    moved: Annotated[
        list[str] | None,
        typer.Option(
            metavar=OLD_NEW,
            help=f"Of --html. {MOVED_HELP}",
            rich_help_panel=OUTPUT,
        ),
    ] = None

    def check(self) -> None:
        """Raises: BadParameter, a usage error."""
        if self.moved and not self.html:
            raise typer.BadParameter("is of --html", param_hint="--moved")
        moves(self.moved or [])

    def shown(
        self, answers: "Iterator[Answer | Failure | None]", title: str, report: Reporter
    ) -> "Iterator[Answer | Failure | None]":
        """The answers, each on its way onto the sheet, if one is wanted; notes at the end on what is not on it."""
        if self.html is None:
            yield from answers
            return
        from landmark_onnx.search.html_report import MAX_BYTES, contact_sheet

        with contact_sheet(self.html, title, moves(self.moved or [])) as sheet:
            for answer in answers:
                if answer is not None:
                    sheet.show(answer)
                yield answer
        report.note(f"the contact sheet is {self.html}")
        if sheet.missing:
            report.note(
                f"{len(sheet.missing):,} of its {sheet.pictures:,} pictures are missing, such as {sheet.missing[0]}; "
                "if their folder is elsewhere now: --moved OLD=NEW"
            )
        if sheet.unreadable:
            report.note(f"{len(sheet.unreadable):,} of its pictures cannot be read, such as {sheet.unreadable[0]}")
        if sheet.left_out:
            report.note(f"{sheet.left_out:,} queries are not on it: it would be larger than {MAX_BYTES >> 20} MiB")


@unfolded
def find(
    index: Folder,
    source: ModelSource,
    engine: ExecutionOptions,
    batch: Images,
    output: Output,
    sheet: Sheet,
    labels: Labels,
    query: Queried = None,
    top: Top = 100,
    features: Features = None,
    model: Models = None,
    approximate: Approximate = False,
    step: Steps = None,
) -> None:
    """Find the images of an index nearest to each query, by the inner product of unit vectors: 1 for the same."""
    from landmark_onnx.search.open import open_index
    from landmark_onnx.search.queries import embedded

    _check_queries(query, features, model)
    if step and approximate:
        raise typer.BadParameter("steps search exactly", param_hint="--approximate")
    sheet.check()
    labels.check_ids()
    steps = _steps(step or [])
    with reporting(output) as report, contextlib.closing(open_index(index)) as opened:
        opened.check(steps=steps, approximate=approximate)
        check_destination(sheet.html)
        landmark_of = labels.of(opened, str(index), report)
        queries: Iterator[Queries | Failure | None]
        if features:
            queries = _precomputed(features, opened.ensemble, index)
        else:
            images = expand(query or [], report.note, follow_links=batch.follow_links)
            retrievers = Loader(engine, batch, report, source).of_index(opened.ensemble, model or [], str(index))
            queries = embedded(images, opened.ensemble, retrievers)
        found = _answered(queries, opened, top, steps, approximate=approximate)
        answers = _labelled(found, landmark_of, labels.labels)
        title = f"Neighbours in {index}" + (f"; landmarks: {labels.labels}" if labels.labels else "")
        emit(sheet.shown(answers, title, report), LABELLED if labels.labels else VIEW, output, report)


def _check_queries(images: list[str] | None, features: Path | None, model: list[str] | None) -> None:
    if bool(images) == bool(features):
        raise typer.BadParameter("wanted images, or --features FOLDER, and not both", param_hint="QUERY")
    if features and model:
        raise typer.BadParameter("queries of --features have been embedded already", param_hint="--model")


def _steps(specs: list[str]) -> "tuple[Step, ...]":
    if not specs:
        return ()
    from landmark_onnx.search.rerank.chain import parse_steps

    return parse_steps(specs)


def _precomputed(folder: Path, ensemble: "Ensemble", index: Path) -> "Iterator[Queries | Failure]":
    from landmark_onnx.embedding.feature_folder import open_features
    from landmark_onnx.search.queries import precomputed

    features = open_features(folder)
    ensemble.check(features.models, str(index), str(folder))
    return precomputed(features, ensemble)


def _answered(
    queries: "Iterator[Queries | Failure | None]",
    index: "AnyIndex",
    top: int,
    steps: "tuple[Step, ...]",
    *,
    approximate: bool,
) -> "Iterator[Answer | Failure | None]":
    from landmark_onnx.search.queries import Queries

    for part in queries:
        if isinstance(part, Queries):
            yield from index.answer(part, top, steps=steps, approximate=approximate)
        else:
            yield part


def _labelled(
    answers: "Iterator[Answer | Failure | None]", landmark_of: Callable[[str], str | None], labels: str | None
) -> "Iterator[Answer | Failure | None]":
    from landmark_onnx.search.answers import Answer

    for answer in answers:
        yield answer.labelled(landmark_of, labels) if labels and isinstance(answer, Answer) else answer
