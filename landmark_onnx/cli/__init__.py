"""The command line: `main` runs it and turns whatever goes wrong for a foreseeable reason into one line and a code.

Exit codes: 0 all answered; 1 something failed, others may be answered; 2 wrong usage; 130 interrupted.
"""

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from landmark_onnx.cli.bench import benchmark
from landmark_onnx.cli.bundle import make_bundle
from landmark_onnx.cli.cls import classify
from landmark_onnx.cli.demo import show
from landmark_onnx.cli.det import detect
from landmark_onnx.cli.doctor import examine_installation
from landmark_onnx.cli.embed import embed_images
from landmark_onnx.cli.evaluate import app as evaluate
from landmark_onnx.cli.export import export_releases
from landmark_onnx.cli.index import app as index
from landmark_onnx.cli.models import app as models
from landmark_onnx.cli.names import listing
from landmark_onnx.cli.quantize import reduce_precision
from landmark_onnx.cli.recognize import recognize_images
from landmark_onnx.cli.report import complain
from landmark_onnx.cli.retrieval import compare
from landmark_onnx.cli.search import find
from landmark_onnx.cli.signals import interruptible
from landmark_onnx.cli.verify import check
from landmark_onnx.errors import LandmarkError

app = typer.Typer(name="landmark-onnx", no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="rich")
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


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; always leaves by SystemExit."""
    interruptible()
    # A damaged image is told of in our words; OpenCV reads this when it is imported.
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    try:
        app(args=arguments, prog_name="landmark-onnx")
    except (LandmarkError, OSError) as error:
        complain(str(error))
        sys.exit(1)


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
) -> None:
    """Baidu's 2019 Google-Landmark models on ONNX Runtime: retrieval, classification and detection without Paddle.

    Export a released Paddle file once, then ask the exported model about images; "demo" shows it all on made-up models.
    Exit codes: 0 all answered, 1 something failed (the rest is answered), 2 wrong usage, 130 interrupted.
    """
