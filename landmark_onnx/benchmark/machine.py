"""What a benchmark ran on: facts without which its figures mean nothing."""

import contextlib
import importlib.metadata
import os
import platform
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from landmark_onnx.cores import affinity, available_cores

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
    model, flags = _cpu()
    return {
        "cpu": model or platform.processor() or platform.machine(),
        "flags": sorted(flag for flag in flags if FLAGS.fullmatch(flag)),
        "cores": affinity(),
        "usable_cores": available_cores(),
        "memory": _memory("MemTotal"),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: version for name in PACKAGES for version in _version(name)},
    }


def available_bytes() -> int | None:
    """Memory that can be had without swapping, None where the system does not tell."""
    return _memory("MemAvailable")


def load_average() -> float | None:
    """Processes that wanted to run in the last minute, on average; None where the system does not tell."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def _cpu() -> tuple[str, list[str]]:
    with contextlib.suppress(OSError):
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        model = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
        flags = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", text, re.MULTILINE)
        return model[1] if model else "", flags[1].split() if flags else []
    return "", []


def _memory(key: str) -> int | None:
    with contextlib.suppress(OSError):
        text = Path("/proc/meminfo").read_text(encoding="ascii")
        if found := re.search(rf"^{key}:\s*(\d+) kB$", text, re.MULTILINE):
            return int(found[1]) * 1024
    return None


def _version(package: str) -> Iterator[str]:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        yield importlib.metadata.version(package)
