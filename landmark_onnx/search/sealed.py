"""Small JSON files of ours: a format number, and a SHA-256 of all the rest, so that no edit goes unnoticed."""

import hashlib
import json
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


class Sealed:
    """What `write_sealed` wrote, with all of its keys but its own two.

    Raises: VersionError, DocumentError, both without the path; OSError.
    """

    def __init__(self, path: Path, version: int) -> None:
        self.facts = read_versioned(path, FORMAT, version)
        self._seal = self.facts.pop(SEAL, None)
        self._digest = _digest({FORMAT: version, **self.facts})

    def check(self) -> None:
        """Raises: DocumentError if a fact is not what was written; to be called where each alone can be used."""
        if self._seal != self._digest:
            raise DocumentError("not what was written: its SHA-256 is of something else")


def _digest(data: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()
