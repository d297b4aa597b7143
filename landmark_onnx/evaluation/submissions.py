"""Submission files in Kaggle's form, written as answers come, whole or not at all."""

import contextlib
import csv
import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

from landmark_onnx.errors import TableError
from landmark_onnx.files.atomic import streaming_write
from landmark_onnx.files.documents import parse_json
from landmark_onnx.images.ids import IdRule, image_id, image_stem

Column: TypeAlias = Literal["images", "landmarks"]


class AddRow(Protocol):
    """Take an image and its words: ids of images, or a landmark and its score, or none. is_id: it is no path."""

    def __call__(self, image: str, words: Sequence[str], *, is_id: bool = False) -> None:
        """AddRow a row."""


@contextlib.contextmanager
def submission_file(path: Path, column: Column, rule: IdRule | None = None) -> Iterator[AddRow]:
    """A file `id,images` or `id,landmarks` that appears when the block ends well.

    rule: how images are called in it, answers too; None: ids stay as they are, an image given by its path is its stem.
    Raises: TableError, from adding, for an id that appears twice and for a word with a space in it.
    """
    seen: set[str] = set()
    with streaming_write(path) as binary:
        text = io.TextIOWrapper(binary, "utf-8", newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["id", column])

        def add(image: str, words: Sequence[str], *, is_id: bool = False) -> None:
            name = image if is_id and rule is None else image_id(image, rule or IdRule.STEM)
            if name in seen:
                raise TableError(f"{path}: not written: two images have the id {name!r}")
            seen.add(name)
            if rule and column == "images":
                words = [image_id(word, rule) for word in words]
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


def convert(
    answers: Path,
    path: Path,
    top: int,
    rule: IdRule | None = None,
    on_note: Callable[[str], None] = lambda text: None,
) -> Column:
    """Write a submission from the NDJSON of `search` or `recognize`; which of the two it is.

    rule: as for `submission_file`. on_note: a word about ids that are paths, which no solution has.
    An answer with an error has no words. Raises: TableError that names the file and the line.
    """
    column = _column(answers)
    ids = paths = 0
    example = ""
    with submission_file(path, column, rule) as add:
        for where, record in _records(answers):
            try:
                words = [] if "error" in record else _words(record, column, top)
                named = words if column == "images" else []
                named = [*named, record["id"]] if "id" in record else named
                add(record.get("id", record["image"]), words, is_id="id" in record)
            except (KeyError, TypeError, AttributeError) as error:
                raise TableError(f"{where}: no answer of search or recognize: {error}") from error
            odd = [name for name in named if image_stem(name) != name]
            ids, paths, example = ids + len(named), paths + len(odd), example or next(iter(odd), "")
    if paths and rule is None:
        on_note(
            f"{paths:,} of {ids:,} ids are paths, such as {example!r}, and solutions have none: --ids stem makes "
            f"{image_stem(example)!r} of it"
        )
    return column


def _column(answers: Path) -> Column:
    for _, record in _records(answers):
        if isinstance(record, dict) and "error" not in record:
            return "landmarks" if "landmark" in record else "images"
    raise TableError(f"{answers}: no image has an answer in it")


def _words(record: Any, column: Column, top: int) -> Sequence[str]:
    if column == "landmarks":
        return landmark_words(record["landmark"], record["score"])
    return [hit["id"] for hit in record["neighbours"][:top]]


def _records(path: Path) -> Iterator[tuple[str, Any]]:
    """(where it is, record) of each line; NDJSON, or an array with a record a line, as --format json writes."""
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if (text := line.strip().rstrip(",")) not in ("", "[", "]"):
                    yield f"{path}, line {number}", parse_json(text)
    except ValueError as error:
        raise TableError(f"{path}: wanted NDJSON of search or recognize: {error}") from error
    except OSError as error:
        raise TableError(f"{path}: {error.strerror or error}") from error
