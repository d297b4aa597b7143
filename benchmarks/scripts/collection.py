"""What a folder of features costs without its model: listing, writing, going on, an update; seconds, memory, bytes.

    python benchmarks/scripts/collection.py --rows 50000 200000 -o benchmarks/results/MACHINE/collection/features

Images are members of a tar with ids as in Google Landmarks v2, and are not decoded: vectors are random. Every step runs
in a process of its own: all are given in images a second of processor time, which other programs disturb little, and
the most memory that the process had. "go on" is the same embed once more, "update" is embed --update where nothing
has changed. --steps takes other ways to name as many images, too, of which nothing but their list is made:

    python benchmarks/scripts/collection.py --rows 4132914 --steps list 'list of lines' -o out/listing
"""

import argparse
import dataclasses
import hashlib
import io
import json
import shlex
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from landmark_onnx.cli.inputs import matches
from landmark_onnx.embedding.identity import ModelIdentity
from landmark_onnx.embedding.item import Item
from landmark_onnx.embedding.job import FinishedShard, Job, embed
from landmark_onnx.embedding.listing import list_items
from landmark_onnx.embedding.request import FeatureRequest
from landmark_onnx.embedding.shards import Shard, shard_path, write_shard
from landmark_onnx.embedding.update import update_features
from landmark_onnx.embedding.worklist import read_items, write_plan
from landmark_onnx.extras import versions
from landmark_onnx_bench.environment import machine, peak_bytes
from landmark_onnx_bench.report import table_page, write_both

PHOTO = b"no photo"
TAR = "images_000.tar"
SHARD_SIZE = 1024


def main() -> None:
    """Make the tar, run each step in a process, write JSON and Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[50_000, 200_000])
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=[s for s in STEPS if STEPS[s].source == TAR])
    parser.add_argument("-o", "--output", type=Path, required=True, help="without suffix: .json and .md are written")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        print(json.dumps(measured(options)))
        return
    found = [row for rows in options.rows for row in steps(rows, options.dim, options.steps)]
    write(found, options)


def steps(rows: int, dim: int, asked: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The steps of a number of images."""
    with tempfile.TemporaryDirectory() as name:
        for source in dict.fromkeys(Path(STEPS[step].source).parts[0] for step in asked):
            SOURCES[source](Path(name, source), rows)
        for step in asked:
            command = [sys.executable, __file__, "--step", step, "--rows", str(rows), "--dim", str(dim)]
            done = subprocess.run([*command, "--folder", name, "-o", "-"], check=True, stdout=subprocess.PIPE)
            yield {"images": rows, "step": step, **json.loads(done.stdout)}


def ids(count: int) -> Iterator[str]:
    """Of images, as GLDv2 has them."""
    return (hashlib.sha256(str(number).encode()).hexdigest()[:16] for number in range(count))


def in_depth(name: str) -> str:
    """The path of an image in GLDv2's folders."""
    return f"{name[0]}/{name[1]}/{name[2]}/{name}.jpg"


def write_tar(path: Path, count: int) -> None:
    """`count` members that are called like images."""
    with tarfile.open(path, "w") as tar:
        for name in ids(count):
            member = tarfile.TarInfo(in_depth(name))
            member.size = len(PHOTO)
            tar.addfile(member, io.BytesIO(PHOTO))


def write_lines(path: Path, count: int) -> None:
    """As many lines, of files that there are not."""
    with path.open("w") as file:
        file.writelines(f"{in_depth(name)}\n" for name in ids(count))


def write_files(path: Path, count: int) -> None:
    """As many files, all in one folder."""
    path.mkdir()
    for name in ids(count):
        (path / f"{name}.jpg").touch()


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """One step, in this process."""
    folder: Path = options.folder
    begin, peak = time.process_time(), peak_bytes()
    step = STEPS[options.step]
    output = step.run(list_items(matches(str(folder / step.source))), options.dim, folder)
    seconds = time.process_time() - begin
    stored = sum(path.stat().st_size for path in output.glob("part-*"))
    return {"processor_s": seconds, "began_bytes": peak, "peak_bytes": peak_bytes(), "stored_bytes": stored}


def listed(items: Iterable[Item], dim: int, folder: Path) -> Path:
    """The list alone, as a job writes it down."""
    place = Path(tempfile.mkdtemp(dir=folder))
    write_plan(place, items, SHARD_SIZE)
    return place


def made(items: Iterable[Item], dim: int, folder: Path, dtype: str = "float32") -> Path:
    """A folder of features; once it is there, going on checks it."""
    embed(items, wanted(dim, dtype), folder / dtype, random_vectors)
    return folder / dtype


def halved(items: Iterable[Item], dim: int, folder: Path) -> Path:
    """The same in float16."""
    return made(items, dim, folder, "float16")


def updated(items: Iterable[Item], dim: int, folder: Path) -> Path:
    """The update of a folder of which nothing has changed."""
    update_features(items, wanted(dim, "float32"), folder / "float32", random_vectors)
    return folder / "float32"


@dataclasses.dataclass(frozen=True, slots=True)
class Step:
    """source: what is given to `embed`, in a folder; its first part is one of SOURCES."""

    run: Callable[[Iterable[Item], int, Path], Path]
    source: str = TAR


STEPS: Mapping[str, Step] = {
    "list": Step(listed),
    "list of lines": Step(listed, "images.txt"),
    "list of one folder": Step(listed, "flat"),
    "list of a pattern": Step(listed, "flat/*.jpg"),
    "make": Step(made),
    "make float16": Step(halved),
    "go on": Step(made),
    "update": Step(updated),
}
SOURCES: Mapping[str, Callable[[Path, int], None]] = {TAR: write_tar, "images.txt": write_lines, "flat": write_files}


def wanted(dim: int, dtype: Any) -> FeatureRequest:
    """Features of a model that there is not."""
    identity = ModelIdentity(name="made", dim=dim, sha256="0" * 64, preprocess="0" * 64, precision="fp32")
    return FeatureRequest(models=[identity], dtype=dtype, shard_size=SHARD_SIZE)


def random_vectors(job: Job, numbers: Sequence[int], on_done: Callable[[int], None]) -> Iterator[FinishedShard]:
    """Work of a job: shards as they would be, with a hash and a stamp for each image."""
    (model,) = job.manifest.models
    for number in numbers:
        items = read_items(job.plan, number)
        rows = np.random.default_rng(number).standard_normal((len(items), model.dim), np.float32)
        shard = Shard(
            ids=[item.id for item in items],
            sources=[item.source for item in items],
            errors=[None] * len(items),
            contents=[hashlib.sha256(item.id.encode()).hexdigest() for item in items],
            stamps=[item.stamp(Path(item.path).stat()) for item in items],
            vectors={model.name: rows.astype(job.manifest.dtype)},
        )
        yield FinishedShard(number, 0, write_shard(shard_path(job.folder, number), shard, job.manifest))


def write(found: Sequence[dict[str, Any]], options: argparse.Namespace) -> None:
    """The table for people, and the numbers."""
    facts = machine()
    facts["versions"] = versions("landmark-onnx", "numpy", "pyarrow")
    command = shlex.join(["python", *sys.argv])
    rows = [
        (
            f"{row['images']:,}",
            row["step"],
            f"{row['images'] / row['processor_s']:,.0f}",
            f"{row['processor_s']:.1f}",
            f"{row['peak_bytes'] / 1e6:.0f}",
            f"{row['stored_bytes'] / row['images']:,.0f}" if row["stored_bytes"] else "",
        )
        for row in found
    ]
    head = ["images", "step", "images a second", "processor s", "peak MB", "bytes an image"]
    text = table_page(f"A folder of features of {options.dim} values, without the model", command, facts, head, rows)
    write_both(options.output, {"command": command, "machine": facts, "rows": found}, text)


if __name__ == "__main__":
    main()
