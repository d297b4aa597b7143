"""What is asked of a reduced file, how it was made, and what came of it."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from landmark_onnx.cards.schema import ModelCard
from landmark_onnx.precision import Precision
from landmark_onnx.verification.answers import Likeness

SPARE = 0.12
"""Share of the layers that may stay fp32: they take most of the time that 8 bits save."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class QuantizationRequest:
    """What is asked for.

    floor: None for `precision.FLOORS`. force: write even below it. exclude: layers kept fp32. spare: share of
    the layers that may stay fp32 beside those, where 8 bits are too few.
    """

    precision: Precision
    calibrate: Sequence[Path]
    held_out: Sequence[Path] | None = None
    floor: float | None = None
    force: bool = False
    exclude: Sequence[str] = ()
    reduce_range: bool = False
    spare: float = SPARE


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class QuantizationReport:
    """How the file was made, as its metadata say.

    of: the fp32 file's seal. method: how ranges were cut, None for fp16. excluded: node -> why it stays fp32; layers:
    that could have been 8 bits. floor, bound: what it had to reach, and, of a classifier, was not to exceed; see
    `precision.Floor`. forced: written all the same.
    """

    of: str
    precision: Precision
    method: str | None
    excluded: Mapping[str, str]
    layers: int
    reduce_range: bool
    calibration_images: int
    held_out: str
    floor: float
    bound: float | None
    forced: bool


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ReductionReport:
    """What came of it. path: None if nothing was written, and then `refused` says why. bytes: with external weights."""

    card: ModelCard
    recipe: QuantizationReport
    agreement: Likeness
    path: Path | None
    refused: str | None
    bytes: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """JSON-ready data; with a key "error" if nothing was written."""
        facts = {
            "model": self.card.name,
            **dataclasses.asdict(self.recipe),
            "agreement": self.agreement.to_json(),
            "path": self.path and str(self.path),
            "bytes": self.bytes,
            "seconds": round(self.seconds, 1),
        }
        return facts | ({"error": self.refused} if self.refused else {})
