"""Where model files live, what is known of them, and which file a name means.

`models/NAME.onnx` (with `*.onnx.data` beside it where the weights are too large for it), `sources/NAME.tar`, and a JSON
record beside each: of a source, the hash it had at first sight; of a model, its seal when it was last verified.
"""

import contextlib
import dataclasses
import json
import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

import platformdirs

from landmark_onnx.cards.catalogue import cards
from landmark_onnx.cards.schema import ModelCard
from landmark_onnx.errors import LandmarkError, ModelFileError, UnknownModelError
from landmark_onnx.files.atomic import atomic_write
from landmark_onnx.files.documents import read_json
from landmark_onnx.files.structure import DocumentError, structure
from landmark_onnx.modelfile.card_changes import edited_card
from landmark_onnx.modelfile.external_data import external_data
from landmark_onnx.modelfile.metadata import read_metadata, read_seal
from landmark_onnx.precision import STORED, Precision, origin_of, precision_file, precision_of

logger = logging.getLogger(__name__)

HOME_VARIABLE = "LANDMARK_ONNX_HOME"

State: TypeAlias = Literal["nothing", "source", "exported", "verified", "stale", "damaged"]
"""verified: since it was written. stale: of reduced precision, and made from another model than the fp32 file is now.
damaged: a model file is there, but it is cut, or its weights are missing."""

_RECORD: Any = Mapping[str, str | int]
_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,99}", re.ASCII)


def home() -> Path:
    """The store: $LANDMARK_ONNX_HOME, or the platform's cache folder."""
    chosen = os.environ.get(HOME_VARIABLE)
    return Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("landmark-onnx", appauthor=False)


def exported_path(name: str) -> Path:
    """The file in which the store keeps the exported model `name`."""
    return home() / "models" / f"{name}.onnx"


def source_path(name: str) -> Path:
    """The file in which the store keeps the release that `name` is exported from."""
    return home() / "sources" / f"{name}.tar"


def find_model(model: str | os.PathLike[str], precision: Precision = "fp32") -> Path:
    """The fp32 ONNX file that a name or a path means; it may be missing where that of a reduced `precision` is there.

    Raises: UnknownModelError if no model is called so and no such file is there; ModelFileError if the model is known
    and its file is not there yet.
    """
    path = _found(os.fspath(model), precision, is_path=isinstance(model, os.PathLike))
    if not isinstance(model, os.PathLike) and model != str(path):
        logger.info("%s is the file %s", model, path)
    return path


def _found(text: str, precision: Precision, *, is_path: bool) -> Path:
    if text.endswith(".onnx") or os.sep in text or is_path:
        if not is_there(Path(text), precision):
            raise ModelFileError(f"{text}: no such file")
        return Path(text)
    stored = exported_path(text)
    if is_there(stored, precision):
        return stored
    if Path(text).is_file():
        return Path(text)
    if reduced := [each for each in STORED if precision_file(stored, each).is_file()]:
        raise ModelFileError(f"{stored}: no such file; {text} is there with --precision {' or '.join(reduced)}")
    if text in cards():
        raise ModelFileError(
            f"{text} is not in {stored.parent} yet; run: landmark-onnx models pull {text}, "
            f"or landmark-onnx export {text} --from {text}.tar"
        )
    raise UnknownModelError(f"no model is called {text!r} and no such file is there; names: {', '.join(cards())}")


def is_there(model: Path, precision: Precision = "fp32") -> bool:
    """Whether the file `model` is there, or that of a reduced precision beside it."""
    return model.is_file() or precision_file(model, precision).is_file()


def running_file(model: Path, precision: Precision) -> Path:
    """The file that runs when the fp32 file `model` is asked for at `precision`.

    Raises: ModelFileError if it is missing, or was made from another model than the one that is there now; it says how
    to make it.
    """
    path = precision_file(model, precision)
    if path == model and not path.is_file():
        raise ModelFileError(f"{path}: no such file")
    if not path.is_file():
        if model.is_file() and _said(model) == precision:
            return running_file(model, "fp32")
        raise ModelFileError(f"{path}: no such file; make it once: {_quantize(model, precision)}")
    if path != model and _said(path) != precision:
        what = f"it does not say that it is {precision}: truncated, changed, or not made by landmark-onnx"
        raise ModelFileError(f"{path}: {what}; rebuild it with: {_quantize(model, precision)}")
    if reason := staleness(path):
        raise ModelFileError(f"{path}: {reason}")
    return path


def staleness(path: Path) -> str | None:
    """Why a file of reduced precision must not run, with the remedy: it was not made from the fp32 file beside it.

    None if it was, and for any file that has no such model. Raises: ModelFileError if it cannot be read.
    """
    for precision in STORED:
        model = path.with_name(path.name.removesuffix(f".{precision}.onnx") + ".onnx")
        # Few names end so, and metadata may be long.
        if precision_file(model, precision) == path and model.is_file() and _said(path) == precision:
            seal = read_seal(model)
            if seal is None or origin_of(read_metadata(path) or {}) != seal.sha256:
                return f"made from another model than {model} is now; rebuild it with: {_quantize(model, precision)}"
    return None


def _said(path: Path) -> Precision:
    return precision_of(read_metadata(path) or {}, path)


def _quantize(model: Path, precision: Precision) -> str:
    name = model.stem if model == exported_path(model.stem) else str(model)
    return f"landmark-onnx quantize {name} --precision {precision} --calibrate FOLDER_OF_PHOTOS"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """What the store has of one model. Sizes are in bytes, a model's with the weights beside it.

    note: what does not fit together, and the remedy: a file of reduced precision that is stale, a card that was edited.
    """

    name: str
    task: str
    state: State
    source: Path | None
    source_bytes: int
    model: Path | None
    model_bytes: int
    note: str | None = None

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
        task=card.task if card else "unknown",
        state=state,
        source=source if source.is_file() else None,
        source_bytes=source.stat().st_size if source.is_file() else 0,
        model=model if model.is_file() else None,
        model_bytes=size,
        note=stored_note(model) if model.is_file() else None,
    )


def stored_note(model: Path) -> str | None:
    """What does not fit together of a model file of the store, with the remedy; None for any other file."""
    if not _is_stored(model):
        return None
    with contextlib.suppress(LandmarkError):
        name = model.stem
        for precision in STORED:
            name = name.removesuffix(f".{precision}")
        return staleness(model) or edited_card(model, name)
    return None


def embedded_card(model: Path) -> ModelCard:
    """The card inside an exported file. Raises: ModelFileError if it has none, CardError if that is malformed."""
    metadata = read_metadata(model) or {}
    if "card" not in metadata:
        raise ModelFileError(f"{model}: no model card inside: truncated, changed, or not exported by landmark-onnx")
    return ModelCard.from_dict(metadata["card"], f"{model}: card")


def record_verified(model: Path, sha256: str) -> None:
    """Remember that a model of the store passed with this seal; nothing for files elsewhere."""
    if _is_stored(model):
        # The answer counts, and a store that cannot be written is fit to be read.
        with contextlib.suppress(OSError):
            write_record(model, {"seal": sha256, **_version(model)})


def read_record(path: Path) -> Mapping[str, str | int]:
    """What is recorded of a file of the store, {} if nothing. Raises: ModelFileError."""
    record = record_path(path)
    try:
        found: Mapping[str, str | int] = structure(_RECORD, read_json(record))
        return found
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ModelFileError(f"{record}: {error.strerror}") from error
    except DocumentError as error:
        raise ModelFileError(f"{record}: damaged: {error}; remove it to begin a new one") from error


def write_record(path: Path, facts: Mapping[str, str | int]) -> None:
    """Record facts of a file of the store, which need not be there yet."""
    with atomic_write(record_path(path)) as file:
        file.write(json.dumps(facts, indent=1).encode())


def record_path(path: Path) -> Path:
    """The file beside `path` that holds its record."""
    return path.with_name(f"{path.name}.json")


def _is_stored(model: Path) -> bool:
    return model.parent.resolve() == (home() / "models").resolve()


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
        if read_record(model) == {"seal": seal.sha256} | _version(model):
            return "verified", size
    return "exported", size


def _version(model: Path) -> dict[str, int]:
    """What a file that was changed since does not have any more, without reading it."""
    status = model.stat()
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns}
