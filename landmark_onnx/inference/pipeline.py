"""decode | resize | batch by shape | run: answers in input order, in memory that does not grow with the inputs."""

import contextlib
import dataclasses
import itertools
import logging
import re
import time
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Generic, TypeAlias, TypeVar

from landmark_onnx.cards.schema import ModelCard
from landmark_onnx.errors import ImageError, LandmarkError, SessionError
from landmark_onnx.images.decode import ReadOptions, image_name, read_image
from landmark_onnx.inference.batching import Buckets
from landmark_onnx.inference.prefetch import Arrivals
from landmark_onnx.inference.preprocess import collate, resize
from landmark_onnx.results import Failure, Result, Timing
from landmark_onnx.runtime.cpu import available_cores
from landmark_onnx.runtime.session import Session
from landmark_onnx.types import Image, ImageSource, Tensors

logger = logging.getLogger(__name__)

R = TypeVar("R", bound=Result)
T = TypeVar("T")

BATCH_PIXELS = 1 << 25
"""The most pixels of a batch, 400 MB in float32: over a hundred photos of a released model."""

MOST_DECODERS = 4
"""Threads that decode: one brings some hundred photos a second, and the decoder's memory goes with their number."""


RELIEF = 60.0
"""Seconds for which a model gets half of a batch, after there was no memory for a whole one."""

_NO_MEMORY = re.compile(r"allocat|out of memory|out of resources|out_of_memory|out_of_resources", re.IGNORECASE)
"""How runtimes say so; their exceptions have no class of their own for it."""


@dataclasses.dataclass(frozen=True, slots=True)
class Prepared:
    """An image that waits for its batch. decode, preprocess: seconds that it took so far."""

    name: str
    tensors: Tensors
    decode: float
    preprocess: float


class Allowance:
    """How much of a batch a model gets at present."""

    def __init__(self) -> None:
        self._halved_until = 0.0

    def halve(self) -> None:
        """There was no memory for a batch."""
        self._halved_until = time.monotonic() + RELIEF

    def of(self, room: int) -> int:
        """How many images, of the `room` that make a batch."""
        return max(1, room // 2) if time.monotonic() < self._halved_until else room


Numbered: TypeAlias = tuple[int, Prepared]
Known: TypeAlias = Callable[[int], bool]
"""Whether the answer at a position among the sources is known; asked when its source has come."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline(Generic[R]):
    """From image sources to answers.

    answer: tensors of one image as `preprocess.resize` made them, and its outputs -> result. batch_size: images of one
    shape that run together; a task with more inputs than the image runs one by one. reading: how images are read.
    as_uint8: the file normalises by itself and takes (N, H, W, 3) uint8. allowance: of batches, as memory allows.
    """

    session: Session
    card: ModelCard
    answer: Callable[[Tensors, Tensors], R]
    batch_size: int
    reading: ReadOptions
    as_uint8: bool = False
    allowance: Allowance = dataclasses.field(default_factory=Allowance)

    @property
    def name(self) -> str:
        """The model's."""
        return self.card.name

    @property
    def largest_batch(self) -> int:
        """How many images run together at most."""
        return self._whole(1)

    def run(
        self, sources: Iterable[ImageSource], *, steady: bool = False, known: Known | None = None
    ) -> Iterator[R | Failure]:
        """Answer each source in order; one that fails yields a `Failure` and stops nothing.

        A thread of its own advances `sources`, others decode beside inference. An answer comes as soon as it can: a
        source that is silent holds back nothing. Images of one shape wait for each other up to `batch_size`, and no
        more than four batches are in memory. steady: which images share a batch depends on them alone and not on
        time, so that the same ones give the same bits; a silent source is waited for. known: positions that need no
        answer, and get none, but have their place in the batches: those of known ones alone are not run.
        Raises: what `sources` raises, after the answers of what came before.
        """
        with contextlib.closing(self.paced(sources, steady=steady, known=known)) as answers:
            yield from (answer for answer in answers if answer is not None)

    def paced(
        self, sources: Iterable[ImageSource], *, steady: bool = False, known: Known | None = None
    ) -> Generator[R | Failure | None]:
        """As `run`, with None where all that came is answered and the source is silent; never if `steady`."""
        limit = max(4 * self.largest_batch, 2 * decoders())
        buckets: Buckets[int, Prepared] = Buckets(patience=limit // 2)
        answers: dict[int, R | Failure | None] = {}
        silent = False
        with Arrivals(self._read, sources, workers=decoders(), limit=limit, in_order=steady) as arrivals:
            for position in itertools.count():
                while position not in answers:
                    if members := buckets.due():
                        answers |= self._run_unless(known, members)
                    elif arrived := arrivals.take(patient=steady or silent):
                        answers |= self._sort_in(buckets, *arrived, steady=steady)
                        silent = False
                    elif buckets:
                        answers |= self._run_unless(known, buckets.oldest())
                    elif not (steady or silent):
                        silent = True
                        yield None
                    else:
                        return arrivals.check()
                arrivals.release()
                answer = answers.pop(position)
                if answer is not None and not (known and known(position)):
                    yield answer

    def run_one(self, source: ImageSource) -> R | Failure:
        """Answer one source in the calling thread."""
        item = self._read(0, source)
        return item if isinstance(item, Failure) else self.run_batch([item])[0]

    def prepare(self, image: Image, name: str, decode: float) -> Prepared | Failure:
        """Resize an image, after which its pixels may go. decode: seconds that it took so far."""
        start = time.perf_counter()
        tensors = attempt(name, lambda: resize(self.card.preprocess, image))
        if isinstance(tensors, Failure):
            return tensors
        return Prepared(name, tensors, decode, time.perf_counter() - start)

    def kind(self, item: Prepared) -> Hashable:
        """What images that run together have in common."""
        return item.tensors["image"].shape

    def room(self, item: Prepared) -> int:
        """How many images of this kind make a batch at present."""
        return self.allowance.of(self._whole(item.tensors["image"].size // 3))

    def run_batch(self, items: Sequence[Prepared]) -> list[R | Failure]:
        """Answer images of one kind. Those that cannot be run together are run one by one."""
        try:
            return self._run_together(items)
        except (LandmarkError, MemoryError) as error:
            if len(items) == 1:
                return [_not_run(items[0].name, error)]
            if isinstance(error, MemoryError) or _NO_MEMORY.search(str(error.__cause__ or error)):
                self.allowance.halve()
            logger.info("%s: %d images run one by one: %s", self.name, len(items), error)
        return [answer for item in items for answer in self.run_batch([item])]

    def _read(self, position: int, source: ImageSource) -> Prepared | Failure:
        name = image_name(source, position)
        start = time.perf_counter()
        image = attempt(name, lambda: read_image(source, name=name, options=self.reading))
        return image if isinstance(image, Failure) else self.prepare(image, name, time.perf_counter() - start)

    def _whole(self, pixels: int) -> int:
        """How many images of so many pixels make a batch while there is memory for it."""
        return 1 if self.card.task == "det" else max(1, min(self.batch_size, BATCH_PIXELS // pixels))

    def _sort_in(
        self, buckets: Buckets[int, Prepared], position: int, item: Prepared | Failure, *, steady: bool
    ) -> dict[int, R | Failure]:
        """Put an image to its like; a failure is its own answer."""
        if isinstance(item, Failure):
            return {position: item}
        # What is steady depends on no memory.
        room = self._whole(item.tensors["image"].size // 3) if steady else self.room(item)
        buckets.add(self.kind(item), room, position, item)
        return {}

    def _run_unless(self, known: Known | None, members: Sequence[Numbered]) -> Mapping[int, R | Failure | None]:
        if known and all(known(position) for position, _ in members):
            return dict.fromkeys(position for position, _ in members)
        answers = self.run_batch([item for _, item in members])
        return {position: answer for (position, _), answer in zip(members, answers, strict=True)}

    def _run_together(self, items: Sequence[Prepared]) -> list[R | Failure]:
        """Raises: SessionError, MemoryError."""
        start = time.perf_counter()
        feeds = collate(self.card.preprocess, [item.tensors for item in items], as_uint8=self.as_uint8)
        collated = time.perf_counter()
        outputs = self.session.run(feeds)
        share = (collated - start) / len(items), (time.perf_counter() - collated) / len(items)
        return [
            self._finish(item, outputs if len(items) == 1 else _row(outputs, row), *share)
            for row, item in enumerate(items)
        ]

    def _finish(self, item: Prepared, outputs: Tensors, collation: float, inference: float) -> R | Failure:
        start = time.perf_counter()
        try:
            answer = self.answer(item.tensors, outputs)
        except (LandmarkError, MemoryError) as error:
            return _not_run(item.name, error)
        timing = Timing(item.decode, item.preprocess + collation, inference, time.perf_counter() - start)
        return answer.of(item.name, timing)


def decoders() -> int:
    """How many threads decode."""
    return min(MOST_DECODERS, available_cores())


def attempt(name: str, action: Callable[[], T]) -> T | Failure:
    """What `action` gives, which reads or prepares the image `name`; a `Failure` if it cannot."""
    try:
        return action()
    except LandmarkError as error:
        # A library's own error, of which a failure has the words alone, may hide a fault of ours.
        logger.debug("%s", error, exc_info=error.__cause__ is not None)
        return Failure(image=name, error=str(error), kind=type(error))
    except MemoryError:
        return Failure(image=name, error=f"{name}: there is not enough memory to decode it", kind=ImageError)


def _not_run(name: str, error: LandmarkError | MemoryError) -> Failure:
    if isinstance(error, MemoryError):
        return Failure(image=name, error=f"{name}: there is not enough memory to run it", kind=SessionError)
    return Failure(image=name, error=f"{name}: {error}", kind=type(error))


def _row(outputs: Tensors, row: int) -> Tensors:
    return {key: values[row : row + 1] for key, values in outputs.items()}
