"""Where model files live, and which file a name means.

`models/NAME.onnx` (with `*.onnx.data` beside it where the weights are too large for it), `sources/NAME.tar`, and a JSON
record beside each (`landmark_onnx.store.records`).
"""

import logging
import os
from pathlib import Path

import platformdirs

from landmark_onnx.cards.catalogue import cards
from landmark_onnx.cards.schema import ModelCard
from landmark_onnx.errors import ModelFileError, UnknownModelError
from landmark_onnx.modelfile.metadata import read_metadata, read_seal
from landmark_onnx.precision import STORED, Precision, origin_of, precision_file, precision_of

logger = logging.getLogger(__name__)

HOME_VARIABLE = "LANDMARK_ONNX_HOME"


def home() -> Path:
    """The store: $LANDMARK_ONNX_HOME, or the platform's cache folder."""
    chosen = os.environ.get(HOME_VARIABLE)
    return Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("landmark-onnx", appauthor=False)


def exported_path(name: str) -> Path:
    """The file in which the store keeps the exported model `name`."""
    return home() / "models" / f"{name}.onnx"


def source_path(name: str) -> Path:
    """The file in which the store keeps what `name` is made of: a release, or for a moment an ONNX model."""
    return home() / "sources" / f"{name}.tar"


def files_folder(name: str) -> Path:
    """The folder of the store for other files of `name` while it is pulled: the second one of two, its labels."""
    return source_path(name).with_name(f"{name}.files")


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


def embedded_card(model: Path) -> ModelCard:
    """The card inside an exported file. Raises: ModelFileError if it has none, CardError if that is malformed."""
    metadata = read_metadata(model) or {}
    if "card" not in metadata:
        raise ModelFileError(f"{model}: no model card inside: truncated, changed, or not exported by landmark-onnx")
    return ModelCard.from_dict(metadata["card"], f"{model}: card")


def is_stored(model: Path) -> bool:
    """Whether a model file is one of the store's."""
    return model.parent.resolve() == (home() / "models").resolve()
