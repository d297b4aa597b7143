"""SHA-256 of files; of large ones block by block, so that several cores can check them."""

import dataclasses
import hashlib
from pathlib import Path

from landmark_onnx.errors import ModelFileError
from landmark_onnx.files.structure import Count

BLOCK = 32 << 20
"""Bytes."""
PIECE = 1 << 20


@dataclasses.dataclass(frozen=True, slots=True)
class Digest:
    """What a file must be. size: in bytes."""

    sha256: str
    size: Count


def digest(path: Path) -> Digest:
    """Hash a file."""
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return Digest(sha256, file.tell())


def check_hash(path: Path, sha256: str, *, shown: Path | None = None) -> None:
    """Hash a file. shown: what an error calls it. Raises: ModelFileError with wanted and got."""
    if (got := digest(path).sha256) != sha256:
        raise ModelFileError(f"{shown or path}: damaged: wanted sha256 {sha256}, got {got}")


def blocks(size: int) -> int:
    """How many blocks a file of so many bytes has."""
    return -(-size // BLOCK)


def block_hash(path: Path, number: int, size: int | None = None) -> str:
    """SHA-256 of one block of a file, or of its first `size` bytes."""
    digest = hashlib.sha256()
    left = BLOCK if size is None else min(BLOCK, size - number * BLOCK)
    with path.open("rb") as file:
        file.seek(number * BLOCK)
        for start in range(0, left, PIECE):
            digest.update(file.read(min(PIECE, left - start)))
    return digest.hexdigest()


def intact(path: Path, number: int, digest: str, size: int | None = None) -> bool:
    """Whether a block has that hash; not if it cannot be read."""
    try:
        return block_hash(path, number, size) == digest
    except OSError:
        return False
