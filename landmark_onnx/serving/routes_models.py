"""What models answer to images: embed, classify, detect, compare."""

import base64
import dataclasses

from fastapi import APIRouter, Request, Response

from landmark_onnx.model import similarity
from landmark_onnx.results import Classification, Detections, Embedding
from landmark_onnx.serving.answering import AnsweredImage, JsonObject, Tell, respond
from landmark_onnx.serving.asking import ask, asked, note, options_of
from landmark_onnx.serving.models import HostedModel
from landmark_onnx.serving.openapi import documented
from landmark_onnx.serving.problems import ProblemError
from landmark_onnx.serving.schema import (
    ClassifyAnswer,
    ClassifyOptions,
    CompareAnswer,
    CompareOptions,
    DetectAnswer,
    DetectOptions,
    EmbedAnswer,
    EmbedOptions,
)
from landmark_onnx.serving.service import Service
from landmark_onnx.tasks import Task


def router(service: Service) -> APIRouter:
    """The routes of the models that are served."""
    routes = APIRouter(prefix="/v1", tags=["models"])

    @routes.post("/embed", **documented("Images to embeddings", EmbedOptions, EmbedAnswer))
    async def embed(request: Request) -> Response:
        async with asked(service, request) as payload:
            options = options_of(EmbedOptions, payload)
            hosted = _chosen(service, request, "retrieval", options.model)
            images = await ask(service, request, payload, options, [hosted.pipeline])
            as_text = options.encoding == "base64"
            return await respond(request, images, _head(hosted), lambda image: embedding(image, as_text=as_text))

    @routes.post("/classify", **documented("The most probable classes of images", ClassifyOptions, ClassifyAnswer))
    async def classify(request: Request) -> Response:
        async with asked(service, request) as payload:
            options = options_of(ClassifyOptions, payload)
            hosted = _chosen(service, request, "cls", options.model)
            images = await ask(service, request, payload, options, [hosted.pipeline])
            return await respond(request, images, _head(hosted), lambda image: labels(image, options.top))

    @routes.post("/detect", **documented("Boxes of things in images", DetectOptions, DetectAnswer))
    async def detect(request: Request) -> Response:
        async with asked(service, request) as payload:
            options = options_of(DetectOptions, payload)
            hosted = _chosen(service, request, "det", options.model)
            images = await ask(service, request, payload, options, [hosted.pipeline])
            return await respond(request, images, _head(hosted), lambda image: boxes(image, options.min_score))

    @routes.post("/compare", **documented("The first image against each other one", CompareOptions, CompareAnswer))
    async def compare(request: Request) -> Response:
        async with asked(service, request) as payload:
            options = options_of(CompareOptions, payload)
            hosted = _chosen(service, request, "retrieval", options.model)
            if len(payload.images) < 2:
                raise ProblemError("invalid", "wanted two images or more: the first is compared with the others")
            images = await ask(service, request, payload, options, [hosted.pipeline])
            return await respond(request, images[1:], _head(hosted), cosine_to(images[0]))

    return routes


def embedding(image: AnsweredImage, *, as_text: bool) -> JsonObject:
    """The vector of an image. Raises: ProblemError, the image's own."""
    found: Embedding = image.only()
    if not as_text:
        return found.to_json()
    return {"embedding": base64.b64encode(found.vector.astype("<f4").tobytes()).decode(), "encoding": "base64"}


def labels(image: AnsweredImage, top: int) -> JsonObject:
    """The `top` best classes of an image. Raises: ProblemError, the image's own."""
    return cut(image.only(), top).to_json()


def cut(found: Classification, top: int) -> Classification:
    """The `top` best classes of more."""
    return dataclasses.replace(found, indices=found.indices[:top], scores=found.scores[:top], names=found.names[:top])


def boxes(image: AnsweredImage, min_score: float) -> JsonObject:
    """The boxes of an image that have a score. Raises: ProblemError, the image's own."""
    found: Detections = image.only()
    told = found.to_json()
    return told | {"detections": [box for box in told["detections"] if box["score"] >= min_score]}


def cosine_to(first: AnsweredImage) -> Tell:
    """What tells of an image how alike it is to the first one. Raises: ProblemError, the first image's own."""
    query: Embedding = first.only()

    def tell(image: AnsweredImage) -> JsonObject:
        return similarity(query, image.only()).to_json() | {"query": first.upload.name}

    return tell


def _chosen(service: Service, request: Request, task: Task, name: str | None) -> HostedModel:
    """The model that is asked, which the log hears of. Raises: ProblemError."""
    hosted = service.models.choose(task, name)
    note(request, model=hosted.name)
    return hosted


def _head(hosted: HostedModel) -> JsonObject:
    return {"model": hosted.facts()}
