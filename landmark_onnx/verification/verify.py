"""Check an exported file with no Paddle installed: its bytes, its card, and a stored question with its answer."""

import base64
import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np

from landmark_onnx.cards.schema import ModelCard, Preprocess
from landmark_onnx.errors import ModelFileError
from landmark_onnx.files.structure import Count, DocumentError, structure
from landmark_onnx.inference.preprocess import preprocess
from landmark_onnx.modelfile.external_data import check_external_data
from landmark_onnx.modelfile.metadata import check_seal, read_metadata
from landmark_onnx.precision import precision_of
from landmark_onnx.runtime.providers import ProviderRequest
from landmark_onnx.runtime.session import Session
from landmark_onnx.store.catalogue import find_model, running_file
from landmark_onnx.tasks import Task
from landmark_onnx.types import Array, Image, Tensors
from landmark_onnx.verification.soundness import examine
from landmark_onnx.verification.tolerance import TOLERANCES, Agreement, Tolerance, agreement

DETECTOR_SCALE = 8
"""By how much a detector's probe is smaller than the images it is made for."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Probe:
    """A small image and what Paddle answered to it; or a file of reduced precision, when it was made.

    image: (H, W, 3) BGR uint8. columns: the classes kept of a probability; a full row may have 200,000.
    expected: output name -> float32 values; the detector's deltas are left out.
    """

    image: Image
    columns: tuple[int, ...]
    expected: Tensors

    @classmethod
    def ask(cls, image: Image, outputs: Tensors, *, keep: int = 64) -> Self:
        """Keep what is needed of `outputs`: the `keep` classes that are most probable for some row."""
        columns: tuple[int, ...] = ()
        if "probability" in outputs:
            best = outputs["probability"].max(axis=0, initial=0)
            columns = tuple(sorted(np.argsort(-best, kind="stable")[:keep].tolist()))
        return cls(image, columns, reduce_outputs(outputs, columns))

    def to_json(self) -> dict[str, Any]:
        """JSON-ready data, tensors in base64."""
        expected = {name: _encode(values.astype("<f4")) for name, values in self.expected.items()}
        return {"image": _encode(self.image), "columns": list(self.columns), "expected": expected}

    @classmethod
    def from_json(cls, data: Mapping[str, Any], origin: str) -> Self:
        """Read it back. Raises: ModelFileError naming `origin`."""
        try:
            stored = structure(_Stored, data)
            image = _decode(stored.image, "u1")
            if image.ndim != 3 or image.shape[2] != 3 or not image.size:
                raise DocumentError(f"image: wanted (H, W, 3), got {image.shape}")
            expected = {name: _decode(values, "<f4") for name, values in stored.expected.items()}
            return cls(image, stored.columns, expected)
        except ValueError as error:
            raise ModelFileError(f"{origin}: its probe is damaged: {error}; export it again") from error

    def compare(self, task: Task, outputs: Tensors, tolerance: Tolerance) -> Agreement:
        """How near an answer is to the expected one. Raises: ValueError if it has other outputs, or of another form."""
        columns = outputs["probability"].shape[1] if "probability" in outputs else 0
        if any(column >= columns for column in self.columns):
            raise ValueError(f"columns: wanted classes below {columns}, got {max(self.columns)}")
        reduced = reduce_outputs(outputs, self.columns)
        wanted, got = ({name: each.shape[1:] for name, each in tensors.items()} for tensors in (self.expected, reduced))
        if wanted != got:
            raise ValueError(f"expected: rows of {wanted}, and the model answers rows of {got}")
        return agreement(task, self.expected, reduced, tolerance)


@dataclasses.dataclass(frozen=True, slots=True)
class _Encoded:
    """An array. data: its bytes in base64."""

    shape: tuple[Count, ...]
    data: str


@dataclasses.dataclass(frozen=True, slots=True)
class _Stored:
    """A probe as JSON has it."""

    image: _Encoded
    columns: tuple[Count, ...]
    expected: Mapping[str, _Encoded]


def reduce_outputs(outputs: Tensors, columns: tuple[int, ...]) -> Tensors:
    """The part of `outputs` that a probe keeps."""
    reduced = {name: values for name, values in outputs.items() if name != "deltas"}
    if "probability" in reduced:
        reduced["probability"] = reduced["probability"][:, list(columns)]
    return reduced


def probe_rule(card: ModelCard) -> Preprocess:
    """How a probe's image is prepared: as any image, but small for a detector, whose head runs once for each roi."""
    rule = card.preprocess
    if rule.resize != "short_side_capped":
        return rule
    return dataclasses.replace(rule, size=-(-rule.size // DETECTOR_SCALE), max_side=-(-rule.max_side // DETECTOR_SCALE))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What was checked, all of it good. agreement: of the probe's answer here with the stored one."""

    path: Path
    card: ModelCard
    sha256: str
    provider: str
    agreement: Agreement

    def to_json(self) -> dict[str, Any]:
        """JSON-ready data."""
        return {
            "model": self.card.name,
            "path": str(self.path),
            "sha256": self.sha256,
            "provider": self.provider,
            "agreement": self.agreement.to_json(),
        }


def verify(model: str | os.PathLike[str], provider: ProviderRequest | None = None, *, threads: int = 0) -> Verification:
    """Check the seal, the external data, the card, and the answers to the probe and to unlike pictures on `provider`.

    A file of reduced precision must answer as it did when it was made, within `TOLERANCES`; how far that is from fp32
    is in its metadata.
    Raises: ModelFileError that says which of these fails, and by how much; SessionError if the provider does not run.
    """
    request = provider or ProviderRequest()
    fp32 = find_model(model, request.precision)
    path = running_file(fp32, request.precision)
    seal = check_seal(path)
    metadata = read_metadata(path) or {}
    check_external_data(path, metadata.get("data"))
    own = precision_of(metadata, path)
    session = Session(fp32, request, threads=threads, machine_cache=False)
    card = ModelCard.from_dict(metadata.get("card", {}), f"{path}: card")
    session.bind(card)
    if "probe" not in metadata:
        raise ModelFileError(f"{path}: exported without the parity check, so it has no stored answer to compare with")
    probe = Probe.from_json(metadata["probe"], str(path))
    feeds = preprocess(probe_rule(card), probe.image, as_uint8=session.input_kind == "uint8")
    outputs = session.run(feeds)
    tolerance = TOLERANCES[request.precision if own == "fp32" else own]
    try:
        measured = probe.compare(card.task, outputs, tolerance)
    except ValueError as error:
        raise ModelFileError(f"{path}: its probe does not fit the model: {error}; export it again") from error
    if reason := measured.shortfall(card.task, tolerance):
        who = "Paddle did" if own == "fp32" else "when it was made"
        raise ModelFileError(f"{path}: on {session.provider} it does not answer as {who}: {reason}")
    examine(session, card, probe_rule(card))
    return Verification(path=path, card=card, sha256=seal.sha256, provider=session.provider, agreement=measured)


def _encode(values: Array) -> dict[str, Any]:
    return {"shape": list(values.shape), "data": base64.b64encode(np.ascontiguousarray(values).tobytes()).decode()}


def _decode(stored: _Encoded, dtype: str) -> Array:
    """Raises: ValueError if bytes and shape do not fit."""
    return np.frombuffer(base64.b64decode(stored.data, validate=True), dtype).reshape(stored.shape)
