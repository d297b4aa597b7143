"""`landmark-onnx embed`: embeddings of any number of images, in a folder that other commands and programs read."""

import enum
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from landmark_onnx.cli.inputs import matches
from landmark_onnx.cli.model_names import IDS_HELP, MODEL_HELP, complete_model
from landmark_onnx.cli.options import OUTPUT, ExecutionOptions, Images, ModelSource, Quiet, unfolded
from landmark_onnx.cli.progress import Reporter
from landmark_onnx.cli.run import load
from landmark_onnx.images.ids import IdRule
from landmark_onnx.images.walk import Walk

if TYPE_CHECKING:
    from landmark_onnx.embedding.feature_folder import Features
    from landmark_onnx.embedding.job import EmbedProgress, Work
    from landmark_onnx.model import Retriever

SHOWN = 20
"""Failures and duplicates that are listed one by one; the folder has all of them."""

CLUSTER = "On a cluster"


class FeatureForm(enum.StrEnum):
    """What a value of a vector is stored as."""

    FLOAT16 = "float16"
    FLOAT32 = "float32"


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
    list[str],
    typer.Option(
        "--model",
        "-m",
        metavar="NAME_OR_PATH",
        help=f"{MODEL_HELP} Repeat for more: images are read once for all.",
        autocompletion=complete_model,
    ),
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
Stored = Annotated[FeatureForm, typer.Option("--dtype", help="Of the stored vectors.", rich_help_panel=OUTPUT)]
ShardSize = Annotated[
    int,
    typer.Option(
        min=1,
        help="Images in one file. A kill undoes the work of half a minute, of as many at most; Ctrl-C none.",
        rich_help_panel=OUTPUT,
    ),
]
Ids = Annotated[
    IdRule,
    typer.Option(
        help=f"{IDS_HELP} The path begins below the folder, or in the tar.",
        rich_help_panel=OUTPUT,
    ),
]
Restart = Annotated[
    bool,
    typer.Option("--restart", help="Throw away what the folder has, and begin again.", rich_help_panel=OUTPUT),
]
Ray = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="Work on this Ray cluster, all of whose machines see images, models and FOLDER under the same paths; "
        "local starts one here.",
        rich_help_panel=CLUSTER,
    ),
]
Workers = Annotated[
    int,
    typer.Option(min=0, help="Copies of the models there; 0 for one on each machine.", rich_help_panel=CLUSTER),
]


@unfolded
def embed_images(
    images: What,
    model: Models,
    output: Folder,
    supply: ModelSource,
    engine: ExecutionOptions,
    batch: Images,
    dtype: Stored = FeatureForm.FLOAT32,
    shard_size: ShardSize = 1024,
    ids: Ids = IdRule.AUTO,
    restart: Restart = False,
    ray: Ray = None,
    workers: Workers = 0,
    quiet: Quiet = False,
) -> None:
    """Embed images into a folder of features; stopped at any moment, the same command goes on.

    A bad image is a row with an error: it is listed at the end, and makes the exit code 1.
    """
    from landmark_onnx.embedding.identity import identify
    from landmark_onnx.embedding.job import embed
    from landmark_onnx.embedding.listing import list_items

    if supply.card and len(model) > 1:
        raise typer.BadParameter("a card is one model's, and several are given", param_hint="--card")
    if workers and not ray:
        raise typer.BadParameter("copies of the models are for --ray", param_hint="--workers")
    walk = Walk(follow_links=batch.follow_links)
    with Reporter(quiet=quiet) as report:
        if ray:
            from landmark_onnx.embedding.ray_cluster import check_cluster

            check_cluster(ray)
        retrievers = _retrievers(model, engine, batch, report, supply)
        features = embed(
            list_items(
                (path for argument in images for path in matches(argument)),
                ids,
                walk=walk,
                checking=lambda path: report.stage(f"{path}: checking its md5"),
            ),
            [identify(retriever) for retriever in retrievers],
            output,
            _work(model, retrievers, engine, batch, supply, ray, workers),
            dtype=dtype.value,
            damaged=batch.damaged.value,
            shard_size=shard_size,
            restart=restart,
            watch=_watching(report),
        )
        _conclude(features, report)
        if words := walk.words():
            report.note(words)
    if report.failures:
        raise typer.Exit(1)


def _retrievers(
    models: list[str], engine: ExecutionOptions, batch: Images, report: Reporter, supply: ModelSource
) -> "list[Retriever]":
    from landmark_onnx.embedding.shards import arrow
    from landmark_onnx.model import Retriever

    arrow()  # what is missing is said before a model is pulled
    return [load(Retriever, name, engine, batch, report, supply) for name in models]


def _work(
    models: list[str],
    retrievers: "list[Retriever]",
    engine: ExecutionOptions,
    batch: Images,
    supply: ModelSource,
    ray: str | None,
    workers: int,
) -> "Work":
    if ray is None:
        from landmark_onnx.embedding.job import here

        return here(retrievers, batch.reading())
    from landmark_onnx.embedding.ray_cluster import WorkerModel, on_ray
    from landmark_onnx.hub.pull import ensure

    recipes = [
        WorkerModel(
            # As it was loaded: a session's own path may be that of a reduced precision's file.
            path=ensure(model, engine.precision.value, offline=supply.offline).resolve(),
            provider=engine.request(),
            threads=engine.threads,
            batch_size=batch.batch_size,
            reading=batch.reading(),
            card=supply.read_card(),
        )
        for model in models
    ]
    return on_ray(ray, recipes, workers)


def _watching(report: Reporter) -> "EmbedProgress":
    """What the job tells of itself, as notes and progress."""
    from landmark_onnx.cli.eta import Pace
    from landmark_onnx.embedding.job import EmbedProgress

    pace = Pace()

    def kept(count: int) -> None:
        nonlocal pace
        pace = Pace(count)
        if count:
            report.note(f"going on: {count:,} images are done already")

    def duplicates(sources: Mapping[str, list[str]]) -> None:
        for name, places in list(sources.items())[:SHOWN]:
            report.note(f"{len(places)} images have the id {name}: {', '.join(places[:3])}")
        if len(sources) > SHOWN:
            report.note(f"{len(sources) - SHOWN:,} more ids are those of several images")

    return EmbedProgress(
        found=lambda count: report.progress(f"listing: {count:,} images", count),
        duplicates=duplicates,
        kept=kept,
        done=lambda count, total: report.progress(pace.words(count, total), count, total),
        damaged=report.note,
        stopped=lambda count, total: report.note(
            f"stopped: {count:,} of {total:,} images are kept; the same command goes on behind them"
        ),
    )


def _conclude(features: "Features", report: Reporter) -> None:
    """List what failed, and say what there is now."""
    failures = features.failures()
    for _, source, error in failures[:SHOWN]:
        report.failure(f"{source}: {error}")
    if len(failures) > SHOWN:
        report.failure(f"{len(failures) - SHOWN:,} more images failed: column error of {features.folder} has them")
    report.note(f"{features.folder}: {features.count:,} of {features.manifest.rows:,} images embedded")
