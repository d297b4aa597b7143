"""Where model files live, and which file a name means."""

import os
from pathlib import Path

import platformdirs

from landmark_onnx.cards import cards
from landmark_onnx.errors import ModelFileError, UnknownModelError

HOME_VARIABLE = "LANDMARK_ONNX_HOME"


def home() -> Path:
    """The store: $LANDMARK_ONNX_HOME, or the platform's cache folder."""
    chosen = os.environ.get(HOME_VARIABLE)
    return Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("landmark-onnx", appauthor=False)


def exported_path(name: str) -> Path:
    """The file in which the store keeps the exported model `name`."""
    return home() / "models" / f"{name}.onnx"


def find_model(model: str | os.PathLike[str]) -> Path:
    """The ONNX file that a name or a path means.

    Raises: UnknownModelError if no model is called so and no such file is there; ModelFileError if the model is known
    and its file is not there yet.
    """
    text = os.fspath(model)
    if text.endswith(".onnx") or os.sep in text or isinstance(model, os.PathLike):
        if not Path(text).is_file():
            raise ModelFileError(f"{text}: no such file")
        return Path(text)
    stored = exported_path(text)
    if stored.is_file():
        return stored
    if Path(text).is_file():
        return Path(text)
    if text in cards():
        raise ModelFileError(
            f"{text} is not in {stored.parent} yet; run: landmark-onnx export {text} --from {text}.tar"
        )
    raise UnknownModelError(f"no model is called {text!r} and no such file is there; names: {', '.join(cards())}")
