"""The weights beside an exported model, where they are too large for it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from landmark_onnx.errors import ModelFileError
from landmark_onnx.files.hashing import check_hash
from landmark_onnx.modelfile.metadata import read_metadata


def external_data(model: Path) -> Path | None:
    """The file beside an exported model that holds its weights, there or not; None if they are inside.

    Raises: ModelFileError if it is not simply a file in the same folder, called after its hash.
    """
    data = (read_metadata(model) or {}).get("data")
    if data is None:
        return None
    if data["file"].endswith(f"-{data['sha256'][:12]}.onnx.data"):
        return model.with_name(data["file"])
    raise ModelFileError(f"{model}: refused: wanted its weights in NAME-HASH.onnx.data beside it, got {data!r}")


def check_external_data(path: Path, data: Mapping[str, Any] | None) -> None:
    """Hash the file beside the model that holds its weights, if there is one. Raises: ModelFileError."""
    if data is None:
        return
    beside = path.with_name(data["file"])
    try:
        check_hash(beside, data["sha256"])
    except OSError as error:
        raise ModelFileError(f"{beside}: {error.strerror}; {path.name} keeps its weights there") from error
