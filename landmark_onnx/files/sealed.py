"""Small JSON files of ours: a format number, and a SHA-256 of all the rest, so that no edit goes unnoticed."""

import contextlib
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from landmark_onnx.files.atomic import atomic_write
from landmark_onnx.files.documents import read_versioned
from landmark_onnx.files.structure import DocumentError

FORMAT, SEAL = "format", "sha256"


def write_sealed(path: Path, version: int, facts: dict[str, Any]) -> None:
    """Write `facts`, whole or not at all."""
    data = {FORMAT: version, **facts}
    with atomic_write(path) as file:
        file.write(json.dumps(data | {SEAL: _digest(data)}, indent=1).encode() + b"\n")


@contextlib.contextmanager
def sealed_facts(path: Path, version: int) -> Iterator[dict[str, Any]]:
    """What `write_sealed` wrote, without its own two keys; its SHA-256 is compared after the block.

    The block checks the facts one by one, which tells more than a hash of them all.
    Raises: OSError, DocumentError; VersionError, which is one, for another version.
    """
    facts = read_versioned(path, FORMAT, version)
    seal = facts.pop(SEAL, None)
    digest = _digest({FORMAT: version, **facts})
    yield facts
    if seal != digest:
        raise DocumentError("not what was written: its SHA-256 is of something else")


def _digest(data: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()
