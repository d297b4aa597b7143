"""Whether a model is what its card says: the one inside the file counts, and that in the user's folder may differ."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from landmark_onnx.cards.catalogue import read_card, users_folder
from landmark_onnx.cards.schema import ModelCard
from landmark_onnx.modelfile.metadata import read_metadata

DECIDING = ("task", "preprocess", "postprocess", "inputs", "outputs", "source.labels")
"""What answers depend on; the rest of a card tells people of the model."""

ADOPTED = "onnx"
"""The kind of source that an ONNX model of others says it has."""


def differences(one: ModelCard, other: ModelCard) -> list[str]:
    """The keys, as `preprocess.size`, that decide about answers and differ."""
    ours, theirs = _flat(one.to_dict()), _flat(other.to_dict())
    keys = sorted(key for key in {**ours, **theirs} if ours.get(key) != theirs.get(key))
    return [key for key in keys if f"{key}.".startswith(tuple(f"{each}." for each in DECIDING))]


def was_adopted(metadata: Mapping[str, Any]) -> bool:
    """Whether a file is an ONNX model of others, which may get another card; a release must be exported for that."""
    source = metadata.get("source")
    return isinstance(source, Mapping) and source.get("kind") == ADOPTED


def edited_card(model: Path, name: str) -> str | None:
    """That the user's card of the stored model `name` says otherwise than the one inside it, and the remedy, or None.

    Raises: ModelFileError or CardError if one of them cannot be read.
    """
    path = users_folder() / f"{name}.toml"
    if not path.is_file():  # mostly; metadata may be long
        return None
    metadata = read_metadata(model) or {}
    keys = differences(ModelCard.from_dict(metadata.get("card", {}), f"{model}: card"), read_card(path))
    if not keys:
        return None
    remedy = f"landmark-onnx export {name}"
    if was_adopted(metadata):
        remedy = f"landmark-onnx models add {model} --card {path} --replace"
    what = f"says otherwise of {', '.join(keys)} than the card inside the model, which counts"
    return f"{path} {what}; to apply it: {remedy}"


def _flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in table.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat
