"""`landmark-onnx doctor`: whether models can run here, and what to do if not."""

import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from landmark_onnx.errors import shown

if TYPE_CHECKING:
    from landmark_onnx.doctor.diagnose import Diagnosis

MARKS = {"ok": "[green]ok[/]", "warning": "[yellow]warning[/]", "error": "[red]error[/]"}


def examine_installation(
    provider: Annotated[
        str,
        typer.Option(
            help="What must run: auto, cpu, cuda, tensorrt, openvino, or ONNX Runtime's own name. auto tries each one "
            "that is compiled in, and wants what --provider auto of the other commands would take.",
        ),
    ] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
    timeout: Annotated[
        float, typer.Option(min=1, metavar="SECONDS", help="For each package to load and each provider to answer.")
    ] = 60.0,
) -> None:
    """Check this installation, try the providers on a tiny model, and say what to do.

    Exit code 1 if models cannot run on the provider asked for; warnings do not change it.
    """
    from landmark_onnx.doctor.diagnose import examine

    diagnosis = examine(provider, timeout=timeout)
    if as_json:
        typer.echo(json.dumps(diagnosis.to_json(), indent=1))
    else:
        _print(diagnosis)
    if not diagnosis.runs:
        raise typer.Exit(1)


def _print(diagnosis: "Diagnosis") -> None:
    """A table of the findings, and the verdict."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    # Where nobody looks, no line is folded.
    console = Console() if sys.stdout.isatty() else Console(width=10_000)
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("level", "name"):
        table.add_column(column, no_wrap=True)
    table.add_column("text", overflow="fold")
    part = ""
    for finding in diagnosis.findings:
        if finding.part != part:
            part = finding.part
            table.add_row("", f"[bold]{part}[/]")
        table.add_row(MARKS[finding.level], finding.name, escape(shown(finding.text)))
        if finding.remedy:
            table.add_row("", "", f"[bold]->[/] {escape(shown(finding.remedy))}")
    console.print(table)
    verdict = f"models run on {diagnosis.provider}" if diagnosis.runs else "models cannot run"
    console.print(f"--provider {shown(diagnosis.asked)}: {verdict}", markup=False, highlight=False, style="bold")
