"""The approximate kinds of an index beside exact search of it: seconds and bytes to make, memory, time, recall.

    python benchmarks/scripts/search_approximate.py sq8 --rows 762000 --output benchmarks/results/MACHINE/search/NAME
    python benchmarks/scripts/search_approximate.py steps --rows 76200 --output benchmarks/results/MACHINE/search/NAME

Rows are made up: unit vectors around a centre for each 38 of them; a query is a row moved by noise. Memory is of a
process that does nothing but answer queries one by one: all that is resident at its end, interpreter and FAISS too,
over the float32 rows. Times of single queries are taken in turns, exact and approximate, so that other programs
disturb both alike; "processor" is the time of all threads. Steps are timed beside sgemm of the same shapes.
"""

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from landmark_onnx.embedding.feature_folder import Batch, ModelIdentity
from landmark_onnx.extras import versions
from landmark_onnx.search import writer
from landmark_onnx.search.codes import make_codes
from landmark_onnx.search.ensemble import Ensemble, Member
from landmark_onnx.search.exact import load_faiss
from landmark_onnx.search.hnsw import GraphOptions, make_graph
from landmark_onnx.search.index import Index
from landmark_onnx.search.manifest import IndexManifest
from landmark_onnx.search.rerank.chain import Chain, parse_steps
from landmark_onnx_bench.environment import machine
from landmark_onnx_bench.report import ran_on, write_both

TOP = 100
BLOCK = 8192
GROUP, SPREAD, MOVED = 38, 0.8, 0.5
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
"""Variables of which the times depend, so that they are a part of the command."""
STEPS = ("dba:k=3", "diffusion:graph=database")


def main() -> None:
    """Make what is missing, measure, print, and write where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("sq8", "hnsw", "steps"))
    parser.add_argument("--rows", type=int, default=762_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--queries", type=int, default=1000, help="of a batch")
    parser.add_argument("--single", type=int, default=100, help="queries one by one")
    parser.add_argument("--folder", type=Path, help="where the index is kept; a temporary one by default")
    parser.add_argument("--output", type=Path, help="without suffix: .json and .md are written")
    parser.add_argument("--resident", choices=("exact", "approximate"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.resident:
        print(json.dumps(resident(options)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        options.folder = options.folder or Path(temporary) / "index"
        facts = prepare(options)
        report(facts | (steps(options) if options.what == "steps" else compared(options)), options)


def prepare(options: argparse.Namespace) -> dict[str, float]:
    """The index, and what is asked for beside it: what making that took."""
    identity = ModelIdentity(name="made", dim=options.dim, sha256="0" * 64, preprocess="0" * 64, precision="fp32")
    if not (options.folder / "index.json").exists():
        writer.build(options.folder, Ensemble((Member(identity),)), batches(options))
    manifest = IndexManifest.read(options.folder)
    manifest = dataclasses.replace(manifest, files=manifest.columns, graph=None, codes=None)
    if options.what == "steps":
        return {}
    token = os.urandom(8).hex()
    begin = now()
    if options.what == "sq8":
        manifest = make_codes(options.folder, manifest, f"codes-{token}.sq8")
    else:
        manifest = make_graph(options.folder, manifest, GraphOptions(), f"graph-{token}")
    wall, processor = since(begin)
    manifest.write(options.folder)
    added = sum(each.bytes for name, each in manifest.files.items() if name not in manifest.columns)
    assert manifest.approximate
    recall = manifest.approximate.recall
    return {"made_s": wall, "made_processor_s": processor, "bytes": added, "recall_at_build": recall}


def batches(options: argparse.Namespace) -> Iterator[Batch]:
    """Rows around centres."""
    rng = np.random.default_rng(0)
    centres = unit(rng.standard_normal((max(1, options.rows // GROUP), options.dim), dtype=np.float32))
    for start in range(0, options.rows, BLOCK):
        names = [f"{at:016x}" for at in range(start, min(start + BLOCK, options.rows))]
        rows = centres[rng.integers(0, len(centres), len(names))]
        yield Batch(names, names, {"made": unit(rows + noise(rng, rows.shape, SPREAD))})


def queries(index: Index, count: int) -> np.ndarray:
    """Rows that noise has moved."""
    rng = np.random.default_rng(1)
    rows = index.vectors[np.sort(rng.choice(len(index), min(count, len(index)), replace=False))]
    return unit(rows + noise(rng, rows.shape, MOVED))


def noise(rng: np.random.Generator, shape: tuple[int, ...], length: float) -> np.ndarray:
    """Rows of about that length, in any direction."""
    return rng.standard_normal(shape, dtype=np.float32) * np.float32(length / shape[1] ** 0.5)


def unit(values: np.ndarray) -> np.ndarray:
    """Rows of norm 1."""
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def compared(options: argparse.Namespace) -> dict[str, float]:
    """Both ways of searching: memory, single queries in turns, a batch, recall."""
    # In turns with the other one, memory would be that of both.
    memory = {kind: ask(kind, options) for kind in ("exact", "approximate")}
    index = Index.open(options.folder)
    index.load()
    wanted = queries(index, options.queries)
    index.search(wanted[:2], TOP), index.search(wanted[:2], TOP, approximate=True)
    singles: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
    for query in wanted[: options.single]:
        for approximate, taken in singles.items():
            begin = now()
            index.search(query[None], TOP, approximate=approximate)
            taken.append(since(begin))
    facts: dict[str, float] = {}
    answers = []
    for kind, taken in zip(("exact", "approximate"), singles.values(), strict=True):
        begin = now()
        answers.append(index.search(wanted, TOP, approximate=kind == "approximate").positions)
        wall, processor = (statistics.median(column) * 1000 for column in zip(*taken, strict=True))
        facts |= {f"{kind}_one_ms": wall, f"{kind}_one_processor_ms": processor}
        facts |= {f"{kind}_batch_per_s": len(wanted) / since(begin)[0]}
        facts |= {f"{kind}_{key}": value for key, value in memory[kind].items()}
    facts["recall"] = float(np.mean([np.isin(*pair).mean() for pair in zip(*answers, strict=True)]))
    return facts


def ask(kind: str, options: argparse.Namespace) -> dict[str, float]:
    """Measure memory in a new process."""
    numbers = [f"--{key}={getattr(options, key)}" for key in ("rows", "dim", "queries", "single", "folder")]
    command = [sys.executable, __file__, options.what, f"--resident={kind}", *numbers]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def resident(options: argparse.Namespace) -> dict[str, float]:
    """What this process has resident after queries one by one, and at most, over the float32 rows."""
    index = Index.open(options.folder)
    load_faiss()
    wanted = np.random.default_rng(2).standard_normal((options.single, options.dim), dtype=np.float32)
    begin = kilobytes("/proc/self/status", "VmRSS:")
    for query in unit(wanted):
        index.search(query[None], TOP, approximate=options.resident == "approximate")
    matrix = index.vectors.nbytes / 1024
    return {
        "begin_over_rows": begin / matrix,
        "resident_over_rows": kilobytes("/proc/self/status", "VmRSS:") / matrix,
        "proportional_over_rows": kilobytes("/proc/self/smaps_rollup", "Pss:") / matrix,
        "peak_over_rows": kilobytes("/proc/self/status", "VmHWM:") / matrix,
    }


def kilobytes(path: str, key: str) -> int:
    """A number that the system has of this process."""
    return int(Path(path).read_text(encoding="ascii").split(key)[1].split()[0])


def steps(options: argparse.Namespace) -> dict[str, float]:
    """What each step makes of the whole database, once, beside sgemm of a part of the rows with all of them."""
    rows = np.array(Index.open(options.folder).vectors)
    facts: dict[str, float] = {}
    for each in STEPS:
        begin = now()
        Chain(parse_steps([each]), rows)(rows[:1], TOP)
        taken = since(begin)
        begin = now()
        part = min(len(rows), BLOCK)
        sgemm(rows[:part], rows)
        beside = [seconds * len(rows) / part for seconds in since(begin)]
        facts |= {f"{each}_s": taken[0], f"{each}_processor_s": taken[1]}
        facts |= {f"{each}_gflops": 2 * float(len(rows)) ** 2 * options.dim / taken[0] / 1e9}
        facts |= {f"{each}_of_sgemm": beside[0] / taken[0], f"{each}_of_sgemm_processor": beside[1] / taken[1]}
    return facts | {"peak_bytes": kilobytes("/proc/self/status", "VmHWM:") * 1024.0}


def sgemm(some: np.ndarray, rows: np.ndarray) -> None:
    """NumPy's product of some rows with all, block by block."""
    out = np.empty((1024, BLOCK), np.float32)
    for first in range(0, len(some), 1024):
        part = some[first : first + 1024]
        for second in range(0, len(rows), BLOCK):
            other = rows[second : second + BLOCK]
            np.matmul(part, other.T, out=out[: len(part), : len(other)])


def now() -> tuple[float, float]:
    """The clock, and the time of all threads."""
    return time.perf_counter(), time.process_time()


def since(begin: tuple[float, float]) -> tuple[float, float]:
    """Seconds of each."""
    return time.perf_counter() - begin[0], time.process_time() - begin[1]


def report(found: dict[str, float], options: argparse.Namespace) -> None:
    """Print a table; write it, and the numbers, where asked."""
    threads = [f"{key}={os.environ[key]}" for key in THREADS if key in os.environ]
    command = " ".join([*threads, "python", *sys.argv])
    facts = machine()
    facts["versions"] = versions("landmark-onnx", "numpy", "faiss-cpu")
    lines = [
        f"# {options.what}: {options.rows:,} x {options.dim} made-up rows, top {TOP}",
        "",
        f"    {command}",
        "",
        ran_on(facts) + "; load of the machine {:.1f}, {:.1f}, {:.1f} (1, 5, 15 minutes)".format(*os.getloadavg()),
        "",
        "| figure | value |",
        "|---|---|",
        *(f"| {key} | {value:{',.4g' if value < 1e4 else ',.0f'}} |" for key, value in found.items()),
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    if options.output:
        written: dict[str, Any] = {"command": command, "load": os.getloadavg(), "machine": facts, **found}
        write_both(options.output, written, text)


if __name__ == "__main__":
    main()
