"""A loaded model behind our tensor names: it runs on what was asked, or says why not."""

import contextlib
import dataclasses
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_args

import numpy as np

from landmark_onnx.cards.schema import ModelCard
from landmark_onnx.errors import LandmarkError, ModelFileError, SessionError, reason_of
from landmark_onnx.modelfile.metadata import PREFIX, decode_metadata, read_metadata
from landmark_onnx.precision import Precision, precision_of
from landmark_onnx.runtime import onnxruntime_backend as onnx_runtime
from landmark_onnx.runtime import openvino_backend as openvino_runtime
from landmark_onnx.runtime.backend import Port, Runner
from landmark_onnx.runtime.cpu import default_threads
from landmark_onnx.runtime.gpu_options import ShapeProfile
from landmark_onnx.runtime.onnxruntime_backend import Chain, OnnxRuntime, Start
from landmark_onnx.runtime.outputs import check_declared, conform
from landmark_onnx.runtime.providers import (
    CPU,
    CUDA,
    TENSORRT,
    ProviderRequest,
    chosen,
    install_hint,
    onnxruntime,
    openvino,
    plan,
    preload,
    takes_openvino,
)
from landmark_onnx.store.catalogue import running_file
from landmark_onnx.tasks import InputKind
from landmark_onnx.types import Tensors

logger = logging.getLogger(__name__)


class Session:
    """One loaded model file.

    path: the file that runs, of the precision asked for. providers: what really runs, best first. metadata: the file's
    own strings. note: what a user may want to know of how it was loaded, or nothing.
    """

    def __init__(
        self,
        path: Path,
        request: ProviderRequest | None = None,
        *,
        threads: int = 0,
        card: ModelCard | None = None,
        batch_size: int = 1,
        machine_cache: bool = True,
    ) -> None:
        """Load the fp32 file `path`, or the one of a reduced precision beside it, which was made from that.

        threads: of one op, 0 for the runtime's choice within the container's quota. card, batch_size: what it will be
        fed, by which a GPU is set up; without a card the file's own counts. machine_cache: whether it may be loaded
        from, and kept in, a form made for this machine.
        Raises: ModelFileError if the file is missing, damaged, or of reduced precision and made from another fp32 file;
        SessionError if an explicit provider does not run.
        """
        request = request or ProviderRequest()
        self.path = running_file(path, request.precision)
        self._asked = request.precision
        self.lost: str | None = None
        self._widths: dict[str, int] = {}
        threads = threads or default_threads()
        if takes_openvino(request):
            self._runner: Runner = openvino_runtime.load(
                openvino(), self.path, request, threads=threads, machine_cache=machine_cache
            )
        else:
            self._runner = self._on_onnx_runtime(request, threads, card, batch_size, machine_cache)
        self.providers: tuple[str, ...] = self._runner.providers
        self.metadata: Mapping[str, str] = self._runner.metadata
        self.note = self._runner.note
        where, many = " then ".join(self.providers), threads or "as many as it likes"
        logger.info("%s: provider %s runs it on %s, threads: %s", self.path, request.name, where, many)

    @property
    def provider(self) -> str:
        """The provider that takes the model's nodes first."""
        return self.providers[0]

    @property
    def precision(self) -> Precision:
        """What really runs: the precision asked for, or that of a reduced file which was named by its own path."""
        if self._asked != "fp32":
            return self._asked
        return precision_of(self._facts("precision"), self.path)

    @property
    def input_kind(self) -> InputKind:
        """What the file's "image" is. Raises: ModelFileError if it says something else."""
        return _input_kind(self.path, self._facts("input").get("input", "float32"))

    def bind(self, card: ModelCard) -> None:
        """Check that the file has the tensors the card names, and that its outputs are what the task wants.

        Raises: ModelFileError with wanted and got.
        """
        for kind, wanted, got in (
            ("inputs", card.input_names(), list(self._runner.inputs)),
            ("outputs", card.output_names(), list(self._runner.outputs)),
        ):
            if missing := [name for name in wanted if name not in got]:
                raise ModelFileError(f"{self.path}: {kind}: wanted {', '.join(missing)}, got {', '.join(got)}")
        check_declared(card, self._runner.outputs, str(self.path))

    def largest_batch(self, card: ModelCard, wanted: int) -> int:
        """`wanted`, or 1 if the file takes one image at a time. Raises: ModelFileError if it takes only more."""
        batch = next(iter(self._runner.inputs[card.input_names()[0]].shape), None)
        if batch is None:
            return wanted
        if batch != 1:
            raise ModelFileError(f"{self.path}: takes {batch} images at once, wanted a free batch or 1")
        return 1

    def run(self, card: ModelCard, feeds: Tensors) -> Tensors:
        """Feed our named tensors, answer our named tensors, half precision widened.

        Raises: SessionError from the runtime's own error, or if the outputs are not what the card's task wants.
        """
        renamed = {name: np.ascontiguousarray(array) for name, array in card.file_inputs(feeds).items()}
        try:
            values = self._runner.run(card.output_names(), renamed)
        except Exception as error:  # runtimes' exceptions have no public base class
            shapes = ", ".join(f"{name} {array.shape}" for name, array in feeds.items())
            logger.info("%s: cannot run %s", self.path, shapes, exc_info=True)
            raise SessionError(f"{self.path}: {self.provider} cannot run {shapes}: {reason_of(error)}") from error
        outputs = conform(card, len(feeds["image"]), values, str(self.path))
        for name, array in outputs.items():
            if (width := self._widths.setdefault(name, array.shape[1])) != array.shape[1]:
                raise SessionError(
                    f"{self.path}: {name}: {array.shape[1]} values an answer, {width} before: its size depends on the "
                    "image's, so answers cannot be compared"
                )
        return outputs

    def _facts(self, key: str) -> dict[str, Any]:
        """What the file's own strings say of one key. Raises: ModelFileError."""
        key = f"{PREFIX}{key}"
        return decode_metadata({key: self.metadata[key]} if key in self.metadata else {}, str(self.path))

    def _on_onnx_runtime(
        self, request: ProviderRequest, threads: int, card: ModelCard | None, batch_size: int, machine_cache: bool
    ) -> Runner:
        ort = onnxruntime()
        available = ort.get_available_providers()
        wanted = chosen(request, available)
        workload = _workload(self.path, card, batch_size) if wanted in (CUDA, TENSORRT) else None
        chain = plan(request, available, workload)
        preload(ort, chain)
        start = Start(
            path=self.path,
            chain=chain,
            threads=threads,
            fixed=bool(workload and workload.card.task != "det"),
            packed=request.precision == "int8",
        )
        automatic = request.name.lower() == "auto"
        try:
            if wanted == TENSORRT and machine_cache:
                runner = _with_engines(ort, start, lambda engines: plan(request, available, workload, engines))
            else:
                runner = onnx_runtime.load(ort, start, machine_cache=machine_cache)
        except SessionError as error:
            if not automatic or wanted == CPU:
                raise
            logger.info("%s", error)
            start = dataclasses.replace(start, chain=[(CPU, {})])
            runner = onnx_runtime.load(ort, start, machine_cache=machine_cache)
        self.lost = wanted if wanted not in runner.providers else None
        if self.lost and not automatic:
            raise SessionError(f"{self.lost} does not start here (ONNX Runtime fell back); {install_hint(self.lost)}")
        return runner


def signature(path: Path) -> tuple[Mapping[str, Port], Mapping[str, Port]]:
    """The inputs and outputs of a file by name, without making it ready to run. Raises: ModelFileError."""
    if takes_openvino(ProviderRequest()):
        return openvino_runtime.signature(openvino(), path)
    return onnx_runtime.signature(onnxruntime(), path)


def _workload(path: Path, card: ModelCard | None, batch_size: int) -> ShapeProfile | None:
    """What the file will be fed, None if neither the caller nor the file says."""
    try:
        metadata = read_metadata(path) or {}
        card = card or ModelCard.from_dict(metadata["card"], f"{path}: card")
    except (LandmarkError, KeyError):
        return None
    return ShapeProfile(
        card=card, batch_size=batch_size, input_kind=_input_kind(path, metadata.get("input", "float32"))
    )


def _input_kind(path: Path, value: Any) -> InputKind:
    if value not in get_args(InputKind):
        raise ModelFileError(f"{path}: input: wanted one of {', '.join(get_args(InputKind))}, got {value!r}")
    kind: InputKind = value
    return kind


def _with_engines(ort: Any, start: Start, chain: Callable[[Path | None], Chain]) -> OnnxRuntime:
    """Load for TensorRT, whose engines and timings are kept: it makes them while it loads."""
    entry = onnx_runtime.engines_of(ort, start.path, start.chain[0][1])
    with entry.workspace() if entry else contextlib.nullcontext() as engines:
        return onnx_runtime.load(ort, dataclasses.replace(start, chain=chain(engines)), machine_cache=False)
