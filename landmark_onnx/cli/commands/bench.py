"""`landmark-onnx bench`: how fast models are here, on each provider and precision, beside other runtimes."""

import dataclasses
import enum
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from landmark_onnx.cli.model_names import MODEL_HELP, complete_model
from landmark_onnx.cli.options import FollowLinks, PrecisionName, Quiet, unfolded
from landmark_onnx.cli.progress import Reporter, lines_shown
from landmark_onnx.errors import ImageError, LandmarkError
from landmark_onnx_bench.targets import PEERS, Scenario

if TYPE_CHECKING:
    from landmark_onnx.precision import Precision
    from landmark_onnx_bench.interleaved import ContestRules
    from landmark_onnx_bench.suite import SuitePlan

PHOTOS = 8
SIZE = (480, 640)
"""Height and width of the photos that are made up."""

WHO, HOW, OUT = "Who takes part", "How it is measured", "Output"

PeerName = enum.StrEnum("PeerName", {name.upper().replace("-", "_"): name for name in PEERS})  # type: ignore[misc]


class TargetName(enum.StrEnum):
    """What is timed."""

    MODEL = "model"
    FILE = "file"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Who:
    """Models and the runtimes that run them."""

    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            metavar="NAME_OR_PATH",
            help=f"{MODEL_HELP} Repeat for more.",
            autocompletion=complete_model,
            rich_help_panel=WHO,
        ),
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
class How:
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


def parse_size(text: str | None) -> tuple[int, int]:
    """Height and width of "HxW". Raises: BadParameter."""
    if text is None:
        return SIZE
    height, _, width = text.lower().partition("x")
    if not (height.isdecimal() and width.isdecimal() and min(int(height), int(width)) >= 2):
        raise typer.BadParameter(f"--size: wanted HEIGHTxWIDTH in pixels, got {text!r}")
    return int(height), int(width)


@unfolded
def benchmark(
    who: Who,
    how: How,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            file_okay=False,
            help="Write bench.json, bench.md and plots there; without it the tables go to standard output.",
            rich_help_panel=OUT,
        ),
    ] = None,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(metavar="BEFORE AFTER", help="Measure nothing: compare two bench.json.", rich_help_panel=OUT),
    ] = None,
    fail_above: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            metavar="RATIO",
            help="With --compare: exit code 1 if something became slower than this, beyond noise.",
            rich_help_panel=OUT,
        ),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Measure how fast models are here: latency, throughput, load time, memory, likeness to fp32.

    Each contestant is loaded in a process of its own, and they take turns, so that ratios hold on a busy machine too.
    Ratios are to the first provider at its highest precision.
    """
    if compare and who.model:
        raise typer.BadParameter("--compare measures nothing: leave --model out")
    if fail_above is not None and not compare:
        raise typer.BadParameter("--fail-above is of --compare")
    with Reporter(quiet=quiet) as report:
        if compare:
            _compare(*compare, fail_above, report)
        elif who.model:
            _measure(who, how, output, report)
        else:
            raise typer.BadParameter("name a model with --model, or two reports with --compare")
    if report.failures:
        raise typer.Exit(1)


def _measure(who: Who, how: How, output: Path | None, report: Reporter) -> None:
    from landmark_onnx.files.atomic import check_writable
    from landmark_onnx.files.workfolders import temporary_folder
    from landmark_onnx.hub.pull import ensure
    from landmark_onnx_bench.environment import machine
    from landmark_onnx_bench.loadgen import check_scenario
    from landmark_onnx_bench.plots import check_drawing, write_plots
    from landmark_onnx_bench.report import document, markdown, write_report
    from landmark_onnx_bench.resolve import entry
    from landmark_onnx_bench.suite import hold_all

    check_scenario(how.scenario)
    begun = datetime.now(UTC).isoformat(timespec="seconds")
    if output:
        check_drawing()
        check_writable(output / "bench.json")
    plan = _plan(who, how)
    models = [entry(ensure(name), releases=who.release or (), raws=who.raw or ()) for name in who.model or ()]
    with temporary_folder() as folder:
        photos = _readable(how.photos(folder, report), report)
        outcome = hold_all(plan, models, photos, say=report.stage)
    rows = [standing.to_json() for standing in outcome.standings]
    command = ["landmark-onnx", *sys.argv[1:]]
    found = document(command, begun, machine(), rows, [dropout.to_json() for dropout in outcome.dropouts])
    if output:
        write_report(found, output)
        write_plots(found, output)
        report.note(f"wrote {output}/bench.json, bench.md and plots")
    else:
        typer.echo(lines_shown(markdown(found)))
    for dropout in outcome.dropouts:
        report.failure(f"{dropout.model}: {dropout.error}")


def _readable(photos: list[Path], report: Reporter) -> list[Path]:
    """The photos without those that cannot be read, each of which is told of. Raises: LandmarkError if none is left."""
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


def _plan(who: Who, how: How) -> "SuitePlan":
    from landmark_onnx.runtime.cpu import available_cores
    from landmark_onnx.runtime.providers import on_cpu
    from landmark_onnx_bench.suite import SuitePlan

    return SuitePlan(
        providers=tuple(dict.fromkeys(who.provider or [on_cpu().name])),
        precisions=who.precisions(),
        peers=tuple(peer.value for peer in dict.fromkeys(who.peer or ())),
        batch_sizes=tuple(sorted(set(how.batch_size or [1]))),
        threads=how.threads or available_cores(),
        rules=how.rules(),
    )


def _compare(before: Path, after: Path, fail_above: float | None, report: Reporter) -> None:
    from landmark_onnx_bench.compare import compare, only_in, tabulate
    from landmark_onnx_bench.report import read_report

    first, second = read_report(before), read_report(after)
    changes = compare(first, second)
    for path, names in ((before, only_in(first, second)), (after, only_in(second, first))):
        for name in names:
            report.note(f"only in {path}: {name}")
    if not changes:
        raise LandmarkError(f"{before} and {after} have no measurement in common")
    typer.echo(lines_shown(tabulate(changes)))
    for change in changes:
        if fail_above is not None and change.real and change.ratio > fail_above:
            where = ", ".join(str(value) for value in change.key.values())
            report.failure(f"{where}: {change.ratio:.3f} times the cost, over {fail_above:g}")
