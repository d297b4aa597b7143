"""Where models are kept: paths, records, status, locks."""

from landmark_onnx.lazy import lazy_names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from landmark_onnx.store.catalogue import exported_path, find_model, home
    from landmark_onnx.store.status import Stored, stored_model, stored_models

__all__ = [
    "Stored",
    "exported_path",
    "find_model",
    "home",
    "stored_model",
    "stored_models",
]

_HOMES = {
    "landmark_onnx.store.catalogue": ("exported_path", "find_model", "home"),
    "landmark_onnx.store.status": ("Stored", "stored_model", "stored_models"),
}
if not TYPE_CHECKING:  # where a module has __getattr__, mypy takes any name to be there
    __getattr__, __dir__ = lazy_names(__name__, _HOMES)
