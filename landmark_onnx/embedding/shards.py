"""A shard: some rows of a folder of features in one Parquet file, written whole, and checked column by column.

Columns: id, source, error (null where all went well), content and stamp if they are recorded (`manifest.RECORDS`),
position in a part of a list, and of each model a fixed-size list of float16 or float32, null where there is an error.
The file's metadata hold the SHA-256 of each column's contents. The same rows give the same bytes.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from landmark_onnx.embedding.manifest import POSITION, RECORDS, ROW_COLUMNS, FeatureManifest
from landmark_onnx.errors import FeatureError, reason_of
from landmark_onnx.extras import extra
from landmark_onnx.files.atomic import atomic_write
from landmark_onnx.files.documents import parse_json
from landmark_onnx.files.structure import Sha256, structure

Vectors: TypeAlias = npt.NDArray[np.float16] | npt.NDArray[np.float32]

DIGESTS = b"landmark_onnx.sha256"
NAMES = re.compile(r"part-(\d{5,})\.parquet")
"""Of shards: 1 is the number."""
REMEDY = "run the same landmark-onnx embed again: it rebuilds what is wrong"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """n rows. errors: None where a row is fine. contents, stamps: of the images, as `manifest.RECORDS` says.

    positions: in the whole list. vectors: model -> (rows that are fine, D), in row order. What was not asked of a file
    is empty. sha256: of the file it was read from, as its `Footer` has it.
    """

    ids: Sequence[str] = ()
    sources: Sequence[str] = ()
    errors: Sequence[str | None] = ()
    contents: Sequence[str | None] = ()
    stamps: Sequence[str | None] = ()
    positions: Sequence[int] = ()
    vectors: Mapping[str, Vectors] = dataclasses.field(default_factory=dict)
    sha256: str = ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Footer:
    """What the end of a shard says. failed: of its rows. columns: SHA-256 of the contents of each.

    sha256: of these digests as they are written, so that it stands for all contents. Reading a column checks it.
    """

    rows: int
    failed: int
    sha256: str
    columns: Mapping[str, str]


def shard_path(folder: Path, number: int) -> Path:
    """The file of shard `number`, counted from 0."""
    return folder / f"part-{number:05d}.parquet"


def write_shard(path: Path, shard: Shard, manifest: FeatureManifest) -> str:
    """Write a shard of `manifest`'s models and dtype; its SHA-256. Raises: OSError if the disk does not take it."""
    pa, pq = arrow()
    failed = np.array([error is not None for error in shard.errors], bool)
    kinds = _kinds(manifest)
    columns = {name: pa.array(values, kinds[name]) for name, values in _row_values(shard, manifest).items()}
    for model in manifest.models:
        vectors = np.zeros((len(failed), model.dim), manifest.dtype)
        vectors[~failed] = shard.vectors[model.name]
        columns[model.name] = pa.FixedSizeListArray.from_arrays(
            pa.array(vectors.reshape(-1)), model.dim, mask=pa.array(failed)
        )
    said = _digests(shard, manifest)
    table = pa.table(columns).replace_schema_metadata({DIGESTS: said})
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer, compression="zstd", use_dictionary=False, write_page_checksum=True)
    with atomic_write(path) as file:
        file.write(buffer.getvalue())
    return hashlib.sha256(said).hexdigest()


def shard_sha256(shard: Shard, manifest: FeatureManifest) -> str:
    """The SHA-256 that `write_shard` would answer."""
    return hashlib.sha256(_digests(shard, manifest)).hexdigest()


def read_footer(path: Path, manifest: FeatureManifest) -> Footer:
    """What a shard says of itself at its end, which takes under a millisecond.

    Raises: FeatureError that names the file, if it is missing, damaged, or no shard of `manifest`'s columns.
    """
    with _opened(path) as file:
        return _footer(file, manifest)


def read_shard(path: Path, manifest: FeatureManifest, columns: Collection[str] | None = None) -> Shard:
    """These columns (default: all) of a shard, `error` among them always.

    Raises: FeatureError that names the file, if it is missing, or not to the last value what was written.
    """
    dims = {model.name: model.dim for model in manifest.models}
    wanted = [name for name in (*manifest.row_columns, *dims) if columns is None or name in columns or name == "error"]
    with _opened(path) as file:
        footer = _footer(file, manifest)
        table = file.read(wanted, use_threads=False)
        values = {name: _values(table.column(name), dims.get(name), manifest.dtype) for name in wanted}
        if broken := [name for name in wanted if _digest(values[name]) != footer.columns[name]]:
            raise ValueError(f"column {broken[0]} is not what was written")
        fine = sum(error is None for error in values["error"])
        if odd := [name for name in wanted if name in dims and len(values[name]) != fine]:
            raise ValueError(f"{len(values[odd[0]])} vectors of {odd[0]} for {fine} rows that are fine")
    return Shard(
        ids=values.get("id", ()),
        sources=values.get("source", ()),
        errors=values["error"],
        contents=values.get("content", ()),
        stamps=values.get("stamp", ()),
        positions=values.get("position", ()),
        vectors={name: values[name] for name in wanted if name in dims},
        sha256=footer.sha256,
    )


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A Parquet file; what goes wrong while it is read is one line that names it. Raises: FeatureError."""
    pa, pq = arrow()
    try:
        # A file of Arrow's own: its threads may drop it while Python ends, and a file of Python's would abort that.
        with pa.OSFile(os.fsencode(path)) as file:
            yield pq.ParquetFile(file, pre_buffer=False, page_checksum_verification=True)
    except FileNotFoundError:
        raise FeatureError(f"{path}: missing; {REMEDY}") from None
    except (OSError, ValueError, LookupError, TypeError, MemoryError, pa.ArrowException) as error:
        raise FeatureError(f"{path}: damaged ({reason_of(error)}); {REMEDY}") from error


def _footer(file: Any, manifest: FeatureManifest) -> Footer:
    """Raises: ValueError, LookupError, TypeError for another file than `write_shard` makes."""
    schema = file.schema_arrow
    wanted = _kinds(manifest)
    found = dict(zip(schema.names, schema.types, strict=True))
    if list(found) != list(wanted):
        raise ValueError(f"wanted columns {', '.join(wanted)}, got {', '.join(found)}")
    for name, kind in wanted.items():
        if found[name] != kind:
            raise TypeError(f"column {name}: wanted {kind}, got {found[name]}")
    said = (schema.metadata or {})[DIGESTS]
    columns: Mapping[str, str] = structure(Mapping[str, Sha256], parse_json(said))  # type: ignore[type-abstract]
    groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
    fine = sum(group.column(ROW_COLUMNS.index("error")).statistics.null_count for group in groups)
    rows = file.metadata.num_rows
    return Footer(rows=rows, failed=rows - fine, sha256=hashlib.sha256(said).hexdigest(), columns=columns)


def _kinds(manifest: FeatureManifest) -> dict[str, Any]:
    """Column -> its type, in their order."""
    pa, _ = arrow()
    value = pa.float16() if manifest.dtype == "float16" else pa.float32()
    vectors = {model.name: pa.list_(pa.field("element", value), model.dim) for model in manifest.models}
    rows = {name: pa.int64() if name == POSITION else pa.string() for name in manifest.row_columns}
    return rows | vectors


def is_shard(path: Path) -> bool:
    """Whether `write_shard` made this file; not if it is damaged so that it does not say."""
    pa, pq = arrow()
    try:
        with pa.OSFile(os.fsencode(path)) as file:
            return DIGESTS in (pq.read_schema(file).metadata or {})
    except (OSError, pa.ArrowException):
        return False


def arrow() -> tuple[Any, Any]:
    """The modules pyarrow and pyarrow.parquet. Raises: MissingExtraError."""
    with extra("parquet", what="pyarrow"):
        import pyarrow as pa
        import pyarrow.parquet as pq
    return pa, pq


def _row_values(shard: Shard, manifest: FeatureManifest) -> dict[str, Sequence[str | int | None]]:
    """The columns beside those of the models."""
    columns = (shard.ids, shard.sources, shard.errors, shard.contents, shard.stamps, shard.positions)
    known: dict[str, Sequence[str | int | None]]
    known = dict(zip((*ROW_COLUMNS, *RECORDS, POSITION), columns, strict=True))
    return {name: known[name] for name in manifest.row_columns}


def _digests(shard: Shard, manifest: FeatureManifest) -> bytes:
    """The SHA-256 of each column, as the file says it."""
    columns: dict[str, Any] = dict(_row_values(shard, manifest))
    columns |= {model.name: shard.vectors[model.name].astype(manifest.dtype) for model in manifest.models}
    return json.dumps({name: _digest(values) for name, values in columns.items()}).encode()


def _values(column: Any, dim: int | None, dtype: str) -> Any:
    """A column as a list of texts, or as (n, dim) of its rows that are not null."""
    if dim is None:
        return column.to_pylist()
    values = [chunk.flatten().to_numpy() for chunk in column.chunks]
    vectors = np.concatenate(values) if values else np.empty(0, dtype)
    if vectors.dtype != dtype:
        raise TypeError(f"wanted {dtype}, got {vectors.dtype}")
    return vectors.reshape(-1, dim)


def _digest(values: Any) -> str:
    data = values.tobytes() if isinstance(values, np.ndarray) else json.dumps(list(values)).encode()
    return hashlib.sha256(data).hexdigest()
