"""What a benchmark ran on: facts without which its figures mean nothing."""

import contextlib
import os
import platform
import re
import sys
from pathlib import Path
from typing import Any

from landmark_onnx.extras import versions
from landmark_onnx.runtime.cpu import affinity, available_cores, cpu_model

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


def peak_bytes() -> int | None:
    """The most memory that this process has had resident, None where the system does not tell.

    ru_maxrss is no substitute on Linux: a child inherits its parent's.
    """
    if sys.platform == "darwin":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return _memory("VmHWM", Path("/proc/self/status"))


def _memory(key: str, file: Path = Path("/proc/meminfo")) -> int | None:
    with contextlib.suppress(OSError):
        if found := re.search(
            rf"^{key}:\s*(\d+) kB$", file.read_text(encoding="ascii", errors="replace"), re.MULTILINE
        ):
            return int(found[1]) * 1024
    return None
