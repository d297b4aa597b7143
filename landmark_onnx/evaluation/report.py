"""What an evaluation answers: a row for each part, and one for each image."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

Row: TypeAlias = Mapping[str, str | float | None]


@dataclasses.dataclass(frozen=True, slots=True)
class Report:
    """rows: one for each part of the solution. images: one for each query or test image that counts.

    answered: those with an answer, of `wanted` that count; the others score 0. shortest: answers to the query that has
    fewest, where a ranking should be whole. note: what is odd about all of them, or nothing.
    """

    rows: Sequence[Row]
    images: Sequence[Row]
    answered: int
    wanted: int
    shortest: int | None = None
    note: str = ""


def mean(values: Iterable[float]) -> float:
    """The mean, exact to the last rounding; whatever the order of the values. At least one."""
    values = list(values)
    return math.fsum(values) / len(values)
