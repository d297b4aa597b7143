"""The options that say what an index is and where it is kept, and what makes it so."""

import contextlib
import dataclasses
import enum
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from landmark_onnx.embedding.feature_folder import Batch
    from landmark_onnx.search.ensemble import Ensemble

    Make = Callable[[Ensemble, Iterator[Batch]], object]

WHERE = "Where they go"


class Compression(enum.StrEnum):
    """How rows are compressed."""

    SQ8 = "sq8"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class IndexKind:
    """What an index is: exact, with a graph or compressed rows beside, or a server's."""

    approximate: Annotated[
        bool,
        typer.Option("--approximate", help="Make an HNSW graph too, and measure its recall.", rich_help_panel=WHERE),
    ] = False
    links: Annotated[
        int | None, typer.Option(min=4, max=256, help="Of a node of the graph. Default: 32.", rich_help_panel=WHERE)
    ] = None
    building: Annotated[
        int | None,
        typer.Option(min=1, help="Candidates held while a node is placed. Default: 128.", rich_help_panel=WHERE),
    ] = None
    effort: Annotated[
        int | None,
        typer.Option(min=1, help="Candidates held while a query is answered. Default: 256.", rich_help_panel=WHERE),
    ] = None
    compress: Annotated[
        Compression | None,
        typer.Option(
            help="Keep rows of a byte a value too, for search --approximate in a quarter of the memory, and measure "
            "their recall.",
            rich_help_panel=WHERE,
        ),
    ] = None
    qdrant: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Keep vectors, ids and sources in this Qdrant server (or folder, with file://); INDEX says where. Its "
            "key is taken from the environment, by all commands: QDRANT_API_KEY.",
            rich_help_panel=WHERE,
        ),
    ] = None
    collection: Annotated[
        str | None, typer.Option(help="Its name there; by default the name of INDEX.", rich_help_panel=WHERE)
    ] = None

    def __post_init__(self) -> None:
        if self.qdrant and self.approximate:
            raise typer.BadParameter("Qdrant makes a graph by itself: search --approximate", param_hint="--approximate")
        if self.compress and (self.qdrant or self.approximate):
            other = "--qdrant" if self.qdrant else "--approximate"
            raise typer.BadParameter(f"is of an index without {other}; leave out one of them", param_hint="--compress")
        if self.collection and not self.qdrant:
            raise typer.BadParameter("is of a server: give --qdrant URL too", param_hint="--collection")
        if self._given() and not self.approximate:
            raise typer.BadParameter(
                "is of the graph: give --approximate too", param_hint=f"--{next(iter(self._given()))}"
            )

    def builder(self, folder: Path, *, replace: bool) -> "Make":
        """What makes the index. What it refuses, it refuses now, before the features are read."""
        if self.qdrant:
            return _qdrant_builder(folder, self.qdrant, self.collection or folder.resolve().name, replace=replace)
        from landmark_onnx.search import writer
        from landmark_onnx.search.hnsw import GraphOptions

        graph = GraphOptions(**self._given()) if self.approximate else None
        compress: Literal["sq8"] | None = "sq8" if self.compress else None
        writer.check_build(folder, replace=replace, graph=graph, compress=compress)
        return lambda ensemble, batches: writer.build(
            folder, ensemble, batches, replace=replace, graph=graph, compress=compress
        )

    def _given(self) -> dict[str, int]:
        options = {"links": self.links, "building": self.building, "effort": self.effort}
        return {key: value for key, value in options.items() if value is not None}


def _qdrant_builder(folder: Path, url: str, collection: str, *, replace: bool) -> "Make":
    from landmark_onnx.search import qdrant
    from landmark_onnx.search.qdrant_place import Place
    from landmark_onnx.search.qdrant_server import connect

    def make(ensemble: "Ensemble", batches: "Iterator[Batch]") -> None:
        place = Place(url=url, collection=collection, following=0, ensemble=ensemble)
        qdrant.build(folder, place, batches, replace=replace).close()

    with contextlib.closing(connect(url)) as client:
        qdrant.check_build(folder, client, url=url, collection=collection, replace=replace)
    return make
