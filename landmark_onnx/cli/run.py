"""The one way every command takes from image arguments to written answers, an exit code, and words about failures."""

import contextlib
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import typer

from landmark_onnx.cli.options import ExecutionOptions, Images, ModelSource, Output, check_destination
from landmark_onnx.cli.output import View, open_sink
from landmark_onnx.cli.progress import Reporter

if TYPE_CHECKING:
    from landmark_onnx.hub.fetching import PullProgress
    from landmark_onnx.model import Model

    M = TypeVar("M", bound=Model[Any])


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


def load(
    kind: "type[M]",
    name: str,
    engine: ExecutionOptions,
    batch: Images,
    report: Reporter,
    supply: ModelSource | None = None,
) -> "M":
    """The model `name` as a `kind`, pulled first if need be, and a note on the provider that "auto" took."""
    from landmark_onnx.hub.pull import ensure

    supply = supply or ModelSource()
    card = supply.read_card()
    with report.lengthy(f"{name} is not in the store yet: pulling it"):
        path = ensure(name, engine.precision.value, offline=supply.offline, progress=watching(name, report))
    model = kind(
        path,
        provider=engine.request(),
        threads=engine.threads,
        batch_size=batch.batch_size,
        max_pixels=batch.max_pixels,
        damaged=batch.damaged.value,
        card=card,
    )
    report.took(model.session, engine.provider)
    if model.session.note:
        report.note(f"{model.session.path.name}: {model.session.note}")
    return model


def watching(name: str, report: Reporter) -> "PullProgress":
    """What `pull` tells of a model, for the progress bar."""
    from landmark_onnx.hub.fetching import PullProgress

    return PullProgress(
        on_stage=lambda text: report.stage(f"{name}: {text}"),
        on_done=lambda done, total: report.received(f"{name}: download", done, total),
    )


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
