"""A shard: some rows of a folder of features in one Parquet file, written whole, and checked column by column.

Columns: id, source, error (null where all went well), and of each model a fixed-size list of float16 or float32, null
where there is an error. The file's metadata hold the SHA-256 of each column's contents. The same rows give the same
bytes.
"""

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from landmark_onnx.embedding.manifest import ROW_COLUMNS, Manifest
from landmark_onnx.errors import FeatureError, MissingExtraError, reason_of
from landmark_onnx.files import atomic_write

Vectors: TypeAlias = npt.NDArray[np.float16] | npt.NDArray[np.float32]

DIGESTS = b"landmark_onnx.sha256"
NAMES = re.compile(r"part-(\d{5,})\.parquet")
"""Of shards: 1 is the number."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """n rows. errors: None where a row is fine. vectors: model -> (rows that are fine, D), in row order.

    What was not asked of a file is empty.
    """

    ids: Sequence[str] = ()
    sources: Sequence[str] = ()
    errors: Sequence[str | None] = ()
    vectors: Mapping[str, Vectors] = dataclasses.field(default_factory=dict)


def shard_path(folder: Path, number: int) -> Path:
    """The file of shard `number`, counted from 0."""
    return folder / f"part-{number:05d}.parquet"


def write_shard(path: Path, shard: Shard, manifest: Manifest) -> None:
    """Write a shard of `manifest`'s models and dtype. Raises: OSError if the disk does not take it."""
    pa, pq = arrow()
    failed = np.array([error is not None for error in shard.errors], bool)
    columns = {"id": pa.array(shard.ids, pa.string()), "source": pa.array(shard.sources, pa.string())}
    columns["error"] = pa.array(shard.errors, pa.string())
    digests = {name: _digest(values) for name, values in zip(ROW_COLUMNS, _texts(shard), strict=True)}
    for model in manifest.models:
        vectors = np.zeros((len(failed), model.dim), manifest.dtype)
        vectors[~failed] = shard.vectors[model.name]
        columns[model.name] = pa.FixedSizeListArray.from_arrays(
            pa.array(vectors.reshape(-1)), model.dim, mask=pa.array(failed)
        )
        digests[model.name] = _digest(vectors[~failed])
    table = pa.table(columns).replace_schema_metadata({DIGESTS: json.dumps(digests)})
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer, compression="zstd", use_dictionary=False, write_page_checksum=True)
    with atomic_write(path) as file:
        file.write(buffer.getvalue())


def read_shard(path: Path, manifest: Manifest, columns: Collection[str] | None = None) -> Shard:
    """The columns asked for (default: all) of a shard, `error` among them always.

    Raises: FeatureError that names the file, if it is missing, or not to the last value what was written.
    """
    dims = {model.name: model.dim for model in manifest.models}
    wanted = [name for name in (*ROW_COLUMNS, *dims) if columns is None or name in columns or name == "error"]
    pa, pq = arrow()
    try:
        # A file of Arrow's own: its threads may drop it while Python ends, and a file of Python's would abort that.
        with pa.OSFile(os.fsencode(path)) as file:
            table = pq.ParquetFile(file, pre_buffer=False, page_checksum_verification=True).read(
                wanted, use_threads=False
            )
        digests = json.loads(table.schema.metadata[DIGESTS])
        values = {name: _values(table.column(name), dims.get(name), manifest.dtype) for name in wanted}
        if broken := [name for name in wanted if _digest(values[name]) != digests[name]]:
            raise ValueError(f"column {broken[0]} is not what was written")
    except FileNotFoundError:
        raise FeatureError(f"{path}: missing; run the same landmark-onnx embed again: it makes it anew") from None
    except (OSError, ValueError, LookupError, TypeError, pa.ArrowException) as error:
        raise FeatureError(
            f"{path}: damaged ({reason_of(error)}); run the same landmark-onnx embed again: it makes it anew"
        ) from error
    return Shard(
        ids=values.get("id", ()),
        sources=values.get("source", ()),
        errors=values["error"],
        vectors={name: values[name] for name in wanted if name in dims},
    )


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
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingExtraError("pyarrow", "parquet") from error
    return pa, pq


def _texts(shard: Shard) -> tuple[Sequence[str | None], ...]:
    return shard.ids, shard.sources, shard.errors


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
