"""bf16, which is no file but a setting of OpenVINO: how far it agrees with fp32 on this machine."""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from landmark_onnx.cards.schema import ModelCard
from landmark_onnx.precision import FLOORS
from landmark_onnx.runtime.providers import ProviderRequest
from landmark_onnx.verification.answers import Likeness, bound_of, floor_of, measure, runner
from landmark_onnx_export.quantization.quantize import MOST, fp32_metadata
from landmark_onnx_export.quantization.report import QuantizationRequest
from landmark_onnx_export.quantization.split import judges


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SettingReport:
    """agreement: of the fp32 file run in bf16 by OpenVINO with the same run in fp32 by ONNX Runtime.

    floor, bound: what it must reach, and, of a classifier, must not exceed; see `precision.Floor`.
    """

    card: ModelCard
    agreement: Likeness
    floor: float
    bound: float | None
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """JSON-ready data; with a key "error" below the floor."""
        facts: dict[str, Any] = {
            "model": self.card.name,
            "precision": "bf16",
            "floor": self.floor,
            "bound": self.bound,
            "agreement": self.agreement.to_json(),
            "path": None,
            "bytes": 0,
            "seconds": round(self.seconds, 1),
        }
        shortfall = self.agreement.shortfall(self.card, self.floor, self.bound)
        return facts | ({"error": f"{self.card.name}: at bf16 {shortfall}"} if shortfall else {})


def measure_setting(
    source: Path,
    wish: QuantizationRequest,
    *,
    on_stage: Callable[[str], None] = lambda stage: None,
    on_bad: Callable[[str], None] = lambda why: None,
) -> SettingReport:
    """Measure bf16 on all the images of `wish`, for there is nothing to calibrate. Callbacks: as `reduce_model`.

    Raises: ModelFileError, ImageError; SessionError if OpenVINO is not installed or has no bf16 here.
    """
    start = time.perf_counter()
    card = ModelCard.from_dict(fp32_metadata(source)["card"], f"{source}: card")
    reduced = runner(card, source, ProviderRequest(name="openvino", precision="bf16"))
    on_stage("images")
    photos = judges(wish.held_out or wish.calibrate, MOST[card.task][1], on_bad=on_bad)
    on_stage("compare with fp32")
    agreement = measure(card, photos, runner(card, source), reduced)
    floor = floor_of(card, FLOORS["bf16"]) if wish.floor is None else wish.floor
    return SettingReport(
        card=card,
        agreement=agreement,
        floor=floor,
        bound=bound_of(card, FLOORS["bf16"]),
        seconds=time.perf_counter() - start,
    )
