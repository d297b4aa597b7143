"""Model cards: every fact of a model, declared once, read and checked once."""

from landmark_onnx.lazy import lazy_names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from landmark_onnx.cards.catalogue import card, cards, original_cards, read_card, shipped_cards, users_folder
    from landmark_onnx.cards.schema import Golden, ModelCard, Postprocess, Preprocess, Source

__all__ = [
    "Golden",
    "ModelCard",
    "Postprocess",
    "Preprocess",
    "Source",
    "card",
    "cards",
    "original_cards",
    "read_card",
    "shipped_cards",
    "users_folder",
]

_HOMES = {
    "landmark_onnx.cards.catalogue": (
        "card",
        "cards",
        "original_cards",
        "read_card",
        "shipped_cards",
        "users_folder",
    ),
    "landmark_onnx.cards.schema": (
        "Golden",
        "ModelCard",
        "Postprocess",
        "Preprocess",
        "Source",
    ),
}
if not TYPE_CHECKING:  # where a module has __getattr__, mypy takes any name to be there
    __getattr__, __dir__ = lazy_names(__name__, _HOMES)
