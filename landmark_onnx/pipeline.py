"""decode | preprocess | batch by shape | run: answers in input order, in memory that does not grow with the inputs."""

import collections
import dataclasses
import itertools
import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

import numpy as np

from landmark_onnx.cards import ModelCard
from landmark_onnx.errors import LandmarkError
from landmark_onnx.images import image_name, read_image
from landmark_onnx.preprocess import preprocess
from landmark_onnx.results import Failure, Result, Timing
from landmark_onnx.session import Session
from landmark_onnx.types import ImageSource, Tensors

R = TypeVar("R", bound=Result)


@dataclasses.dataclass(frozen=True, slots=True)
class Prepared:
    """An image that is ready to run."""

    name: str
    feeds: Tensors
    decode: float
    preprocess: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline(Generic[R]):
    """From image sources to answers.

    answer: feeds and outputs of one image -> result. batch_size: images of one shape that run together; a task with
    more inputs than the image runs one by one. max_pixels: limit of an image.
    """

    session: Session
    card: ModelCard
    answer: Callable[[Tensors, Tensors], R]
    batch_size: int
    max_pixels: int

    def run(self, sources: Iterable[ImageSource]) -> Iterator[R | Failure]:
        """Answer each source in order; one that fails yields a `Failure` and stops nothing.

        Decoding of the next window runs beside inference; two windows at most are in memory.
        """
        workers = min(4, os.cpu_count() or 1)
        window = max(self.batch_size * 2, workers)
        numbered = enumerate(sources)
        with ThreadPoolExecutor(workers, thread_name_prefix="landmark-onnx") as pool:

            def submit() -> list[Future[Prepared | Failure]]:
                return [pool.submit(self._prepare, *item) for item in itertools.islice(numbered, window)]

            following = submit()
            while following:
                current, following = following, submit()
                yield from self._run_window([future.result() for future in current])

    def _prepare(self, position: int, source: ImageSource) -> Prepared | Failure:
        name = image_name(source, position)
        start = time.perf_counter()
        try:
            image = read_image(source, name=name, max_pixels=self.max_pixels)
            decoded = time.perf_counter()
            feeds = preprocess(self.card.preprocess, image)
        except LandmarkError as error:
            return Failure(image=name, error=str(error), kind=type(error))
        return Prepared(name, feeds, decoded - start, time.perf_counter() - decoded)

    def _run_window(self, window: list[Prepared | Failure]) -> list[R | Failure]:
        answers: dict[int, R | Failure] = {}
        groups: dict[tuple[int, ...], list[tuple[int, Prepared]]] = collections.defaultdict(list)
        for position, item in enumerate(window):
            if isinstance(item, Failure):
                answers[position] = item
            else:
                groups[item.feeds["image"].shape].append((position, item))
        for members in groups.values():
            size = 1 if len(members[0][1].feeds) > 1 else self.batch_size
            for start in range(0, len(members), size):
                answers |= self._run_batch(members[start : start + size])
        return [answers[position] for position in range(len(window))]

    def _run_batch(self, members: list[tuple[int, Prepared]]) -> dict[int, R | Failure]:
        items = [item for _, item in members]
        start = time.perf_counter()
        try:
            feeds = {key: np.concatenate([item.feeds[key] for item in items]) for key in items[0].feeds}
            outputs = self.session.run(self.card, feeds)
        except LandmarkError as error:
            return {
                position: Failure(image=item.name, error=f"{item.name}: {error}", kind=type(error))
                for position, item in members
            }
        seconds = (time.perf_counter() - start) / len(members)
        return {
            position: self._finish(item, outputs if len(members) == 1 else _row(outputs, row), seconds)
            for row, (position, item) in enumerate(members)
        }

    def _finish(self, item: Prepared, outputs: Tensors, inference: float) -> R | Failure:
        start = time.perf_counter()
        try:
            answer = self.answer(item.feeds, outputs)
        except LandmarkError as error:
            return Failure(image=item.name, error=f"{item.name}: {error}", kind=type(error))
        timing = Timing(item.decode, item.preprocess, inference, time.perf_counter() - start)
        return answer.of(item.name, timing)


def _row(outputs: Tensors, row: int) -> Tensors:
    return {key: values[row : row + 1] for key, values in outputs.items()}
