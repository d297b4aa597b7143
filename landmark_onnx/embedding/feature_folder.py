"""A folder of features as its readers see it: ids, sources and vectors, streamed or whole.

`features.json` says what is in it, `part-00000.parquet` and so on hold the rows, in the order of the images given.
"""

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from landmark_onnx.embedding.manifest import FILE, DType, FeatureManifest, ModelIdentity, read_manifest
from landmark_onnx.embedding.shards import REMEDY, Shard, read_footer, read_shard, shard_path, write_shard
from landmark_onnx.errors import FeatureError
from landmark_onnx.images.ids import as_text
from landmark_onnx.types import Float32

__all__ = ["Batch", "Features", "ModelIdentity", "open_features", "write_features"]


SHARD_SIZE = 1024


@dataclasses.dataclass(frozen=True, slots=True)
class Batch:
    """n rows that all have their vectors. vectors: model -> (n, D) float32."""

    ids: Sequence[str]
    sources: Sequence[str]
    vectors: Mapping[str, Float32]


@dataclasses.dataclass(frozen=True, slots=True)
class Features:
    """A complete folder of features. A row on which any model failed is among `failures` and nowhere else.

    Reading raises FeatureError that names the shard, if one is missing or damaged.
    """

    folder: Path
    manifest: FeatureManifest

    @property
    def models(self) -> tuple[ModelIdentity, ...]:
        """The models, in the order they were given."""
        return self.manifest.models

    @property
    def count(self) -> int:
        """Rows that have their vectors."""
        return self.manifest.rows - self.manifest.failed

    def ids(self) -> list[str]:
        """The id of each of the `count` rows; an id may be there twice, if two images have it."""
        return [name for shard in self._shards("id") for name in _fine(shard.ids, shard)]

    def sources(self) -> list[str]:
        """Where each of the `count` rows' images was: a path, or a tar's path, a colon and the member's name.

        As it was given: below `manifest.base`, unless it is absolute.
        """
        return [name for shard in self._shards("source") for name in _fine(shard.sources, shard)]

    def vectors(self, model: str) -> Float32:
        """(count, D) float32 of one model, in the order of `ids`. Raises: FeatureError if the folder has none of it."""
        dims = {each.name: each.dim for each in self.models}
        if model not in dims:
            raise FeatureError(f"{self.folder}: no vectors of {model!r}; there are: {', '.join(dims)}")
        found = np.empty((self.count, dims[model]), np.float32)
        at = 0
        for shard in self._shards(model):
            part = shard.vectors[model]
            found[at : at + len(part)] = part
            at += len(part)
        return found

    def batches(self, rows: int) -> Iterator[Batch]:
        """Every row of `ids` with its vectors, in order, at most `rows` at a time; memory holds one shard."""
        for number in range(self.manifest.shards):
            shard = self._shard(number, None)
            ids, sources = _fine(shard.ids, shard), _fine(shard.sources, shard)
            for start in range(0, len(ids), rows):
                part = slice(start, start + rows)
                vectors = {name: values[part].astype(np.float32) for name, values in shard.vectors.items()}
                yield Batch(ids[part], sources[part], vectors)

    def failures(self, most: int | None = None) -> list[tuple[str, str, str]]:
        """(id, source, error) of each row without vectors, of the first `most` of them; `manifest.failed` are all."""
        found = (
            (name, source, error)
            for shard in self._shards("id", "source")
            for name, source, error in zip(shard.ids, shard.sources, shard.errors, strict=True)
            if error is not None
        )
        return list(itertools.islice(found, most))

    def verify(self, on_done: Callable[[int, int], None] = lambda done, total: None) -> None:
        """Read all there is, to the last value. on_done: of bytes that are read, of all. Raises: FeatureError."""
        self._check_structure()
        sizes = self._sizes()
        for number, done in enumerate(itertools.accumulate(sizes)):
            self._shard(number, None)
            on_done(done, sum(sizes))

    def close(self) -> None:
        """Nothing stays open; as an index has it."""

    def to_json(self) -> dict[str, Any]:
        """JSON-ready data."""
        facts: dict[str, Any] = {
            "features": str(self.folder),
            "rows": self.manifest.rows,
            "failed": self.manifest.failed,
        }
        facts["bytes"] = sum(self._sizes())
        facts |= {"files": self.manifest.shards, "dtype": self.manifest.dtype}
        return {**facts, "models": [model.describe() for model in self.models]}

    def _sizes(self) -> list[int]:
        return [shard_path(self.folder, number).stat().st_size for number in range(self.manifest.shards)]

    def _shards(self, *columns: str) -> Iterator[Shard]:
        return (self._shard(number, columns) for number in range(self.manifest.shards))

    def _shard(self, number: int, columns: Sequence[str] | None) -> Shard:
        path = shard_path(self.folder, number)
        shard = read_shard(path, self.manifest, columns)
        self._check(path, number, len(shard.errors), shard.sha256)
        return shard

    def _check(self, path: Path, number: int, rows: int, sha256: str) -> None:
        wanted = self.manifest.rows_of(number)
        if rows != wanted:
            raise FeatureError(f"{path}: {rows} rows, wanted {wanted}: of another folder; {REMEDY}")
        if sha256 != self.manifest.shard_sha256[number]:
            raise FeatureError(f"{path}: not the file that was written under this name; {REMEDY}")

    def _check_structure(self) -> None:
        """Raises: FeatureError unless each shard is there and says what the manifest says of it."""
        path = self.folder / FILE
        if len(self.manifest.shard_sha256) != self.manifest.shards:
            known = len(self.manifest.shard_sha256)
            raise FeatureError(f"{path}: {self.manifest.shards:,} shards, and the SHA-256 of {known:,}; {REMEDY}")
        failed = 0
        for number in range(self.manifest.shards):
            shard = shard_path(self.folder, number)
            footer = read_footer(shard, self.manifest)
            self._check(shard, number, footer.rows, footer.sha256)
            failed += footer.failed
        if failed != self.manifest.failed:
            raise FeatureError(f"{path}: {self.manifest.failed:,} rows failed, and {failed:,} in the shards; {REMEDY}")


def open_features(folder: Path) -> Features:
    """A complete folder of features, every shard of which has its rows, columns and SHA-256.

    Contents are checked as they are read; `Features.verify` reads all.
    Raises: FeatureError, also if it is not complete, naming the remedy.
    """
    manifest = read_manifest(folder)
    if not manifest.complete:
        raise FeatureError(f"{folder}: not complete; run the same landmark-onnx embed again: it goes on where it was")
    features = Features(folder, manifest)
    features._check_structure()
    return features


def write_features(
    folder: Path,
    models: Sequence[ModelIdentity],
    batches: Iterable[Batch],
    *,
    dtype: DType = "float32",
    shard_size: int = SHARD_SIZE,
) -> Features:
    """Make a folder of features of vectors that are there already; batches may have any number of rows.

    Raises: FeatureError if the folder has features already; ValueError if a batch lacks a model or its shape differs.
    """
    base = as_text(str(Path.cwd()))
    manifest = FeatureManifest(models=tuple(models), dtype=dtype, shard_size=shard_size, inputs="", rows=0, base=base)
    if folder.exists() and any(folder.glob("part-*.parquet")):
        raise FeatureError(f"{folder}: has features already; name another folder")
    digest = hashlib.sha256()
    rows = 0
    written = []
    for number, shard in enumerate(_resharded(batches, manifest)):
        written.append(write_shard(shard_path(folder, number), shard, manifest))
        digest.update(json.dumps([list(shard.ids), list(shard.sources)]).encode())
        rows += len(shard.ids)
    whole = dataclasses.replace(
        manifest, inputs=digest.hexdigest(), rows=rows, complete=True, shard_sha256=tuple(written)
    )
    whole.write(folder)
    return Features(folder, whole)


def _resharded(batches: Iterable[Batch], manifest: FeatureManifest) -> Iterator[Shard]:
    """Batches of any size -> shards of the manifest's size, the last one smaller."""
    ids: list[str] = []
    sources: list[str] = []
    vectors: dict[str, list[Float32]] = {model.name: [] for model in manifest.models}

    def taken(count: int) -> Shard:
        parts = {name: np.concatenate(waiting) for name, waiting in vectors.items()}
        shard = Shard(
            ids=ids[:count],
            sources=sources[:count],
            errors=[None] * count,
            vectors={name: part[:count].astype(manifest.dtype) for name, part in parts.items()},
        )
        del ids[:count], sources[:count]
        vectors.update({name: [part[count:]] for name, part in parts.items()})
        return shard

    for batch in batches:
        _check(batch, manifest)
        for start in range(0, len(batch.ids), manifest.shard_size):
            part = slice(start, start + manifest.shard_size)
            ids += batch.ids[part]
            sources += batch.sources[part]
            for name, waiting in vectors.items():
                waiting.append(batch.vectors[name][part])
            if len(ids) >= manifest.shard_size:
                yield taken(manifest.shard_size)
    if ids:
        yield taken(len(ids))


def _check(batch: Batch, manifest: FeatureManifest) -> None:
    for model in manifest.models:
        shape = batch.vectors[model.name].shape if model.name in batch.vectors else None
        if shape != (len(batch.ids), model.dim) or len(batch.sources) != len(batch.ids):
            raise ValueError(f"{model.name}: wanted vectors of shape {(len(batch.ids), model.dim)}, got {shape}")


def _fine(values: Sequence[str], shard: Shard) -> list[str]:
    return [value for value, error in zip(values, shard.errors, strict=True) if error is None]
