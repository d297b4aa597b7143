"""Submission files in Kaggle's form, written as answers come, whole or not at all."""

import contextlib
import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePath
from typing import Any, Literal, TypeAlias

from landmark_onnx.errors import TableError
from landmark_onnx.files import streaming_write

Add: TypeAlias = Callable[[str, Sequence[str]], None]
"""Take an image, by its path or id, and its words: ids of images, or a landmark and its score, or none."""


@contextlib.contextmanager
def submission_file(path: Path, column: Literal["images", "landmarks"]) -> Iterator[Add]:
    """A file `id,images` or `id,landmarks` that appears when the block ends well; an id is the file's stem.

    Raises: TableError, from adding, for an id that comes twice and for a word with a space in it.
    """
    seen: set[str] = set()
    with streaming_write(path) as binary:
        text = io.TextIOWrapper(binary, "utf-8", newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["id", column])

        def add(image: str, words: Sequence[str]) -> None:
            name = PurePath(image).stem
            if name in seen:
                raise TableError(f"{path}: not written: two images have the id {name!r}")
            seen.add(name)
            for word in words:
                if not word or word.split() != [word]:
                    raise TableError(f"{path}: not written: {word!r}, of {name}: a submission has spaces between ids")
            writer.writerow([name, " ".join(words)])

        yield add
        text.flush()
        text.detach()


def landmark_words(landmark: str | None, score: float | None) -> Sequence[str]:
    """What a submission says of a recognised image."""
    return [] if landmark is None or score is None else [landmark, f"{score:.9g}"]


def convert(answers: Path, path: Path, top: int) -> Literal["images", "landmarks"]:
    """Write a submission from the NDJSON of `search` or `recognize`; which of the two it is.

    An answer with an error has no words. Raises: TableError that names the file and the line.
    """
    column = _column(answers)
    with submission_file(path, column) as add:
        for where, record in _records(answers):
            try:
                add(record["image"], [] if "error" in record else _words(record, column, top))
            except (KeyError, TypeError) as error:
                raise TableError(f"{where}: no answer of search or recognize: {error}") from error
    return column


def _column(answers: Path) -> Literal["images", "landmarks"]:
    for _, record in _records(answers):
        if isinstance(record, dict) and "error" not in record:
            return "landmarks" if "landmark" in record else "images"
    raise TableError(f"{answers}: no image has an answer in it")


def _words(record: Any, column: Literal["images", "landmarks"], top: int) -> Sequence[str]:
    if column == "landmarks":
        return landmark_words(record["landmark"], record["score"])
    return [hit["id"] for hit in record["neighbours"][:top]]


def _records(path: Path) -> Iterator[tuple[str, Any]]:
    """(where it is, record) of each line; NDJSON, or an array with a record a line, as --format json writes."""
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if (text := line.strip().rstrip(",")) not in ("", "[", "]"):
                    yield f"{path}, line {number}", json.loads(text)
    except ValueError as error:
        raise TableError(f"{path}: wanted NDJSON of search or recognize: {error}") from error
    except OSError as error:
        raise TableError(f"{path}: {error.strerror or error}") from error
