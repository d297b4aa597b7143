"""`landmark-onnx bench`: how fast models are here, on each provider and precision, beside other runtimes."""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from landmark_onnx.cli.bench_options import Contestants, Measurement, readable
from landmark_onnx.cli.options import OUTPUT, Quiet, unfolded
from landmark_onnx.cli.progress import Reporter, lines_shown
from landmark_onnx.errors import LandmarkError

if TYPE_CHECKING:
    from landmark_onnx_bench.suite import SuitePlan

Destination = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="DIR",
        file_okay=False,
        help="Write bench.json, bench.md and plots there; without it the tables go to standard output.",
        rich_help_panel=OUTPUT,
    ),
]
Compared = Annotated[
    tuple[Path, Path] | None,
    typer.Option(metavar="BEFORE AFTER", help="Measure nothing: compare two bench.json.", rich_help_panel=OUTPUT),
]
Limit = Annotated[
    float | None,
    typer.Option(
        min=0.0,
        metavar="RATIO",
        help="With --compare: exit code 1 if something became slower than this, beyond noise.",
        rich_help_panel=OUTPUT,
    ),
]


@unfolded
def benchmark(
    who: Contestants,
    how: Measurement,
    output: Destination = None,
    compare: Compared = None,
    fail_above: Limit = None,
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


def _measure(who: Contestants, how: Measurement, output: Path | None, report: Reporter) -> None:
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
        photos = readable(how.photos(folder, report), report)
        outcome = hold_all(plan, models, photos, on_stage=report.stage)
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


def _plan(who: Contestants, how: Measurement) -> "SuitePlan":
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
