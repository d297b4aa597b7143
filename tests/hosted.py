"""A service of tiny models, and requests to its application without a server."""

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np

import fakes
from landmark_onnx.embedding.feature_folder import Batch
from landmark_onnx.embedding.identity import identify
from landmark_onnx.inference.scheduler import Scheduler
from landmark_onnx.model import Classifier, Model, Retriever
from landmark_onnx.recognition.recognizer import FramingDetector
from landmark_onnx.search import writer
from landmark_onnx.search.ensemble import Ensemble, Member
from landmark_onnx.serving.app import build_app
from landmark_onnx.serving.body import BodyMemory
from landmark_onnx.serving.lifecycle import Lifecycle
from landmark_onnx.serving.live_index import LiveIndex
from landmark_onnx.serving.metrics import Metrics
from landmark_onnx.serving.models import HostedModels
from landmark_onnx.serving.service import Service
from landmark_onnx.serving.settings import Limits

JPEG, PNG = {"Content-Type": "image/jpeg"}, {"Content-Type": "image/png"}
LABELS = {0: "arch", 2: "dome"}
DEFAULTS = Limits()


def models_in(folder) -> list[Model[Any]]:
    """A retriever, a classifier of 7 classes and a detector, one image at a time."""
    options = {"provider": "cpu", "threads": 1, "batch_size": 1}
    return [
        Retriever(fakes.make_retrieval(folder / "retrieval.onnx"), **options),
        Classifier(fakes.make_cls(folder / "cls.onnx", labels=LABELS), top=1000, **options),
        FramingDetector(fakes.make_det(folder / "det.onnx", labels={1: "Person"}), **options),
    ]


@contextlib.contextmanager
def service_of(models, *, limits: Limits = DEFAULTS, events=None, **more) -> Iterator[Service]:
    """A service that is ready. more: its other fields."""
    lifecycle = Lifecycle()
    lifecycle.ready = True
    with Scheduler(events=events) as scheduler:
        fields = {"scheduler": scheduler, "searches": scheduler, "metrics": Metrics(lifecycle)} | more
        memory = BodyMemory(limits.body_memory)
        yield Service(models=HostedModels.of(models), limits=limits, lifecycle=lifecycle, memory=memory, **fields)


@contextlib.contextmanager
def counted_service_of(models, **more) -> Iterator[Service]:
    """The same, whose metrics hear of what its scheduler does."""
    metrics = Metrics(Lifecycle(), [model.card.name for model in models])
    with service_of(models, events=metrics, metrics=metrics, **more) as service:
        yield service


def index_of(folder, retriever: Retriever, photos: Sequence[np.ndarray]) -> LiveIndex:
    """An index of photos, which are in files beside it, by the ids 0, 1 .."""
    ids = [str(number) for number in range(len(photos))]
    sources = [str(folder.parent / f"{name}.png") for name in ids]
    for source, image in zip(sources, photos, strict=True):
        Path(source).write_bytes(png(image))
    vectors = {retriever.card.name: np.stack([retriever(image).vector for image in photos])}
    writer.build(folder, Ensemble((Member(identify(retriever)),)), [Batch(ids, sources, vectors)])
    return LiveIndex(folder.name, folder)


class Client:
    """Asks an application, each request on a loop of its own."""

    def __init__(self, service: Service, *, page: bool = False) -> None:
        self.app = build_app(service, page=page)

    def __call__(self, method: str, path: str, **request: Any) -> httpx.Response:
        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(app=self.app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
                return await client.request(method, path, **request)

        return asyncio.run(ask())

    def get(self, path: str, **request: Any) -> httpx.Response:
        return self("GET", path, **request)

    def post(self, path: str, **request: Any) -> httpx.Response:
        return self("POST", path, **request)


def png(image: np.ndarray) -> bytes:
    """A file that keeps the image to the bit."""
    return cv2.imencode(".png", image)[1].tobytes()
