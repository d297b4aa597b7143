"""Which model a loaded retriever is."""

import hashlib
from pathlib import Path

import numpy as np

from landmark_onnx.embedding.manifest import ModelIdentity, card_digest
from landmark_onnx.model import Retriever
from landmark_onnx.modelfile.metadata import check_seal, read_seal

_SIDE = 64


def identify(retriever: Retriever) -> ModelIdentity:
    """The identity of what `retriever` answers. Hashes the file, and asks once: only an answer has the dimension.

    Raises: ModelFileError if the file is not what was sealed; SessionError.
    """
    sha256 = file_sha256(retriever.session.path)
    answer = retriever(np.full((_SIDE, _SIDE, 3), 128, np.uint8))
    return ModelIdentity(
        name=retriever.card.name,
        sha256=sha256,
        dim=answer.vector.size,
        preprocess=card_digest(retriever.card),
        precision=retriever.precision,
    )


def file_sha256(path: Path) -> str:
    """Of a model file: of what was sealed, or of all of it. Raises: ModelFileError if it is not what was sealed."""
    if read_seal(path):
        return check_seal(path).sha256
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
