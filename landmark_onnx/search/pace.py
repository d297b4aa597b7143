"""Queries as they come: several models look at each, and what came together is searched together."""

import collections
import contextlib
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

from landmark_onnx.images.decode import shared
from landmark_onnx.inference.tee import Fan
from landmark_onnx.model import Model
from landmark_onnx.results import Failure, Result
from landmark_onnx.types import ImageSource

T = TypeVar("T")

PATIENCE = 4.0
"""Times as long as a search took, rows are gathered for the next: searches of a few rows take a fifth of the time."""


def in_step(
    models: Sequence[Model[Any]], images: Iterable[ImageSource]
) -> Iterator[tuple[Result | Failure, ...] | None]:
    """What each model answers to an image; None where all that came is answered and the source is silent.

    An image is decoded once for all models, and memory does not grow with the number of images.
    """
    readers = Fan(shared(images, len(models)), len(models)).readers()
    with contextlib.ExitStack() as stack:
        first, *others = [
            stack.enter_context(contextlib.closing(model.paced(reader)))
            for model, reader in zip(models, readers, strict=True)
        ]
        for answer in first:
            yield None if answer is None else (answer, *[_next(other) for other in others])
        for other in others:
            collections.deque(other, 0)  # raises what the source has raised to it


def _next(answers: Iterable[T | None]) -> T:
    return next(answer for answer in answers if answer is not None)


def grouped(rows: Iterable[T | None], most: int) -> Iterator[list[T]]:
    """Rows together that came soon enough after each other, at most so many; none waits for a source that is silent.

    rows: None says that it is; then, after the rows that were waiting, comes an empty group. Soon enough is measured by
    how long the last group took: where a search costs nothing, each row goes alone.
    """
    group: list[T] = []
    began = patience = 0.0
    for row in rows:
        if row is not None:
            began = began if group else time.monotonic()
            group.append(row)
        if group and (row is None or len(group) == most or time.monotonic() - began >= patience):
            handed = time.monotonic()
            yield group
            patience, group = PATIENCE * (time.monotonic() - handed), []
        if row is None:
            yield []
    if group:
        yield group
