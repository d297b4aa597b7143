"""Options of `landmark-onnx embed`: what images are called, how features are stored, and where the work is done."""

import dataclasses
import enum
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from landmark_onnx.cli.loader import Loader, settle
from landmark_onnx.cli.model_names import IDS_HELP
from landmark_onnx.cli.options import OUTPUT, Images
from landmark_onnx.images.ids import IdRule
from landmark_onnx.images.walk import Walk

if TYPE_CHECKING:
    from landmark_onnx.embedding.feature_folder import Features
    from landmark_onnx.embedding.item import Item
    from landmark_onnx.embedding.job import Work
    from landmark_onnx.embedding.manifest import ListPart
    from landmark_onnx.embedding.request import EmbedProgress, FeatureRequest
    from landmark_onnx.model import Retriever

CLUSTER = "On a cluster"


class FeatureForm(enum.StrEnum):
    """What a value of a vector is stored as."""

    FLOAT16 = "float16"
    FLOAT32 = "float32"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Naming:
    """What images are called."""

    ids: Annotated[
        IdRule,
        typer.Option(help=f"{IDS_HELP} The path begins below the folder, or in the tar.", rich_help_panel=OUTPUT),
    ] = IdRule.AUTO
    root: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            exists=True,
            file_okay=False,
            help="Folder that holds all images: an image's path begins below it, however the image is given. Members "
            "of a tar keep their names.",
            rich_help_panel=OUTPUT,
        ),
    ] = None

    def items(self, paths: Iterable[str], walk: Walk, on_stage: Callable[[str], None]) -> "Iterator[Item]":
        """The images that `paths` mean. on_stage: of each tar that is hashed against its md5."""
        from landmark_onnx.embedding.listing import list_items

        return list_items(paths, self.ids, root=str(self.root) if self.root else None, walk=walk, on_stage=on_stage)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """What becomes of features that are there, and which part of the list is embedded."""

    update: Annotated[
        bool,
        typer.Option(
            "--update",
            help="Embed what is new or changed since, drop what is gone, and keep the rest and its ids. What has other "
            "bytes has changed; a file of the same time and size is not read.",
            rich_help_panel=OUTPUT,
        ),
    ] = False
    restart: Annotated[
        bool,
        typer.Option("--restart", help="Throw away what the folder has, and begin again.", rich_help_panel=OUTPUT),
    ] = False
    shard_of: Annotated[
        str | None,
        typer.Option(
            metavar="I/N",
            help="Embed the I-th of N parts of the list, into a folder of its own, with any scheduler: an image's part "
            "depends on its id. --join puts them together.",
            rich_help_panel=CLUSTER,
        ),
    ] = None
    join: Annotated[
        bool,
        typer.Option(
            "--join",
            help="IMAGES are the folders of all parts: make of them what one run would have made. No model is needed.",
            rich_help_panel=CLUSTER,
        ),
    ] = False

    def __post_init__(self) -> None:
        if self.update and self.restart:
            raise typer.BadParameter("--update keeps what --restart throws away: give one of them")
        if self.join and (self.update or self.shard_of):
            raise typer.BadParameter("parts are joined as they are: no --update, no --shard-of", param_hint="--join")
        self.part()

    def part(self) -> "ListPart | None":
        """Of the list, unless all of it is wanted."""
        if self.shard_of is None:
            return None
        from landmark_onnx.embedding.manifest import ListPart

        found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", self.shard_of, re.ASCII)
        if not found or not 1 <= int(found[1]) <= int(found[2]):
            raise typer.BadParameter("wanted I/N, such as 1/8 to 8/8", param_hint="--shard-of")
        return ListPart(int(found[1]), int(found[2]))

    def embed(
        self, items: "Iterable[Item]", request: "FeatureRequest", folder: Path, work: "Work", progress: "EmbedProgress"
    ) -> "Features":
        """Embed the images."""
        from landmark_onnx.embedding.job import embed
        from landmark_onnx.embedding.update import update_features

        wanted = dataclasses.replace(request, part=self.part())
        if self.update:
            return update_features(items, wanted, folder, work, progress=progress)
        return embed(items, wanted, folder, work, restart=self.restart, progress=progress)

    def next_step(self, folder: Path) -> str:
        """What to do with the features now, where that is not obvious."""
        if self.shard_of:
            return f"part {self.shard_of} of the list; when all are there: landmark-onnx embed --join PARTS -o FOLDER"
        if self.update:
            return f"an index does not follow by itself: landmark-onnx index build {folder} -o INDEX --replace"
        return ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ShardOptions:
    """How features are stored."""

    dtype: Annotated[FeatureForm, typer.Option(help="Of the stored vectors.", rich_help_panel=OUTPUT)] = (
        FeatureForm.FLOAT32
    )
    shard_size: Annotated[
        int,
        typer.Option(
            min=1,
            help="Images in one file. A kill undoes the work of half a minute, of as many at most; Ctrl-C none.",
            rich_help_panel=OUTPUT,
        ),
    ] = 1024

    def request(self, retrievers: "list[Retriever]", batch: Images) -> "FeatureRequest":
        """The features that are wanted of these models."""
        from landmark_onnx.embedding.identity import identify
        from landmark_onnx.embedding.request import FeatureRequest

        return FeatureRequest(
            models=[identify(retriever) for retriever in retrievers],
            dtype=self.dtype.value,
            damaged=batch.damaged.value,
            shard_size=self.shard_size,
        )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Where the work is done: here, or on a Ray cluster."""

    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Work on this Ray cluster, all of whose machines see images, models and FOLDER under the same paths; "
            "local starts one here.",
            rich_help_panel=CLUSTER,
        ),
    ] = None
    workers: Annotated[
        int,
        typer.Option(min=0, help="Copies of the models there; 0 for one on each machine.", rich_help_panel=CLUSTER),
    ] = 0

    def __post_init__(self) -> None:
        if self.workers and not self.ray:
            raise typer.BadParameter("copies of the models are for --ray", param_hint="--workers")

    def check(self) -> None:
        """Raises: MissingExtraError; FeatureError if there is no such cluster."""
        if self.ray:
            from landmark_onnx.embedding.ray_cluster import check_cluster

            check_cluster(self.ray)

    def work(self, names: list[str], retrievers: "list[Retriever]", loader: Loader) -> "Work":
        """What makes the shards. names: of the retrievers, which a cluster loads again."""
        if self.ray is None:
            from landmark_onnx.embedding.job import here

            return here(retrievers)
        from landmark_onnx.embedding.ray_cluster import WorkerModel, on_ray
        from landmark_onnx.hub.pull import ensure

        # As they were loaded: a session's own path may be that of a reduced precision's file.
        paths = [ensure(name, loader.engine.stored(), offline=loader.source.offline) for name in names]
        recipes = [
            WorkerModel(
                path=path.resolve(),
                provider=settled.request,
                threads=settled.threads,
                batch_size=settled.batch_size,
                reading=loader.batch.reading(),
                card=loader.source.read_card(),
            )
            for path in paths
            for settled in [settle(loader.engine, path, loader.batch.batch_size)]
        ]
        return on_ray(self.ray, recipes, self.workers)
