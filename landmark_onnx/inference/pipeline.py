"""decode | resize | batch by shape | run: answers in input order, in memory that does not grow with the inputs."""

import contextlib
import dataclasses
import itertools
import logging
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from typing import Generic, TypeAlias, TypeVar

from landmark_onnx.cards.schema import ModelCard
from landmark_onnx.errors import LandmarkError
from landmark_onnx.images.decode import ReadOptions, image_name, read_image
from landmark_onnx.inference.batching import Buckets
from landmark_onnx.inference.prefetch import Arrivals
from landmark_onnx.inference.preprocess import collate, resize
from landmark_onnx.results import Failure, Result, Timing
from landmark_onnx.runtime.cpu import available_cores
from landmark_onnx.runtime.session import Session
from landmark_onnx.types import ImageSource, Tensors

logger = logging.getLogger(__name__)

R = TypeVar("R", bound=Result)

BATCH_PIXELS = 1 << 25
"""The most pixels of a batch, 400 MB in float32: over a hundred photos of a released model."""

MOST_DECODERS = 4
"""Threads that decode: one brings some hundred photos a second, and the decoder's memory goes with their number."""


@dataclasses.dataclass(frozen=True, slots=True)
class Prepared:
    """An image that waits for its batch. decode, preprocess: seconds that it took so far."""

    name: str
    tensors: Tensors
    decode: float
    preprocess: float


Numbered: TypeAlias = tuple[int, Prepared]
Known: TypeAlias = Callable[[int], bool]
"""Whether the answer at a position among the sources is known; asked when its source has come."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline(Generic[R]):
    """From image sources to answers.

    answer: tensors of one image as `preprocess.resize` made them, and its outputs -> result. batch_size: images of one
    shape that run together; a task with more inputs than the image runs one by one. reading: how images are read.
    as_uint8: the file normalises by itself and takes (N, H, W, 3) uint8.
    """

    session: Session
    card: ModelCard
    answer: Callable[[Tensors, Tensors], R]
    batch_size: int
    reading: ReadOptions
    as_uint8: bool = False

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
        limit = max(4 * self._room(1), 2 * decoders())
        buckets: Buckets[Prepared] = Buckets(patience=limit // 2)
        answers: dict[int, R | Failure | None] = {}
        silent = False
        with Arrivals(self._prepare, sources, workers=decoders(), limit=limit, in_order=steady) as arrivals:
            for position in itertools.count():
                while position not in answers:
                    if members := buckets.due():
                        answers |= self._run_unless(known, members)
                    elif arrived := arrivals.take(patient=steady or silent):
                        answers |= self._sort_in(buckets, *arrived)
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
        item = self._prepare(0, source)
        return item if isinstance(item, Failure) else self._run_batch([(0, item)])[0]

    def _prepare(self, position: int, source: ImageSource) -> Prepared | Failure:
        name = image_name(source, position)
        start = time.perf_counter()
        try:
            image = read_image(source, name=name, options=self.reading)
            decoded = time.perf_counter()
            tensors = resize(self.card.preprocess, image)
        except LandmarkError as error:
            # A library's own error, of which a failure has the words alone, may hide a fault of ours.
            logger.debug("%s", error, exc_info=error.__cause__ is not None)
            return Failure(image=name, error=str(error), kind=type(error))
        return Prepared(name, tensors, decoded - start, time.perf_counter() - decoded)

    def _room(self, pixels: int) -> int:
        """How many images of so many pixels make a batch."""
        return 1 if self.card.task == "det" else max(1, min(self.batch_size, BATCH_PIXELS // pixels))

    def _sort_in(self, buckets: Buckets[Prepared], position: int, item: Prepared | Failure) -> dict[int, R | Failure]:
        """Put an image to its like; a failure is its own answer."""
        if isinstance(item, Failure):
            return {position: item}
        image = item.tensors["image"]
        buckets.add(image.shape, self._room(image.size // 3), position, item)
        return {}

    def _run_unless(self, known: Known | None, members: Sequence[Numbered]) -> Mapping[int, R | Failure | None]:
        if known and all(known(position) for position, _ in members):
            return dict.fromkeys(position for position, _ in members)
        return self._run_batch(members)

    def _run_batch(self, members: Sequence[Numbered]) -> dict[int, R | Failure]:
        items = [item for _, item in members]
        start = time.perf_counter()
        try:
            feeds = collate(self.card.preprocess, [item.tensors for item in items], as_uint8=self.as_uint8)
            collated = time.perf_counter()
            outputs = self.session.run(feeds)
        except LandmarkError as error:
            return {
                position: Failure(image=item.name, error=f"{item.name}: {error}", kind=type(error))
                for position, item in members
            }
        share = (collated - start) / len(members), (time.perf_counter() - collated) / len(members)
        return {
            position: self._finish(item, outputs if len(members) == 1 else _row(outputs, row), *share)
            for row, (position, item) in enumerate(members)
        }

    def _finish(self, item: Prepared, outputs: Tensors, collation: float, inference: float) -> R | Failure:
        start = time.perf_counter()
        try:
            answer = self.answer(item.tensors, outputs)
        except LandmarkError as error:
            return Failure(image=item.name, error=f"{item.name}: {error}", kind=type(error))
        timing = Timing(item.decode, item.preprocess + collation, inference, time.perf_counter() - start)
        return answer.of(item.name, timing)


def decoders() -> int:
    """How many threads decode."""
    return min(MOST_DECODERS, available_cores())


def _row(outputs: Tensors, row: int) -> Tensors:
    return {key: values[row : row + 1] for key, values in outputs.items()}
