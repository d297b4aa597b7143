"""What values a network's tensors take on real images, and where to cut them for eight bits.

Extremes and means are exact; the rest is a histogram of every STRIDE-th row and column. All stream: memory holds one
image's sample, a few thousand counts per tensor and a sum per channel, however many images there are.
"""

import dataclasses
import math
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from landmark_onnx.errors import ExportError, reason_of
from landmark_onnx.runtime.onnxruntime_backend import FATAL
from landmark_onnx.runtime.providers import CPU, onnxruntime
from landmark_onnx.types import Array, Tensors

Range: TypeAlias = tuple[float, float]
"""The least and the largest real value that stays what it is; others become these."""

STRIDE = 4
BINS = 4096
LEVELS = 255
"""Steps of an 8-bit number."""
PERCENTILE = 99.999
SHARES = np.linspace(0.2, 1, 81)
"""Of the observed range: what `least_error` tries."""


class Histogram:
    """Counts in `BINS` equal bins around zero. When a value lies beyond, two bins become one, so nothing is lost."""

    def __init__(self) -> None:
        self.counts: npt.NDArray[np.int64] = np.zeros(BINS, np.int64)
        self.width = 2.0**-60
        self.low, self.high = math.inf, -math.inf

    def add(self, sample: Array, low: float, high: float) -> None:
        """Count a float32 sample of a tensor whose extremes are `low` and `high`."""
        self.low, self.high = min(self.low, low), max(self.high, high)
        needed = max(abs(low), abs(high)) / (BINS // 2 - 1)
        while self.width < needed:
            merged = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts[:] = 0
            self.counts[BINS // 4 : BINS * 3 // 4] = merged
            self.width *= 2
        # Powers of two divide normal numbers without rounding, so each goes where its own sign and size put it.
        bins = np.floor(sample.reshape(-1) * np.float32(1 / self.width)).astype(np.int32) + BINS // 2
        self.counts += np.bincount(bins, minlength=BINS)

    def edges(self) -> npt.NDArray[np.float64]:
        """(BINS + 1,) float64: where the bins begin and end."""
        return np.asarray((np.arange(BINS + 1) - BINS // 2) * self.width, np.float64)


@dataclasses.dataclass(slots=True)
class Observed:
    """What a tensor held. total: of a map, the sum over `images` of the mean of each channel, (C,) float64."""

    histogram: Histogram = dataclasses.field(default_factory=Histogram)
    total: npt.NDArray[np.float64] | None = None
    images: int = 0

    def add_means(self, means: Array) -> None:
        """Of one more image: (N, C, 1, 1) float32, N regions of it or 1."""
        self.total = means.mean(axis=(0, 2, 3), dtype=np.float64) + (0 if self.total is None else self.total)
        self.images += 1


def extremes(seen: Histogram) -> Range:
    """All that was seen."""
    return min(seen.low, 0.0), max(seen.high, 0.0)


def percentile(seen: Histogram) -> Range:
    """Without the outermost values: as many on each side as leave `PERCENTILE` per cent below."""
    low, high = extremes(seen)
    total = np.cumsum(seen.counts)
    spare = total[-1] * (1 - PERCENTILE / 100)
    edges = seen.edges()
    first = edges[np.searchsorted(total, spare, side="right")]
    last = edges[min(int(np.searchsorted(total, total[-1] - spare, side="left")) + 1, BINS)]
    return max(low, min(float(first), 0.0)), min(high, max(float(last), 0.0))


def least_error(seen: Histogram) -> Range:
    """The share of the extremes with the least mean squared error after rounding and cutting.

    Source: Nagel et al., A White Paper on Neural Network Quantization (2021), section 3.1.
    """
    low, high = extremes(seen)
    if high == low:
        return low, high
    (used,) = np.nonzero(seen.counts)
    values, counts = seen.edges()[used] + seen.width / 2, seen.counts[used]
    errors = [float(counts @ (rounded(values, (low * share, high * share)) - values) ** 2) for share in SHARES]
    share = float(SHARES[int(np.argmin(errors))])
    return low * share, high * share


def rounded(values: npt.NDArray[np.float64], bounds: Range) -> npt.NDArray[np.float64]:
    """Values as uint8 with the scale and zero point of `bounds` holds them: ONNX QuantizeLinear and back."""
    scale = (bounds[1] - bounds[0]) / LEVELS
    zero = round(-bounds[0] / scale)
    return np.asarray((np.clip(np.rint(values / scale) + zero, 0, LEVELS) - zero) * scale, np.float64)


METHODS: Mapping[str, Callable[[Histogram], Range]] = types.MappingProxyType(
    {"least_error": least_error, "percentile": percentile, "extremes": extremes}
)


def observe(model: Path, tensors: Sequence[str], runs: Iterable[Tensors]) -> dict[str, Observed]:
    """Run the model on each image and watch `tensors`. The folder of `model` takes one more small file.

    Raises: ExportError if ONNX Runtime cannot run it, or a value is not finite.
    """
    graph_file = model.with_name("watched.onnx")
    watched = _watch(model, tensors, graph_file)
    outputs = [output for each in watched.values() for output in each]
    session = plain_session(graph_file)
    found = {name: Observed() for name in tensors}
    for fed in runs:
        try:
            values = dict(zip(outputs, session.run(outputs, dict(fed)), strict=True))
        except Exception as error:  # ONNX Runtime's exceptions have no public base class
            raise ExportError(f"{model}: ONNX Runtime cannot run it for calibration: {reason_of(error)}") from error
        for name, each in watched.items():
            low, high, sample, *means = (values[output] for output in each)
            if not (np.isfinite(low) and np.isfinite(high)):
                if np.asarray(sample).size == 0:
                    continue  # a detector that proposes nothing runs its head on nothing
                raise ExportError(f"{model}: {name} has values that are not finite on a calibration image")
            found[name].histogram.add(sample, float(low), float(high))
            if means:
                found[name].add_means(*means)
    return found


def _watch(model: Path, tensors: Sequence[str], target: Path) -> dict[str, list[str]]:
    """Write the graph with least value, largest value, sample and, of maps, mean of each tensor among its outputs.

    Their names, by tensor. The weights stay in the file where they are.
    """
    watched = onnx.load(model, load_external_data=False)
    graph = watched.graph
    bounds = {"starts": [0, 0], "ends": [2**31, 2**31], "axes": [2, 3], "steps": [STRIDE, STRIDE]}
    graph.initializer.extend(numpy_helper.from_array(np.array(value), f"watch.{key}") for key, value in bounds.items())
    shapes = onnx.shape_inference.infer_shapes(watched).graph
    maps = {v.name for v in [*shapes.value_info, *shapes.input] if len(v.type.tensor_type.shape.dim) == 4}
    slices = [f"watch.{key}" for key in bounds]
    names = {}
    for tensor in tensors:
        low, high, sample, mean = made = [f"watch.{tensor}.{what}" for what in ("low", "high", "sample", "mean")]
        graph.node.append(helper.make_node("ReduceMin", [tensor], [low], keepdims=0))
        graph.node.append(helper.make_node("ReduceMax", [tensor], [high], keepdims=0))
        if tensor in maps:
            graph.node.append(helper.make_node("Slice", [tensor, *slices], [sample]))
            graph.node.append(helper.make_node("GlobalAveragePool", [tensor], [mean]))
        else:
            graph.node.append(helper.make_node("Identity", [tensor], [sample]))
            made.remove(mean)
        names[tensor] = made
    outputs = (name for each in names.values() for name in each)
    graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs)
    onnx.save(watched, target)
    return names


def plain_session(path: Path) -> Any:
    """A session of ONNX Runtime on the CPU that keeps no memory from one image to the next."""
    ort = onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = FATAL
    options.enable_mem_pattern = False
    # An arena would keep the largest image's worth of every tensor that is an output.
    options.enable_cpu_mem_arena = False
    return ort.InferenceSession(str(path), options, providers=[CPU])
