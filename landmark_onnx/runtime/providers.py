"""Execution providers: what was asked, what runs, what to install."""

import contextlib
import dataclasses
import importlib
import importlib.util
import sys
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from landmark_onnx.errors import MissingExtraError, SessionError
from landmark_onnx.extras import extra, hand_on_interrupt

if TYPE_CHECKING:
    from landmark_onnx.precision import Precision
    from landmark_onnx.runtime.gpu_options import ShapeProfile

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"
OPENVINO = "OpenVINOExecutionProvider"
"""Of an ONNX Runtime that has it compiled in."""
OPENVINO_PACKAGE = "OpenVINO"
"""The openvino package itself, which needs no ONNX Runtime."""

SHORT_NAMES: Mapping[str, str] = types.MappingProxyType(
    {"cpu": CPU, "cuda": CUDA, "tensorrt": TENSORRT, "openvino": OPENVINO_PACKAGE}
)
EXTRAS: Mapping[str, str] = types.MappingProxyType(
    {CPU: "cpu", CUDA: "gpu", TENSORRT: "gpu", OPENVINO_PACKAGE: "openvino"}
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ProviderRequest:
    """What the user asked for. name: "auto", a short name or ONNX Runtime's own; options go through unchanged.

    precision: fp16 and int8 run a file of their own; bf16 is a setting of TensorRT and OpenVINO.

    >>> ProviderRequest(name="openvino", options={"PERFORMANCE_HINT": "THROUGHPUT"}, precision="bf16").device_id
    """

    name: str = "auto"
    options: Mapping[str, str] = dataclasses.field(default_factory=dict)
    device_id: int | None = None
    precision: "Precision" = "fp32"


def takes_openvino(request: ProviderRequest) -> bool:
    """Whether the openvino package is to run the model: if asked for, or if "auto" finds it and no ONNX Runtime."""
    if request.name.lower() == "auto":
        return not _installed("onnxruntime") and _installed("openvino")
    return SHORT_NAMES.get(request.name.lower(), request.name) == OPENVINO_PACKAGE


def on_cpu() -> ProviderRequest:
    """What runs any model the same way on any machine: the CPU, of OpenVINO where no ONNX Runtime is installed."""
    return ProviderRequest(name="openvino" if takes_openvino(ProviderRequest()) else "cpu")


def _installed(package: str) -> bool:
    if package in sys.modules:
        return sys.modules[package] is not None
    try:
        return importlib.util.find_spec(package) is not None
    except ImportError:
        return False


def openvino() -> Any:
    """The openvino package. Raises: SessionError that says how to install it."""
    try:
        package = importlib.import_module("openvino")  # an extra, which may be missing when types are checked too
    except ImportError as error:
        hand_on_interrupt(error)
        raise SessionError(f"the openvino package is not installed; {install_hint(OPENVINO_PACKAGE)}") from error
    return package


def onnxruntime() -> Any:
    """The onnxruntime module. Raises: MissingExtraError that names the extras."""
    # OpenVINO would do, but a call from where it is installed needs ONNX Runtime itself.
    instead = () if _installed("openvino") else ("openvino",)
    with extra("cpu", "gpu", "gpu-cu12", *instead, what="ONNX Runtime"):
        import onnxruntime as ort
    if not hasattr(ort, "InferenceSession"):
        # What uninstalling one of two flavours leaves behind: an empty package.
        raise MissingExtraError("ONNX Runtime is damaged: uninstall every onnxruntime package first; it", "cpu", "gpu")
    return ort


def full_name(name: str, known: Sequence[str]) -> str:
    """ONNX Runtime's name of a provider. Raises: SessionError if neither we nor ONNX Runtime know it."""
    found = SHORT_NAMES.get(name.lower(), name)
    if found not in (*SHORT_NAMES.values(), OPENVINO) and found not in known:
        raise SessionError(f"no execution provider is called {name!r}; there are: auto, {', '.join(SHORT_NAMES)}")
    return found


def plan(
    request: ProviderRequest,
    available: Sequence[str],
    workload: "ShapeProfile | None" = None,
    engines: Path | None = None,
) -> list[tuple[str, dict[str, str]]]:
    """The (provider, options) list for a session, the wanted one first, the CPU last for the ops others leave.

    engines: the folder of TensorRT's caches. What the user set comes before what shapes and precision suggest.
    Raises: SessionError if an explicit provider is not compiled in, an option has no provider to go to, or the
    provider has no such precision.
    """
    # Models' facts need NumPy, and `landmark_onnx.doctor.diagnose` must do without.
    from landmark_onnx.runtime.gpu_options import cuda_options, graph_refusal

    wanted = chosen(request, available)
    _check(request, wanted)
    device = {} if request.device_id is None else {"device_id": str(request.device_id)}
    options = _defaults(wanted, request, workload, engines) | device | dict(request.options)
    if refusal := graph_refusal(options, workload):
        raise SessionError(refusal)
    chain = [(wanted, options)]
    if wanted == TENSORRT and CUDA in available:
        chain.append((CUDA, cuda_options(workload) | device))
    return chain if wanted == CPU else [*chain, (CPU, {})]


def _defaults(
    wanted: str, request: ProviderRequest, workload: "ShapeProfile | None", engines: Path | None
) -> dict[str, str]:
    from landmark_onnx.runtime.gpu_options import cuda_options, tensorrt_options

    if wanted == CUDA:
        return cuda_options(workload)
    return tensorrt_options(workload, request.precision, engines) if wanted == TENSORRT else {}


def chosen(request: ProviderRequest, available: Sequence[str]) -> str:
    """The provider of ONNX Runtime that is to come first. Raises: SessionError if it is not compiled in.

    >>> chosen(ProviderRequest(), ["CUDAExecutionProvider", "CPUExecutionProvider"])
    'CUDAExecutionProvider'
    >>> chosen(ProviderRequest(name="cpu"), ["CUDAExecutionProvider", "CPUExecutionProvider"])
    'CPUExecutionProvider'
    """
    if request.name.lower() == "auto":
        return CUDA if CUDA in available else CPU
    wanted = full_name(request.name, available)
    if wanted not in available:
        raise SessionError(f"{wanted} is not part of the installed ONNX Runtime; {install_hint(wanted)}")
    return wanted


def _check(request: ProviderRequest, wanted: str) -> None:
    if request.precision == "bf16" and wanted != TENSORRT:
        raise SessionError(f"{wanted} has no bf16; it takes --provider openvino or tensorrt")
    if request.device_id is not None and wanted not in (CUDA, TENSORRT):
        raise SessionError(f"a device id means nothing to {wanted}; it takes --provider cuda, tensorrt or openvino")
    if request.options and wanted == CPU:
        raise SessionError(f"{CPU} takes no provider options, got: {', '.join(request.options)}")


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
    hint = f"in a fresh environment install landmark-onnx with extra {extra}"
    if provider == CUDA:
        hint += " (CUDA 13, NVIDIA driver r580 or newer) or gpu-cu12 (CUDA 12)"
    if provider == TENSORRT:
        hint += " and TensorRT 10 (pip install 'tensorrt-cu13<11')"
    return hint
