"""The JSON records of the store: of a source, the hash it had at first sight; of a model, its seal when it passed."""

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from landmark_onnx.errors import ModelFileError
from landmark_onnx.files.atomic import atomic_write
from landmark_onnx.files.documents import read_json
from landmark_onnx.files.structure import DocumentError, structure
from landmark_onnx.store.catalogue import is_stored

_RECORD: Any = Mapping[str, str | int]


def record_verified(model: Path, sha256: str) -> None:
    """Remember that a model of the store passed with this seal; nothing for files elsewhere."""
    if is_stored(model):
        # The answer counts, and a store that cannot be written is fit to be read.
        with contextlib.suppress(OSError):
            write_record(model, {"seal": sha256, **_version(model)})


def was_verified(model: Path, sha256: str) -> bool:
    """Whether it passed with this seal, and was not changed since. Raises: ModelFileError."""
    return read_record(model) == {"seal": sha256} | _version(model)


def read_record(path: Path) -> Mapping[str, str | int]:
    """What is recorded of a file of the store, {} if nothing. Raises: ModelFileError."""
    record = record_path(path)
    try:
        found: Mapping[str, str | int] = structure(_RECORD, read_json(record))
        return found
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ModelFileError(f"{record}: {error.strerror}") from error
    except DocumentError as error:
        raise ModelFileError(f"{record}: damaged: {error}; remove it to begin a new one") from error


def write_record(path: Path, facts: Mapping[str, str | int]) -> None:
    """Record facts of a file of the store, which need not be there yet."""
    with atomic_write(record_path(path)) as file:
        file.write(json.dumps(facts, indent=1).encode())


def record_path(path: Path) -> Path:
    """The file beside `path` that holds its record."""
    return path.with_name(f"{path.name}.json")


def _version(model: Path) -> dict[str, int]:
    """What a file that was changed since does not have any more, without reading it."""
    status = model.stat()
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns}
