"""The three models a user holds: Retriever, Classifier, Detector."""

import asyncio
import dataclasses
import logging
import os
import sys
import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Generic, TypedDict, TypeVar, Unpack, cast, overload

from landmark_onnx.cards.schema import ModelCard
from landmark_onnx.errors import ModelFileError, SessionError
from landmark_onnx.hub.pull import ensure
from landmark_onnx.images.decode import Damaged, ReadOptions, is_many
from landmark_onnx.images.limits import MAX_PIXELS
from landmark_onnx.images.pixels import Colour
from landmark_onnx.inference.admission import QueueLimits
from landmark_onnx.inference.batching import BATCH_SIZE
from landmark_onnx.inference.decoders import to_detections
from landmark_onnx.inference.pipeline import Known, Pipeline
from landmark_onnx.inference.postprocess import cosine, to_classification, to_embedding
from landmark_onnx.inference.scheduler import Scheduler
from landmark_onnx.modelfile.metadata import decode_metadata
from landmark_onnx.precision import Chosen, Precision
from landmark_onnx.results import Classification, Detections, Embedding, Failure, Result, Similarity
from landmark_onnx.runtime.providers import ProviderRequest
from landmark_onnx.runtime.session import Session
from landmark_onnx.runtime.tuned import read_choice
from landmark_onnx.store.status import stored_note
from landmark_onnx.tasks import Task
from landmark_onnx.types import ImageSource, Tensors

logger = logging.getLogger(__name__)

R = TypeVar("R", bound=Result)

TOP = 5
"""Classes that an answer has, unless another number is given."""

_STARTING = threading.Lock()
"""Held while a model's scheduler is made, of which it has one."""


class ModelOptions(TypedDict, total=False):
    """The options of every model, as `Model` explains them."""

    provider: ProviderRequest | str
    precision: Precision | Chosen | None
    threads: int
    batch_size: int | None
    max_pixels: int
    damaged: Damaged
    colour: Colour
    offline: bool
    card: ModelCard | None


class Model(ABC, Generic[R]):
    """A loaded model: call it with one image or many, `stream` any number through it, or await its `answer`s.

    An image is a path, its encoded bytes, an open binary file, a PIL image, or a uint8 array: (H, W, 3) in the order
    of `colour`, (H, W, 4) with alpha, which is dropped, or grey.

    provider: "auto", "cpu", "cuda", "tensorrt", "openvino", ONNX Runtime's own name, or a request with options.
    precision: "fp32", "fp16", "bf16" or "int8"; by default the request's, which is fp32. fp16 and int8 run a file
    beside the model's, which `landmark-onnx quantize` writes; bf16 takes OpenVINO or TensorRT. "auto" is what
    `landmark-onnx tune` chose on this machine: precision, provider, and threads and batch size unless they are given.
    batch_size: images of one shape that run together, `BATCH_SIZE` by default.
    damaged: "refuse", or "accept" for what is left of images that are cut or overwritten, each logged as a warning.
    colour: the channels of arrays, "bgr" as OpenCV has them, or "rgb"; files and PIL images know their own.
    card: facts to use in place of those inside the file; for a file that has none.

    Attributes: session: what runs it. pipeline: from an image to its answer. names: class index -> name, where the file
    has a map. note: where the card beside the file says other things than the one inside, which counts.
    """

    task: ClassVar[Task]
    _scheduler: Scheduler | None = None

    def __init__(
        self,
        model: str | os.PathLike[str],
        *,
        provider: ProviderRequest | str = "auto",
        precision: Precision | Chosen | None = None,
        threads: int = 0,
        batch_size: int | None = None,
        max_pixels: int = MAX_PIXELS,
        damaged: Damaged = "refuse",
        colour: Colour = "bgr",
        offline: bool = False,
        card: ModelCard | None = None,
    ) -> None:
        """Load a model by name (from the store) or path.

        A known name that is not in the store yet is downloaded and exported first, which takes minutes and the extra
        "export", unless `offline` or LANDMARK_ONNX_OFFLINE=1. `landmark_onnx.hub.pull.pull` tells how far it is.
        Raises: UnknownModelError, ModelFileError, DownloadError, ExportError, SessionError, MissingExtraError.
        """
        path, request, own_threads, own_batch_size = _settled(model, provider, precision, offline)
        threads, batch_size = threads or own_threads, batch_size or own_batch_size
        self.session = Session(path, request, threads=threads, card=card, batch_size=batch_size)
        metadata = decode_metadata(self.session.metadata, str(self.session.path))
        facts = card or self._own_card(metadata)
        self._check_task(facts)
        self.session.bind(facts)
        self.note = stored_note(self.session.path) if card is None else None
        if self.note:
            logger.warning("%s: %s", self.session.path, self.note)
        self.colour = colour
        self.names: Mapping[int, str] = {int(index): name for index, name in metadata.get("labels", {}).items()}
        self.pipeline = Pipeline(
            session=self.session,
            card=facts,
            answer=self._answer,
            batch_size=self.session.largest_batch(batch_size),
            reading=ReadOptions(max_pixels=max_pixels, damaged=damaged, colour=colour),
            as_uint8=self.session.input_kind == "uint8",
        )

    @property
    def card(self) -> ModelCard:
        """The model's facts."""
        return self.pipeline.card

    @property
    def precision(self) -> Precision:
        """What runs: fp32, fp16, bf16 or int8."""
        return self.session.precision

    @overload
    def __call__(self, images: ImageSource) -> R: ...  # type: ignore[overload-overlap]  # str and bytes come first
    @overload
    def __call__(self, images: Iterable[ImageSource]) -> list[R | Failure]: ...
    def __call__(self, images: ImageSource | Iterable[ImageSource]) -> R | list[R | Failure]:
        """One image -> its result; many -> a list in their order, with a `Failure` where an image has no answer.

        Raises: ImageError for one image that cannot be read, SessionError for one that cannot be run.
        """
        if is_many(images):
            return list(self.stream(images))
        result = self.pipeline.run_one(cast("ImageSource", images))
        if isinstance(result, Failure):
            raise result.kind(result.error)
        return result

    def stream(
        self, images: Iterable[ImageSource], *, steady: bool = False, known: Known | None = None
    ) -> Iterator[R | Failure]:
        """Answer each image in order as it comes; memory does not grow with their number. One image is taken as such.

        steady: make batches of the images alone, whatever the time each takes: the same images give the same bits.
        known: which positions need no answer; with `steady`, the others get the same bits as if all were answered.
        """
        sources = images if is_many(images) else [cast("ImageSource", images)]
        return self.pipeline.run(sources, steady=steady, known=known)

    async def answer(self, image: ImageSource) -> R:
        """Answer one image of many that come at any time, from whatever tasks: those that wait share batches.

        The model's own scheduler decodes and runs them in threads; to cancel the task drops its image.
        Raises: as a call with the image does.
        """
        outcome = await asyncio.wrap_future(self._schedule().submit(image, [self.pipeline]))
        result = cast("R | Failure", outcome.answers[0])
        if isinstance(result, Failure):
            raise result.kind(result.error)
        return result

    def paced(self, images: Iterable[ImageSource]) -> Generator[R | Failure | None]:
        """As `stream`, with None where all that came is answered and `images` is silent."""
        return self.pipeline.paced(images)

    def _schedule(self) -> Scheduler:
        """The scheduler of `answer`, which ends with the model."""
        with _STARTING:
            if self._scheduler is None:
                # Whoever awaits holds the image, so there is nothing to bound.
                self._scheduler = Scheduler(limits=QueueLimits(images=sys.maxsize, client_share=1))
                # At the end of the program it closes itself.
                weakref.finalize(self, self._scheduler.close, 0).atexit = False
            return self._scheduler

    def _own_card(self, metadata: Mapping[str, Any]) -> ModelCard:
        """The card inside the file. Raises: ModelFileError, CardError."""
        if "card" not in metadata:
            raise ModelFileError(f"{self.session.path}: no model card inside: not exported by landmark-onnx")
        return ModelCard.from_dict(metadata["card"], f"{self.session.path}: card")

    def _check_task(self, card: ModelCard) -> None:
        if card.task != self.task:
            raise ModelFileError(f"{self.session.path}: its task is {card.task}, wanted {self.task}")

    @abstractmethod
    def _answer(self, feeds: Tensors, outputs: Tensors) -> R:
        """The task's postprocessing of one image."""


class Retriever(Model[Embedding]):
    """Image -> embedding, and how alike two images are."""

    task: ClassVar[Task] = "retrieval"

    def compare(self, query: ImageSource, others: Iterable[ImageSource]) -> Iterator[Similarity | Failure]:
        """Cosine of `query` with each other image, in their order, clamped to 0..1 as the original prints it.

        Raises: ImageError if `query` cannot be read.
        """
        first = self(query)
        for result in self.stream(others):
            yield similarity(first, result)

    def _answer(self, feeds: Tensors, outputs: Tensors) -> Embedding:
        return to_embedding(self.card.postprocess, outputs)


class Classifier(Model[Classification]):
    """Image -> its `top` most probable classes."""

    task: ClassVar[Task] = "cls"

    def __init__(
        self,
        model: str | os.PathLike[str],
        *,
        top: int = TOP,
        names: Mapping[int, str] | None = None,
        **options: Unpack[ModelOptions],
    ) -> None:
        """As `Model`. names: class index -> name, in place of the file's own."""
        super().__init__(model, **options)
        self.top = top
        if names is not None:
            self.names = names

    def _answer(self, feeds: Tensors, outputs: Tensors) -> Classification:
        return to_classification(self.card.postprocess, outputs, self.top, self.names)


class Detector(Model[Detections]):
    """Image -> boxes, classes, scores."""

    task: ClassVar[Task] = "det"

    def __init__(
        self,
        model: str | os.PathLike[str],
        *,
        score: float | None = None,
        iou: float | None = None,
        keep: int | None = None,
        **options: Unpack[ModelOptions],
    ) -> None:
        """As `Model`. score, iou, keep: thresholds in place of the card's: see `cards.schema.Postprocess`."""
        super().__init__(model, **options)
        given = {"score": score, "iou": iou, "keep": keep}
        changes: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
        rule = dataclasses.replace(self.card.postprocess, **changes)
        self.pipeline = dataclasses.replace(self.pipeline, card=dataclasses.replace(self.card, postprocess=rule))

    def _answer(self, feeds: Tensors, outputs: Tensors) -> Detections:
        return to_detections(self.card, feeds, outputs, self.names)


def _request(provider: ProviderRequest | str, precision: Precision | None) -> ProviderRequest:
    request = ProviderRequest(name=provider) if isinstance(provider, str) else provider
    return dataclasses.replace(request, precision=precision) if precision else request


def _settled(
    model: str | os.PathLike[str], provider: ProviderRequest | str, precision: Precision | Chosen | None, offline: bool
) -> tuple[Path, ProviderRequest, int, int]:
    """The file, what runs it, and the threads and batch size where none are given. Raises: as `Model`."""
    if precision != "auto":
        request = _request(provider, precision)
        return ensure(model, request.precision, offline=offline), request, 0, BATCH_SIZE
    if provider not in ("auto", ProviderRequest()):
        raise SessionError(f"{model}: precision auto takes the provider that tune chose: leave the provider auto")
    path = ensure(model, offline=offline)
    choice = read_choice(path)
    logger.info("%s: precision auto takes %s", path, choice.words())
    return path, choice.request(), choice.threads, choice.batch_size


def similarity(query: Embedding, other: Embedding | Failure) -> Similarity | Failure:
    """Cosine of two embeddings; a failure stays one."""
    if isinstance(other, Failure):
        return other
    value = cosine(query.vector, other.vector)
    return Similarity(image=other.image, time=other.time, query=query.image, cosine=value)
