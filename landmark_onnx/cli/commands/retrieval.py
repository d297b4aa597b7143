"""`landmark-onnx retrieval`: how alike images are, and their embeddings for other programs."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from landmark_onnx.cli.inputs import IMAGES_HELP, expand
from landmark_onnx.cli.loader import Loader
from landmark_onnx.cli.model_names import ModelName
from landmark_onnx.cli.options import (
    BatchOptions,
    ExecutionOptions,
    ModelSource,
    Output,
    check_destination,
    output_file,
    unfolded,
)
from landmark_onnx.cli.output import Column, View
from landmark_onnx.cli.progress import Reporter
from landmark_onnx.cli.run import emit, reporting
from landmark_onnx.errors import ImageError

if TYPE_CHECKING:
    from landmark_onnx.embedding.feature_file import AddVector
    from landmark_onnx.results import Embedding, Failure, Similarity

VIEW = View((Column("query"), Column("image"), Column("cosine", ".6f")), lambda record: [record])


def _check_suffix(path: Path | None) -> Path | None:
    if path:
        from landmark_onnx.embedding.feature_file import FORMATS

        if path.suffix.lower() not in FORMATS:
            raise typer.BadParameter(f"wanted a name that ends with {', '.join(FORMATS)}, got {path.name!r}")
    return check_destination(path)


Query = Annotated[
    str, typer.Argument(help="The image to compare with the others; of a folder, its first.", show_default=False)
]
Others = Annotated[list[str] | None, typer.Argument(metavar="OTHERS", help=IMAGES_HELP, show_default=False)]
Save = Annotated[
    Path | None,
    output_file(
        callback=_check_suffix,
        text="Also write every image's embedding, the query's first: .npz (names, features), .npy (the names go into "
        "FILE.names.json) or .parquet (name, feature). With it, one image is enough.",
    ),
]


@unfolded
def compare(
    query: Query,
    model: ModelName,
    source: ModelSource,
    engine: ExecutionOptions,
    batch: BatchOptions,
    output: Output,
    others: Others = None,
    save: Save = None,
) -> None:
    """Compare the first image with each of the others: cosine of their embeddings, clamped to 0 to 1.

    A cosine below 0 is 0, as the original prints it; --save writes embeddings for those who want it as it is.
    """
    from landmark_onnx.embedding.feature_file import feature_file
    from landmark_onnx.model import Retriever

    with reporting(output) as report:
        sources = expand([query, *(others or [])], report.note, follow_links=batch.follow_links)
        with feature_file(save) if save else contextlib.nullcontext() as add:
            retriever = Loader(engine, batch, report, source).load(Retriever, model)
            answers = _compared(retriever.paced(sources), add, report, timed=batch.time)
            emit(answers, VIEW, output, report, timed=batch.time)
        if save:
            report.note(f"embeddings are in {save}")


def _compared(
    results: "Iterator[Embedding | Failure | None]", add: "AddVector | None", report: Reporter, *, timed: bool
) -> "Iterator[Similarity | Failure | None]":
    """The first result against each of the others; every embedding goes to `add` on its way.

    Raises: ImageError if there is nothing to compare, and nothing to save either.
    """
    from landmark_onnx.model import similarity
    from landmark_onnx.results import Failure

    query = next(result for result in results if result)
    if isinstance(query, Failure):
        if add is None:
            raise query.kind(query.error)
        yield query
    else:
        if add:
            add(query.image, query.vector)
        if timed and query.time:
            report.note(f"{query.image}: " + ", ".join(f"{key} {ms:.1f}" for key, ms in query.time.to_json().items()))
    alone = True
    for result in results:
        if result is None:
            yield None
            continue
        alone = False
        if isinstance(result, Failure):
            yield result
            continue
        if add:
            add(result.image, result.vector)
        if not isinstance(query, Failure):
            yield similarity(query, result)
    if alone and add is None:
        raise ImageError(f"{query.image}: wanted another image to compare it with (or --save)")
