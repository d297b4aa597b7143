"""`--verbose`: the library's log as lines on standard error."""

import contextlib
import logging
from collections.abc import Iterator

import typer

from landmark_onnx.errors import shown


def say_more(wanted: bool) -> None:
    """Show the log until `logged` ends, if that is wanted."""
    if wanted and not any(isinstance(handler, _Lines) for handler in _LOGGER.handlers):
        _LOGGER.addHandler(_Lines())
        _LOGGER.setLevel(logging.DEBUG)


@contextlib.contextmanager
def logged() -> Iterator[None]:
    """What `say_more` begins within this block ends with it."""
    before = _LOGGER.level, list(_LOGGER.handlers)
    try:
        yield
    finally:
        _LOGGER.handlers = before[1]
        _LOGGER.setLevel(before[0])


class _Lines(logging.Handler):
    """Seconds since the start, the module that speaks, and what it says, a traceback included.

    Warnings are left to `landmark_onnx.cli.progress`, which shows them to everybody.
    """

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING:
            return
        begin = f"landmark-onnx: {record.relativeCreated / 1000:.3f} s {record.name.removeprefix('landmark_onnx.')}: "
        for line in self.format(record).split("\n"):
            typer.echo(begin + shown(line), err=True)


_LOGGER = logging.getLogger("landmark_onnx")
