"""What searching and scoring as many queries as Google Landmarks v2 has costs: processor time and memory of commands.

    python benchmarks/scripts/answers_at_size.py -o benchmarks/results/MACHINE/collection/answers

Made-up rows, ids as in GLDv2, pictures of 64 x 64. Each command runs for a quarter of the queries, then for all: what
memory has to do with their number is seen by that. Memory is the most that the command's process had.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from collection import random_vectors, wanted
from made import PROGRAM

from landmark_onnx.embedding.feature_folder import Batch
from landmark_onnx.embedding.job import embed
from landmark_onnx.embedding.listing import list_items
from landmark_onnx.extras import versions
from landmark_onnx.search import writer
from landmark_onnx.search.ensemble import Ensemble, Member
from landmark_onnx_bench.environment import machine
from landmark_onnx_bench.report import table_page, write_both

DIM, BLOCK, PICTURES, TOP = 64, 8192, 512, 100
LAUNCH = """
import json, os, sys
child = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
_, status, usage = os.wait4(child, 0)
print(json.dumps({"processor_s": usage.ru_utime + usage.ru_stime, "peak_bytes": usage.ru_maxrss * 1024}))
sys.exit(os.waitstatus_to_exitcode(status))
"""
"""A small process between: a child's ru_maxrss begins with what its parent had."""
COUNTED = 104
"""Of so many queries one is Public or Private, as 1,129 of 117,577 are."""


def main() -> None:
    """Make what the commands read, run them, write JSON and Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=761_757, help="of the index")
    parser.add_argument("--queries", type=int, default=117_577)
    parser.add_argument("--shown", type=int, default=400, help="queries of the contact sheet, before its limit of size")
    parser.add_argument("-o", "--output", type=Path, required=True, help="without suffix: .json and .md are written")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        found = list(measured(Path(name), asked))
    write(found, asked.output)


def measured(folder: Path, asked: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """A row for each command and number of queries."""
    pictures = make_pictures(folder / "pictures")
    ids = [image_id(number) for number in range(asked.images)]
    writer.build(folder / "index", Ensemble((Member(wanted(DIM, "float32").models[0]),)), batches(ids, pictures))
    for count in (asked.queries // 4, asked.queries):
        write_csvs(folder, count, ids)
        for task in ("retrieval", "recognition"):
            command = ["evaluate", task, f"{folder}/{task}.csv", f"{folder}/{task}_solution.csv"]
            yield {"command": f"evaluate {task}", "queries": count, **spent(command)}
    for count in (asked.shown // 4, asked.shown):
        features = folder / f"features{count}"
        embed(list_items([str(path) for path in pictures[:count]]), wanted(DIM, "float32"), features, random_vectors)
        command = ["search", "--index", f"{folder}/index", "--features", str(features)]
        for number, more in enumerate(([], ["--html"])):
            page = [f"{folder}/{count}.html"] * number
            answers = ["-o", f"{folder}/{count}-{number}.csv"]
            yield {
                "command": " ".join(["search", *more]),
                "queries": count,
                **spent([*command, *answers, *more, *page]),
            }


def image_id(number: int) -> str:
    """As GLDv2's."""
    return hashlib.sha256(str(number).encode()).hexdigest()[:16]


def make_pictures(folder: Path) -> list[Path]:
    """JPEG files of noise, which is large for their size."""
    folder.mkdir()
    random = np.random.default_rng(0)
    paths = [folder / f"{image_id(number)}.jpg" for number in range(PICTURES)]
    for path in paths:
        cv2.imwrite(str(path), random.integers(0, 256, (64, 64, 3), np.uint8))
    return paths


def batches(ids: Sequence[str], pictures: Sequence[Path]) -> Iterator[Batch]:
    """Random rows; the pictures serve for all of them."""
    random = np.random.default_rng(0)
    for start in range(0, len(ids), BLOCK):
        some = ids[start : start + BLOCK]
        rows = random.standard_normal((len(some), DIM), np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        yield Batch(some, [str(pictures[at % PICTURES]) for at in range(len(some))], {"made": rows})


def write_csvs(folder: Path, count: int, ids: Sequence[str]) -> None:
    """Submissions and solutions of so many queries, in Kaggle's form."""
    random = np.random.default_rng(1)
    names = ("retrieval", "retrieval_solution", "recognition", "recognition_solution")
    files = [(folder / f"{name}.csv").open("w") for name in names]
    for file, head in zip(files, ("id,images", "id,images,Usage", "id,landmarks", "id,landmarks,Usage"), strict=True):
        file.write(f"{head}\n")
    for number in range(count):
        answers = list(dict.fromkeys(ids[at] for at in random.integers(0, len(ids), TOP)))
        query, usage, images, landmark = image_id(len(ids) + number), "Ignored", "", ""
        if number % COUNTED == 0:
            usage, images, landmark = (
                ("Public", "Private")[number // COUNTED % 2],
                " ".join(answers[::3]),
                str(number % 4999),
            )
        lines = (
            f"{query},{' '.join(answers)}",
            f"{query},{images},{usage}",
            f"{query},{number % 5000} 0.{number % 997:03}",
            f"{query},{landmark},{usage}",
        )
        for file, line in zip(files, lines, strict=True):
            file.write(f"{line}\n")
    for file in files:
        file.close()


def spent(arguments: Sequence[str]) -> dict[str, float]:
    """Seconds of the processor and most memory of a command that must succeed."""
    command = [sys.executable, "-c", LAUNCH, PROGRAM, *arguments, "--quiet"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def write(found: Sequence[dict[str, Any]], output: Path) -> None:
    """The table for people, and the numbers."""
    facts, command = machine(), " ".join(["python", *sys.argv])
    facts["versions"] = versions("landmark-onnx", "numpy", "opencv-python-headless")
    rows = [
        (row["command"], f"{row['queries']:,}", f"{row['processor_s']:.1f}", f"{row['peak_bytes'] / 1e6:.0f}")
        for row in found
    ]
    title = "Searching and scoring at the size of Google Landmarks v2"
    text = table_page(title, command, facts, ["command", "queries", "processor s", "peak MB"], rows)
    write_both(output, {"command": command, "machine": facts, "rows": found}, text)


if __name__ == "__main__":
    main()
