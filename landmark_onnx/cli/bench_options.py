"""Options of `landmark-onnx bench`: who takes part, and how it is measured."""

import dataclasses
import enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from landmark_onnx.cli.model_names import MODEL_HELP, model_option
from landmark_onnx.cli.options import FollowLinks, PrecisionName
from landmark_onnx.cli.progress import Reporter
from landmark_onnx_bench.targets import PEERS, Scenario

if TYPE_CHECKING:
    from landmark_onnx.precision import Precision
    from landmark_onnx_bench.interleaved import ContestRules

PHOTOS = 8
SIZE = (480, 640)
"""Height and width of the photos that are made up."""

WHO, HOW = "Who takes part", "How it is measured"

PeerName = enum.StrEnum("PeerName", {name.upper().replace("-", "_"): name for name in PEERS})  # type: ignore[misc]


class TargetName(enum.StrEnum):
    """What is timed."""

    MODEL = "model"
    FILE = "file"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Contestants:
    """Models and the runtimes that run them."""

    model: Annotated[
        list[str] | None,
        model_option("--model", "-m", text=f"{MODEL_HELP} Repeat for more.", rich_help_panel=WHO),
    ] = None
    provider: Annotated[
        list[str] | None,
        typer.Option(
            help="As of the other commands; repeat for more. Default: cpu (openvino where it is alone).",
            rich_help_panel=WHO,
        ),
    ] = None
    precision: Annotated[
        list[PrecisionName] | None, typer.Option(help="Repeat for more. Default: fp32.", rich_help_panel=WHO)
    ] = None
    peer: Annotated[
        list[PeerName] | None,
        typer.Option(help="Another runtime on the same network; repeat for more.", rich_help_panel=WHO),
    ] = None
    release: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="PATH",
            exists=True,
            help="What Paddle runs: a model's release, or a folder with NAME.tar of several. Default: the store's.",
            rich_help_panel=WHO,
        ),
    ] = None
    raw: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="PATH",
            exists=True,
            help="What onnxruntime-raw runs: an export that nothing optimised, or a folder with NAME.onnx of several. "
            "Default: the model's own file.",
            rich_help_panel=WHO,
        ),
    ] = None

    def precisions(self) -> "tuple[Precision, ...]":
        """Those asked for, once each, fp32 first."""
        asked = self.precision or [PrecisionName.FP32]
        return tuple(name.value for name in PrecisionName if name in asked)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What is asked of each of them."""

    batch_size: Annotated[
        list[int] | None, typer.Option(min=1, help="Repeat for more. Default: 1.", rich_help_panel=HOW)
    ] = None
    scenario: Annotated[
        Scenario,
        typer.Option(
            help="How queries come, as MLPerf defines it. All but the first need extra bench.", rich_help_panel=HOW
        ),
    ] = Scenario.SINGLE_STREAM
    target: Annotated[
        TargetName | None,
        typer.Option(help="The network alone, or from file to answer. Default: both.", rich_help_panel=HOW),
    ] = None
    images: Annotated[
        list[str] | None,
        typer.Option(
            metavar="IMAGE",
            help=f"Photos, folders, patterns; repeat for more. Default: {PHOTOS} that are made up.",
            rich_help_panel=HOW,
        ),
    ] = None
    follow_links: FollowLinks = False
    size: Annotated[
        str | None,
        typer.Option(metavar="HxW", help="Pixels of the made-up photos. Default: 480x640.", rich_help_panel=HOW),
    ] = None
    threads: Annotated[int, typer.Option(min=0, help="Of each contestant; 0 for all cores.", rich_help_panel=HOW)] = 0
    duration: Annotated[float, typer.Option(min=0.01, help="Seconds of a window.", rich_help_panel=HOW)] = 2.0
    iterations: Annotated[
        int,
        typer.Option(
            min=0,
            help="Queries of a window, however long they take. Default: what --duration allows.",
            rich_help_panel=HOW,
            show_default=False,
        ),
    ] = 0
    windows: Annotated[
        int,
        typer.Option(min=1, help="At most so many, if no three in a row agree within 10 %.", rich_help_panel=HOW),
    ] = 10
    target_qps: Annotated[
        float,
        typer.Option(
            min=0.0,
            help="Queries per second of scenario server. Default: 80 % of what the slowest contestant can do.",
            rich_help_panel=HOW,
            show_default=False,
        ),
    ] = 0.0

    def rules(self) -> "ContestRules":
        """The same, as a contest takes it."""
        from landmark_onnx_bench.interleaved import ContestRules
        from landmark_onnx_bench.targets import Target, Workload

        targets: tuple[Target, ...] = (self.target.value,) if self.target else ("model", "file")
        work = Workload(
            scenario=self.scenario, seconds=self.duration, queries=self.iterations, target_qps=self.target_qps
        )
        return ContestRules(work=work, targets=targets, max_windows=self.windows)

    def photos(self, folder: Path, report: Reporter) -> list[Path]:
        """Those given, or some that are made up in `folder`. Raises: ImageError if a folder has none."""
        if self.images is None:
            from landmark_onnx_bench.sample_photos import write_photos

            return write_photos(folder, PHOTOS, *parse_size(self.size))
        from landmark_onnx.cli.inputs import expand

        if self.size:
            raise typer.BadParameter("--size is of made-up photos: leave it or --images out")
        return [Path(path) for path in expand(self.images, report.note, follow_links=self.follow_links)]


def readable(photos: list[Path], report: Reporter) -> list[Path]:
    """The photos that can be read; the others are failures. Raises: LandmarkError if none is left."""
    from landmark_onnx.errors import ImageError, LandmarkError
    from landmark_onnx.images.decode import read_image

    found = []
    for path in photos:
        try:
            read_image(path)
        except ImageError as error:
            report.failure(str(error))
            continue
        found.append(path)
    if not found:
        raise LandmarkError("none of the photos can be read")
    return found


def parse_size(text: str | None) -> tuple[int, int]:
    """Height and width of "HxW". Raises: BadParameter."""
    if text is None:
        return SIZE
    height, _, width = text.lower().partition("x")
    if not (height.isdecimal() and width.isdecimal() and min(int(height), int(width)) >= 2):
        raise typer.BadParameter(f"--size: wanted HEIGHTxWIDTH in pixels, got {text!r}")
    return int(height), int(width)
