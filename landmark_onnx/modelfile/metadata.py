"""What an exported ONNX file says of itself, and the seal that shows it is whole.

Metadata are `metadata_props` of the ModelProto, one JSON text per key, appended as protobuf fields at the end of the
file: a protobuf message may be extended by concatenation. The last field is the seal: the offset where the metadata
begin, and the SHA-256 of every byte before that hash. So they are read and checked without onnx, and in no time.
"""

import dataclasses
import hashlib
import json
import re
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, BinaryIO

from landmark_onnx.errors import ModelFileError
from landmark_onnx.files.documents import parse_json
from landmark_onnx.files.structure import DocumentError, Matches, Sha256, structure
from landmark_onnx.modelfile.protobuf import field, fields

PREFIX = "landmark_onnx."
SEAL_KEY = PREFIX + "seal"
MAX_METADATA = 24 << 20
"""The names of Google Landmarks' 203,094 classes take 16 MB."""


@dataclasses.dataclass(frozen=True, slots=True)
class DataFile:
    """The file beside that holds them, whose name has a part of its hash."""

    file: Annotated[str, Matches(r"[^./\\\0][^/\\\0]*-[0-9a-f]{12}\.onnx\.data", "NAME-HASH.onnx.data")]
    sha256: Sha256


KINDS: Mapping[str, Any] = types.MappingProxyType(
    {
        "card": Mapping[str, Any],
        "labels": Mapping[Annotated[str, Matches("[0-9]{1,9}", "a class index")], str],
        "data": DataFile,
        "agreement": Mapping[str, float | None],
    }
)
"""Keys whose values are used as they are, and what these must be. `Probe` and `QuantizationReport` check their own."""


@dataclasses.dataclass(frozen=True, slots=True)
class Seal:
    """sha256: of the bytes before it. offset: where the metadata begin. size: bytes before the seal."""

    sha256: str
    offset: int
    size: int


def append_metadata(file: BinaryIO, metadata: Mapping[str, Any]) -> None:
    """Append `metadata` and the seal to an ONNX file open for reading and writing, which must have neither yet."""
    offset = file.seek(0, 2)
    for key, value in metadata.items():
        file.write(_entry(PREFIX + key, json.dumps(value, sort_keys=True, separators=(",", ":"))))
    file.write(_seal_head(offset))
    file.write(_hash(file, file.tell()).encode())


def read_seal(path: Path) -> Seal | None:
    """The seal of an ONNX file, or None if it has none. Raises: ModelFileError if it cannot be read."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2) - _SEAL_BYTES
            if size < 0:
                return None
            file.seek(size)
            tail = file.read(_SEAL_BYTES)
    except OSError as error:
        raise ModelFileError(f"{path}: {error.strerror}") from error
    found = _SEAL.fullmatch(tail)
    if not found or int(found[1]) > size:
        return None
    return Seal(found[2].decode(), int(found[1]), size)


def network_digest(path: Path) -> str:
    """SHA-256 of the ONNX model itself, without what was appended to it. Raises: ModelFileError."""
    seal = read_seal(path)
    with path.open("rb") as file:
        return _hash(file, seal.offset if seal else file.seek(0, 2))


def read_metadata(path: Path) -> dict[str, Any] | None:
    """The metadata of an exported file without loading it, or None if it has no seal. Raises: ModelFileError."""
    seal = read_seal(path)
    if seal is None:
        return None
    if seal.size - seal.offset > MAX_METADATA:
        raise ModelFileError(f"{path}: its metadata claim {seal.size - seal.offset} bytes: the file is damaged")
    with path.open("rb") as file:
        file.seek(seal.offset)
        data = file.read(seal.size - seal.offset)
    try:
        return decode_metadata(dict(_entries(data)), str(path))
    except ValueError as error:
        raise ModelFileError(f"{path}: its metadata are damaged: {error}") from error


def decode_metadata(strings: Mapping[str, str], origin: str) -> dict[str, Any]:
    """Our keys among a file's metadata strings, decoded and of `KINDS`.

    Raises: ModelFileError naming `origin` and the key.
    """
    metadata = {}
    for key, text in strings.items():
        if key.startswith(PREFIX) and key != SEAL_KEY:
            name = key.removeprefix(PREFIX)
            try:
                metadata[name] = parse_json(text)
                structure(KINDS.get(name, Any), metadata[name])
            except DocumentError as error:
                raise ModelFileError(f"{origin}: its metadata {key} are damaged: {error}; export it again") from error
    return metadata


def require_seal(path: Path) -> Seal:
    """The seal of a file, which is not hashed. Raises: ModelFileError if it is missing or has no seal."""
    seal = read_seal(path)
    if seal is None:
        raise ModelFileError(f"{path}: no seal at its end: truncated, changed, or not exported by landmark-onnx")
    return seal


def check_seal(path: Path) -> Seal:
    """Hash the file. Raises: ModelFileError if it has no seal, or its bytes are not those that were sealed."""
    seal = require_seal(path)
    with path.open("rb") as file:
        digest = _hash(file, seal.size + _SEAL_BYTES - _DIGEST)
    if digest != seal.sha256:
        raise ModelFileError(f"{path}: damaged: wanted sha256 {seal.sha256}, got {digest}; export it again")
    return seal


def _hash(file: BinaryIO, size: int) -> str:
    """SHA-256 of the first `size` bytes; leaves the file there."""
    digest = hashlib.sha256()
    file.seek(0)
    while size and (block := file.read(min(1 << 20, size))):
        digest.update(block)
        size -= len(block)
    return digest.hexdigest()


def _entry(key: str, value: str) -> bytes:
    """ModelProto.metadata_props (14) of one StringStringEntryProto: key (1), value (2)."""
    return field(14, field(1, key.encode()) + field(2, value.encode()))


def _seal_head(offset: int) -> bytes:
    """All of the seal that comes before its digest."""
    return _entry(SEAL_KEY, f"{offset:016d}:{'0' * _DIGEST}")[:-_DIGEST]


def _entries(data: bytes) -> Iterator[tuple[str, str]]:
    """The reverse of a run of `_entry`. Raises: ValueError."""
    for entry in fields(data, 0, len(data)):
        parts = list(fields(data, entry.start, entry.end))
        if [entry.number, *(part.number for part in parts)] != [14, 1, 2]:
            raise ValueError(f"field {entry.number} at byte {entry.begin}, wanted metadata")
        key, value = (data[part.start : part.end].decode() for part in parts)
        yield key, value


_DIGEST = 64
_SEAL_BYTES = len(_seal_head(0)) + _DIGEST
_SEAL = re.compile(re.escape(_seal_head(0)[:-17]) + rb"(\d{16}):([0-9a-f]{64})")
