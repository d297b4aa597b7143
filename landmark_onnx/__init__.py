"""landmark-onnx: Baidu's 2019 Google-Landmark models on ONNX Runtime: retrieval, classification, detection."""

# The command line sees to Ctrl-C as soon as it is imported, so nothing that takes time stands here.
import os

# ONNX Runtime 1.29 and newer write a device id the moment they are imported, unless told not to before.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from landmark_onnx.cards.catalogue import card, read_card
    from landmark_onnx.cards.schema import ModelCard
    from landmark_onnx.errors import LandmarkError
    from landmark_onnx.model import Classifier, Detector, Retriever
    from landmark_onnx.results import Classification, Detections, Embedding, Failure, Similarity, Timing
    from landmark_onnx.runtime.providers import ProviderRequest

    __version__: str

__all__ = [
    "Classification",
    "Classifier",
    "Detections",
    "Detector",
    "Embedding",
    "Failure",
    "LandmarkError",
    "ModelCard",
    "ProviderRequest",
    "Retriever",
    "Similarity",
    "Timing",
    "card",
    "read_card",
]

# `cards` is a room: a function of that name would be replaced by it.
_HOMES = {
    "landmark_onnx.cards.catalogue": ("card", "read_card"),
    "landmark_onnx.cards.schema": ("ModelCard",),
    "landmark_onnx.errors": ("LandmarkError",),
    "landmark_onnx.model": ("Classifier", "Detector", "Retriever"),
    "landmark_onnx.runtime.providers": ("ProviderRequest",),
    "landmark_onnx.results": ("Classification", "Detections", "Embedding", "Failure", "Similarity", "Timing"),
}


if not TYPE_CHECKING:  # where a module has __getattr__, mypy takes any name to be there

    def __getattr__(name: str) -> "Any":
        """Import a public name when it is first used: NumPy and OpenCV take longer than this package does."""
        if name == "__version__":
            from importlib.metadata import version

            return version("landmark-onnx")
        from landmark_onnx.lazy import lazy_names

        find, _ = lazy_names(__name__, _HOMES)
        return find(name)


def __dir__() -> "list[str]":
    """The public names, imported or not: what completion and `help` ask for."""
    return sorted({*globals(), *__all__, "__version__"})
