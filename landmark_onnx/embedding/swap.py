"""A folder of features gives way to another one, made beside it, in steps that can be gone on with after a kill.

The new shards and their manifest are made in a hidden folder inside. Once that manifest is there, the change will be
made, whatever happens: whoever writes to the folder next completes it. Readers are told that the folder is not complete
while shards change places, which takes no longer than to rename them.
"""

import dataclasses
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from landmark_onnx.embedding.manifest import FILE, FeatureManifest, read_manifest
from landmark_onnx.embedding.parts import remove_parts
from landmark_onnx.embedding.shards import NAMES, Shard, is_shard, shard_path, shard_sha256, write_shard
from landmark_onnx.embedding.worklist import remove_plan

UPDATE = ".update"
"""Of a folder of features: all that is made on the way to another one. Nothing in it outlives that."""
_STAGED = "whole"


def workplace(folder: Path) -> Path:
    """The hidden folder inside."""
    place = folder / UPDATE
    place.mkdir(exist_ok=True)
    return place


def stage(folder: Path, wanted: FeatureManifest, shards: Iterable[Shard], there: Mapping[int, str]) -> FeatureManifest:
    """Write what `folder` shall be; the manifest of that. From then on `finish_swap` makes it so.

    shards: all of `wanted`, in order. there: SHA-256 of shards of the folder by number: those stay.
    """
    staged = workplace(folder) / _STAGED
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir()
    failed, hashes = 0, []
    for number, shard in enumerate(shards):
        sha256 = shard_sha256(shard, wanted)
        if there.get(number) != sha256:
            write_shard(shard_path(staged, number), shard, wanted)
        hashes.append(sha256)
        failed += sum(error is not None for error in shard.errors)
    whole = dataclasses.replace(wanted, failed=failed, complete=True, shard_sha256=tuple(hashes))
    whole.write(staged)
    return whole


def finish_swap(folder: Path) -> None:
    """Bring what was staged into place, if it is whole; nothing else."""
    staged = folder / UPDATE / _STAGED
    if not (staged / FILE).exists():
        return
    manifest = read_manifest(staged)
    dataclasses.replace(manifest, failed=0, complete=False, shard_sha256=()).write(folder)
    for number in range(manifest.shards):
        if (new := shard_path(staged, number)).exists():
            new.replace(shard_path(folder, number))
    for path in folder.glob("part-*.parquet"):
        name = NAMES.fullmatch(path.name)
        if name and int(name[1]) >= manifest.shards and is_shard(path):
            path.unlink()
    remove_parts(folder)
    remove_plan(folder)
    manifest.write(folder)
    remove_staged(folder)


def remove_staged(folder: Path) -> None:
    """Remove all that is on its way; what is staged and whole goes first, so that it is not half there."""
    (folder / UPDATE / _STAGED / FILE).unlink(missing_ok=True)
    shutil.rmtree(folder / UPDATE, ignore_errors=True)
