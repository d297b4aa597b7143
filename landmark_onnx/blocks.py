"""SHA-256 of a large file block by block, so that several cores can check it."""

import hashlib
from pathlib import Path

BLOCK = 32 << 20
"""Bytes."""
PIECE = 1 << 20


def blocks(size: int) -> int:
    """How many blocks a file of so many bytes has."""
    return -(-size // BLOCK)


def block_hash(path: Path, number: int) -> str:
    """SHA-256 of one block of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        file.seek(number * BLOCK)
        for _ in range(BLOCK // PIECE):
            digest.update(file.read(PIECE))
    return digest.hexdigest()


def intact(path: Path, number: int, digest: str) -> bool:
    """Whether a block has that hash; not if it cannot be read."""
    try:
        return block_hash(path, number) == digest
    except OSError:
        return False
