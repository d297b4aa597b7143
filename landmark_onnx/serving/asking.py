"""From a request to the outcomes of its images: all are asked about together, and each may fail by itself."""

import concurrent.futures
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any, TypeVar

from pydantic import ValidationError
from starlette.requests import Request

from landmark_onnx.errors import AdmissionError
from landmark_onnx.images.crop import crop
from landmark_onnx.images.decode import read_image
from landmark_onnx.inference.pipeline import Pipeline
from landmark_onnx.inference.requests import ImageOutcome
from landmark_onnx.results import Result
from landmark_onnx.serving.answering import LARGE, AnsweredImage, lightly, state_of
from landmark_onnx.serving.indexed import indexed_image
from landmark_onnx.serving.payload import Payload, Upload, check_image, reading
from landmark_onnx.serving.problems import ProblemError, invalid
from landmark_onnx.serving.schema import RequestOptions
from landmark_onnx.serving.service import Service
from landmark_onnx.serving.waiting import answered, withdrawing
from landmark_onnx.types import Image, ImageSource

Chosen = TypeVar("Chosen", bound=RequestOptions)


@contextlib.asynccontextmanager
async def asked(service: Service, request: Request) -> AsyncIterator[Payload]:
    """What a request asks; its body's bytes are held until the end of the block.

    Raises: ProblemError, before the body is read where the queue is full; ClientDisconnect.
    """
    limit = service.limits.queued_images
    if service.scheduler.waiting >= limit:
        note(request, stage="admission")
        wait = service.scheduler.retry_after()
        raise ProblemError("queue-full", f"{limit} images wait, and no more may", limit=limit, retry_after=wait)
    note(request, stage="body")
    async with reading(request, service.limits, service.memory) as payload:
        note(request, images=len(payload.images), stage=None)
        yield payload


def options_of(kind: type[Chosen], payload: Payload) -> Chosen:
    """The options of a request. Raises: ProblemError, invalid, for unknown ones and values that are not allowed."""
    try:
        return kind.model_validate(payload.options)
    except ValidationError as error:
        raise invalid(error, "options") from error


def seconds_of(service: Service, options: RequestOptions) -> float:
    """How long a request may take. Raises: ProblemError if it asks for more than the server gives."""
    most = service.limits.timeout
    if options.timeout is not None and options.timeout > most:
        raise ProblemError("invalid", f"option timeout: at most {most:g} seconds", limit=most, got=options.timeout)
    return options.timeout or most


def client_of(request: Request) -> str:
    """Whose share of the queue a request counts to."""
    return str(state_of(request).get("client", ""))


def note(request: Request, **facts: object) -> None:
    """Have the log say something of a request."""
    state_of(request).setdefault("log", {}).update(facts)


async def ask(
    service: Service, request: Request, payload: Payload, options: RequestOptions, pipelines: Sequence[Pipeline[Any]]
) -> list[AnsweredImage]:
    """Have every image of a request answered by each pipeline, all of them at once; they come in their order.

    An image that cannot be used is no reason to refuse the others. Raises: ProblemError if an option does not fit;
    AdmissionError if the queue has no room for them; DeadlineError; ClientDisconnect.
    """
    if payload.vectors is not None:
        raise ProblemError("invalid", "vectors are searched for, and nothing else: wanted images")
    uploads, timeout = payload.images, seconds_of(service, options)
    size = sum(LARGE + 1 if upload.id is not None else len(upload.data) for upload in uploads)
    sources = await lightly(size, lambda: [_source(service, upload) for upload in uploads])
    whole = {at: source for at, source in enumerate(sources) if not isinstance(source, ProblemError)}
    futures: list[concurrent.futures.Future[ImageOutcome]] = []
    try:
        with withdrawing(service.scheduler, request, futures):
            for at, source in whole.items():
                region, name = _region(uploads[at]), _name(uploads[at])
                futures.append(
                    service.scheduler.submit(
                        source, pipelines, crop=region, name=name, client=client_of(request), timeout=timeout
                    )
                )
            found = dict(zip(whole, await answered(request, futures), strict=True))
    except AdmissionError:
        service.metrics.refused([pipeline.name for pipeline in pipelines], len(whole) - len(futures))
        raise
    note(request, queue_seconds=round(sum(outcome.queue for outcome in found.values()), 6))
    _count(service, pipelines, found.values())
    refused = {at: source for at, source in enumerate(sources) if isinstance(source, ProblemError)}
    return [AnsweredImage(at, upload, found[at] if at in found else refused[at]) for at, upload in enumerate(uploads)]


def _source(service: Service, upload: Upload) -> ImageSource | ProblemError:
    """What is to be read of an image of a request, or why it is refused unread."""
    try:
        if upload.id is not None:
            return indexed_image(service, upload.id, upload.index)
        check_image(upload, service.limits)
    except ProblemError as problem:
        return problem
    return upload.data


def _name(upload: Upload) -> str:
    """What errors call an image."""
    return upload.name or "the image"


def _region(upload: Upload) -> Callable[[Image], Image] | None:
    """What cuts an image to its region; a region has to be an image that could be read by itself."""
    box, name = upload.crop, _name(upload)
    if box is None:
        return None

    def cut(image: Image) -> Image:
        height, width = image.shape[:2]
        across, down = (width, height) if box.relative else (1, 1)
        left, top = box.x * across, box.y * down
        corners = (left, top, left + box.width * across, top + box.height * down)
        return read_image(crop(image, corners, name), name=name)

    return cut


def _count(service: Service, pipelines: Sequence[Pipeline[Any]], outcomes: Iterable[ImageOutcome]) -> None:
    for outcome in outcomes:
        for pipeline, answer in zip(pipelines, outcome.answers, strict=True):
            if isinstance(answer, Result) and answer.time:
                service.metrics.timed(pipeline.name, answer.time)
