"""Models on ONNX Runtime: its options, its machine's own form of a model, its errors."""

import contextlib
import dataclasses
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from landmark_onnx.errors import ModelFileError, SessionError, reason_of
from landmark_onnx.runtime.backend import Port
from landmark_onnx.runtime.compiled_cache import CacheEntry, entry_of
from landmark_onnx.runtime.gpu_options import TRUE
from landmark_onnx.runtime.io_binding import Bindings
from landmark_onnx.runtime.providers import CPU, CUDA, TENSORRT, install_hint
from landmark_onnx.types import Array, Tensors

FATAL = 4
"""ONNX Runtime's log level: warnings are noise to a user, and errors are raised as well. The log would bring them
to the terminal with every control character that the names in a file have."""

GRAPH, WEIGHTS = "model.onnx", "weights.data"
"""Files of an entry of the machine cache."""

logger = logging.getLogger(__name__)

Chain = list[tuple[str, dict[str, str]]]

KINDS: Mapping[str, str] = {"float": "float32", "double": "float64"}
"""ONNX Runtime's names of element types that are not NumPy's."""

_FILE_ERRORS = frozenset({"InvalidProtobuf", "InvalidGraph", "NoSuchFile", "NoModel", "NotImplemented"})


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """How to load a model file. fixed: its outputs' shapes follow from its inputs'. packed: see `options`."""

    path: Path
    chain: Chain
    threads: int
    fixed: bool = False
    packed: bool = False

    def options(self, ort: Any) -> Any:
        """Session options.

        packed: keep weights as matrix multiplications read them: a classifier of 50,000 classes took 32 ms in place
        of 68 at batch 4, the same at batch 1, for a copy of its last layer, up to 1.7 GB. The machine cache has them
        in a file, where they take no memory of the process; without it memory comes first.
        """
        options = ort.SessionOptions()
        options.log_severity_level = FATAL
        options.intra_op_num_threads = self.threads
        # A pattern is kept for each input shape, and photos have many.
        options.enable_mem_pattern = False
        options.add_session_config_entry("session.disable_prepacking", "0" if self.packed else "1")
        return options


class OnnxRuntime:
    """A `Runner` on an `onnxruntime.InferenceSession`."""

    def __init__(self, ort: Any, session: Any, start: Start, note: str = "") -> None:
        self.session, self.note = session, note
        self.providers: tuple[str, ...] = tuple(session.get_providers())
        with _texts_of(start.path):
            self.metadata: Mapping[str, str] = session.get_modelmeta().custom_metadata_map
            self.inputs: Mapping[str, Port] = _ports(session.get_inputs())
            self.outputs: Mapping[str, Port] = _ports(session.get_outputs())
        self._bindings: Bindings | None = None
        if self.providers[0] in (CUDA, TENSORRT):
            given = start.chain[0][1]
            graph = given.get("enable_cuda_graph") in TRUE
            device = int(given.get("device_id", "0"))
            self._bindings = Bindings(ort, session, "cuda", device, fixed=start.fixed, graph=graph)

    def run(self, outputs: Sequence[str], feeds: Tensors) -> list[Array]:
        """The named outputs. Raises: ONNX Runtime's exceptions."""
        if self._bindings:
            return self._bindings.run(outputs, feeds)
        values: list[Array] = self.session.run(list(outputs), feeds)
        return values


def load(ort: Any, start: Start, *, machine_cache: bool) -> OnnxRuntime:
    """Load a file, in the form that suits this machine if it may be kept. Raises: ModelFileError, SessionError."""
    note = ""
    entry = _entry(ort, start) if machine_cache and start.chain[0][0] == CPU else None
    if entry:
        session = _cached(ort, start, entry)
        if session is None:
            note = entry.build(lambda folder: _optimise(ort, start, folder))
            session = _cached(ort, start, entry)
        if session is not None:
            return OnnxRuntime(ort, session, start)
        note = f"no machine cache: {note or 'what was written there cannot be used'}"
    return OnnxRuntime(ort, _create(ort, start), start, note)


def signature(ort: Any, path: Path) -> tuple[Mapping[str, Port], Mapping[str, Port]]:
    """The inputs and outputs of a file, which is not prepared to run. Raises: ModelFileError."""
    start = Start(path=path, chain=[(CPU, {})], threads=1)
    session = _create(ort, start, ort.GraphOptimizationLevel.ORT_DISABLE_ALL)
    with _texts_of(path):
        return _ports(session.get_inputs()), _ports(session.get_outputs())


def engines_of(ort: Any, path: Path, options: Mapping[str, str]) -> CacheEntry | None:
    """The entry for TensorRT's engines and timings of a file. options: without the folder of that entry."""
    return entry_of(path, runtime=["onnxruntime", ort.__version__], provider=TENSORRT, options=dict(options))


def _entry(ort: Any, start: Start) -> CacheEntry | None:
    # The number of threads changes nothing in it.
    return entry_of(start.path, runtime=["onnxruntime", ort.__version__], provider=CPU, form=1)


def _cached(ort: Any, start: Start, entry: CacheEntry) -> Any:
    """A session on the machine's own form, whose weights ONNX Runtime maps into memory; None without it."""

    def load(folder: Path) -> Any:
        options = dataclasses.replace(start, packed=True).options(ort)
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        return ort.InferenceSession(str(folder / GRAPH), options, providers=start.chain, enable_fallback=False)

    return entry.load(load, meanwhile=(WEIGHTS,))


def _optimise(ort: Any, start: Start, folder: Path) -> None:
    """Have ONNX Runtime write all that it does to a model before it runs on this CPU: layouts, packed weights."""
    options = dataclasses.replace(start, packed=True).options(ort)
    options.optimized_model_filepath = str(folder / GRAPH)
    for key, value in (
        ("optimized_model_external_initializers_file_name", WEIGHTS),
        ("optimized_model_external_initializers_min_size_in_bytes", "1024"),
        ("save_external_prepacked_constant_initializers", "1"),
    ):
        options.add_session_config_entry(f"session.{key}", value)
    ort.InferenceSession(str(start.path), options, providers=start.chain, enable_fallback=False)


def _create(ort: Any, start: Start, level: Any = None) -> Any:
    options = start.options(ort)
    if level is not None:
        options.graph_optimization_level = level
    try:
        # Its own fallback, here and in run(), changes the provider with no more than a print to stdout.
        return ort.InferenceSession(str(start.path), options, providers=start.chain, enable_fallback=False)
    except Exception as error:  # ONNX Runtime's exceptions have no public base class
        wanted = start.chain[0][0]
        logger.debug("%s: %s does not take it", start.path, wanted, exc_info=True)
        # The CPU can run every sound model.
        if wanted == CPU or type(error).__name__ in _FILE_ERRORS:
            raise ModelFileError(f"{start.path}: not a usable ONNX model: {reason_of(error)}") from error
        reason = f"ONNX Runtime cannot start on {wanted}: {reason_of(error)}"
        raise SessionError(f"{start.path}: {reason}; {install_hint(wanted)}") from error


@contextlib.contextmanager
def _texts_of(path: Path) -> Iterator[None]:
    """ONNX Runtime hands on the bytes of names and metadata as they are. Raises: ModelFileError if they are no text."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise ModelFileError(f"{path}: a name or its metadata are not UTF-8 text: {error}") from error


def _ports(values: Sequence[Any]) -> dict[str, Port]:
    return {
        value.name: Port(tuple(side if isinstance(side, int) else None for side in value.shape), _kind(value.type))
        for value in values
    }


def _kind(said: str) -> str:
    """tensor(float) -> float32; what is no tensor stays as it is."""
    element = said.removeprefix("tensor(").removesuffix(")")
    return KINDS.get(element, element) if said.startswith("tensor(") else said
