"""Embeddings of very many images: what to embed, the pass over it, and the folder of features it leaves."""

from landmark_onnx.lazy import lazy_names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from landmark_onnx.embedding.feature_folder import Batch, Features, open_features, write_features
    from landmark_onnx.embedding.identity import identify
    from landmark_onnx.embedding.item import Item
    from landmark_onnx.embedding.job import embed, here
    from landmark_onnx.embedding.join import join_features
    from landmark_onnx.embedding.listing import list_items
    from landmark_onnx.embedding.manifest import ListPart, ModelIdentity
    from landmark_onnx.embedding.request import FeatureRequest
    from landmark_onnx.embedding.update import update_features

__all__ = [
    "Batch",
    "FeatureRequest",
    "Features",
    "Item",
    "ListPart",
    "ModelIdentity",
    "embed",
    "here",
    "identify",
    "join_features",
    "list_items",
    "open_features",
    "update_features",
    "write_features",
]

_HOMES = {
    "landmark_onnx.embedding.feature_folder": ("Batch", "Features", "open_features", "write_features"),
    "landmark_onnx.embedding.identity": ("identify",),
    "landmark_onnx.embedding.item": ("Item",),
    "landmark_onnx.embedding.job": ("embed", "here"),
    "landmark_onnx.embedding.join": ("join_features",),
    "landmark_onnx.embedding.listing": ("list_items",),
    "landmark_onnx.embedding.manifest": ("ListPart", "ModelIdentity"),
    "landmark_onnx.embedding.request": ("FeatureRequest",),
    "landmark_onnx.embedding.update": ("update_features",),
}
if not TYPE_CHECKING:  # where a module has __getattr__, mypy takes any name to be there
    __getattr__, __dir__ = lazy_names(__name__, _HOMES)
