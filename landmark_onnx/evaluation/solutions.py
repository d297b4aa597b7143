"""Solutions and submissions of the Google Landmarks challenges, read row by row.

Source: the files of cvdfoundation/google-landmark, and their readers in tensorflow/models, research/delf,
google_landmarks_dataset/dataset_file_io.py.
"""

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Literal, TypeAlias, TypeVar

from landmark_onnx.errors import TableError
from landmark_onnx.evaluation.csv_rows import read_rows, shown_name

T = TypeVar("T")

Usage: TypeAlias = Literal["Public", "Private", "Ignored"]
USAGES: tuple[Usage, ...] = ("Public", "Private", "Ignored")
NOTHING = frozenset({"", "None"})
"""What stands for no image."""


@dataclasses.dataclass(frozen=True, slots=True)
class Truth:
    """What is relevant to one test image, and which part of the solution it is in.

    relevant: ids of index images, or of landmarks; of a recognition image without a landmark, none.
    """

    usage: Usage
    relevant: frozenset[str]


Solution: TypeAlias = Mapping[str, Truth]
"""Test image -> its truth."""


@dataclasses.dataclass(frozen=True, slots=True)
class Prediction:
    """The landmark that a test image was taken for. score: higher is surer, of any scale."""

    landmark: str
    score: float


def read_solution(path: Path, column: Literal["images", "landmarks"]) -> dict[str, Truth]:
    """retrieval_solution_v2.1.csv (column images) or recognition_solution_v2.1.csv (column landmarks).

    Raises: TableError: for another Usage, a repeated id, or a retrieval query that counts but has no relevant image.
    """
    solution: dict[str, Truth] = {}
    for line, (name, values, usage) in read_rows(path, ("id", column, "Usage")):
        where = f"{path}, line {line}: {shown_name(name)}"
        if usage not in USAGES:
            raise TableError(f"{where}: wanted a Usage of {', '.join(USAGES)}, got {shown_name(usage)!r}")
        if name in solution:
            raise TableError(f"{where} is there twice")
        relevant = frozenset(values.split()) - NOTHING
        if column == "images" and not relevant and usage != "Ignored":
            raise TableError(f"{where} is {usage} but has no image")
        solution[name] = Truth(usage, relevant)
    if all(truth.usage == "Ignored" for truth in solution.values()):
        raise TableError(f"{path}: no line is Public or Private")
    return solution


def read_images(path: Path) -> Iterator[tuple[str, list[str]]]:
    """A retrieval submission, `id,images`: each query with its answers, the best first.

    Raises: TableError, for a repeated id too.
    """
    for _, name, images in _submitted(path, "images"):
        yield name, [] if images == "None" else images.split()


def read_predictions(path: Path) -> Iterator[tuple[str, Prediction | None]]:
    """A recognition submission, `id,landmarks`: each image with its landmark and score, None where there is none.

    Raises: TableError, for a repeated id, more than one landmark, or a score that is not a number.
    """
    for where, name, landmark in _submitted(path, "landmarks"):
        fields = landmark.split()
        if fields and len(fields) != 2:
            raise TableError(f"{where}: wanted one landmark and its score, or nothing; got {len(fields)} words")
        yield name, Prediction(fields[0], _number(fields[1], where)) if fields else None


def scored(rows: Iterable[tuple[str, T]], solution: Solution, path: Path, origin: str) -> Iterator[tuple[str, T]]:
    """The rows that count: those of ignored images are dropped.

    path, origin: what an error calls rows and solution. Raises: TableError with counts, at the end, if the solution
    does not know all ids.
    """
    seen = 0
    unknown: list[str] = []
    for name, value in rows:
        seen += 1
        if name not in solution:
            unknown.append(name)
        elif solution[name].usage != "Ignored":
            yield name, value
    if unknown:
        raise TableError(
            f"{path}: {len(unknown):,} of {seen:,} ids are not among the {len(solution):,} of {origin}, such as "
            f"{shown_name(unknown[0])!r} (one there: {next(iter(solution))!r}); wanted answers to the same images; "
            "landmark-onnx evaluate submission --ids changes how they are called"
        )


def unlike(said: str, solution: Solution, what: str, origin: str) -> str:
    """A warning that no answer is right for any image: `said`, one of them, may only be called differently.

    what: what answers are. origin: what the warning calls the solution.
    """
    relevant = next((min(truth.relevant) for truth in solution.values() if truth.relevant), "")
    return (
        f"not one {what} in the answers is right for any image of {origin}: one is {shown_name(said)!r}, and one "
        f"there is {relevant!r}; if only names differ, landmark-onnx evaluate submission --ids changes them"
    )


def _submitted(path: Path, column: str) -> Iterator[tuple[str, str, str]]:
    seen: set[str] = set()
    for line, (name, value) in read_rows(path, ("id", column)):
        where = f"{path}, line {line}: {shown_name(name)}"
        if name in seen:
            raise TableError(f"{where} is there twice")
        seen.add(name)
        yield where, name, value


def _number(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if math.isnan(value):
        raise TableError(f"{where}: wanted a number as the score, got {text[:40]!r}")
    return value
