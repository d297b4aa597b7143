"""What a scheduler is asked: an image for one or several models, or an item that is ready to run."""

import dataclasses
import math
import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from typing import Any, Literal, Protocol, TypeAlias, TypeVar

from landmark_onnx.images.decode import ReadOptions, load, read_image
from landmark_onnx.inference.memory_budget import MemoryBudget
from landmark_onnx.inference.pipeline import Pipeline, Prepared, attempt
from landmark_onnx.results import Failure, Result
from landmark_onnx.types import Image, ImageSource

P = TypeVar("P", contravariant=True)
A = TypeVar("A", covariant=True)

Place: TypeAlias = Literal["queue", "decode", "batch", "run", "answer"]
Ending: TypeAlias = Literal["ok", "failed", "cancelled", "expired", "refused"]


class Stage(Protocol[P, A]):
    """What a device runs, a batch of items at a time: `Pipeline` is one."""

    @property
    def name(self) -> str:
        """Under which its costs are learnt and its runs are told."""

    def kind(self, item: P) -> Hashable:
        """Items of one kind may share a batch."""

    def room(self, item: P) -> int:
        """How many of this kind make a batch."""

    def run_batch(self, items: Sequence[P]) -> Sequence[A | Failure]:
        """One answer for each item, in their order; never raises a LandmarkError."""


class SchedulerEvents(Protocol):
    """Who wants to know what a scheduler does. Called in its threads, and `ended` also in those that cancel."""

    def decoded(self, seconds: float) -> None:
        """An image was read and resized, or could not be."""

    def ran(self, stage: str, items: int, seconds: float) -> None:
        """A batch was run."""

    def ended(self, stages: Sequence[str], outcome: Ending, place: Place, waited: float) -> None:
        """A request has ended, at `place`, after it waited so many seconds for its decoding."""


@dataclasses.dataclass(frozen=True, slots=True)
class ImageOutcome:
    """What came of one image.

    answers: one for each pipeline, in their order. size: width and height as decoded, before the crop; None if it was
    not decoded. queue: seconds that it waited for its decoding.
    """

    answers: tuple[Result | Failure, ...]
    size: tuple[int, int] | None
    queue: float


@dataclasses.dataclass(frozen=True, slots=True)
class Picture:
    """An image that is to be decoded once, for some pipelines. crop: takes what is wanted of its pixels."""

    source: ImageSource
    name: str
    pipelines: Sequence[Pipeline[Any]]
    reading: ReadOptions
    crop: Callable[[Image], Image] | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Decoded:
    """items: one for each pipeline. size: as `ImageOutcome` has it. seconds: that it took, waiting left out."""

    items: Sequence[Prepared | Failure]
    size: tuple[int, int] | None
    seconds: float

    @property
    def bytes(self) -> int:
        """What the items hold."""
        ready = [item.tensors for item in self.items if not isinstance(item, Failure)]
        return sum(array.nbytes for tensors in ready for array in tensors.values())


@dataclasses.dataclass(slots=True, eq=False)
class InferenceRequest:
    """A picture for some pipelines, or one ready item (picture None from the start) for one stage.

    timeout: seconds from its admission. number: its turn. place: how far it is. queue: seconds that it waited for its
    decoding. held: bytes of the memory budget. answers: by the position of their stage.
    """

    stages: Sequence[Stage[Any, Any]]
    client: str
    timeout: float
    picture: Picture | None
    name: str
    ready: bool = False
    future: Future[Any] = dataclasses.field(default_factory=Future)
    admitted: float = dataclasses.field(default_factory=time.monotonic)
    number: float = 0.0
    place: Place = "queue"
    queue: float = 0.0
    size: tuple[int, int] | None = None
    held: int = 0
    answers: dict[int, Any] = dataclasses.field(default_factory=dict)

    @property
    def deadline(self) -> float:
        """On the clock of `time.monotonic`."""
        return self.admitted + self.timeout

    @property
    def names(self) -> list[str]:
        """Of its stages."""
        return [stage.name for stage in self.stages]

    @property
    def complete(self) -> bool:
        """Whether every stage has answered."""
        return len(self.answers) == len(self.stages)

    def result(self) -> Any:
        """What its future gets."""
        answers = tuple(answer for _, answer in sorted(self.answers.items()))
        return answers[0] if self.ready else ImageOutcome(answers, self.size, self.queue)

    def parts(self, items: Sequence[Any]) -> "list[StageItem]":
        """What is to be run of it, without the failures among `items`."""
        return [
            StageItem(self, index, item, (id(stage), stage.kind(item)), stage.room(item))
            for index, (stage, item) in enumerate(zip(self.stages, items, strict=True))
            if not isinstance(item, Failure)
        ]


@dataclasses.dataclass(frozen=True, slots=True)
class StageItem:
    """An item of a request for its stage number `index`. kind, room: as the stage says, of that stage alone."""

    request: InferenceRequest
    index: int
    item: Any
    kind: Hashable
    room: int

    @property
    def stage(self) -> Stage[Any, Any]:
        """What runs it."""
        return self.request.stages[self.index]


def prepare(picture: Picture, memory: MemoryBudget) -> Decoded:
    """Decode a picture when there is memory for it, and resize it for each pipeline."""
    name, start = picture.name, time.perf_counter()
    loaded = attempt(name, lambda: load(picture.source, name))
    loading = time.perf_counter() - start
    if isinstance(loaded, Failure):
        return Decoded([loaded] * len(picture.pipelines), None, loading)
    source, size = loaded
    pixels = math.prod(size or (0,))
    # One that is over the limit is refused before it is decoded.
    with memory.reserved(3 * pixels if pixels <= picture.reading.max_pixels else 0):
        start = time.perf_counter() - loading
        image = attempt(name, lambda: read_image(source, name=name, options=picture.reading))
        if isinstance(image, Failure):
            return Decoded([image] * len(picture.pipelines), None, time.perf_counter() - start)
        crop = picture.crop
        part = attempt(name, lambda: crop(image)) if crop else image
        seconds = time.perf_counter() - start
        items = [
            part if isinstance(part, Failure) else pipeline.prepare(part, name, seconds)
            for pipeline in picture.pipelines
        ]
        return Decoded(items, (image.shape[1], image.shape[0]), time.perf_counter() - start)
