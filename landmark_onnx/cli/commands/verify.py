"""`landmark-onnx verify`: whether exported files are whole and answer here as Paddle did."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from landmark_onnx.cli.loader import settle
from landmark_onnx.cli.model_names import complete_model
from landmark_onnx.cli.options import ExecutionOptions, Output, unfolded
from landmark_onnx.cli.output import Column, Record, View
from landmark_onnx.cli.progress import Reporter
from landmark_onnx.cli.run import emit, reporting
from landmark_onnx.errors import LandmarkError

if TYPE_CHECKING:
    from landmark_onnx.verification.verify import Verification


class Refusal:
    """A model that did not pass, and why."""

    def __init__(self, model: str, error: LandmarkError) -> None:
        """model: as it was named on the command line."""
        self._record = {"model": model, "error": str(error)}

    def to_json(self) -> dict[str, Any]:
        """JSON-ready data."""
        return self._record


def _rows(record: Record) -> list[Record]:
    return [{**record, **record["agreement"]}]


VIEW = View(
    (
        Column("model"),
        Column("provider"),
        Column("cosine", ".7f"),
        Column("max_abs", ".1e"),
        Column("matched", ".2%"),
        Column("path"),
    ),
    _rows,
)


@unfolded
def check(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...",
            help="Names of exported models in the store, or paths to .onnx files.",
            autocompletion=complete_model,
            show_default=False,
        ),
    ],
    engine: ExecutionOptions,
    output: Output,
) -> None:
    """Check exported files without Paddle: their bytes, their card, and a stored question with its answer.

    The answer is Paddle's for an exported release, and the file's own first one where it was added or reduced.
    """
    with reporting(output) as report:
        emit(verified(models, engine, report), VIEW, output, report)


def verified(models: list[str], engine: ExecutionOptions, report: Reporter) -> "Iterator[Verification | Refusal]":
    """What came of each model; the store remembers those of its own that passed."""
    from landmark_onnx.store.catalogue import find_model
    from landmark_onnx.store.records import record_verified
    from landmark_onnx.store.status import stored_note
    from landmark_onnx.verification.verify import verify

    for model in models:
        report.stage(model)
        try:
            settled = settle(engine, find_model(model, engine.stored()))
            found = verify(model, settled.request, threads=settled.threads)
        except LandmarkError as error:
            yield Refusal(model, error)
            continue
        record_verified(found.path, found.sha256)
        if note := stored_note(found.path):
            report.note(f"{model}: {note}")
        yield found
