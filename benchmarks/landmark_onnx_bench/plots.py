"""A report's plots: latency bars, throughput by batch size, accuracy against speed."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from landmark_onnx.extras import extra
from landmark_onnx.files.atomic import atomic_write
from landmark_onnx_bench.report import TARGETS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Row: TypeAlias = Mapping[str, Any]

Colours: TypeAlias = Mapping[str, str]
"""Contestant -> its colour, the same in every plot."""

Draw: TypeAlias = "Callable[[Axes, Sequence[Row], Colours], None]"

PANEL_INCHES = (5.0, 3.2)
DPI = 130


def check_drawing() -> None:
    """Raises: MissingExtraError without matplotlib."""
    with extra("bench", what="matplotlib, which draws plots,"):
        import matplotlib.figure  # noqa: F401


def write_plots(report: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write the plots that the report has data for, as PNG; returns their paths.

    throughput.png needs two batch sizes of a model, accuracy.png a contestant whose likeness to fp32 is known.
    Raises: MissingExtraError without matplotlib.
    """
    rows = report["rows"]
    batches = {(row["model"], row["batch_size"]) for row in rows}
    several = {model for model, _ in batches if sum(name == model for name, _ in batches) > 1}
    compared = {row["model"] for row in rows if row["likeness"]}
    plans: list[tuple[str, list[Row], Draw]] = [
        ("latency", rows, _latency),
        ("throughput", [row for row in rows if row["model"] in several], _throughput),
        ("accuracy", [row for row in rows if row["model"] in compared and row["target"] == "model"], _accuracy),
    ]
    colours = _colours(rows)
    return [_write(folder / f"{name}.png", shown, draw, colours) for name, shown, draw in plans if shown]


def _colours(rows: Sequence[Row]) -> Colours:
    labels = dict.fromkeys(row["contestant"] for row in rows)
    return {label: f"C{number % 10}" for number, label in enumerate(labels)}


def _write(path: Path, rows: Sequence[Row], draw: Draw, colours: Colours) -> Path:
    """One panel for each model and target."""
    check_drawing()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        panels.setdefault((row["model"], row["target"]), []).append(row)
    columns = len({target for _, target in panels})
    lines = -(-len(panels) // columns)
    figure = Figure(figsize=(PANEL_INCHES[0] * columns, PANEL_INCHES[1] * lines), layout="constrained")
    FigureCanvasAgg(figure)
    for number, ((model, target), members) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(lines, columns, number)
        axes.set_title(f"{model}, {TARGETS[target]}", fontsize=9)
        axes.tick_params(labelsize=7)
        draw(axes, members, colours)
    with atomic_write(path) as file:
        figure.savefig(file, format="png", dpi=DPI)
    return path


def _latency(axes: "Axes", rows: Sequence[Row], colours: Colours) -> None:
    """p50 as a bar, p99 as its whisker, of the smallest batch."""
    smallest = min(row["batch_size"] for row in rows)
    shown = [row for row in rows if row["batch_size"] == smallest]
    labels = [row["contestant"] for row in shown]
    medians = [row["p50_ms"] for row in shown]
    above = [[0.0] * len(shown), [row["p99_ms"] - row["p50_ms"] for row in shown]]
    bars = axes.barh(labels, medians, xerr=above, color=[colours[label] for label in labels], capsize=2)
    axes.bar_label(bars, [f"{median:.3g}" for median in medians], fontsize=7, padding=3, label_type="center")
    axes.invert_yaxis()
    axes.set_xlabel(f"ms for a batch of {smallest}: median, to p99", fontsize=8)


def _throughput(axes: "Axes", rows: Sequence[Row], colours: Colours) -> None:
    """Images per second over the batch size."""
    for label in dict.fromkeys(row["contestant"] for row in rows):
        points = sorted((row["batch_size"], row["images_per_second"]) for row in rows if row["contestant"] == label)
        sizes, rates = zip(*points, strict=True)
        axes.plot(sizes, rates, marker="o", label=label, color=colours[label])
    axes.set_xticks(sorted({row["batch_size"] for row in rows}))
    axes.set_ylim(bottom=0)
    axes.set_xlabel("batch size", fontsize=8)
    axes.set_ylabel("images/s", fontsize=8)
    axes.legend(fontsize=6)


def _accuracy(axes: "Axes", rows: Sequence[Row], colours: Colours) -> None:
    """Likeness to fp32 over images per second, each contestant at its best batch size."""
    best: dict[str, Row] = {}
    for row in sorted(rows, key=lambda row: row["images_per_second"]):
        if row["likeness"] or row["precision"] == "fp32":  # a reduced one that was not compared has no place here
            best[row["contestant"]] = row
    for label, row in best.items():
        likeness = row["likeness"]["value"] if row["likeness"] else 1.0
        axes.scatter(row["images_per_second"], likeness, color=colours[label], label=label)
    measure = next(row["likeness"]["measure"] for row in rows if row["likeness"])
    axes.set_xlabel("images/s", fontsize=8)
    axes.set_ylabel(f"{measure} with fp32", fontsize=8)
    axes.legend(fontsize=6)
