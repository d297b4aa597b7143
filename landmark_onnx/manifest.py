"""A bundle's lock file: what is in the folder, each file's hash, and what ran the models when it was made."""

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Literal, Self, TypeAlias

from landmark_onnx.errors import ModelFileError

FILE = "bundle.json"
FORMAT, VERSION = "landmark-onnx bundle", 1
MAX_BYTES = 64 << 20

Layout: TypeAlias = Literal["store", "triton"]


@dataclasses.dataclass(frozen=True, slots=True)
class Digest:
    """What a file must be. size: in bytes."""

    sha256: str
    size: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A model of a bundle. file: its place. agreement: of its answer then with its stored one, None if it has none."""

    name: str
    task: str
    file: str
    provider: str
    agreement: Mapping[str, float] | None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What is in a bundle. files: place -> digest, all but this one. ran_on: versions of what ran the models."""

    layout: Layout
    models: tuple[Member, ...]
    files: Mapping[str, Digest]
    ran_on: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        """JSON-ready data; `read_manifest` reads it back."""
        return {"format": FORMAT, "version": VERSION, **dataclasses.asdict(self)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The reverse. Raises: ValueError, KeyError, TypeError or AttributeError for anything else."""
        if (data["format"], data["version"], data["layout"] in ("store", "triton")) != (FORMAT, VERSION, True):
            raise ValueError(f"wanted a {FORMAT} of version {VERSION}")
        files = {_inside(name): Digest(str(row["sha256"]), int(row["size"])) for name, row in data["files"].items()}
        models = tuple(Member(**row) for row in data["models"])
        if missing := [model.file for model in models if model.file not in files]:
            raise ValueError(f"{missing[0]} is not among its files")
        return cls(layout=data["layout"], models=models, files=files, ran_on=dict(data["ran_on"]))


def read_manifest(folder: Path) -> Manifest:
    """What a bundle's lock file says. Raises: ModelFileError if the folder is no bundle, or the file is damaged."""
    path = folder / FILE
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ModelFileError(f"{path}: larger than {MAX_BYTES >> 20} MiB")
        return Manifest.from_json(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ModelFileError(f"{folder}: no bundle: {FILE}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelFileError(f"{path}: damaged: {error!r}") from error


def digest(path: Path) -> Digest:
    """Hash a file."""
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return Digest(sha256, file.tell())


def difference(folder: Path, name: str, wanted: Digest) -> str | None:
    """How a file of a bundle is not what it was, None if it is."""
    path = folder / name
    if not path.is_file():
        return f"{path}: missing"
    found = digest(path)
    if found == wanted:
        return None
    return f"{path}: damaged: wanted sha256 {wanted.sha256}, got {found.sha256}"


def _inside(name: str) -> str:
    """A path that stays in the folder, whoever wrote it."""
    parts = PurePosixPath(name).parts
    if not parts or ".." in parts or name.startswith("/") or re.search(r"[\\:\0]", name):
        raise ValueError(f"refused: wanted a path inside the folder, got {name!r}")
    return name
