"""An ONNX Runtime session behind our tensor names: it runs on what was asked, or says why not."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from landmark_onnx.cards import ModelCard
from landmark_onnx.errors import ModelFileError, SessionError
from landmark_onnx.providers import CPU, ProviderRequest, install_hint, onnxruntime, plan, preload
from landmark_onnx.types import INPUTS, OUTPUTS, Tensors

ERROR = 3  # ONNX Runtime's log level: warnings about shapes and fallback nodes are noise to a user

_FILE_ERRORS = frozenset({"InvalidProtobuf", "InvalidGraph", "NoSuchFile", "NoModel", "NotImplemented"})


class Session:
    """One loaded model file.

    path: the file. providers: what really runs, best first. metadata: the file's own strings.
    """

    def __init__(self, path: Path, request: ProviderRequest | None = None, *, threads: int = 0) -> None:
        """Load `path`; threads: of one op, 0 for ONNX Runtime's choice.

        Raises: ModelFileError if the file is missing or damaged; SessionError if an explicit provider does not run.
        """
        request = request or ProviderRequest()
        if not path.is_file():
            raise ModelFileError(f"{path}: no such file")
        ort = onnxruntime()
        chain = plan(request, ort.get_available_providers())
        preload(ort, chain)
        self.path = path
        automatic = request.name.lower() == "auto"
        try:
            self._session = _create(ort, path, chain, threads)
        except SessionError:
            if not automatic or chain[0][0] == CPU:
                raise
            self._session = _create(ort, path, [(CPU, {})], threads)
        self.providers: tuple[str, ...] = tuple(self._session.get_providers())
        self.lost = chain[0][0] if chain[0][0] not in self.providers else None
        if self.lost and not automatic:
            raise SessionError(f"{self.lost} does not start here (ONNX Runtime fell back); {install_hint(self.lost)}")
        self.metadata: Mapping[str, str] = self._session.get_modelmeta().custom_metadata_map
        self._inputs = {value.name: value.shape for value in self._session.get_inputs()}
        self._outputs = [value.name for value in self._session.get_outputs()]

    @property
    def provider(self) -> str:
        """The provider that takes the model's nodes first."""
        return self.providers[0]

    def bind(self, card: ModelCard) -> None:
        """Check that the file has the tensors the card names. Raises: ModelFileError with wanted and got."""
        for kind, wanted, got in (
            ("inputs", card.input_names(), list(self._inputs)),
            ("outputs", card.output_names(), self._outputs),
        ):
            if missing := [name for name in wanted if name not in got]:
                raise ModelFileError(f"{self.path}: {kind}: wanted {', '.join(missing)}, got {', '.join(got)}")

    def largest_batch(self, card: ModelCard, wanted: int) -> int:
        """`wanted`, or 1 if the file takes one image at a time. Raises: ModelFileError if it takes only more."""
        batch = self._inputs[card.input_names()[0]][0]
        if not isinstance(batch, int):
            return wanted
        if batch != 1:
            raise ModelFileError(f"{self.path}: takes {batch} images at once, wanted a free batch or 1")
        return 1

    def run(self, card: ModelCard, feeds: Tensors) -> Tensors:
        """Feed our named tensors, answer our named tensors. Raises: SessionError from ONNX Runtime's own error."""
        renamed = {
            theirs: np.ascontiguousarray(feeds[ours])
            for ours, theirs in zip(INPUTS[card.task], card.input_names(), strict=True)
        }
        try:
            values = self._session.run(list(card.output_names()), renamed)
        except Exception as error:  # ONNX Runtime's exceptions have no public base class
            shapes = ", ".join(f"{name} {array.shape}" for name, array in feeds.items())
            raise SessionError(f"{self.path}: ONNX Runtime cannot run {shapes}: {first_line(error)}") from error
        return dict(zip(OUTPUTS[card.task], values, strict=True))


def _create(ort: Any, path: Path, chain: list[tuple[str, dict[str, str]]], threads: int) -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = ERROR
    options.intra_op_num_threads = threads
    # A pattern is kept for each input shape, and photos have many.
    options.enable_mem_pattern = False
    # A packed copy of a classifier's last layer may take another 1.7 GB, and made no run of ours faster.
    options.add_session_config_entry("session.disable_prepacking", "1")
    try:
        # Its own fallback, here and in run(), changes the provider with no more than a print to stdout.
        return ort.InferenceSession(str(path), options, providers=chain, enable_fallback=False)
    except Exception as error:  # ONNX Runtime's exceptions have no public base class
        wanted = chain[0][0]
        # The CPU can run every sound model.
        if wanted == CPU or type(error).__name__ in _FILE_ERRORS:
            raise ModelFileError(f"{path}: not a usable ONNX model: {first_line(error)}") from error
        reason = f"ONNX Runtime cannot start on {wanted}: {first_line(error)}"
        raise SessionError(f"{path}: {reason}; {install_hint(wanted)}") from error


def first_line(error: BaseException) -> str:
    """The first line of an error's text: the rest of ONNX Runtime's is a stack."""
    return (str(error).splitlines() or [type(error).__name__])[0]
