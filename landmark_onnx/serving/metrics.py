"""Numbers for Prometheus, of this process alone; labels come from the configuration and routes, never from requests."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal

from prometheus_client import (
    CONTENT_TYPE_PLAIN_0_0_4,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
    start_http_server,
)

from landmark_onnx.inference.requests import Ending, Place
from landmark_onnx.results import Timing
from landmark_onnx.serving.lifecycle import Lifecycle

MEDIA_TYPE = CONTENT_TYPE_PLAIN_0_0_4
SEARCH = "search"
"""The stage of a scheduler that is no model."""

_METHODS = frozenset({"GET", "HEAD", "POST", "OPTIONS"})
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_BYTES = tuple(float(1 << power) for power in range(10, 27, 2))
_ITEMS = (1, 2, 4, 8, 16, 32, 64, 128, 256)

disable_created_metrics()  # type: ignore[no-untyped-call]


class Metrics:
    """What the service has done. As a scheduler's events it is called from that one's threads."""

    def __init__(self, lifecycle: Lifecycle, models: Iterable[str] = ()) -> None:
        """models: names of those that are served: what their stages of a scheduler tell is kept."""
        self._models = frozenset(models)
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._requests = self._counter("http_requests", "Requests that have ended.", "method", "route", "status")
        self._duration = self._histogram(
            "http_request_duration_seconds", "From a header's end to the answer's.", _SECONDS, "route"
        )
        self._bodies = self._histogram("http_request_body_bytes", "Bytes that were read of requests' bodies.", _BYTES)
        self._gauge("http_connections", "Open connections.").set_function(lambda: lifecycle.connections)
        self._gauge("draining", "1 while the service is about to end.").set_function(lambda: lifecycle.draining)
        self._rejected = self._counter("rejected", "Requests that were answered by a problem.", "reason")
        self._disconnects = self._counter("disconnects", "Images whose client left before the answer.", "stage")
        self._make_images()
        self._make_indexes()

    def _make_images(self) -> None:
        self._images = self._counter(
            "images", "Images that have ended, for each model that they were for.", "model", "outcome"
        )
        self._queued = self._gauge("queue_images", "Images that are accepted and not answered.")
        self._held = self._gauge("queue_bytes", "Bytes of bodies in memory.")
        self._waited = self._histogram("queue_wait_seconds", "From acceptance to decoding.", _SECONDS, "model")
        self._decoding = self._histogram("decode_seconds", "To decode and to resize an image.", _SECONDS)
        self._before = self._histogram("preprocess_seconds", "To prepare an image.", _SECONDS, "model")
        self._inference = self._histogram("inference_seconds", "To run a batch.", _SECONDS, "model")
        self._after = self._histogram(
            "postprocess_seconds", "To make an answer of an image's outputs.", _SECONDS, "model"
        )
        self._batch = self._histogram("batch_images", "Images that ran together.", _ITEMS, "model")
        self._loaded = self._gauge("model_loaded", "1 while the model is in memory.", "model")
        self._loading = self._gauge("model_load_seconds", "The model's last loading.", "model")
        self._build = Info("build", "What answers.", namespace="landmark_onnx", registry=self._registry)

    def _make_indexes(self) -> None:
        self._searches = self._histogram("search_seconds", "To search, waiting included.", _SECONDS, "index", "steps")
        self._queries = self._histogram("search_queries", "Queries that were searched for together.", _ITEMS)
        self._rows = self._gauge("index_rows", "Images in the index.", "index")
        self._generation = self._gauge("index_generation", "The index's state.", "index")
        self._reloads = self._counter("index_reloads", "New states of the index.", "index", "outcome")

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        return Counter(name, meaning, labels, namespace="landmark_onnx", registry=self._registry)

    def _gauge(self, name: str, meaning: str, *labels: str) -> Gauge:
        return Gauge(name, meaning, labels, namespace="landmark_onnx", registry=self._registry)

    def _histogram(self, name: str, meaning: str, buckets: Sequence[float], *labels: str) -> Histogram:
        return Histogram(name, meaning, labels, namespace="landmark_onnx", registry=self._registry, buckets=buckets)

    def render(self) -> bytes:
        """All of it in Prometheus's text format, whose type is `MEDIA_TYPE`."""
        return generate_latest(self._registry)

    @contextlib.contextmanager
    def answering(self, host: str, port: int) -> Iterator[None]:
        """Within this block a port of its own answers with all of it, whoever asks. Raises: OSError if it is taken."""
        server, thread = start_http_server(port, addr=host, registry=self._registry)
        try:
            yield
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    def answered(self, method: str, route: str | None, status: int, seconds: float, body: int) -> None:
        """A request has ended. route: its template; None if no route has it. body: bytes of it that were read."""
        place = route or "none"
        self._requests.labels(method if method in _METHODS else "other", place, str(status)).inc()
        self._duration.labels(place).observe(seconds)
        if body:
            self._bodies.observe(body)

    def rejected(self, problem: str) -> None:
        """A request was answered by a problem of this kind."""
        self._rejected.labels(problem).inc()

    def decoded(self, seconds: float) -> None:
        """An image was decoded and resized, or could not be."""
        self._decoding.observe(seconds)

    def ran(self, stage: str, items: int, seconds: float) -> None:
        """A batch was run."""
        if stage in self._models:
            self._inference.labels(stage).observe(seconds)
            self._batch.labels(stage).observe(items)
        elif stage == SEARCH:
            self._queries.observe(items)

    def ended(
        self,
        stages: Sequence[str],
        outcome: Ending,
        place: Place,
        waited: float,
    ) -> None:
        """An image has ended, at `place`, after it waited so many seconds for its decoding."""
        for model in self._models.intersection(stages):
            self._images.labels(model, outcome).inc()
            self._waited.labels(model).observe(waited)
        if outcome == "cancelled":
            self._disconnects.labels(place).inc()

    def refused(self, models: Iterable[str], images: int) -> None:
        """So many images were not accepted."""
        for model in self._models.intersection(models):
            self._images.labels(model, "refused").inc(images)

    def timed(self, model: str, time: Timing) -> None:
        """A model has answered about an image."""
        if model in self._models:
            self._before.labels(model).observe(time.preprocess)
            self._after.labels(model).observe(time.postprocess)

    def watch_queue(self, images: Callable[[], int], held: Callable[[], int]) -> None:
        """images: how many are accepted and not answered. held: bytes of bodies in memory."""
        self._queued.set_function(images)
        self._held.set_function(held)

    def model_loaded(self, model: str, seconds: float) -> None:
        """A model is in memory, which took so long; from now on what its stage tells is kept."""
        self._models |= {model}
        self._loaded.labels(model).set(1)
        self._loading.labels(model).set(seconds)

    def searched(self, index: str, steps: str, seconds: float) -> None:
        """A search has been answered. steps: names of its steps, without the values that a request may choose."""
        self._searches.labels(index, steps).observe(seconds)

    def index_opened(self, index: str, rows: int, generation: int) -> None:
        """A state of an index is served."""
        self._rows.labels(index).set(rows)
        self._generation.labels(index).set(generation)

    def index_reloaded(self, index: str, outcome: Literal["ok", "refused"]) -> None:
        """A new state of an index was found."""
        self._reloads.labels(index, outcome).inc()

    def build(self, version: str, runtime: str, provider: str) -> None:
        """What answers: this project's version, the runtime's, and where it runs."""
        self._build.info({"version": version, "runtime": runtime, "provider": provider})
