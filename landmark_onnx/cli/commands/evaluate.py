"""`landmark-onnx evaluate`: how good submissions are, by the metrics of the challenges and benchmarks."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from landmark_onnx.cli.model_names import IDS_HELP
from landmark_onnx.cli.options import Output, Quiet, check_destination, output_file, unfolded
from landmark_onnx.cli.output import Column, View, open_sink
from landmark_onnx.cli.progress import Reporter
from landmark_onnx.cli.run import reporting
from landmark_onnx.images.ids import IdRule

if TYPE_CHECKING:
    from landmark_onnx.evaluation.report import Report, Row

app = typer.Typer()


def _input_argument(metavar: str, text: str) -> Any:
    """A file to read, which must be there."""
    return typer.Argument(metavar=metavar, exists=True, dir_okay=False, show_default=False, help=text)


Submission = Annotated[
    Path, _input_argument("SUBMISSION", "CSV with a header, in Kaggle's form: id,images; of recognition id,landmarks.")
]
Solution = Annotated[
    Path,
    _input_argument(
        "SOLUTION", "CSV with a header, in Kaggle's form: id,images,Usage; of recognition id,landmarks,Usage."
    ),
]
GroundTruthFile = Annotated[
    Path, _input_argument("GND", "gnd_roxford5k.pkl or gnd_rparis6k.pkl; nothing in it is run.")
]
PerQuery = Annotated[
    Path | None,
    output_file(
        callback=check_destination, text="Also write the score of each query: .csv, .json, or ndjson for others."
    ),
]


@app.command("retrieval")
@unfolded
def retrieval(
    submission: Submission,
    solution: Solution,
    output: Output,
    top: Annotated[int, typer.Option(min=1, help="How many answers of a query count.")] = 100,
    per_query: PerQuery = None,
) -> None:
    """Score a retrieval submission as Google Landmarks does: mAP@100 and P@k of Public, Private and all.

    A query without an answer scores 0; answers to ignored queries are dropped.
    """
    from landmark_onnx.evaluation.mean_ap import evaluate_retrieval
    from landmark_onnx.evaluation.solutions import read_solution

    with reporting(output) as report:
        report.stage(f"{submission}: scoring")
        found = evaluate_retrieval(submission, read_solution(solution, "images"), top, str(solution))
        _write(found, "queries", output, per_query, report)


@app.command("recognition")
@unfolded
def recognition(submission: Submission, solution: Solution, output: Output, per_query: PerQuery = None) -> None:
    """Score a recognition submission as Google Landmarks does: GAP (micro-AP) and accuracy of Public, Private and all.

    Accuracy is over images that have a landmark.
    """
    from landmark_onnx.evaluation.gap import evaluate_recognition
    from landmark_onnx.evaluation.solutions import read_solution

    with reporting(output) as report:
        report.stage(f"{submission}: scoring")
        found = evaluate_recognition(submission, read_solution(solution, "landmarks"), str(solution))
        _write(found, "images", output, per_query, report)


@app.command("revisited")
@unfolded
def revisited(
    submission: Submission, ground_truth: GroundTruthFile, output: Output, per_query: PerQuery = None
) -> None:
    """Score a ranking by the revisited Oxford or Paris: mAP and mP@k, Easy, Medium and Hard.

    The submission is id,images with the ground truth's names, and ranks all of the database: what it leaves out is
    never found. The protocol's queries are cropped first: see `crops`.
    """
    from landmark_onnx.evaluation.ground_truth import read_ground_truth
    from landmark_onnx.evaluation.revisited import evaluate_revisited

    with reporting(output) as report:
        truth = read_ground_truth(ground_truth)
        found = evaluate_revisited(submission, truth, str(ground_truth))
        if found.shortest is not None and found.shortest < len(truth.images):
            report.note(
                f"a query has {found.shortest:,} answers of {len(truth.images):,}: what is left out is never found, so "
                "published numbers are no comparison"
            )
        _write(found, "queries", output, per_query, report)


@app.command("crops")
def crops(
    ground_truth: GroundTruthFile,
    folder: Annotated[
        Path,
        typer.Argument(metavar="IMAGES", exists=True, file_okay=False, help="Where NAME.jpg are.", show_default=False),
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="DIR", file_okay=False, help="Where the crops go.", show_default=False),
    ],
    quiet: Quiet = False,
) -> None:
    """Crop the queries of the revisited Oxford or Paris to their boxes, for `embed` or `search`."""
    from landmark_onnx.evaluation.ground_truth import read_ground_truth
    from landmark_onnx.evaluation.query_crops import crop_queries
    from landmark_onnx.results import Failure

    with reporting(Output(quiet=quiet), bar=True) as report:
        for done in crop_queries(read_ground_truth(ground_truth), folder, output):
            if isinstance(done, Failure):
                report.failure(done.error)
            report.advance()


@app.command("submission")
def submission(
    answers: Annotated[Path, _input_argument("ANSWERS", "NDJSON of search or recognize.")],
    output: Annotated[Path, output_file("--output", "-o", text="The CSV file.", show_default=False)],
    top: Annotated[int, typer.Option(min=1, help="How many neighbours of a query.")] = 100,
    ids: Annotated[
        IdRule | None,
        typer.Option(
            help=f"{IDS_HELP} By default ids stay as they are, and a query given by its path is its stem.",
            show_default=False,
        ),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Write answers of search or recognize as a submission in Kaggle's form: id,images or id,landmarks."""
    from landmark_onnx.evaluation.submissions import convert

    with Reporter(quiet=quiet) as report:
        convert(answers, output, top, ids, report.note)


def _write(found: "Report", what: str, output: Output, per_query: Path | None, report: Reporter) -> None:
    if found.note:
        report.note(found.note)
    if found.answered < found.wanted:
        report.note(f"{found.wanted - found.answered:,} of {found.wanted:,} {what} have no answer: they score 0")
    _write_rows(found.rows, output)
    if per_query:
        _write_rows(found.images, Output(output=per_query))


def _write_rows(rows: "Sequence[Row]", output: Output) -> None:
    with open_sink(output, _view(rows[0])) as sink:
        for row in rows:
            sink.write(row)


def _view(row: Mapping[str, object]) -> View:
    forms = {int: "d", float: ".4f"}
    return View(tuple(Column(key, forms.get(type(value), "")) for key, value in row.items()), lambda record: [record])
