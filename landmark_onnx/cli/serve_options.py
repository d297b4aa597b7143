"""Options of `landmark-onnx serve`: what is served, of which images, and how long things may take."""

import dataclasses
import enum
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from landmark_onnx.cli.model_names import IDS_HELP
from landmark_onnx.cli.moved import MOVED_HELP, OLD_NEW
from landmark_onnx.cli.options import IMAGES, BatchReading
from landmark_onnx.cli.votes import FOLDERS, LANDMARKS, check_labels
from landmark_onnx.images.ids import IdRule

if TYPE_CHECKING:
    from landmark_onnx.serving.live_index import LabelSource
    from landmark_onnx.serving.settings import Limits

BOUNDS = "How long"
MAX_PIXELS = 50_000_000
"""Less than of images that one has chosen oneself."""

_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,99}", re.ASCII)


class ImageFormat(enum.StrEnum):
    """`landmark_onnx.images.headers.Format`, as typer takes it."""

    JPEG = "JPEG"
    PNG = "PNG"
    WEBP = "WebP"
    BMP = "BMP"
    TIFF = "TIFF"
    GIF = "GIF"
    PNM = "PNM"
    JPEG2000 = "JPEG 2000"
    AVIF = "AVIF"
    HEIC = "HEIC"


FORMATS = (ImageFormat.JPEG, ImageFormat.PNG, ImageFormat.WEBP)
"""Those that browsers send."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ServedIndexes:
    """Which indexes are searched, and the landmarks of their images."""

    index: Annotated[
        list[str] | None,
        typer.Option(
            "--index",
            "-i",
            metavar="[NAME=]FOLDER",
            help="An index to search, of landmark-onnx index build; by default called as its folder. Repeat for more.",
        ),
    ] = None
    labels: Annotated[
        list[str] | None,
        typer.Option(
            metavar=f"[NAME=]CSV|{FOLDERS}",
            help=f"Landmarks of an index's images, as recognize has them; without NAME of all indexes. With {FOLDERS} "
            "in place of a CSV, what the folder is called that holds an image. Repeat for more.",
            rich_help_panel=LANDMARKS,
        ),
    ] = None
    moved: Annotated[
        list[str] | None,
        typer.Option(metavar=OLD_NEW, help=f"Pictures of the page. {MOVED_HELP}"),
    ] = None
    ids: Annotated[
        IdRule | None,
        typer.Option(help=f"{IDS_HELP} Here: of both sides of a CSV of --labels.", rich_help_panel=LANDMARKS),
    ] = None

    def folders(self) -> Mapping[str, Path]:
        """Name -> folder of each index. Raises: BadParameter."""
        found: dict[str, Path] = {}
        for text in self.index or []:
            name, folder = _named(text)
            if name in found:
                raise typer.BadParameter(f"two indexes are called {name!r}: give NAME={folder}", param_hint="--index")
            if not folder.is_dir():
                raise typer.BadParameter(f"there is no folder {str(folder)!r}", param_hint="--index")
            found[name] = folder
        return found

    def sources(self) -> "Mapping[str, LabelSource | None]":
        """Name of each index -> where its landmarks are from. Raises: BadParameter."""
        from landmark_onnx.serving.live_index import LabelSource

        names = self.folders()
        given: dict[str, str] = {}
        for text in self.labels or []:
            name, equals, labels = text.partition("=")
            if not equals or name not in names:
                name, labels = "", text
            if name in given:
                raise typer.BadParameter("given twice for the same index", param_hint="--labels")
            given[name] = check_labels(labels) or ""
        if given and not names:
            raise typer.BadParameter("is of an index: give --index too", param_hint="--labels")
        texts = {name: given.get(name, given.get("")) for name in names}
        return {name: LabelSource(labels=text, rule=self.ids) if text else None for name, text in texts.items()}


def _named(text: str) -> tuple[str, Path]:
    """[NAME=]FOLDER -> both. Raises: BadParameter for a name that cannot stand in an address."""
    name, equals, rest = text.partition("=")
    folder = Path(rest if equals and not Path(text).is_dir() else text)
    if folder == Path(text):
        name = folder.resolve().name
    if not _NAME.fullmatch(name):
        raise typer.BadParameter(
            f"{name!r} cannot name an index: wanted letters, digits, '.', '_', '-', as in NAME={folder}",
            param_hint="--index",
        )
    return name, folder


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ServedReading(BatchReading):
    """How images that others send are read, and how many run together."""

    max_pixels: Annotated[
        int, typer.Option(min=1, help="Refuse larger images before decoding them.", rich_help_panel=IMAGES)
    ] = MAX_PIXELS
    format: Annotated[
        list[ImageFormat] | None,
        typer.Option(
            case_sensitive=False, help="Formats of images, in place of JPEG, PNG, WebP.", rich_help_panel=IMAGES
        ),
    ] = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How long things may take."""

    timeout: Annotated[
        float, typer.Option(min=0.1, help="Seconds until a request has its answer, or none.", rich_help_panel=BOUNDS)
    ] = 60.0
    drain_delay: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Seconds after SIGTERM in which requests are still accepted, so that balancers hear of it first; by "
            "default 5, or 0 on a loopback address.",
            rich_help_panel=BOUNDS,
        ),
    ] = None
    drain_timeout: Annotated[
        float, typer.Option(min=0, help="Seconds until all that was accepted is answered.", rich_help_panel=BOUNDS)
    ] = 30.0

    def limits(self, reading: ServedReading) -> "Limits":
        """All limits of the service."""
        from landmark_onnx.serving.settings import Limits

        return Limits(
            pixels=reading.max_pixels,
            formats=tuple(each.value for each in reading.format or FORMATS),
            timeout=self.timeout,
            drain_delay=self.drain_delay,
            drain_timeout=self.drain_timeout,
        )
