"""SHA-256 of a large file block by block, so that several cores can check it."""

import hashlib
from pathlib import Path

BLOCK = 32 << 20
"""Bytes."""
PIECE = 1 << 20


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
