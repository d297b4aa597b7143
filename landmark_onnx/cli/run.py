"""The one way every command takes from image arguments to written answers, an exit code, and words about failures."""

import contextlib
import sys
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import typer

from landmark_onnx.cli.options import Output, check_destination
from landmark_onnx.cli.output import View, open_sink
from landmark_onnx.cli.progress import Reporter


class Printable(Protocol):
    """What can be written: a result or a failure."""

    def to_json(self) -> dict[str, Any]:
        """JSON-ready data; with a key "error" for a failure."""


@contextlib.contextmanager
def reporting(output: Output, *, bar: bool = False) -> Iterator[Reporter]:
    """What talks on standard error; outermost of a command, it turns a failure that was told into exit code 1.

    bar: show one even where answers appear on the terminal, which mostly are progress enough.
    Raises: OSError if the answers could not be written.
    """
    check_destination(output.output)
    with Reporter(quiet=output.quiet, bar=bar or bool(output.output) or not sys.stdout.isatty()) as report:
        yield report
    if report.failures:
        raise typer.Exit(1)


def emit(
    answers: Iterable[Printable | None], view: View, output: Output, report: Reporter, *, timed: bool = False
) -> None:
    """Write each answer as it comes; a failure is one line on standard error too, and stops nothing.

    answers: None says that the next may be long in coming.
    """
    with open_sink(output, view.timed() if timed else view) as sink:
        for answer in answers:
            if answer is None:
                sink.pause()
                continue
            record = answer.to_json()
            time = getattr(answer, "time", None)
            if timed and time:
                record["time"] = time.to_json()
            if "error" in record:
                subject = record.get("image") or record["model"]
                report.failure(record["error"] if subject in record["error"] else f"{subject}: {record['error']}")
            sink.write(record)
            report.advance()
