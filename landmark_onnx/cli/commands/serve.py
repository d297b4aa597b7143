"""`landmark-onnx serve`: models, searches and recognition over HTTP, with a page."""

import contextlib
import os
from typing import TYPE_CHECKING, Annotated

import typer

from landmark_onnx.cli.model_names import model_option
from landmark_onnx.cli.options import ExecutionOptions, Quiet, unfolded
from landmark_onnx.cli.progress import Reporter
from landmark_onnx.cli.serve_access import Access, Listening
from landmark_onnx.cli.serve_loader import ServingLoader
from landmark_onnx.cli.serve_options import Bounds, ServedIndexes, ServedReading
from landmark_onnx.cli.serve_service import Served
from landmark_onnx.cli.signals import outlive_hangup
from landmark_onnx.cli.votes import Veto, Voting
from landmark_onnx.extras import extra

if TYPE_CHECKING:
    from fastapi import FastAPI

    from landmark_onnx.serving.guard import AccessRules
    from landmark_onnx.serving.service import Service

EXAMPLE = "landmark-onnx serve --model res152_arcmargin --index places"

Models = Annotated[
    list[str] | None,
    model_option(
        "--model",
        "-m",
        text="A model of any task, by its name in the store or its .onnx file, beside those of indexes and votes. "
        "Repeat for more.",
    ),
]


@unfolded
def serve_models(
    indexes: ServedIndexes,
    engine: ExecutionOptions,
    reading: ServedReading,
    voting: Voting,
    veto: Veto,
    listening: Listening,
    access: Access,
    bounds: Bounds,
    model: Models = None,
    quiet: Quiet = False,
) -> None:
    """Answer over HTTP what models, indexes and recognition answer here, with a page to search by photos.

    Nothing is downloaded or exported. The address is printed when all is ready; after SIGTERM, what was accepted is
    answered first. GET /openapi.json describes the API.
    """
    outlive_hangup()
    # OpenCV reads it when it is imported.
    os.environ["OPENCV_IO_MAX_IMAGE_PIXELS"] = str(reading.max_pixels)
    with extra("serve"):
        from landmark_onnx.serving.app import build_app
    if access.make_key:
        return _print_key(access.make_key)
    served = Served(models=model or [], indexes=indexes, voting=voting, veto=veto)
    if served.is_empty:
        raise typer.BadParameter(f"nothing to serve: name a model or an index, as in {EXAMPLE}")
    rules = access.rules(listening, bounds.limits(reading))
    listening.check_ports()  # before models are loaded
    locked = rules.keys is not None  # by a file that may have no key yet, too
    with Reporter(quiet=quiet) as report:
        service = served.start(ServingLoader(engine, reading, report), rules.limits, key_required=locked)
    with contextlib.closing(service):
        app = build_app(service, page=listening.page, metrics=listening.metrics_port is None)
        raise typer.Exit(_serve(app, service, rules, listening))


def _serve(app: "FastAPI", service: "Service", rules: "AccessRules", listening: Listening) -> int:
    """Answer until a signal ends it. Returns: the exit code."""
    from landmark_onnx.serving.access_log import ServiceLog
    from landmark_onnx.serving.guard import Guard
    from landmark_onnx.serving.server import serve

    if rules.keys is not None:
        service.lifecycle.on_hangup.append(rules.keys.reload)
    guard = Guard(app, rules, service.lifecycle, ServiceLog(listening.log.value), service.metrics)
    with contextlib.ExitStack() as apart:
        if listening.metrics_port is not None:
            apart.enter_context(service.metrics.answering(listening.host, listening.metrics_port))
        return serve(guard, listening.binding())


def _print_key(name: str) -> None:
    """The key for its client, and the line for the server's file."""
    from landmark_onnx.serving.keys import make_key

    key, line = make_key(name)
    typer.echo(key)
    typer.echo(line)
