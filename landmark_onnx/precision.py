"""Reduced precisions: what each is called, where its file lies, and how well it must agree with fp32."""

import dataclasses
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

from landmark_onnx.errors import ModelFileError
from landmark_onnx.tasks import Task

Precision: TypeAlias = Literal["fp32", "fp16", "bf16", "int8"]

Chosen: TypeAlias = Literal["auto"]
"""In place of a precision: the one that `landmark-onnx tune` chose, with the provider that it chose."""

STORED: tuple[Precision, ...] = ("fp16", "int8")
"""Precisions that are a file of their own, beside the fp32 one; bf16 is a setting of the provider that runs fp32's."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Floor:
    """The least that a reduced file must reach on held-out images. Which one counts depends on the task.

    cosine: mean cosine with the fp32 embedding. top1: share of images with the same best class. matched: share of the
    fp32 boxes found again, same class and IoU of at least 0.5. top5_error: for a classifier as well, the most that the
    probabilities of fp32's five best classes may differ: the largest difference of an image, mean over the images.
    """

    cosine: float
    top1: float
    matched: float
    top5_error: float


FLOORS: Mapping[Precision, Floor] = types.MappingProxyType(
    {
        "fp16": Floor(cosine=0.999, top1=0.99, matched=0.98, top5_error=0.01),
        "bf16": Floor(cosine=0.999, top1=0.98, matched=0.98, top5_error=0.03),
        "int8": Floor(cosine=0.99, top1=0.95, matched=0.95, top5_error=0.05),
    }
)

MEASURES: Mapping[Task, str] = types.MappingProxyType({"retrieval": "cosine", "cls": "top1", "det": "matched"})
"""The field of `Floor` that counts for a task."""


def precision_file(path: Path, precision: Precision) -> Path:
    """Where the file of a precision lies: `NAME.int8.onnx` beside `NAME.onnx`; fp32 and bf16 run NAME.onnx itself.

    >>> precision_file(Path("store/shops.onnx"), "int8").name
    'shops.int8.onnx'
    """
    return path.with_name(f"{path.stem}.{precision}{path.suffix}") if precision in STORED else path


def precision_of(metadata: Mapping[str, Any], origin: Path) -> Precision:
    """The precision that a file says it is of. Raises: ModelFileError if that is none of a file."""
    said: Precision = metadata.get("precision", "fp32")
    if said not in ("fp32", *STORED):
        raise ModelFileError(f"{origin}: precision: wanted fp32, {', '.join(STORED)}, got {said!r}")
    return said


def origin_of(metadata: Mapping[str, Any]) -> str | None:
    """The seal of the fp32 file that a file of reduced precision says it was made from."""
    recipe = metadata.get("recipe")
    return recipe.get("of") if isinstance(recipe, Mapping) else None
