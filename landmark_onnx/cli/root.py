"""All commands under one name, and what goes wrong with them for a foreseeable reason as one line and a code."""

import contextlib
import copy
import gc
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from landmark_onnx.cli.commands.bench import benchmark
from landmark_onnx.cli.commands.bundle import make_bundle
from landmark_onnx.cli.commands.cls import classify
from landmark_onnx.cli.commands.demo import show
from landmark_onnx.cli.commands.det import detect
from landmark_onnx.cli.commands.doctor import examine_installation
from landmark_onnx.cli.commands.embed import embed_images
from landmark_onnx.cli.commands.evaluate import app as evaluate
from landmark_onnx.cli.commands.export import export_releases
from landmark_onnx.cli.commands.index import app as index
from landmark_onnx.cli.commands.models import app as models
from landmark_onnx.cli.commands.quantize import reduce_precision
from landmark_onnx.cli.commands.recognize import recognize_images
from landmark_onnx.cli.commands.retrieval import compare
from landmark_onnx.cli.commands.search import find
from landmark_onnx.cli.commands.verify import check
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
    """The command line; what it says of wrong usage has nothing in it that a terminal might obey."""

    def make_context(self, *arguments: Any, **settings: Any) -> Any:
        with _translated():
            return super().make_context(*arguments, **settings)

    def invoke(self, *arguments: Any, **settings: Any) -> Any:
        gc.enable()
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
app.command("export", cls=listing("retrieval", "cls", "det"))(export_releases)
app.command("verify")(check)
app.command("quantize")(reduce_precision)
app.command("retrieval", cls=listing("retrieval"))(compare)
app.command("cls", cls=listing("cls"))(classify)
app.command("det", cls=listing("det"))(detect)
app.command("embed", cls=listing("retrieval"))(embed_images)
app.command("search", cls=listing("retrieval"))(find)
app.command("demo")(show)
app.command("doctor")(examine_installation)
app.command("bundle")(make_bundle)
app.command("bench")(benchmark)
app.command("recognize", cls=listing("retrieval", "cls", "det"))(recognize_images)
app.add_typer(models)
app.add_typer(index)
app.add_typer(evaluate)


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
        _commands().main(args=arguments, prog_name="landmark-onnx")
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


def _commands() -> TyperGroup:
    """The commands; each takes --verbose, as all of them together do."""
    root = get_command(app)
    assert isinstance(root, TyperGroup)
    verbose = copy.copy(next(option for option in root.params if option.name == "verbose"))
    verbose.expose_value = False
    groups = [root]
    for group in groups:
        for command in group.commands.values():
            command.params.append(verbose)
            if isinstance(command, TyperGroup):
                groups.append(command)
    return root


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
