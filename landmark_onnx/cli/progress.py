"""What the command line says on standard error: errors, notes, and a progress bar where a person is watching."""

import contextlib
import logging
import sys
import time
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import typer

from landmark_onnx.errors import shown

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from landmark_onnx.runtime.session import Session

REMINDER = 30.0

_LOGGER = logging.getLogger("landmark_onnx")


def lines_shown(text: str) -> str:
    """A text of several lines, each as `shown` has it."""
    return "\n".join(map(shown, text.split("\n")))


def complain(text: str) -> None:
    """One error line."""
    typer.echo(f"landmark-onnx: error: {shown(text)}", err=True)


class Reporter:
    """Notes and progress while a command works; use it as a context manager. failures: how many were reported."""

    def __init__(self, *, quiet: bool, bar: bool = True) -> None:
        """quiet: errors alone. bar: show progress, unless quiet or standard error is no terminal."""
        self.failures = 0
        self._done = 0
        self._quiet = quiet
        self._bar = _make_bar() if bar and not quiet and _has_bars() else None
        self._download: TaskID | None = None
        self._announcement = ""
        self._late = False
        self._reminded = time.monotonic()
        self._warnings = _Warnings(self)

    def __enter__(self) -> Self:
        _LOGGER.addHandler(self._warnings)
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        _LOGGER.removeHandler(self._warnings)
        if self._bar:
            self._bar.stop()

    def note(self, text: str) -> None:
        """A line for information."""
        if not self._quiet:
            self._above_bar(f"landmark-onnx: {shown(text)}")

    def warning(self, text: str) -> None:
        """A line for something that was done, but not as one would think; quiet or not."""
        self._above_bar(f"landmark-onnx: warning: {shown(text)}")

    def failure(self, text: str) -> None:
        """A line for one of many that failed; quiet or not."""
        self.failures += 1
        self._above_bar(f"landmark-onnx: error: {shown(text)}")

    def took(self, session: "Session", asked: str) -> None:
        """Say what "auto" chose, and why it is not the better one."""
        if asked.lower() != "auto":
            return
        text = f"--provider auto took {session.provider}"
        if session.lost:
            from landmark_onnx.runtime.providers import install_hint

            text += f", because {session.lost} does not start here; {install_hint(session.lost)}"
        self.note(text)

    def result(self, text: str = "") -> None:
        """A line on standard output, quiet or not."""
        if self._bar:
            # Both may be the same terminal, where the bar would stay in the middle of the line.
            self._bar.stop()
        typer.echo(shown(text))
        if self._bar:
            self._bar.start()

    def stage(self, text: str) -> None:
        """What is being done now."""
        if self._announcement:
            self.note(self._announcement)
            self._announcement = ""
            if self._late:
                self._bar = _make_bar()
                self._bar.start()
        if self._bar:
            if self._download is not None:
                self._bar.remove_task(self._download)
                self._download = None
            self._bar.update(self._bar.task_ids[0], description=shown(text))

    @contextlib.contextmanager
    def lengthy(self, announcement: str) -> Iterator[None]:
        """If this block tells of a stage, it takes long: say so, and show a bar even where there would be none."""
        self._announcement = announcement
        self._late = self._bar is None and not self._quiet and _has_bars()
        try:
            yield
        finally:
            self._announcement = ""
            if self._late and self._bar:
                self._bar.stop()
                self._bar = self._download = None

    def received(self, text: str, done: int, total: int | None) -> None:
        """How far a download is, in bytes: a bar of its own, until there is another stage."""
        if not self._bar:
            return
        if self._download is None:
            self._download = self._bar.add_task("")
        size = f"{done / 1e6:.1f} MB" if total is None else f"{done / 1e6:.1f} of {total / 1e6:.1f} MB"
        self._bar.update(self._download, description=shown(f"{text} {size}"), completed=done, total=total)

    def progress(self, text: str, done: int, total: int | None = None) -> None:
        """How far the whole is: a bar with a known end; without a terminal, a line every REMINDER seconds."""
        if self._bar:
            self._bar.update(self._bar.task_ids[0], description=shown(text), completed=done, total=total)
        elif time.monotonic() - self._reminded >= REMINDER:
            self._reminded = time.monotonic()
            self.note(text)

    def advance(self) -> None:
        """One more is done."""
        self._done += 1
        self.stage(f"{self._done} done")

    def _above_bar(self, line: str) -> None:
        if self._bar:
            self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            typer.echo(line, err=True)


def _has_bars() -> bool:
    """Whether a bar may be where notes are: lines of a log would tear it."""
    return sys.stderr.isatty() and not _LOGGER.isEnabledFor(logging.DEBUG)


class _Warnings(logging.Handler):
    """Warnings of the library, of images that are damaged and taken all the same, as lines of ours."""

    def __init__(self, report: Reporter) -> None:
        super().__init__(logging.WARNING)
        self._report = report
        self._told: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if text not in self._told:  # each of several models reads an image for itself
            self._told.add(text)
            self._report.warning(text)


def _make_bar() -> "Progress":
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    class KnownBarColumn(BarColumn):
        """A bar for what has a known end; nothing for the rest."""

        def render(self, task: Any) -> Any:
            return super().render(task) if task.total is not None else ""

    # Asked again, it might not look like a terminal: what decoders write there is taken for moments.
    console = Console(stderr=True, force_terminal=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), KnownBarColumn(), TimeElapsedColumn())
    bar = Progress(*columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False)
    bar.add_task("", total=None)
    return bar
