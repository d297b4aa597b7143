"""A loaded model behind our tensor names: it runs on what was asked, or says why not."""

import contextlib
import dataclasses
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from landmark_onnx.cards.schema import ModelCard
from landmark_onnx.errors import LandmarkError, ModelFileError, SessionError, reason_of
from landmark_onnx.modelfile.card_changes import was_adopted
from landmark_onnx.modelfile.metadata import PREFIX, decode_metadata, read_metadata
from landmark_onnx.precision import Precision, precision_of
from landmark_onnx.runtime import onnxruntime_backend as onnx_runtime
from landmark_onnx.runtime import openvino_backend as openvino_runtime
from landmark_onnx.runtime.backend import Port, Runner
from landmark_onnx.runtime.cpu import default_threads
from landmark_onnx.runtime.detector_outputs import check_boxes, conform_boxes
from landmark_onnx.runtime.gpu_options import ShapeProfile
from landmark_onnx.runtime.inputs import ImageInput, filled
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
from landmark_onnx.types import Array, Tensors

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
        self._card: ModelCard | None = None
        self._image = ImageInput()
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
        """What is to be fed as "image"; `run` makes of it what the file takes."""
        return self._image.takes

    def bind(self, card: ModelCard, *, own: bool | None = None) -> None:
        """Take the card's names for the file's tensors, and check that these are what the card and its task want.

        own: whether the file is an export of ours; by default it says so itself.
        Raises: ModelFileError with wanted and got.
        """
        for kind, wanted, got in (
            ("inputs", card.input_names(), list(self._runner.inputs)),
            ("outputs", card.output_names(), list(self._runner.outputs)),
        ):
            if missing := [name for name in wanted if name not in got]:
                raise ModelFileError(f"{self.path}: {kind}: wanted {', '.join(missing)}, got {', '.join(got)}")
        check = check_declared if card.postprocess.decoder == "rois" else check_boxes
        check(card, self._runner.outputs, str(self.path))
        if own is None:
            own = _is_own(self._facts("card", "source"))
        self._image = ImageInput.of(card, self._runner.inputs, own=own, origin=str(self.path))
        self._card = card

    def largest_batch(self, wanted: int) -> int:
        """How many images run at once: `wanted`, or as many as the file takes, no more and no less."""
        return self._image.batch or wanted

    def file_feeds(self, feeds: Tensors) -> dict[str, Array]:
        """Our named tensors as the file takes them, under its names."""
        card = self._bound()
        fed = card.file_inputs({**feeds, "image": self._image.fed(feeds["image"])})
        return {name: np.ascontiguousarray(array) for name, array in fed.items()}

    def run(self, feeds: Tensors) -> Tensors:
        """Feed our named tensors, answer our named tensors, half precision widened.

        Raises: SessionError from the runtime's own error, or if the outputs are not what the card's task wants.
        """
        batch, count = self._image.batch, len(feeds["image"])
        if batch is None or batch == count:
            return self._run(feeds)
        parts = [self._run(part) for part in filled(feeds, batch)]
        return {name: np.concatenate([part[name] for part in parts])[:count] for name in parts[0]}

    def _run(self, feeds: Tensors) -> Tensors:
        card = self._bound()
        renamed = self.file_feeds(feeds)
        try:
            values = self._runner.run(card.output_names(), renamed)
        except Exception as error:  # runtimes' exceptions have no public base class
            shapes = ", ".join(f"{name} {feeds[name].shape}" for name in card.input_keys())
            logger.info("%s: cannot run %s", self.path, shapes, exc_info=True)
            raise SessionError(f"{self.path}: {self.provider} cannot run {shapes}: {reason_of(error)}") from error
        image = feeds["image"]
        if card.postprocess.decoder == "rois":
            outputs = conform(card, len(image), values, str(self.path))
        else:
            sides = image.shape[1:3] if self.input_kind == "uint8" else image.shape[2:]
            outputs = conform_boxes(card, sides, values, str(self.path))
        for name, array in outputs.items():
            if (width := self._widths.setdefault(name, array.shape[1])) != array.shape[1]:
                raise SessionError(
                    f"{self.path}: {name}: {array.shape[1]} values an answer, {width} before: its size depends on the "
                    "image's, so answers cannot be compared"
                )
        return outputs

    def _bound(self) -> ModelCard:
        assert self._card is not None, "bind a card first"
        return self._card

    def _facts(self, *keys: str) -> dict[str, Any]:
        """What the file's own strings say of these keys. Raises: ModelFileError."""
        names = [f"{PREFIX}{key}" for key in keys]
        return decode_metadata({key: self.metadata[key] for key in names if key in self.metadata}, str(self.path))

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
            packed=precision_of(read_metadata(self.path) or {}, self.path) == "int8",
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
    if _is_own(metadata):
        last = metadata.get("input") == "uint8"
    else:
        last = ImageInput.of(card, signature(path)[0], own=False, origin=str(path)).channels_last
    return ShapeProfile(card=card, batch_size=batch_size, channels_last=last)


def _is_own(metadata: Mapping[str, Any]) -> bool:
    """Whether a file is an export of ours, whose image is (N, 3, H, W) float32, or (N, H, W, 3) uint8 BGR."""
    return "card" in metadata and not was_adopted(metadata)


def _with_engines(ort: Any, start: Start, chain: Callable[[Path | None], Chain]) -> OnnxRuntime:
    """Load for TensorRT, whose engines and timings are kept: it makes them while it loads."""
    entry = onnx_runtime.engines_of(ort, start.path, start.chain[0][1])
    with entry.workspace() if entry else contextlib.nullcontext() as engines:
        return onnx_runtime.load(ort, dataclasses.replace(start, chain=chain(engines)), machine_cache=False)
