"""What was measured, step by step, in one file that is rewritten after each of them and taken up again."""

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from landmark_onnx.errors import LandmarkError
from landmark_onnx.files.atomic import atomic_write
from landmark_onnx.files.documents import read_versioned
from landmark_onnx.files.structure import DocumentError, structure
from landmark_onnx_bench.gpu.report import gpu_markdown

SCHEMA = 1

NAME = "gpu"
"""Of the two files: .json, which is taken up again, and .md for people."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class StepRecord:
    """What came of one step. key: hash of all that it depends on. error: why there is nothing, or nothing.

    rows, dropouts: as in a report of `landmark-onnx bench`. facts: what else was found. seconds: that it took.
    """

    step: str
    model: str
    batch_size: int
    key: str
    begun: str
    seconds: float
    error: str = ""
    rows: tuple[Mapping[str, Any], ...] = ()
    dropouts: tuple[Mapping[str, Any], ...] = ()
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def place(self) -> tuple[str, str, int]:
        """What it is the record of."""
        return self.step, self.model, self.batch_size


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Document:
    environment: Mapping[str, Any]
    records: tuple[StepRecord, ...]


class GpuRecords:
    """The records of one card and one set of versions in a folder."""

    def __init__(self, folder: Path, environment: Mapping[str, Any]) -> None:
        """Take up what is there. environment: "identity" is what all records must share; the rest may change.

        Raises: LandmarkError if the folder holds records of another card or other versions, or a damaged file.
        """
        self._folder, self.environment = folder, environment
        self.path = folder / f"{NAME}.json"
        self._records: dict[tuple[str, str, int], StepRecord] = {}
        if not self.path.exists():
            return
        try:
            found = read_versioned(self.path, "schema", SCHEMA)
            document = structure(_Document, found)
            identity = document.environment["identity"]
        except OSError as error:
            raise LandmarkError(f"{self.path}: {error.strerror}") from error
        except (DocumentError, KeyError) as error:
            raise LandmarkError(f"{self.path}: no records of this command: {error}; choose another folder") from error
        if identity != environment["identity"]:
            differs = [key for key in identity.keys() | environment["identity"] if _differs(identity, environment, key)]
            raise LandmarkError(f"{self.path}: another {' and '.join(sorted(differs))}; choose another folder with -o")
        self._records = {record.place: record for record in document.records}

    def done(self, place: tuple[str, str, int], key: str) -> bool:
        """Whether a step is there and need not be run again."""
        record = self._records.get(place)
        return record is not None and record.key == key and not record.error

    def add(self, record: StepRecord) -> None:
        """Keep a record in the place of an older one, and write both files."""
        self._records[record.place] = record
        self.write()

    def write(self) -> None:
        """Both files, each whole or not at all."""
        records = [dataclasses.asdict(record) for record in self._records.values()]
        document = {"schema": SCHEMA, "environment": dict(self.environment), "records": records}
        for suffix, text in ((".json", json.dumps(document, indent=1) + "\n"), (".md", gpu_markdown(document))):
            with atomic_write(self._folder / f"{NAME}{suffix}") as file:
                file.write(text.encode())

    @property
    def failures(self) -> list[StepRecord]:
        """The steps that have nothing to show."""
        return [record for record in self._records.values() if record.error]


def key_of(**depends: Any) -> str:
    """A hash of JSON-ready values."""
    return hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()


def _differs(identity: Mapping[str, Any], environment: Mapping[str, Any], key: str) -> bool:
    with contextlib.suppress(KeyError):
        return bool(identity[key] != environment["identity"][key])
    return True
