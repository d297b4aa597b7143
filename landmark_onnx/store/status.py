"""What the store has of each model, and what does not fit together there."""

import contextlib
import dataclasses
import re
from pathlib import Path
from typing import Any, Literal, TypeAlias

from landmark_onnx.cards.catalogue import cards
from landmark_onnx.cards.schema import ModelCard
from landmark_onnx.errors import LandmarkError, ModelFileError, UnknownModelError
from landmark_onnx.modelfile.card_changes import edited_card
from landmark_onnx.modelfile.external_data import external_data
from landmark_onnx.modelfile.metadata import read_seal
from landmark_onnx.precision import STORED
from landmark_onnx.store.catalogue import embedded_card, exported_path, home, is_stored, source_path, staleness
from landmark_onnx.store.records import was_verified

State: TypeAlias = Literal["nothing", "source", "exported", "verified", "stale", "damaged"]
"""verified: since it was written. stale: of reduced precision, and made from another model than the fp32 file is now.
damaged: a model file is there, but it is cut, or its weights are missing."""

_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,99}", re.ASCII)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """What the store has of one model. Sizes are in bytes, a model's with the weights beside it.

    card: the known one, or that inside the model; None if there is neither.
    note: what does not fit together, and the remedy: a file of reduced precision that is stale, a card that was edited.
    """

    name: str
    card: ModelCard | None
    state: State
    source: Path | None
    source_bytes: int
    model: Path | None
    model_bytes: int
    note: str | None = None

    @property
    def task(self) -> str:
        """Of its card, "unknown" without one."""
        return self.card.task if self.card else "unknown"

    def to_json(self) -> dict[str, Any]:
        """JSON-ready data."""
        return {
            "model": self.name,
            "task": self.task,
            "state": self.state,
            "path": self.model and str(self.model),
            "bytes": self.model_bytes,
            "source": self.source and str(self.source),
            "source_bytes": self.source_bytes,
            "download_bytes": self.card.source.bytes if self.card else 0,
            "licence": self.card.licence if self.card else "unknown",
            "proved": self.card.proved if self.card else "",
            "note": self.note,
        }


def stored_models() -> list[Stored]:
    """Every model that a card declares or the store has a file of, by name."""
    places = (home() / "models", ".onnx"), (home() / "sources", ".tar")
    files = {path.name.removesuffix(end) for folder, end in places for path in folder.glob(f"*{end}")}
    return [stored_model(name) for name in sorted({*cards(), *filter(_NAME.fullmatch, files)})]


def stored_model(name: str) -> Stored:
    """What the store has of `name`. Raises: UnknownModelError if no card declares it and no file is called so."""
    source, model = source_path(name), exported_path(name)
    card = cards().get(name)
    if not card and not (_NAME.fullmatch(name) and (source.is_file() or model.is_file())):
        raise UnknownModelError(f"no model is called {name!r}; there are: {', '.join(cards())}")
    state: State = "source" if source.is_file() else "nothing"
    size = 0
    if model.is_file():
        state, size = _inspect(model)
        if not card:
            with contextlib.suppress(LandmarkError):
                card = embedded_card(model)
    return Stored(
        name=name,
        card=card,
        state=state,
        source=source if source.is_file() else None,
        source_bytes=source.stat().st_size if source.is_file() else 0,
        model=model if model.is_file() else None,
        model_bytes=size,
        note=stored_note(model) if model.is_file() else None,
    )


def stored_note(model: Path) -> str | None:
    """What does not fit together of a model file of the store, with the remedy; None for any other file."""
    if not is_stored(model):
        return None
    with contextlib.suppress(LandmarkError):
        name = model.stem
        for precision in STORED:
            name = name.removesuffix(f".{precision}")
        return staleness(model) or edited_card(model, name)
    return None


def _inspect(model: Path) -> tuple[State, int]:
    """The state of an exported file as far as it shows without reading all of it, and its size with its weights."""
    size = model.stat().st_size
    try:
        seal, data = read_seal(model), external_data(model)
        size += data.stat().st_size if data else 0
    except (ModelFileError, OSError):
        return "damaged", size
    if seal is None:
        return "damaged", size
    with contextlib.suppress(ModelFileError):
        if staleness(model):
            return "stale", size
    with contextlib.suppress(ModelFileError):
        if was_verified(model, seal.sha256):
            return "verified", size
    return "exported", size
