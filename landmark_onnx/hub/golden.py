"""What a model answers here to the image of its card's golden answer: proof of an address by one command."""

import dataclasses
import datetime
from pathlib import Path
from typing import Any

import numpy as np

from landmark_onnx.cards.catalogue import cards
from landmark_onnx.cards.schema import Golden, ModelCard
from landmark_onnx.errors import ModelFileError
from landmark_onnx.files.workfolders import temporary_folder
from landmark_onnx.hub.addresses import file_name
from landmark_onnx.hub.fetching import Fetching
from landmark_onnx.images.decode import read_image
from landmark_onnx.inference.postprocess import to_classification, to_embedding
from landmark_onnx.inference.preprocess import preprocess
from landmark_onnx.runtime.providers import ProviderRequest
from landmark_onnx.runtime.session import Session
from landmark_onnx.store.catalogue import embedded_card
from landmark_onnx.types import Array, Image, Tensors
from landmark_onnx.verification.soundness import picture

SHOWN = 8
"""Values that are kept of an answer nobody knew before."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class GoldenAnswer:
    """What was answered. known: what the card says of it. got: as many first values as the card has, or `SHOWN`."""

    model: str
    path: Path
    provider: str
    known: Golden
    got: tuple[float, ...]

    @property
    def difference(self) -> float | None:
        """The largest of the values', None if the card has none."""
        return float(np.abs(np.subtract(self.got, self.known.first)).max()) if self.known.first else None

    def line(self) -> str:
        """What a person may write into the card now."""
        if self.known.first:
            return f'proved = "{datetime.datetime.now(datetime.UTC).date().isoformat()}"'
        place = f'url = "{self.known.url}", sha256 = "{self.known.sha256}", ' if self.known.url else ""
        return f"golden = {{ {place}first = [{', '.join(f'{value:.6f}' for value in self.got)}] }}"

    def to_json(self) -> dict[str, Any]:
        """JSON-ready data."""
        return {
            "model": self.model,
            "path": str(self.path),
            "provider": self.provider,
            "image": self.known.url or "the picture that this package draws",
            "first": [round(value, 8) for value in self.got],
            "difference": self.difference,
            "line": self.line(),
        }


def ask_golden(model: Path, request: ProviderRequest, fetching: Fetching, *, threads: int = 0) -> GoldenAnswer:
    """Ask the file `model` for the golden answer of its card, or of the card of its name, which may be newer.

    Raises: ModelFileError if a value is off by more than the tolerance, or for a detector; DownloadError if the image
    cannot be had, or has another hash; SessionError.
    """
    card = embedded_card(model)
    known = cards().get(card.name, card).golden
    if card.task == "det":
        raise ModelFileError(f"{card.name}: golden: wanted a model of task retrieval or cls, got det")
    session = Session(model, request, threads=threads)
    session.bind(card)
    feeds = preprocess(card.preprocess, _image(known, fetching), as_uint8=session.input_kind == "uint8")
    values = _values(card, session.run(feeds))
    got = tuple(values[: len(known.first) or SHOWN].tolist())
    answer = GoldenAnswer(model=card.name, path=model, provider=session.provider, known=known, got=got)
    if len(got) < len(known.first):
        raise ModelFileError(f"{model}: golden: first: wanted {len(known.first)} values, got {len(got)}")
    if answer.difference is not None and not answer.difference <= known.tolerance:
        at = int(np.abs(np.subtract(got, known.first)).argmax())
        what = f"golden: value {at + 1}: wanted {known.first[at]:.6f} within {known.tolerance:g}, got {got[at]:.6f}"
        raise ModelFileError(f"{model}: on {session.provider} it does not answer as its card says: {what}")
    return answer


def _image(known: Golden, fetching: Fetching) -> Image:
    if not known.url:
        return picture(0)
    with temporary_folder() as folder:
        return read_image(fetching.declared(known.url, folder / (file_name(known.url) or "image"), known.sha256))


def _values(card: ModelCard, outputs: Tensors) -> Array:
    """The embedding, or the probability of each class, as it is handed on."""
    if card.task == "retrieval":
        return to_embedding(card.postprocess, outputs).vector
    found = to_classification(card.postprocess, outputs, outputs["probability"].size, {})
    return found.scores[np.argsort(found.indices)]
