"""Images -> the rows of a shard: one pass over them, whatever the number of models."""

import collections
import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeAlias

import numpy as np

from landmark_onnx.cores import available_cores
from landmark_onnx.embedding.fan import Fan
from landmark_onnx.embedding.items import Item
from landmark_onnx.embedding.manifest import Manifest
from landmark_onnx.embedding.shards import Shard, Vectors
from landmark_onnx.errors import FeatureError, ImageError, SessionError
from landmark_onnx.ids import as_text
from landmark_onnx.images import ReadOptions, read_image
from landmark_onnx.model import Retriever
from landmark_onnx.pixels import Colour
from landmark_onnx.results import Embedding, Failure
from landmark_onnx.types import Image, ImageSource

HOPELESS = 16
"""A shard of at least so many images, all of which the engine fails on, is the engine's fault and not the images'."""

Told: TypeAlias = Callable[[], None]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Extractor:
    """Makes the shards of `manifest`. models: those it names. reading: how images are read, as the models do it."""

    manifest: Manifest
    models: Mapping[str, Retriever]
    reading: ReadOptions

    def __call__(self, items: Sequence[Item], told: Told = lambda: None) -> Shard:
        """Embed each image by each model; one that fails is a row with an error. told: of each row that is done.

        The answer depends on `items` alone, not on what came before. Raises: FeatureError if the engine has failed.
        """
        rows = _Rows(items, [None] * len(items), [], told)
        vectors: dict[str, list[Vectors]] = {model.name: [] for model in self.manifest.models}
        broken = 0
        for number, answers in enumerate(self._answers(rows)):
            errors = [
                answer.error.removeprefix(f"{answer.image}: ") for answer in answers if isinstance(answer, Failure)
            ]
            broken += any(isinstance(answer, Failure) and issubclass(answer.kind, SessionError) for answer in answers)
            found = [self._stored(answer.vector) for answer in answers if isinstance(answer, Embedding)]
            if not errors and not all(np.isfinite(vector).all() for vector in found):
                errors = [f"a value of its vector is beyond {self.manifest.dtype}"]
            if errors:
                rows.fail(rows.reached[number], errors[0])
                continue
            for waiting, vector in zip(vectors.values(), found, strict=True):
                waiting.append(vector)
            told()
        if broken >= HOPELESS and broken == len(rows.reached):
            reason = rows.errors[rows.reached[0]]
            raise FeatureError(f"every image of a shard failed: {reason}; put that right and run the same again")
        stacked = {
            model.name: np.array(vectors[model.name], self.manifest.dtype).reshape(-1, model.dim)
            for model in self.manifest.models
        }
        ids, sources = [item.id for item in items], [item.source for item in items]
        return Shard(ids=ids, sources=sources, errors=rows.errors, vectors=stacked)

    def _answers(self, rows: "_Rows") -> Iterator[tuple[Embedding | Failure, ...]]:
        """What the models say of each image that could be loaded, in step: none is far ahead of the others."""
        models = [self.models[model.name] for model in self.manifest.models]
        if len(models) == 1:
            # The model decodes beside its inference, and holds no decoded image for longer than it takes.
            return zip(models[0].stream(rows.loaded(), steady=True), strict=True)
        fan = Fan(rows.decoded(self.reading), len(models))
        return zip(
            *(
                model.stream(_as_expected(view, model.colour), steady=True)
                for model, view in zip(models, fan.readers(), strict=True)
            ),
            strict=True,
        )

    def _stored(self, vector: Vectors) -> Vectors:
        with np.errstate(over="ignore"):
            return vector.astype(self.manifest.dtype)


def _as_expected(images: Iterator[Image], colour: Colour) -> Iterator[Image]:
    """Decoded images, which are BGR, for a model that takes arrays in that order."""
    return images if colour == "bgr" else (image[..., ::-1] for image in images)


@dataclasses.dataclass(frozen=True, slots=True)
class _Rows:
    """The rows of a shard in the making. errors: by row. reached: the rows of the images that went to the models."""

    items: Sequence[Item]
    errors: list[str | None]
    reached: list[int]
    told: Told

    def fail(self, row: int, error: str) -> None:
        """Note why a row has no vectors; the row's own columns say which image it is."""
        self.errors[row] = as_text(error.removeprefix(f"{self.items[row].source}: "))
        self.told()

    def loaded(self) -> Iterator[ImageSource]:
        """The images as they are found."""
        for row, item in enumerate(self.items):
            try:
                source = item.read()
            except ImageError as error:
                self.fail(row, str(error))
                continue
            self.reached.append(row)
            yield source

    def decoded(self, options: ReadOptions) -> Iterator[Image]:
        """The images in BGR uint8, decoded by threads a little ahead."""

        def decode(item: Item) -> Image:
            return read_image(item.read(), name=item.source, options=options)

        workers = available_cores()
        waiting: collections.deque[tuple[int, Future[Image]]] = collections.deque()
        rest = enumerate(self.items)
        with ThreadPoolExecutor(workers, thread_name_prefix="landmark-onnx-decode") as pool:
            while True:
                for row, item in itertools.islice(rest, 2 * workers - len(waiting)):
                    waiting.append((row, pool.submit(decode, item)))
                if not waiting:
                    return
                row, future = waiting.popleft()
                try:
                    source = future.result()
                except ImageError as error:
                    self.fail(row, str(error))
                    continue
                self.reached.append(row)
                yield source
