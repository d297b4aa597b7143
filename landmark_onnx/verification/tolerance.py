"""How far two answers to the same question differ: the measure behind export's parity check and `verify`."""

import dataclasses
import types
from collections.abc import Mapping
from typing import Any

import numpy as np

from landmark_onnx.inference.postprocess import cosines
from landmark_onnx.precision import Precision
from landmark_onnx.tasks import Task
from landmark_onnx.types import Array, Tensors


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """How far two answers of sound files may differ.

    cosine: the least. matched: least share of rois found again; pixels, of the scaled image: rois nearer than this are
    one and the same. probability: largest difference in a matched roi's.
    """

    cosine: float
    matched: float
    pixels: float
    probability: float


FP32 = Tolerance(cosine=0.99999, matched=0.99, pixels=0.1, probability=1e-3)

TOLERANCES: Mapping[Precision, Tolerance] = types.MappingProxyType(
    {
        "fp32": FP32,
        "fp16": Tolerance(cosine=0.999, matched=0.95, pixels=1.0, probability=0.05),
        "bf16": Tolerance(cosine=0.99, matched=0.9, pixels=2.0, probability=0.1),
        "int8": Tolerance(cosine=0.95, matched=0.9, pixels=2.0, probability=0.25),
    }
)
"""By precision, between one runtime and another: a reduced file's stored answer is its own, on the CPU that made it.

Runtimes round at different places, and a deep network in 8 bits shows it.
"""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """max_abs, max_rel: largest errors. cosine: smallest of any row. matched: share of rois found again (det)."""

    max_abs: float
    max_rel: float
    cosine: float
    matched: float = 1.0

    def shortfall(self, task: Task, tolerance: Tolerance = FP32) -> str | None:
        """Why this is not good enough, or None."""
        if task == "det":
            if self.matched < tolerance.matched:
                return f"{self.matched:.2%} of the rois match, wanted {tolerance.matched:.0%}"
            if not self.max_abs <= tolerance.probability:
                return f"probabilities of matched rois differ by {self.max_abs:.2g}, wanted {tolerance.probability:g}"
            return None
        if not self.cosine >= tolerance.cosine:
            return f"cosine {self.cosine:.7f}, wanted {tolerance.cosine}"
        return None

    def to_json(self) -> dict[str, Any]:
        """JSON-ready data, to two digits: the rest is noise of the machine."""
        figures = {"max_abs": float(f"{self.max_abs:.1e}"), "max_rel": float(f"{self.max_rel:.1e}")}
        return figures | {"cosine": round(self.cosine, 7), "matched": round(self.matched, 4)}


def agreement(task: Task, wanted: Tensors, got: Tensors, tolerance: Tolerance = FP32) -> Agreement:
    """Compare one run's outputs; for det the probabilities of matched rois, for the others the one output there is."""
    if task == "det":
        return _detector_agreement(wanted, got, tolerance.pixels)
    ((name, values),) = wanted.items()
    return values_agreement(values, got[name])


def worst(agreements: list[Agreement]) -> Agreement:
    """The largest errors and the smallest likenesses of several runs."""
    # NumPy's extremes carry NaN along, Python's may drop it.
    return Agreement(
        max_abs=float(np.max([each.max_abs for each in agreements])),
        max_rel=float(np.max([each.max_rel for each in agreements])),
        cosine=float(np.min([each.cosine for each in agreements])),
        matched=float(np.min([each.matched for each in agreements])),
    )


def values_agreement(wanted: Array, got: Array) -> Agreement:
    """(N, D) against (N, D). Relative errors are taken of values above a thousandth of the largest one."""
    if wanted.shape != got.shape:
        return Agreement(max_abs=np.inf, max_rel=np.inf, cosine=0.0)
    if not wanted.size:
        return Agreement(max_abs=0.0, max_rel=0.0, cosine=1.0)
    a, b = (values.astype(np.float64).reshape(len(values), -1) for values in (wanted, got))
    error = np.abs(a - b)
    size = np.maximum(np.abs(a), max(np.abs(a).max() * 1e-3, np.finfo(np.float32).tiny))
    cosine = float(np.minimum(cosines(a, b).min(), 1.0))
    return Agreement(max_abs=float(error.max()), max_rel=float((error / size).max()), cosine=cosine)


def _detector_agreement(wanted: Tensors, got: Tensors, pixels: float) -> Agreement:
    """Match each wanted roi with its nearest; compare the probability rows of those that are the same."""
    ours, theirs = wanted["rois"], got["rois"]
    if not len(ours) or not len(theirs):
        same = len(ours) == len(theirs)
        return Agreement(max_abs=0.0, max_rel=0.0, cosine=1.0, matched=float(same))
    distance = np.stack([np.abs(theirs - roi).max(axis=1) for roi in ours])
    near = distance.argmin(axis=1)
    same_roi = distance[np.arange(len(ours)), near] <= pixels
    matched = min(float(same_roi.mean()), len(theirs) / len(ours), len(ours) / len(theirs))
    rows = values_agreement(wanted["probability"][same_roi], got["probability"][near[same_roi]])
    return dataclasses.replace(rows, matched=matched)
