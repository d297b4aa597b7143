"""All commands under one name, and what goes wrong with them for a foreseeable reason as one line and a code."""

import contextlib
import copy
import gc
import logging
import pkgutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command, get_group

from landmark_onnx.cli import commands
from landmark_onnx.cli.commands import COMMANDS
from landmark_onnx.cli.model_names import listing
from landmark_onnx.cli.progress import complain, lines_shown
from landmark_onnx.cli.signals import interrupted
from landmark_onnx.cli.streams import READER_LEFT, drop_output, reader_left
from landmark_onnx.cli.verbose import logged, say_more
from landmark_onnx.errors import LandmarkError

logger = logging.getLogger(__name__)

TOO_MUCH: Mapping[type[Exception], str] = {
    MemoryError: "not enough memory",
    RecursionError: "nested too deeply",
    OverflowError: "a number is too large",
}
"""What no reader of ours can name the culprit of."""


class _ReaderLeftError(Exception):
    """The reader of standard output left: not a broken pipe, an error which typer takes for its own."""


class _Root(TyperGroup):
    """The command line; what it says of wrong usage has nothing in it that a terminal might obey.

    `commands` have names and summaries alone, until one is called.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        for name, entry in COMMANDS.items():
            self.add_command(TyperCommand(name, help=entry.summary))

    def resolve_command(self, *arguments: Any) -> Any:
        name, command, rest = super().resolve_command(*arguments)
        loaded = name and command and self.load(name)
        gc.enable()
        return name, loaded, rest

    def load(self, name: str) -> TyperCommand | TyperGroup:
        """A command, whose module is imported now; it takes --verbose, as all of them together do."""
        entry = COMMANDS[name]
        own = typer.Typer(add_completion=False, rich_markup_mode=self.rich_markup_mode)
        found = pkgutil.resolve_name(f"{commands.__name__}.{entry.home}")
        if isinstance(found, typer.Typer):
            own.add_typer(found, name=name, help=entry.summary, no_args_is_help=True)
        else:
            own.command(name, cls=listing(*entry.tasks) if entry.tasks else None)(found)
        command: Any = get_group(own).commands[name]
        verbose = copy.copy(next(option for option in self.params if option.name == "verbose"))
        verbose.expose_value = False
        for each in (command, *getattr(command, "commands", {}).values()):
            each.params.append(verbose)
        return command  # type: ignore[no-any-return]

    def make_context(self, *arguments: Any, **settings: Any) -> Any:
        with _translated():
            return super().make_context(*arguments, **settings)

    def invoke(self, *arguments: Any, **settings: Any) -> Any:
        with _translated():
            return super().invoke(*arguments, **settings)


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError as error:
        if reader_left():
            raise _ReaderLeftError from error
        raise
    except Exception as error:
        # Typer has no public name for the base class of its usage errors.
        if hasattr(error, "format_message") and isinstance(getattr(error, "message", None), str):
            error.message = lines_shown(error.message)  # type: ignore[attr-defined]
        raise


app = typer.Typer(
    name="landmark-onnx", cls=_Root, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="rich"
)


def run(arguments: Sequence[str] | None) -> int:
    """The exit code of a command line, what went wrong told on standard error. Raises: KeyboardInterrupt."""
    with logged():
        try:
            code = _called(arguments)
            sys.stdout.flush()
        except (_ReaderLeftError, BrokenPipeError):
            drop_output()
            return READER_LEFT
        except Exception as error:
            if interrupted():
                raise  # it is the interrupt, in the words of whatever was cut off
            logger.debug("this error comes from here:", exc_info=(type(error), error, _own_part(error.__traceback__)))
            complain(_told(error))
            code = 1
    return code


def _own_part(trace: TracebackType | None) -> TracebackType | None:
    """What is below typer in a traceback."""
    own = trace
    while trace is not None:
        if trace.tb_frame.f_globals.get("__name__", "").partition(".")[0] == "typer":
            own = trace.tb_next
        trace = trace.tb_next
    return own


def _called(arguments: Sequence[str] | None) -> int:
    try:
        get_command(app).main(args=arguments, prog_name="landmark-onnx")
    except SystemExit as left:
        return left.code if isinstance(left.code, int) else int(left.code is not None)
    return 0


def _told(error: Exception) -> str:
    """One line for an error, whether it was foreseen or not."""
    if isinstance(error, OSError) and not isinstance(error, LandmarkError) and error.filename is None:
        try:
            sys.stdout.flush()
        except OSError:
            drop_output()
            return f"standard output: {error}"
    if isinstance(error, LandmarkError | OSError):
        return str(error)
    for kind, reason in TOO_MUCH.items():
        if isinstance(error, kind):
            return f"{reason}: {error}" if str(error) else reason
    told = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return f"{told}. This is a fault of landmark-onnx: run the same with --verbose, and report what it says"


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"landmark-onnx {version('landmark-onnx')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and leave.")
    ] = False,
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose",
            "-v",
            callback=say_more,
            is_eager=True,
            help="Say on standard error what is decided on the way: files, providers, caches, retries.",
        ),
    ] = False,
) -> None:
    """Baidu's 2019 Google-Landmark models on ONNX Runtime: retrieval, classification and detection without Paddle.

    Export a released Paddle file once, then ask the exported model about images; "demo" shows it all on made-up models.
    Exit codes: 0 all answered, 1 something failed (the rest is answered), 2 wrong usage, 130 interrupted, 141 the
    reader of standard output left. --verbose may stand before the command or after it.
    """
