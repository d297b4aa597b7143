"""A benchmark's report: one JSON document, and the same as Markdown for people."""

import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from landmark_onnx.errors import LandmarkError
from landmark_onnx.files.atomic import atomic_write
from landmark_onnx.files.documents import read_json
from landmark_onnx_bench.environment import load_average

SCHEMA = 1
"""Of the JSON document; a reader refuses any other."""

KEY = ("model", "contestant", "target", "scenario", "batch_size", "input")
"""What makes two rows of two reports the same measurement."""

TARGETS = {"model": "model only", "file": "file to answer"}

COLUMNS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "contestant": lambda row: row["contestant"],
    "runs on": lambda row: row["providers"][0],
    "p50 ms": lambda row: f"{row['p50_ms']:.4g}",
    "p90 ms": lambda row: f"{row['p90_ms']:.4g}",
    "p99 ms": lambda row: f"{row['p99_ms']:.4g}",
    "images/s": lambda row: f"{row['images_per_second']:.4g}",
    "ratio": lambda row: ratio_text(row["ratio"]),
    "windows": lambda row: f"{len(row['windows'])}" + ("" if row["stable"] else ", not stable"),
    "load s": lambda row: f"{row['session_seconds']:.3g}",
    "first run s": lambda row: f"{row['first_run_seconds']:.3g}",
    "peak MB": lambda row: f"{row['peak_bytes'] / 1e6:.0f}" if row["peak_bytes"] else "",
    "like fp32": lambda row: likeness_text(row["likeness"]),
}


def document(
    command: Sequence[str],
    begun: str,
    machine: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    dropouts: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """The whole report. begun: ISO 8601. rows: `Standing.to_json()`. dropouts: `Dropout.to_json()`."""
    return {
        "schema": SCHEMA,
        "command": list(command),
        "begun": begun,
        "machine": dict(machine),
        "rows": list(rows),
        "dropouts": list(dropouts),
    }


def write_report(report: Mapping[str, Any], folder: Path) -> None:
    """`bench.json` and `bench.md` in `folder`."""
    write_both(folder / "bench", report, markdown(report))


def write_both(path: Path, data: Mapping[str, Any], text: str) -> None:
    """The numbers in PATH.json, the same for people in PATH.md; folders that are missing are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for suffix, content in ((".json", json.dumps(data, indent=1) + "\n"), (".md", text)):
        with atomic_write(path.with_suffix(suffix)) as file:
            file.write(content.encode())


def ran_on(machine: Mapping[str, Any]) -> str:
    """CPU, cores and versions of what `environment.machine` says, in one line."""
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return f"{machine['cpu']}, {machine['usable_cores']} cores; Python {machine['python']}, {versions}"


def table_page(
    title: str, command: str, machine: Mapping[str, Any], columns: Sequence[str], rows: Sequence[Sequence[str]]
) -> str:
    """A page of one table, below what made it and on what."""
    lines = [f"# {title}", "", f"    {command}", "", f"{ran_on(machine)}; load of the machine {load_average()}", ""]
    return "\n".join([*lines, *markdown_table(columns, rows), ""])


def read_report(path: Path) -> dict[str, Any]:
    """A report's JSON document. Raises: LandmarkError naming the file if it is none."""
    try:
        report = read_json(path)
        if report["schema"] != SCHEMA:
            raise LandmarkError(f"{path}: a report of schema {report['schema']}, wanted {SCHEMA}")
        for row in report["rows"]:
            tuple(row[name] for name in (*KEY, "cost_ms", "windows"))
    except OSError as error:
        raise LandmarkError(f"{path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise LandmarkError(f"{path}: no report of landmark-onnx bench: {error!r}") from error
    return dict(report)


def markdown(report: Mapping[str, Any]) -> str:
    """The report for people: what it ran on, then a table for each model, target and batch size."""
    machine = report["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    lines = [
        "# Benchmark",
        "",
        f"    {' '.join(report['command'])}",
        "",
        f"- {report['begun']}; {machine['cpu']}, {machine['usable_cores']} of {machine['cores']} cores usable",
        f"- {', '.join(machine['flags'])}",
        f"- {machine['system']}, Python {machine['python']}, {versions}",
        "- Ratios are costs (median latency of an image) by those of the first contestant, the median of the rounds "
        "with their range: below 1 is faster.",
        "",
    ]
    for (model, target, batch), rows in _tables(report["rows"]):
        first = rows[0]
        shape = "x".join(map(str, first["input"]))
        title = f"{model}, {TARGETS[target]}, batch {batch}"
        load = f" at {first['target_qps']} queries/s" if first["target_qps"] else ""
        about = f"{first['scenario']}{load} ({first['harness']}), input {shape}, {first['threads']} threads."
        lines += [f"## {title}", "", about, "", *table(rows), ""]
    if report["dropouts"]:
        lines += ["## Not finished", ""]
        lines += [f"- {each['model']}, batch {each['batch_size']}: {each['error']}" for each in report["dropouts"]]
        lines.append("")
    return "\n".join(lines)


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Rows of one model, target and batch size as a Markdown table, without the columns that are empty in each."""
    cells = {name: [text(row) for row in rows] for name, text in COLUMNS.items()}
    shown = {name: texts for name, texts in cells.items() if any(texts)}
    return markdown_table(list(shown), list(zip(*shown.values(), strict=True)))


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table."""
    return [f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *rows)]


def ratio_text(ratio: Mapping[str, float] | None) -> str:
    """Median and range of a ratio."""
    return f"{ratio['median']:.3f} ({ratio['low']:.3f} to {ratio['high']:.3f})" if ratio else ""


def likeness_text(likeness: Mapping[str, Any] | None) -> str:
    """Measure and value."""
    return f"{likeness['measure']} {likeness['value']:.5f}" if likeness else ""


def _tables(
    rows: Sequence[Mapping[str, Any]],
) -> Iterator[tuple[tuple[str, str, int], list[Mapping[str, Any]]]]:
    """Rows that stand in one table, which follow each other in a report."""
    for key, members in itertools.groupby(rows, lambda row: (row["model"], row["target"], row["batch_size"])):
        yield key, list(members)
