"""The list of all images, written down before the first is embedded: shard by shard, in a file beside the shards.

So the end is known from the start, a run that goes on can tell that the list is the same, and every machine that
works on a shard knows its images. The file is hidden, and gone when the features are complete.
"""

import contextlib
import dataclasses
import hashlib
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from landmark_onnx.embedding.duplicates import IdHashes, SharedIds, shared_ids
from landmark_onnx.embedding.item import Item
from landmark_onnx.embedding.manifest import ListPart
from landmark_onnx.embedding.shards import arrow
from landmark_onnx.errors import FeatureError, reason_of
from landmark_onnx.files.atomic import atomic_write

FILE = ".inputs.parquet"

_SHARD_SIZE = b"shard_size"
_GROUP = 1 << 12
"""About the rows of a group of the file: what it says of a group stays in memory until the last one is written."""

_Row: TypeAlias = tuple[str, str, bytes, int, int, str, int]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Worklist:
    """path: of the file. rows: images. sha256: of the whole list. part: of it, if these are not all.

    duplicates: the ids that several of them have.
    """

    path: Path
    rows: int
    sha256: str
    part: ListPart | None
    duplicates: SharedIds


def write_plan(
    folder: Path,
    items: Iterable[Item],
    shard_size: int,
    on_found: Callable[[int], None] = lambda count: None,
    *,
    part: ListPart | None = None,
) -> Worklist:
    """Write the list down, or a part of it. Memory does not grow with it. on_found: rows, some thousands at a time.

    Raises: FeatureError for no image at all; a part may be empty.
    """
    path = folder / FILE
    whole = _WholeList(items, part)
    rest = iter(whole)
    with IdHashes(folder) as hashes:
        with _writer(path, shard_size) as write:
            while rows := list(itertools.islice(rest, _shards_of_group(shard_size) * shard_size)):
                hashes.add([row[0] for row in rows])
                write(rows)
                on_found(hashes.count)
            if not whole.rows:
                raise FeatureError("no image was given")
        duplicates = shared_ids(_names(path), hashes.repeated())
        return Worklist(
            path=path,
            rows=hashes.count,
            sha256=whole.digest.hexdigest(),
            part=part and dataclasses.replace(part, rows=whole.rows),
            duplicates=duplicates,
        )


class _WholeList:
    """The rows of a list, or of a part of it. rows, digest: of the whole, when all of it was read."""

    def __init__(self, items: Iterable[Item], part: ListPart | None) -> None:
        self._items = items
        self._part = part
        self.rows = 0
        self.digest = hashlib.sha256()

    def __iter__(self) -> Iterator[_Row]:
        for item in self._items:
            told = (item.id, item.source, item.offset, item.size, item.refusal)
            self.digest.update(f"{json.dumps(told)}\n".encode())
            self.rows += 1
            if self._part is None:
                yield _row(item)
            elif self._part.has(item.id):
                yield _row(dataclasses.replace(item, position=self.rows - 1))


def read_items(path: Path, shard: int) -> list[Item]:
    """The images of a shard. Raises: FeatureError if the list is gone or damaged."""
    pa, pq = arrow()
    try:
        with pq.ParquetFile(path) as file:
            size = int(file.schema_arrow.metadata[_SHARD_SIZE])
            group, place = divmod(shard, _shards_of_group(size))
            rows = file.read_row_group(group, use_threads=False).slice(place * size, size)
        return [_item(row) for row in rows.to_pylist()]
    except (OSError, ValueError, LookupError, TypeError, MemoryError, pa.ArrowException) as error:
        raise FeatureError(f"{path}: {reason_of(error)}; run the same landmark-onnx embed again") from error


def items_of_shards(path: Path) -> Iterator[list[Item]]:
    """The images of each shard of a list that was just written."""
    _, pq = arrow()
    with pq.ParquetFile(path) as file:
        size = int(file.schema_arrow.metadata[_SHARD_SIZE])
        for number in range(file.num_row_groups):
            group = file.read_row_group(number, use_threads=False)
            for start in range(0, group.num_rows, size):
                yield [_item(row) for row in group.slice(start, size).to_pylist()]


def remove_plan(folder: Path) -> None:
    """The features are complete: the list is theirs."""
    with contextlib.suppress(FileNotFoundError):
        (folder / FILE).unlink()


def _shards_of_group(shard_size: int) -> int:
    return max(1, _GROUP // shard_size)


def _row(item: Item) -> _Row:
    return item.id, item.source, os.fsencode(item.path), item.offset, item.size, item.refusal, item.position


def _item(row: Mapping[str, Any]) -> Item:
    return Item(**{**row, "path": os.fsdecode(row["path"])})


def _schema() -> Any:
    pa, _ = arrow()
    kinds = (pa.string(), pa.string(), pa.binary(), pa.int64(), pa.int64(), pa.string(), pa.int64())
    return pa.schema([(field.name, kind) for field, kind in zip(dataclasses.fields(Item), kinds, strict=True)])


@contextlib.contextmanager
def _writer(path: Path, shard_size: int) -> Iterator[Callable[[Sequence[_Row]], None]]:
    """What takes the rows of one group after the other."""
    pa, pq = arrow()
    schema = _schema().with_metadata({_SHARD_SIZE: str(shard_size)})
    with atomic_write(path) as file, pq.ParquetWriter(file, schema, compression="zstd", write_statistics=False) as out:

        def write(rows: Sequence[_Row]) -> None:
            columns = [
                pa.array(values, field.type) for values, field in zip(zip(*rows, strict=True), schema, strict=True)
            ]
            out.write_table(pa.Table.from_arrays(columns, schema=schema), row_group_size=len(rows))

        yield write


def _names(path: Path) -> Iterator[tuple[list[str], list[str]]]:
    """The ids and sources of each group."""
    _, pq = arrow()
    with pq.ParquetFile(path) as file:
        for number in range(file.num_row_groups):
            table = file.read_row_group(number, columns=["id", "source"], use_threads=False)
            yield table.column("id").to_pylist(), table.column("source").to_pylist()
