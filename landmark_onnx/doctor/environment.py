"""Facts of an installation, each with a level and a remedy. Importing this imports nothing that may be broken."""

import dataclasses
import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from landmark_onnx.errors import EXPORTERS, NO_EXPORTER, LandmarkError, can_export
from landmark_onnx.extras import versions
from landmark_onnx.runtime.cpu import CPUINFO, affinity, cpu_model, cpu_quota

Level = Literal["ok", "warning", "error"]

LEAST_DISK = 2 << 30
"""Free bytes below which an export of one of the larger releases may not fit."""
FLAGS = ("avx2", "fma", "f16c", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "asimd", "sve", "i8mm")
"""CPU features that ONNX Runtime has kernels for, as /proc/cpuinfo calls them."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One fact. remedy: what to do, empty if all is well."""

    part: str
    name: str
    level: Level
    text: str
    remedy: str = ""

    def to_json(self) -> dict[str, Any]:
        """JSON-ready data."""
        return dataclasses.asdict(self)


def system() -> Iterator[Finding]:
    """Python, operating system, CPU."""
    text = f"{platform.python_implementation()} {platform.python_version()}, {sys.executable}"
    yield Finding(part="system", name="python", level="ok", text=text)
    libc = " ".join(platform.libc_ver())
    text = f"{platform.system()} {platform.release()}, {platform.machine()}" + (f", {libc}" if libc.strip() else "")
    yield Finding(part="system", name="os", level="ok", text=text)
    yield _cpu(CPUINFO, cpu_quota())


def _cpu(cpuinfo: Path, allowed: float | None) -> Finding:
    """Model, features, and the cores that this process may use. allowed: the cores of its container's quota."""
    model, flags = cpu_model(cpuinfo)
    known = [flag for flag in FLAGS if flag in flags]
    cores = affinity()
    text = f"{model}, {cores} cores" + (f", {' '.join(known)}" if known else "")
    if allowed is not None and allowed < cores:
        text = f"{text}; this container may use {allowed:g} of them, and so many threads run by default"
    return Finding(part="system", name="cpu", level="ok", text=text)


def owners(package: str, *prefixes: str) -> dict[str, str]:
    """The installed distributions that bring the package, name -> version, among those of the prefixes."""
    found: dict[str, str] = {}
    for distribution in importlib.metadata.distributions():
        name = re.sub(r"[-_.]+", "-", distribution.metadata["Name"] or "").lower()
        if not name.startswith(prefixes) or name in found:
            continue
        # Since Python 3.12 `files` leaves out what is missing, and that is what is looked for here.
        record = distribution.read_text("RECORD")
        if record is None or any(line.startswith(f"{package}/__init__.py,") for line in record.splitlines()):
            found[name] = distribution.version
    return dict(sorted(found.items()))


def package(name: str, answer: Mapping[str, Any]) -> Finding:
    """A package of the base set, by its name for pip. answer: the child's that imported it: "version" or "error"."""
    if "error" not in answer:
        return Finding(part="packages", name=name, level="ok", text=answer["version"])
    remedy = f"pip install --force-reinstall {name}"
    if re.search(r"lib(GL|gthread|Xext|SM)\b", answer["error"]):
        remedy = "pip uninstall -y opencv-python opencv-contrib-python, then pip install --force-reinstall " + name
    text = f"cannot be imported: {answer['error']}"
    return Finding(part="packages", name=name, level="error", text=text, remedy=remedy)


def opencv_flavours() -> Finding:
    """Whether one OpenCV is installed and not several, which overwrite each other's files."""
    found = owners("cv2", "opencv-")
    text = ", ".join(f"{name} {version}" for name, version in found.items()) or "not installed by pip"
    if len(found) < 2:
        return Finding(part="packages", name="opencv flavours", level="ok", text=text)
    text = f"{text}: they share the folder cv2, and the last one installed has overwritten the others"
    remedy = f"pip uninstall -y {' '.join(found)}, then pip install opencv-python-headless"
    return Finding(part="packages", name="opencv flavours", level="error", text=text, remedy=remedy)


def runtime_flavours(answer: Mapping[str, Any]) -> Finding:
    """Whether one ONNX Runtime is installed, whole, and not several. answer: the child's, that imported it."""
    found = owners("onnxruntime", "onnxruntime", "ort-")
    text = ", ".join(f"{name} {version}" for name, version in found.items())
    problem = remedy = ""
    spec = importlib.util.find_spec("onnxruntime")
    if len(found) > 1:
        problem = "they share one folder, and the last one installed has overwritten the others"
        remedy = f"pip uninstall -y {' '.join(found)}, then pip install 'landmark-onnx[cpu]' or 'landmark-onnx[gpu]'"
    elif spec is None:
        problem = "not installed"
        remedy = "pip install 'landmark-onnx[cpu]' or 'landmark-onnx[gpu]'"
    elif spec.origin is None:
        problem = "an empty folder is left of it, as after uninstalling one of two flavours"
        names = " ".join(found) or "landmark-onnx[cpu]"
        remedy = f"pip install --force-reinstall {names if found else repr(names)}"
    elif "error" in answer:
        problem = f"cannot be imported: {answer['error']}"
        remedy = f"pip install --force-reinstall {' '.join(found) or 'onnxruntime'}"
    if problem:
        text = f"{text}: {problem}" if text else problem
        return Finding(part="onnxruntime", name="flavours", level="error", text=text, remedy=remedy)
    text = text or f"{answer['version']}, not installed by pip"
    return Finding(part="onnxruntime", name="flavours", level="ok", text=text)


def openvino() -> Finding:
    """The version of what `--provider openvino` takes."""
    found = versions("openvino")
    text = found.get("openvino", "not installed; it would serve --provider openvino, and auto where no ONNX Runtime is")
    return Finding(part="openvino", name="openvino", level="ok", text=text)


def store() -> Finding:
    """Where the store is, what is in it, and whether more fits. This needs NumPy."""
    from landmark_onnx.store.catalogue import HOME_VARIABLE, home

    folder = home().absolute()
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()] if folder.is_dir() else []
    models = len(list(folder.glob("models/*.onnx")))
    free = shutil.disk_usage(there).free
    writable = there.is_dir() and os.access(there, os.W_OK)
    text = f"{folder}: {models} models, {sum(sizes) / 1e9:.2f} GB; {free / 1e9:.1f} GB free"
    problem = remedy = ""
    if free < LEAST_DISK:
        problem, remedy = "too little for an export", f"free some, or set {HOME_VARIABLE} to a folder on a larger disk"
    if not writable:
        problem, remedy = "read-only: no model can be added", f"set {HOME_VARIABLE} to a folder of yours to add models"
    level: Level = "warning" if problem else "ok"
    text = f"{text}; {problem}" if problem else text
    return Finding(part="store", name="home", level=level, text=text, remedy=remedy)


def model_cards() -> Finding:
    """Whether every card can be read: one bad file of the user's stops every command. This needs NumPy."""
    from landmark_onnx.cards.catalogue import cards, shipped_cards, users_folder

    folder = users_folder()
    try:
        found = len(cards())
    except LandmarkError as error:
        remedy = "correct that file or move it away"
        return Finding(part="store", name="cards", level="error", text=str(error), remedy=remedy)
    own = found - len(shipped_cards())
    text = f"{found - own} shipped, {own} in {folder}"
    return Finding(part="store", name="cards", level="ok", text=text)


def export_tools() -> Finding:
    """Versions of what export needs and nothing else does."""
    found = versions(*EXPORTERS.values())
    text = ", ".join(f"{name} {version}" for name, version in found.items()) or "none installed; only export needs them"
    if not can_export():
        text = f"{text}; {NO_EXPORTER}"
    return Finding(part="export", name="tools", level="ok", text=text)


def driver(answer: Mapping[str, Any], name: str, cuda: str) -> Finding:
    """NVIDIA's driver. answer: the child's paths, and the CUDA version it supports. cuda: what ONNX Runtime wants."""
    path, supports = answer.get(name), answer.get("driver")
    level: Level = "ok"
    text, remedy = f"none ({name} not found)", ""
    if path:
        text = f"{path}, for CUDA {supports or 'of unknown version'}"
    if path and not cuda:
        level, text = "warning", f"{text}; the ONNX Runtime installed makes no use of it"
        remedy = "for the GPU: pip uninstall -y onnxruntime, then pip install 'landmark-onnx[gpu]'"
    elif cuda and not path:
        level = "warning"
        remedy = DRIVER_HINT
    elif supports and _numbers(supports) < _numbers(cuda)[:1]:
        level, text = "warning", f"{text}; ONNX Runtime wants CUDA {cuda}"
        remedy = "update the driver, or: pip uninstall -y onnxruntime-gpu, then pip install 'landmark-onnx[gpu-cu12]'"
    return Finding(part="nvidia", name="driver", level=level, text=text, remedy=remedy)


def cuda_libraries(cuda: str) -> Sequence[str]:
    """The shared libraries of CUDA and cuDNN that ONNX Runtime built for that CUDA version links or loads."""
    major = cuda.partition(".")[0]
    return (
        *(f"{name}.so.{major}" for name in ("libcudart", "libcublasLt", "libcublas")),
        "libcurand.so.10",
        "libcudnn.so.9",
    )


DRIVER_HINT = "install or update NVIDIA's driver (r580 or newer for CUDA 13); start a container with --gpus all"
TENSORRT_LIBRARIES = ("libnvinfer.so.10", "libnvonnxparser.so.10")


def libraries(provider: str, answer: Mapping[str, Any], wanted: Sequence[str], hint: str) -> Finding:
    """Which of the libraries that a provider needs the loader finds. hint: how to get them."""
    name = f"libraries for {provider.removesuffix('ExecutionProvider')}"
    missing = [library for library in wanted if not answer.get(library)]
    if not missing:
        folders = sorted({str(Path(str(answer[library])).parent) for library in wanted})
        return Finding(part="nvidia", name=name, level="ok", text=f"found in {', '.join(folders)}")
    text = f"not found: {', '.join(missing)}"
    return Finding(part="nvidia", name=name, level="warning", text=text, remedy=hint)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version)))
