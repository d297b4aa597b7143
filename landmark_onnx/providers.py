"""Execution providers: what was asked, what runs, what to install."""

import contextlib
import dataclasses
import sys
import types
from collections.abc import Mapping, Sequence
from typing import Any

from landmark_onnx.errors import MissingExtraError, SessionError

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"
OPENVINO = "OpenVINOExecutionProvider"

SHORT_NAMES: Mapping[str, str] = types.MappingProxyType(
    {"cpu": CPU, "cuda": CUDA, "tensorrt": TENSORRT, "openvino": OPENVINO}
)
EXTRAS: Mapping[str, str] = types.MappingProxyType({CPU: "cpu", CUDA: "gpu", TENSORRT: "gpu", OPENVINO: "openvino"})

# Image sizes vary, and an exhaustive search for each new shape costs more than it saves.
CUDA_DEFAULTS: Mapping[str, str] = types.MappingProxyType({"cudnn_conv_algo_search": "HEURISTIC"})


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ProviderRequest:
    """What the user asked for. name: "auto", a short name or ONNX Runtime's own; options go through unchanged."""

    name: str = "auto"
    options: Mapping[str, str] = dataclasses.field(default_factory=dict)
    device_id: int | None = None


def onnxruntime() -> Any:
    """The onnxruntime module. Raises: MissingExtraError that names the extras."""
    try:
        import onnxruntime as ort
    except ImportError as error:
        raise MissingExtraError("ONNX Runtime", "cpu", "gpu", "gpu-cu12", "openvino") from error
    if not hasattr(ort, "InferenceSession"):
        # What uninstalling one of two flavours leaves behind: an empty package.
        raise MissingExtraError("ONNX Runtime is damaged: uninstall every onnxruntime package first; it", "cpu", "gpu")
    return ort


def full_name(name: str, known: Sequence[str]) -> str:
    """ONNX Runtime's name of a provider. Raises: SessionError if neither we nor ONNX Runtime know it."""
    found = SHORT_NAMES.get(name.lower(), name)
    if found not in SHORT_NAMES.values() and found not in known:
        raise SessionError(f"no execution provider is called {name!r}; there are: auto, {', '.join(SHORT_NAMES)}")
    return found


def plan(request: ProviderRequest, available: Sequence[str]) -> list[tuple[str, dict[str, str]]]:
    """The (provider, options) list for a session, the wanted one first, the CPU last for the ops others leave.

    Raises: SessionError if an explicit provider is not compiled in, or an option has no provider to go to.
    """
    automatic = request.name.lower() == "auto"
    if automatic:
        wanted = CUDA if CUDA in available else CPU
    else:
        wanted = full_name(request.name, available)
        if wanted not in available:
            raise SessionError(f"{wanted} is not part of the installed ONNX Runtime; {install_hint(wanted)}")
    options = dict(CUDA_DEFAULTS) if wanted == CUDA else {}
    if request.device_id is not None:
        if wanted not in (CUDA, TENSORRT):
            raise SessionError(f"a device id means nothing to {wanted}; it takes --provider cuda or tensorrt")
        options["device_id"] = str(request.device_id)
    if request.options and wanted == CPU:
        raise SessionError(f"{CPU} takes no provider options, got: {', '.join(request.options)}")
    options |= request.options
    chain = [(wanted, options)]
    if wanted == TENSORRT and CUDA in available:
        cuda = dict(CUDA_DEFAULTS)
        if request.device_id is not None:
            cuda["device_id"] = str(request.device_id)
        chain.append((CUDA, cuda))
    return chain if wanted == CPU else [*chain, (CPU, {})]


def preload(ort: Any, chain: Sequence[tuple[str, dict[str, str]]]) -> None:
    """Load NVIDIA's libraries from their pip packages, where the loader itself would not look."""
    if hasattr(ort, "preload_dlls") and any(name in (CUDA, TENSORRT) for name, _ in chain):
        with contextlib.redirect_stdout(sys.stderr):  # it prints what it does not find, and stdout is for answers
            ort.preload_dlls()


def install_hint(provider: str) -> str:
    """The remedy for a provider that is missing or does not start."""
    extra = EXTRAS.get(provider)
    if extra is None:
        return f"install the ONNX Runtime package that brings {provider}"
    hint = f"in a fresh environment run: pip install 'landmark-onnx[{extra}]'"
    if provider == CUDA:
        hint += " (CUDA 13, NVIDIA driver r580 or newer) or 'landmark-onnx[gpu-cu12]' (CUDA 12)"
    if provider == TENSORRT:
        hint += " and TensorRT 10 (pip install 'tensorrt-cu13<11')"
    return hint
