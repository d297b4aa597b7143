"""Models on the openvino package itself, with its compiled blobs in the machine cache."""

import contextlib
import functools
import importlib
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from landmark_onnx.errors import ModelFileError, SessionError, reason_of
from landmark_onnx.modelfile.metadata import PREFIX, read_metadata
from landmark_onnx.precision import Precision
from landmark_onnx.runtime.backend import Port
from landmark_onnx.runtime.compiled_cache import entry_of
from landmark_onnx.runtime.cpu import cpu_model
from landmark_onnx.runtime.openvino_bf16 import EXACT, spared
from landmark_onnx.runtime.providers import OPENVINO_PACKAGE, ProviderRequest
from landmark_onnx.types import Array, Tensors

DEVICE = "device_type"
"""The option that chooses the device, as ONNX Runtime's provider calls it; all others are OpenVINO's properties."""

KINDS: Mapping[str, str] = {"f16": "float16", "f32": "float32", "f64": "float64"} | {
    f"{kind[0]}{bits}": f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)
}
"""OpenVINO's names of element types, and NumPy's."""

BF16_FEATURES = frozenset({"avx512_bf16", "amx_bf16", "avx_ne_convert"})
"""CPU features, one of which bf16 needs; OpenVINO would convert without them, for no gain."""


BLOB = "marked.blob"
"""What a marked copy was compiled to, in the machine cache."""


class OpenVino:
    """A `Runner` on an `openvino.CompiledModel`."""

    def __init__(self, compiled: Any, metadata: Mapping[str, str], note: str = "") -> None:
        self.providers: tuple[str, ...] = (OPENVINO_PACKAGE,)
        self.metadata, self.note = metadata, note
        self.inputs: Mapping[str, Port] = _ports(compiled.inputs)
        self.outputs: Mapping[str, Port] = _ports(compiled.outputs)
        self._request = compiled.create_infer_request()
        self._lock = threading.Lock()

    def run(self, outputs: Sequence[str], feeds: Tensors) -> list[Array]:
        """The named outputs. Raises: OpenVINO's RuntimeError; TypeError where it would convert a type silently."""
        for name, array in feeds.items():
            if array.dtype.name != self.inputs[name].kind:
                raise TypeError(f"{name}: wanted {self.inputs[name].kind}, got {array.dtype}")
        with self._lock:
            results = self._request.infer(dict(feeds), share_inputs=True)
            return [results[name] for name in outputs]


def load(package: Any, path: Path, request: ProviderRequest, *, threads: int, machine_cache: bool) -> OpenVino:
    """Load a file, from a compiled blob if it may be kept.

    Raises: ModelFileError if it is damaged; SessionError if OpenVINO does not run it as asked.
    """
    _check_format(path)
    core = package.Core()
    device = _device(request)
    facts = _facts(core, device)
    settings = properties(request, device, facts.get("OPTIMIZATION_CAPABILITIES", ()), threads)
    metadata = _strings(path)
    source_of = functools.partial(spared, package, core, path, request.precision)

    def compiled(folder: Path) -> Any:
        if (folder / BLOB).is_file():
            return core.import_model((folder / BLOB).read_bytes(), device, settings)
        return core.compile_model(str(path), device, {**settings, "CACHE_DIR": str(folder)})

    def write(folder: Path) -> None:
        with source_of() as source:
            if source == path:
                compiled(folder)
            else:
                # OpenVINO's own cache goes by the path, and that of a marked copy is another each time.
                blob = core.compile_model(str(source), device, settings).export_model()
                (folder / BLOB).write_bytes(blob.getvalue())

    made = {"runtime": ["openvino", package.get_version()], "device": facts, "options": settings, "exact": EXACT}
    cacheable = machine_cache and "CACHE_DIR" not in settings
    note = ""
    if entry := entry_of(path, provider=OPENVINO_PACKAGE, **made) if cacheable else None:
        model = entry.load(compiled)
        if model is None:
            note = entry.build(write)
            model = entry.load(compiled)
        if model is not None:
            return OpenVino(model, metadata)
        note = f"no machine cache: {note or 'what was written there cannot be used'}"
    with _explained(core, path, device), source_of() as source:
        return OpenVino(core.compile_model(str(source), device, settings), metadata, note)


def signature(package: Any, path: Path) -> tuple[Mapping[str, Port], Mapping[str, Port]]:
    """The inputs and outputs of a file, which is not compiled. Raises: ModelFileError."""
    _check_format(path)
    try:
        model = package.Core().read_model(str(path))
    except RuntimeError as error:
        raise ModelFileError(f"{path}: not a usable ONNX model: {reason_of(error)}") from error
    return _ports(model.inputs), _ports(model.outputs)


def _check_format(path: Path) -> None:
    """Raises: ModelFileError for what is no ONNX: readers of other formats would try it and write to stderr."""
    manager = importlib.import_module("openvino.frontend").FrontEndManager()
    if not manager.load_by_framework("onnx").supported(str(path)):
        raise ModelFileError(f"{path}: not a usable ONNX model: its first bytes are no ONNX, or it is cut")


def _strings(path: Path) -> dict[str, str]:
    """A file's own strings, as ONNX Runtime gives them; OpenVINO has no word for them."""
    metadata = read_metadata(path) or {}
    return {
        f"{PREFIX}{key}": json.dumps(value, sort_keys=True, separators=(",", ":")) for key, value in metadata.items()
    }


def properties(request: ProviderRequest, device: str, capabilities: Sequence[str], threads: int) -> dict[str, str]:
    """OpenVINO's properties for a request. Left alone it would run fp32 models in bf16 where the CPU has it.

    Raises: SessionError if the device has no bf16 and that is asked for.
    """
    if request.precision == "bf16" and not _has_bf16(device, capabilities):
        raise SessionError(f"{device} has no bf16 here; run without --precision bf16")
    reduced: Mapping[Precision, str] = {"bf16": "bf16", "fp16": "f16" if "FP16" in capabilities else "f32"}
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": reduced.get(request.precision, "f32")}
    if threads:
        settings["INFERENCE_NUM_THREADS"] = str(threads)
    return settings | {key: value for key, value in request.options.items() if key != DEVICE}


def _device(request: ProviderRequest) -> str:
    """The device that is asked for, the CPU by default; a device id is the number of a GPU."""
    device = request.options.get(DEVICE, "CPU" if request.device_id is None else "GPU")
    return device if request.device_id is None else f"{device}.{request.device_id}"


def _facts(core: Any, device: str) -> dict[str, Any]:
    """Name and abilities of a device; nothing of AUTO, HETERO and other devices made of devices.

    Raises: SessionError if there is no such device.
    """
    if device.partition(":")[0] in ("AUTO", "MULTI", "HETERO", "BATCH"):
        return {"FULL_DEVICE_NAME": device}
    try:
        facts = {key: core.get_property(device, key) for key in ("FULL_DEVICE_NAME", "OPTIMIZATION_CAPABILITIES")}
    except RuntimeError as error:
        there = ", ".join(core.available_devices) or "none"
        raise SessionError(f"OpenVINO has no device {device} here; there are: {there}") from error
    return facts


def _has_bf16(device: str, capabilities: Sequence[str]) -> bool:
    features = cpu_model()[1]
    return "BF16" in capabilities and (device != "CPU" or not features or bool(features & BF16_FEATURES))


@contextlib.contextmanager
def _explained(core: Any, path: Path, device: str) -> Iterator[None]:
    """Raises: ModelFileError if the file cannot be read; SessionError if it can."""
    try:
        yield
    except (OSError, RuntimeError, TypeError) as error:
        reason = reason_of(error)
        try:
            core.read_model(str(path))
        except RuntimeError:
            raise ModelFileError(f"{path}: not a usable ONNX model: {reason}") from error
        raise SessionError(f"{path}: OpenVINO cannot start on {device}: {reason}") from error


def _ports(values: Sequence[Any]) -> dict[str, Port]:
    """By every name: a tensor that goes into one node and comes out of it unchanged has those of both sides."""
    found: dict[str, Port] = {}
    for value in values:
        sides = () if value.partial_shape.rank.is_dynamic else value.partial_shape
        shape = tuple(side.get_length() if side.is_static else None for side in sides)
        kind = value.element_type.get_type_name()
        found |= dict.fromkeys(sorted(value.get_names()), Port(shape, KINDS.get(kind, kind)))
    return found
