"""Options of ONNX Runtime's CUDA and TensorRT providers, by the shapes of a model.

Source: ONNX Runtime docs, execution-providers/CUDA-ExecutionProvider.md and TensorRT-ExecutionProvider.md.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from landmark_onnx.cards.geometry import fixed_sides, side_bounds
from landmark_onnx.cards.schema import ModelCard
from landmark_onnx.precision import Precision

TRUE = ("1", "true", "True", "TRUE")
"""What ONNX Runtime takes for yes."""

FLAGS: Mapping[Precision, str] = {"fp16": "trt_fp16_enable", "bf16": "trt_bf16_enable", "int8": "trt_int8_enable"}
"""TensorRT's switch for each reduced precision. int8 takes its scales from the file's QuantizeLinear nodes."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ShapeProfile:
    """What a session will be fed. batch_size: the most images at once. channels_last: (N, H, W, C)."""

    card: ModelCard
    batch_size: int = 1
    channels_last: bool = False

    @property
    def fixed(self) -> bool:
        """Whether every image has one size."""
        return fixed_sides(self.card.preprocess) is not None


def cuda_options(workload: ShapeProfile | None) -> dict[str, str]:
    """An exhaustive search for each new shape costs more than it saves, and one for a single shape is soon paid for.

    kSameAsRequested: doubled arenas would hold up to twice what varying shapes need.
    """
    search = "EXHAUSTIVE" if workload and workload.fixed else "HEURISTIC"
    return {"cudnn_conv_algo_search": search, "arena_extend_strategy": "kSameAsRequested"}


def tensorrt_options(workload: ShapeProfile | None, precision: Precision, engines: Path | None) -> dict[str, str]:
    """Caches in the folder `engines`, the precision's switch, and shape profiles where the card bounds the shapes."""
    options = {FLAGS[precision]: "1"} if precision in FLAGS else {}
    if engines:
        options |= {
            "trt_engine_cache_enable": "1",
            "trt_engine_cache_path": str(engines),
            "trt_timing_cache_enable": "1",
            "trt_timing_cache_path": str(engines),
        }
    return options | (shape_profiles(workload) if workload else {})


def shape_profiles(workload: ShapeProfile) -> dict[str, str]:
    """The smallest, usual and largest shapes of every input; nothing where the card does not bound them.

    Without profiles ONNX Runtime rebuilds an engine whenever a shape leaves the range seen so far.
    """
    rule = workload.card.preprocess
    fixed, bounds = fixed_sides(rule), side_bounds(rule)
    most = 1 if workload.card.task == "det" else workload.batch_size
    if fixed:
        shapes = {"min": (1, *fixed), "opt": (most, *fixed), "max": (most, *fixed)}
    elif bounds:
        least, longest = bounds
        usual = min(longest, rule.size * 4 // 3)
        shapes = {"min": (1, least, least), "opt": (most, rule.size, usual), "max": (most, longest, longest)}
    else:
        return {}
    return {f"trt_profile_{name}_shapes": _profile(workload, *shape) for name, shape in shapes.items()}


def graph_refusal(options: Mapping[str, str], workload: ShapeProfile | None) -> str:
    """Why a CUDA graph that was asked for cannot be had, or nothing: it replays one shape from fixed addresses."""
    wanted = [name for name in ("enable_cuda_graph", "trt_cuda_graph_enable") if options.get(name) in TRUE]
    if not wanted or not workload or workload.fixed:
        return ""
    return f"{wanted[0]}: a CUDA graph replays one shape, and {workload.card.name} takes images of many"


def _profile(workload: ShapeProfile, batch: int, height: int, width: int) -> str:
    image, *others = workload.card.input_names()
    channels = workload.card.preprocess.channels
    sides = (height, width, channels) if workload.channels_last else (channels, height, width)
    values = 3 if workload.card.postprocess.decoder == "rois" else 2  # of im_info; of im_shape and scale_factor
    shapes = {image: (batch, *sides)} | dict.fromkeys(others, (batch, values))
    return ",".join(f"{name}:{'x'.join(map(str, shape))}" for name, shape in shapes.items())
