"""`landmark-onnx embed`: embeddings of any number of images, in a folder that other commands and programs read."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from landmark_onnx.cli.embed_options import Cluster, Course, Naming, ShardOptions
from landmark_onnx.cli.inputs import matches
from landmark_onnx.cli.loader import Loader
from landmark_onnx.cli.model_names import MODEL_HELP, model_option
from landmark_onnx.cli.options import OUTPUT, ExecutionOptions, Images, ModelSource, Quiet, unfolded
from landmark_onnx.cli.progress import Reporter
from landmark_onnx.images.walk import Walk

if TYPE_CHECKING:
    from landmark_onnx.embedding.duplicates import SharedIds
    from landmark_onnx.embedding.feature_folder import Features
    from landmark_onnx.embedding.request import EmbedProgress, UpdateCounts

SHOWN = 20
"""Failures and duplicates that are listed one by one; the folder has all of them."""

What = Annotated[
    list[str],
    typer.Argument(
        metavar="IMAGES",
        help="Images, folders (searched in depth, tars too), .tar files (read without unpacking; checked where "
        "md5.NAME.txt is beside), 'patterns*', .txt lists of paths, or - for a list on standard input.",
        show_default=False,
    ),
]
Models = Annotated[
    list[str] | None,
    model_option("--model", "-m", text=f"{MODEL_HELP} Repeat for more: images are read once for all. Needed to embed."),
]
Folder = Annotated[
    Path,
    typer.Option(
        "--output",
        "-o",
        metavar="FOLDER",
        file_okay=False,
        help="Where the features go. If they are partly there, from a run that was stopped, this one goes on.",
        rich_help_panel=OUTPUT,
    ),
]


@unfolded
def embed_images(
    images: What,
    output: Folder,
    source: ModelSource,
    engine: ExecutionOptions,
    batch: Images,
    stored: ShardOptions,
    cluster: Cluster,
    naming: Naming,
    course: Course,
    model: Models = None,
    quiet: Quiet = False,
) -> None:
    """Embed images into a folder of features; stopped at any moment, the same command goes on.

    A bad image is a row with an error: it is listed at the end, and makes the exit code 1.
    """
    from landmark_onnx.embedding.shards import arrow

    _check_models(model, source, course)
    if course.join:
        _join(images, output, course, quiet)
        return
    walk = Walk(follow_links=batch.follow_links)
    with Reporter(quiet=quiet) as report:
        cluster.check()
        arrow()  # what is missing is said before a model is pulled
        loader = Loader(engine, batch, report, source)
        retrievers = loader.retrievers(model or [])
        paths = (path for argument in images for path in matches(argument))
        items = naming.items(paths, walk, lambda path: report.stage(f"{path}: checking its md5"))
        request = stored.request(retrievers, batch)
        work = cluster.work(model or [], retrievers, loader)
        features = course.embed(items, request, output, work, _embed_progress(report))
        _conclude(features, report)
        for words in filter(None, (walk.words(), course.next_step(output))):
            report.note(words)
    if report.failures:
        raise typer.Exit(1)


def _check_models(model: list[str] | None, source: ModelSource, course: Course) -> None:
    """Refuse what does not go together, as a usage error."""
    if course.join and model:
        raise typer.BadParameter("the parts have their vectors already", param_hint="--model")
    if not course.join and not model:
        raise typer.BadParameter("name at least one model", param_hint="--model")
    if source.card and model and len(model) > 1:
        raise typer.BadParameter("a card is one model's, and several are given", param_hint="--card")


def _join(folders: list[str], output: Path, course: Course, quiet: bool) -> None:
    """Put parts together. What had failed in a part was told there, and is no failure of this."""
    from landmark_onnx.embedding.join import join_features

    with Reporter(quiet=quiet) as report:
        features = join_features(
            [Path(path) for folder in folders for path in matches(folder)],
            output,
            restart=course.restart,
            on_done=lambda count, total: report.progress(f"joining: {count:,} of {total:,} images", count, total),
        )
        report.note(f"{output}: {features.count:,} of {features.manifest.rows:,} images embedded")


def _embed_progress(report: Reporter) -> "EmbedProgress":
    """What the job tells of itself, as notes and progress."""
    from landmark_onnx.cli.eta import Pace
    from landmark_onnx.embedding.request import EmbedProgress

    pace = Pace()

    def kept(count: int) -> None:
        nonlocal pace
        pace = Pace(count)
        if count:
            report.note(f"going on: {count:,} images are done already")

    def duplicates(shared: "SharedIds") -> None:
        for each in shared.told[:SHOWN]:
            report.note(f"{each.count:,} images have the id {each.id}: {', '.join(each.sources)}")
        if shared.count > SHOWN:
            report.note(f"{shared.count - SHOWN:,} more ids are those of several images")

    def update(counts: "UpdateCounts") -> None:
        report.note(f"update: {counts.fresh:,} images to embed, {counts.kept:,} kept, {counts.gone:,} gone")

    return EmbedProgress(
        on_found=lambda count: report.progress(f"listing: {count:,} images", count),
        on_duplicates=duplicates,
        on_compared=lambda count, total: report.progress(f"comparing: {count:,} of {total:,} images", count, total),
        on_update=update,
        on_kept=kept,
        on_done=lambda count, total: report.progress(pace.words(count, total), count, total),
        on_bad=report.note,
        on_stopped=lambda count, total: report.note(
            f"stopped: {count:,} of {total:,} images are kept; the same command goes on behind them"
        ),
    )


def _conclude(features: "Features", report: Reporter) -> None:
    """List what failed, and say what there is now."""
    failed = features.manifest.failed
    for _, source, error in features.failures(min(failed, SHOWN)):
        report.failure(f"{source}: {error}")
    if failed > SHOWN:
        report.failure(f"{failed - SHOWN:,} more images failed: column error of {features.folder} has them")
    report.note(f"{features.folder}: {features.count:,} of {features.manifest.rows:,} images embedded")
