"""Images -> the rows of a shard: one pass over them, whatever the number of models."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeAlias

import numpy as np

from landmark_onnx.embedding.item import Item, ItemFile
from landmark_onnx.embedding.manifest import FeatureManifest
from landmark_onnx.embedding.shards import Shard, Vectors
from landmark_onnx.errors import FeatureError, LandmarkError, SessionError
from landmark_onnx.images.decode import shared
from landmark_onnx.images.ids import as_text
from landmark_onnx.inference.tee import Fan
from landmark_onnx.model import Retriever
from landmark_onnx.results import Embedding, Failure
from landmark_onnx.types import ImageSource, Named

HOPELESS = 16
"""A shard of at least so many images, all of which the engine fails on, is the engine's fault and not the images'."""

KEEP_SECONDS = 30.0
"""How often rows of a shard are kept before all of it is there."""

OnDone: TypeAlias = Callable[[], None]
Keep: TypeAlias = Callable[[int, Shard], None]
"""Takes rows that are done, and the number of the first of them."""
Row: TypeAlias = tuple[Vectors, ...] | str
"""What a row has in the end: a vector of each model, or an error."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Extractor:
    """Makes the shards of `manifest`. models: those it names."""

    manifest: FeatureManifest
    models: Mapping[str, Retriever]

    def __call__(
        self,
        items: Sequence[Item],
        on_done: OnDone = lambda: None,
        *,
        start: int = 0,
        keep: Keep = lambda row, part: None,
    ) -> Shard:
        """The rows of `items` from `start` on: each image embedded by each model; one that fails has an error.

        The answers depend on `items` alone, not on `start` or what came before. on_done: of each row that is done.
        keep: gets what is new every KEEP_SECONDS, and when the work is stopped.
        Raises: FeatureError if the engine has failed.
        """
        rows = _Rows(items, start, on_done)
        done = _Done(start)
        try:
            for number, answers in enumerate(self._answers(rows) if start < len(items) else ()):
                done.add_failures(rows.errors, rows.reached[number])
                done.add(self._row(answers, items[rows.reached[number]]), answers)
                on_done()
                if time.monotonic() - done.since >= KEEP_SECONDS:
                    self._keep(done, rows, keep)
        except BaseException:
            with contextlib.suppress(LandmarkError, OSError):  # what stopped it is what matters
                self._keep(done, rows, keep)
            raise
        done.add_failures(rows.errors, len(items))
        if done.broken >= HOPELESS and done.is_hopeless():
            raise FeatureError(f"every image of a shard failed: {done.reason}; put that right and run the same again")
        return self._shard(rows, start, done.rows)

    def _answers(self, rows: "_Rows") -> Iterator[tuple[Embedding | Failure, ...]]:
        """What the models say of each image that could be loaded, in step: none is far ahead of the others."""
        models = [self.models[model.name] for model in self.manifest.models]
        readers = Fan(shared(rows.loaded(), len(models)), len(models)).readers()
        streams = [
            model.stream(reader, steady=True, known=rows.is_known)
            for model, reader in zip(models, readers, strict=True)
        ]
        return zip(*streams, strict=True)

    def _row(self, answers: Sequence[Embedding | Failure], item: Item) -> Row:
        for answer in answers:
            if isinstance(answer, Failure):
                return _reason(answer.error.removeprefix(f"{answer.image}: "), item)
        found = tuple(self._stored(answer.vector) for answer in answers if isinstance(answer, Embedding))
        if not all(np.isfinite(vector).all() for vector in found):
            return f"a value of its vector is beyond {self.manifest.dtype}"
        return found

    def _keep(self, done: "_Done", rows: "_Rows", keep: Keep) -> None:
        """Hand on what is new, unless it is only what the engine failed on: that is not the images' fault."""
        new = done.rows[done.kept :]
        if new and not done.is_hopeless():
            keep(done.start + done.kept, self._shard(rows, done.start + done.kept, new))
            done.kept += len(new)
        done.since = time.monotonic()

    def _shard(self, rows: "_Rows", start: int, answers: Sequence[Row]) -> Shard:
        """The rows from `start` on, as many as there are answers."""
        part = rows.items[start : start + len(answers)]
        files = [rows.files.get(row) for row in range(start, start + len(answers))]
        fine = [row for row in answers if not isinstance(row, str)]
        return Shard(
            ids=[item.id for item in part],
            sources=[item.source for item in part],
            errors=[row if isinstance(row, str) else None for row in answers],
            contents=[file.content if file else None for file in files],
            stamps=[file.stamp if file else None for file in files],
            positions=[item.position for item in part],
            vectors={
                model.name: np.array([row[at] for row in fine], self.manifest.dtype).reshape(-1, model.dim)
                for at, model in enumerate(self.manifest.models)
            },
        )

    def _stored(self, vector: Vectors) -> Vectors:
        with np.errstate(over="ignore"):
            return vector.astype(self.manifest.dtype)


def _reason(error: str, item: Item) -> str:
    """Why a row has no vectors; the row's own columns say which image it is."""
    return as_text(error.removeprefix(f"{item.source}: "))


@dataclasses.dataclass(slots=True)
class _Done:
    """Rows that are done, from `start` on. kept: how many were handed on, last at `since`. answered: by the models.

    broken: of these, how many failed by the engine's fault. reason: of one of them.
    """

    start: int
    rows: list[Row] = dataclasses.field(default_factory=list)
    kept: int = 0
    since: float = dataclasses.field(default_factory=time.monotonic)
    answered: int = 0
    broken: int = 0
    reason: str = ""

    def add_failures(self, errors: Mapping[int, str], end: int) -> None:
        """Rows up to `end` that never came to a model. Images come in order: those before one are known with it."""
        self.rows += [errors[row] for row in range(self.start + len(self.rows), end)]

    def add(self, row: Row, answers: Sequence[Embedding | Failure]) -> None:
        """The next row, and what it was made of."""
        self.rows.append(row)
        self.answered += 1
        if any(isinstance(answer, Failure) and issubclass(answer.kind, SessionError) for answer in answers):
            self.broken += 1
            self.reason = self.reason or str(row)

    def is_hopeless(self) -> bool:
        """Whether the engine has failed on everything that came to it."""
        return 0 < self.answered == self.broken


@dataclasses.dataclass(slots=True)
class _Rows:
    """The images of a shard on their way to the models; what is before `start` is known, and only replayed.

    errors: of rows that are refused. reached: the other rows. replayed: how many are before them. files: what the
    rows that are reached are read from.
    """

    items: Sequence[Item]
    start: int
    on_done: OnDone
    errors: dict[int, str] = dataclasses.field(default_factory=dict)
    reached: list[int] = dataclasses.field(default_factory=list)
    replayed: int = 0
    files: dict[int, ItemFile] = dataclasses.field(default_factory=dict)

    def is_known(self, position: int) -> bool:
        """Whether what went to the models at a position, from 0, is a row that is only replayed."""
        return position < self.replayed

    def fail(self, row: int, error: str) -> None:
        """An image is refused."""
        if row >= self.start:
            self.errors[row] = _reason(error, self.items[row])
            self.on_done()

    def loaded(self) -> Iterator[ImageSource]:
        """The images as they are found; who decodes one reads it."""
        for row, item in enumerate(self.items):
            if item.refusal:
                self.fail(row, item.refusal)
                continue
            file = item.open()
            if row < self.start:
                self.replayed += 1
            else:
                self.reached.append(row)
                self.files[row] = file
            yield Named(file, item.source)
