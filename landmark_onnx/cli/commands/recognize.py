"""`landmark-onnx recognize`: the landmark of each image, and why."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from landmark_onnx.cli.inputs import ImageArguments, expand
from landmark_onnx.cli.loader import Loader
from landmark_onnx.cli.model_names import model_option
from landmark_onnx.cli.options import (
    Downloads,
    ExecutionOptions,
    Images,
    Output,
    check_destination,
    output_file,
    unfolded,
)
from landmark_onnx.cli.output import Column, Record, View
from landmark_onnx.cli.run import emit, reporting
from landmark_onnx.cli.votes import Labels, Veto, Voting
from landmark_onnx.images.ids import IdRule

if TYPE_CHECKING:
    from landmark_onnx.recognition.recognizer import Recognition
    from landmark_onnx.results import Failure


def _why(record: Record) -> str:
    """The reasons on one line."""
    if record["no_landmark"]:
        return "; ".join(f"{hit['rule']} over {hit['area']:.0%} of the image" for hit in record["no_landmark"])
    own = [each for each in record["neighbours"] if each["landmark"] == record["landmark"]]
    said = [each for each in record["classes"] if each["landmark"] == record["landmark"]]
    near = [f"{each['id']} {each['cosine']:.3f}" for each in own]
    return ", ".join(near + [f"{each['model']} {each['vote']:.3f}" for each in said])


VIEW = View(
    (Column("image"), Column("landmark"), Column("score", ".4f"), Column("labels"), Column("why")),
    lambda record: [{**record, "why": _why(record)}],
)

IndexFolder = Annotated[
    Path,
    typer.Option("--index", "-i", metavar="FOLDER", exists=True, file_okay=False, help="Of landmark-onnx index build."),
]
Models = Annotated[
    list[str] | None,
    model_option(
        "--model", "-m", text="The index's own models, where they are not in the store by their names. Repeat for each."
    ),
]
Kaggle = Annotated[Path | None, output_file(callback=check_destination, text="Also write a submission, id,landmarks.")]


@unfolded
def recognize_images(
    images: ImageArguments,
    index: IndexFolder,
    source: Downloads,
    engine: ExecutionOptions,
    batch: Images,
    output: Output,
    labels: Labels,
    voting: Voting,
    veto: Veto,
    model: Models = None,
    kaggle: Kaggle = None,
) -> None:
    """Name the landmark of each image by its nearest neighbours in an index, classifiers, and a detector's veto.

    A neighbour votes 1 - squared L2, a classifier its probability; weights multiply them, and the largest sum wins.
    All votes are in the answer, and the boxes of a veto.
    """
    from landmark_onnx.recognition.recognizer import Recognizer
    from landmark_onnx.search.open import open_index

    with reporting(output) as report, contextlib.closing(open_index(index)) as opened:
        opened.check()
        # Files are read first: models take long.
        class_names, rules, landmark_of = voting.class_names(), veto.read_rules(), labels.of(opened, str(index), report)
        sources = expand(images, report.note, follow_links=batch.follow_links)
        loader = Loader(engine, batch, report, source)
        recognizer = Recognizer(
            index=opened,
            retrievers=list(loader.of_index(opened.ensemble, model or [], str(index)).values()),
            landmark_of=landmark_of,
            voters=voting.voters(loader, class_names),
            detector=veto.detector(loader, rules),
            rules=rules,
            neighbours=voting.neighbours,
            neighbour_weight=voting.neighbour_weight,
            labels=labels.labels,
        )
        answers = recognizer.paced(sources)
        emit(_submitted(answers, kaggle, labels.ids) if kaggle else answers, VIEW, output, report)


def _submitted(
    answers: "Iterator[Recognition | Failure | None]", path: Path, rule: IdRule | None
) -> "Iterator[Recognition | Failure | None]":
    """Each answer, which goes into the submission on its way; an image that failed is there without a landmark."""
    from landmark_onnx.evaluation.submissions import landmark_words, submission_file
    from landmark_onnx.results import Failure

    with submission_file(path, "landmarks", rule) as add:
        for answer in answers:
            if answer:
                add(answer.image, [] if isinstance(answer, Failure) else landmark_words(answer.landmark, answer.score))
            yield answer
