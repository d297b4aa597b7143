"""`landmark-onnx det`: boxes of things in images, as data and drawn."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from landmark_onnx.cli.inputs import ImageArguments, expand
from landmark_onnx.cli.loader import Loader
from landmark_onnx.cli.model_names import OptionalModelName, default_model
from landmark_onnx.cli.options import BatchOptions, ExecutionOptions, ModelSource, Output, unfolded
from landmark_onnx.cli.output import Column, Record, View
from landmark_onnx.cli.run import emit, reporting
from landmark_onnx.errors import ImageError

if TYPE_CHECKING:
    from landmark_onnx.images.contact_sheet import DrawnCopies
    from landmark_onnx.images.decode import ReadOptions
    from landmark_onnx.results import Detections, Failure


def _rows(record: Record) -> list[Record]:
    return [
        {"image": record["image"], **box, **dict(zip("xywh", box["bbox"], strict=True))} for box in record["detections"]
    ]


VIEW = View(
    (
        Column("image", once=True),
        Column("category_id", "d"),
        Column("name"),
        *(Column(side, ".1f") for side in "xywh"),
        Column("score", ".4f"),
    ),
    _rows,
)


Draw = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        file_okay=False,
        help="Write copies of the images with their boxes there. What is there stays: a copy whose name is taken, in a "
        "second run too, gets the next free number, NAME-2.jpg.",
    ),
]
Score = Annotated[
    float | None,
    typer.Option(min=0, max=1, help="Lowest score of a box; by default the model card's, as of the next two."),
]
Overlap = Annotated[
    float | None, typer.Option(min=0, max=1, help="Overlap beyond which the worse of two boxes of a class goes.")
]
Keep = Annotated[int | None, typer.Option(min=1, help="Most boxes of an image; ties with the last one stay.")]


@unfolded
def detect(
    images: ImageArguments,
    source: ModelSource,
    engine: ExecutionOptions,
    batch: BatchOptions,
    output: Output,
    model: OptionalModelName = None,
    draw: Draw = None,
    score: Score = None,
    iou: Overlap = None,
    keep: Keep = None,
) -> None:
    """Find things in each image: classes, boxes and scores; by default with the released detector (OpenImages V4)."""
    from landmark_onnx.images.contact_sheet import DrawnCopies
    from landmark_onnx.model import Detector

    with reporting(output) as report:
        sources = expand(images, report.note, follow_links=batch.follow_links)
        loader = Loader(engine, batch, report, source)
        detector = loader.load(Detector, model or default_model("det"), score=score, iou=iou, keep=keep)
        answers: Iterator[Detections | Failure | None] = detector.paced(sources)
        if draw:
            answers = drawn(answers, DrawnCopies(draw), batch.reading())
        emit(answers, VIEW, output, report, timed=batch.time)


def drawn(
    answers: "Iterator[Detections | Failure | None]", copies: "DrawnCopies", reading: "ReadOptions"
) -> "Iterator[Detections | Failure | None]":
    """Write the drawn copy of each image before its answer goes on; the pixels are read again, none are kept."""
    from landmark_onnx.images.decode import read_image
    from landmark_onnx.results import Detections, Failure

    for answer in answers:
        if isinstance(answer, Detections):
            try:
                copies.write(read_image(answer.image, options=reading), answer)
            except ImageError as error:
                yield Failure(image=answer.image, error=str(error))
                continue
        yield answer
