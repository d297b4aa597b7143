"""A bundle's lock file: what is in the folder, each file's hash, and what ran the models when it was made."""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, TypeAlias

from landmark_onnx.errors import ModelFileError
from landmark_onnx.files.documents import VersionError, read_versioned
from landmark_onnx.files.hashing import Digest, digest
from landmark_onnx.files.structure import DocumentError, brief, structure
from landmark_onnx.precision import Precision

FILE = "bundle.json"
FORMAT, VERSION = "landmark-onnx bundle", 1

Layout: TypeAlias = Literal["store", "triton"]


class _Inside:
    """A path that stays in the folder."""

    def holds(self, name: str) -> bool:
        """Whether it does."""
        parts = PurePosixPath(name).parts
        return bool(parts) and ".." not in parts and not name.startswith("/") and not re.search(r"[\\:\0]", name)

    def __str__(self) -> str:
        return "a path inside the folder"


Place: TypeAlias = Annotated[str, _Inside()]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BundledModel:
    """A model of a bundle. file: its place; precision: of that file.

    agreement: of its answer then with its stored one, None if it has none.
    """

    name: str
    task: str
    file: Place
    provider: str
    agreement: Mapping[str, float] | None
    precision: Precision = "fp32"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BundleLock:
    """What is in a bundle. files: place -> digest, all but this one. ran_on: versions of what ran the models."""

    layout: Layout
    models: tuple[BundledModel, ...]
    files: Mapping[Place, Digest]
    ran_on: Mapping[str, str]

    def __post_init__(self) -> None:
        """Raises: ModelFileError if a model's file is not among the files."""
        if missing := [model.file for model in self.models if model.file not in self.files]:
            raise ModelFileError(f"{missing[0]} is not among its files")

    def to_json(self) -> dict[str, Any]:
        """JSON-ready data; `read_manifest` reads it back."""
        return {"format": FORMAT, "version": VERSION, **dataclasses.asdict(self)}


def read_manifest(folder: Path) -> BundleLock:
    """What a bundle's lock file says. Raises: ModelFileError if the folder is no bundle, or the file is damaged."""
    path = folder / FILE
    try:
        data = read_versioned(path, "version", VERSION)
        if (kind := data.pop("format", None)) != FORMAT:
            raise DocumentError(f"format: wanted {FORMAT!r}, got {brief(kind)}")
        return structure(BundleLock, data)
    except OSError as error:
        raise ModelFileError(f"{folder}: no bundle: {FILE}: {error.strerror}") from error
    except VersionError as error:
        raise ModelFileError(f"{path}: {error}: another landmark-onnx made the bundle; rebuild it") from error
    except DocumentError as error:
        raise ModelFileError(f"{path}: damaged: {error}; rebuild the bundle") from error


def difference(folder: Path, name: str, wanted: Digest) -> str | None:
    """How a file of a bundle is not what it was, None if it is."""
    path = folder / name
    if not path.is_file():
        return f"{path}: missing"
    found = digest(path)
    if found == wanted:
        return None
    return f"{path}: damaged: wanted sha256 {wanted.sha256}, got {found.sha256}"
