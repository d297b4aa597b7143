"""`landmark-onnx cls`: the most probable landmark classes of images."""

from pathlib import Path
from typing import Annotated

import typer

from landmark_onnx.cli.inputs import ImageArguments, expand
from landmark_onnx.cli.loader import Loader
from landmark_onnx.cli.model_names import ModelName
from landmark_onnx.cli.options import BatchOptions, ExecutionOptions, ModelSource, Output, input_file, unfolded
from landmark_onnx.cli.output import Column, Record, View
from landmark_onnx.cli.run import emit, reporting


def _rows(record: Record) -> list[Record]:
    return [{"image": record["image"], **label} for label in record["labels"]]


VIEW = View((Column("image", once=True), Column("index", "d"), Column("score", ".4f"), Column("name")), _rows)


Top = Annotated[int, typer.Option(min=1, help="How many classes of each image.")]
Labels = Annotated[
    Path | None,
    input_file(
        text="Names of the classes: index and name a line, in either order, or Kaggle's train_label_to_category.csv."
    ),
]


@unfolded
def classify(
    images: ImageArguments,
    model: ModelName,
    source: ModelSource,
    engine: ExecutionOptions,
    batch: BatchOptions,
    output: Output,
    top: Top = 5,
    labels: Labels = None,
) -> None:
    """Name the most probable landmark classes of each image."""
    from landmark_onnx.model import Classifier
    from landmark_onnx.modelfile.labels import read_labels

    names = read_labels(labels) if labels else None
    with reporting(output) as report:
        sources = expand(images, report.note, follow_links=batch.follow_links)
        classifier = Loader(engine, batch, report, source).load(Classifier, model, top=top, names=names)
        emit(classifier.paced(sources), VIEW, output, report, timed=batch.time)
