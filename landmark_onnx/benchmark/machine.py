"""What a benchmark ran on: facts without which its figures mean nothing."""

import contextlib
import os
import platform
import re
from pathlib import Path
from typing import Any

from landmark_onnx.cores import affinity, available_cores, cpu_model
from landmark_onnx.extras import versions

PACKAGES = (
    "landmark-onnx",
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-openvino",
    "openvino",
    "paddlepaddle",
    "paddlepaddle-gpu",
    "mlcommons-loadgen",
    "numpy",
    "opencv-python-headless",
    "opencv-python",
)

FLAGS = re.compile(r"(sse4_2|avx|fma|f16c|amx|asimd|sve|i8mm|bf16|vnni)\w*")
"""CPU features that kernels are chosen by."""


def machine() -> dict[str, Any]:
    """CPU, its features, cores, memory in bytes, system, and versions of whatever takes part; JSON-ready."""
    model, flags = cpu_model()
    return {
        "cpu": model,
        "flags": sorted(flag for flag in flags if FLAGS.fullmatch(flag)),
        "cores": affinity(),
        "usable_cores": available_cores(),
        "memory": _memory("MemTotal"),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": versions(*PACKAGES),
    }


def available_bytes() -> int | None:
    """Memory that can be had without swapping, None where the system does not tell."""
    return _memory("MemAvailable")


def load_average() -> float | None:
    """Processes that wanted to run in the last minute, on average; None where the system does not tell."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def _memory(key: str) -> int | None:
    with contextlib.suppress(OSError):
        text = Path("/proc/meminfo").read_text(encoding="ascii")
        if found := re.search(rf"^{key}:\s*(\d+) kB$", text, re.MULTILINE):
            return int(found[1]) * 1024
    return None
