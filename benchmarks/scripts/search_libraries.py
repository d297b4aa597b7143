"""Exact search by FAISS, usearch, LanceDB and blocked NumPy on one matrix, each beside the rate of sgemm.

    python benchmarks/scripts/search_libraries.py --rows 762000 --output benchmarks/results/MACHINE/search/NAME

Each contestant runs in a process of its own: it maps the matrix, multiplies blocks of the same shapes with NumPy
(sgemm), searches, and so on in turns; the rate of a round is given as a share of the sgemm just before it: by the
clock, and by the processor time of all threads, which other programs disturb less. Memory is the peak of the whole
process over the matrix's size, time to start that from importing the library to its first answer.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from landmark_onnx.extras import versions
from landmark_onnx_bench.environment import machine, peak_bytes
from landmark_onnx_bench.report import ran_on, write_both

BLOCK = 8192
TOP = 100
PACKAGES = ("numpy", "faiss-cpu", "usearch", "lancedb")

COLUMNS = (
    "contestant",
    "queries",
    "GFLOP/s",
    "sgemm beside",
    "share of sgemm (each round)",
    "by processor time",
    "peak / matrix",
    "to start, s",
)

Search = Callable[[np.ndarray], np.ndarray]
"""(Q, D) float32 queries -> (Q, TOP) positions."""


def open_ours(database: np.ndarray, folder: Path) -> Search:
    """landmark_onnx: FAISS proposes, float64 decides."""
    from landmark_onnx.search.exact import load_faiss, search_exact

    load_faiss()
    return lambda queries: search_exact(database, queries, TOP).positions


def open_faiss(database: np.ndarray, folder: Path) -> Search:
    """faiss.knn on the mapped matrix."""
    import faiss

    return lambda queries: faiss.knn(queries, database, TOP, metric=faiss.METRIC_INNER_PRODUCT)[1]


def open_usearch(database: np.ndarray, folder: Path) -> Search:
    """Exact search of usearch on the mapped matrix."""
    from usearch.index import MetricKind, search

    matrix = np.asarray(database)
    return lambda queries: search(matrix, queries, TOP, MetricKind.IP, exact=True, threads=os.cpu_count() or 1).keys


def open_lancedb(database: np.ndarray, folder: Path) -> Search:
    """LanceDB without an index; the table is written before, and that is not counted."""
    import lancedb

    table = lancedb.connect(folder / "lance").open_table("rows")

    def nearest(query: np.ndarray) -> np.ndarray:
        found = table.search(query, vector_column_name="vector").distance_type("dot").limit(TOP).to_arrow()
        return found.column("position").to_numpy()

    return lambda queries: np.stack([nearest(query) for query in queries])


def open_numpy(database: np.ndarray, folder: Path) -> Search:
    """Blocks of NumPy's matmul; a block's scores over the worst kept so far join the candidates."""
    return lambda queries: blocked(database, queries)


def blocked(database: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Blocked matrix products with a pruning threshold for each query."""
    floor = np.full((len(queries), 1), -np.inf, np.float32)
    kept: list[tuple[np.ndarray, ...]] = []
    waiting = 0
    for start in range(0, len(database), BLOCK):
        scores = queries @ database[start : start + BLOCK].T
        if start == 0:
            floor[:, 0] = np.partition(scores, -TOP, axis=1)[:, -TOP]
        at = np.flatnonzero(scores >= floor)
        kept.append((at // scores.shape[1], at % scores.shape[1] + start, scores.reshape(-1)[at]))
        waiting += len(at)
        if waiting > 4 * TOP * len(queries):
            kept = [best(kept)]
            waiting = len(kept[0][0])
            floor[:, 0] = kept[0][2].reshape(len(queries), TOP)[:, -1]
    return best(kept)[1].reshape(len(queries), TOP)


def best(kept: list[tuple[np.ndarray, ...]]) -> tuple[np.ndarray, ...]:
    """The TOP candidates of each query: query, position, score."""
    query, position, score = (np.concatenate(column) for column in zip(*kept, strict=True))
    order = np.lexsort((position, -score, query))
    rank = np.arange(len(order)) - np.searchsorted(query[order], query[order])
    order = order[rank < TOP]
    return query[order], position[order], score[order]


CONTESTANTS: dict[str, Callable[[np.ndarray, Path], Search]] = {
    "landmark_onnx": open_ours,
    "faiss": open_faiss,
    "numpy": open_numpy,
    "usearch": open_usearch,
    "lancedb": open_lancedb,
}
FEWER = {"usearch": 50, "lancedb": 10}
"""Those that multiply no matrices take as long for each query: fewer of them tell their rate."""


def main() -> None:
    """Make the matrix, run every contestant in a process, write JSON and Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=762_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=CONTESTANTS, nargs="*", default=list(CONTESTANTS))
    parser.add_argument("--folder", type=Path, help="where the matrix is kept; a temporary one by default")
    parser.add_argument("--output", type=Path, help="without suffix: .json and .md are written")
    parser.add_argument("--contestant", choices=CONTESTANTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contestant:
        print(json.dumps(measure(options)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        options.folder = options.folder or Path(temporary)
        prepare(options)
        found = []
        for name in options.only:
            found.append(ask(name, options))
            report(found, options)


def prepare(options: argparse.Namespace) -> None:
    """Random unit rows, as a file of plain float32; and as a table, if LanceDB takes part."""
    path = options.folder / "rows.f32"
    if not path.exists() or path.stat().st_size != options.rows * options.dim * 4:
        generator = np.random.default_rng(0)
        with path.open("wb") as file:
            for start in range(0, options.rows, 50_000):
                file.write(unit(generator, min(50_000, options.rows - start), options.dim).tobytes())
    if "lancedb" in options.only and not (options.folder / "lance").exists():
        import lancedb
        import pyarrow as pa

        database = matrix(options)

        def batches() -> Any:
            for start in range(0, options.rows, 50_000):
                part = np.asarray(database[start : start + 50_000])
                vectors = pa.FixedSizeListArray.from_arrays(pa.array(part.reshape(-1)), options.dim)
                yield pa.record_batch([vectors, pa.array(np.arange(start, start + len(part)))], schema=schema)

        schema = pa.schema([("vector", pa.list_(pa.float32(), options.dim)), ("position", pa.int64())])
        lancedb.connect(options.folder / "lance").create_table("rows", batches(), schema=schema)


def unit(generator: np.random.Generator, rows: int, dim: int) -> np.ndarray:
    """(rows, dim) float32 of norm 1."""
    values = generator.standard_normal((rows, dim), dtype=np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def matrix(options: argparse.Namespace) -> np.ndarray:
    """The rows, mapped."""
    return np.memmap(options.folder / "rows.f32", np.float32, "r", shape=(options.rows, options.dim))


def ask(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Measure in a new process."""
    numbers = [f"--{key}={getattr(options, key)}" for key in ("rows", "dim", "queries", "rounds", "folder")]
    command = [sys.executable, __file__, "--contestant", name, *numbers]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Rates, memory and start of one contestant, in this process."""
    count = min(options.queries, FEWER.get(options.contestant, options.queries))
    queries = unit(np.random.default_rng(1), options.queries, options.dim)
    begin = time.perf_counter()
    # Mapped once: pages that are mapped twice would count twice.
    database = matrix(options)
    search = CONTESTANTS[options.contestant](database, options.folder)
    search(queries[:1])
    started = time.perf_counter() - begin
    rounds = []
    for _ in range(options.rounds):
        gemm = timed(lambda: sgemm(database, queries))
        own = timed(lambda: search(queries[:count]))
        work = count * options.rows / (options.queries * (options.rows // BLOCK * BLOCK))
        rounds.append([own[0], gemm[0], *(there / here * work for here, there in zip(own, gemm, strict=True))])
    seconds, gemm_seconds, share, cpu_share = (statistics.median(column) for column in zip(*rounds, strict=True))
    found = search(queries[:10])
    share_of_matrix = (peak_bytes() or 0) / (options.rows * options.dim * 4)
    return {
        "contestant": options.contestant,
        "queries": count,
        "gflops": 2 * count * options.rows * options.dim / seconds / 1e9,
        "sgemm_gflops": 2 * options.queries * (options.rows // BLOCK * BLOCK) * options.dim / gemm_seconds / 1e9,
        "share": share,
        "cpu_share": cpu_share,
        "shares": [each[2] for each in rounds],
        "start_seconds": started,
        "peak_over_matrix": share_of_matrix,
        "same_as_numpy": float(np.mean(np.sort(found[:10]) == np.sort(blocked(database, queries[:10])))),
    }


def timed(work: Callable[[], Any]) -> tuple[float, float]:
    """Seconds of the clock, and of all threads."""
    begin = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - begin[0], time.process_time() - begin[1]


def sgemm(database: np.ndarray, queries: np.ndarray) -> None:
    """NumPy's float32 matrix product of the queries with each block of rows."""
    out = np.empty((len(queries), BLOCK), np.float32)
    for start in range(0, len(database) - BLOCK + 1, BLOCK):
        np.matmul(queries, database[start : start + BLOCK].T, out=out)


def report(found: list[dict[str, Any]], options: argparse.Namespace) -> None:
    """Print a table; write it, and the numbers, where asked."""
    facts = machine()
    facts["versions"] = versions("landmark-onnx", *PACKAGES)
    sizes = f"{options.rows:,} x {options.dim} float32, {options.queries:,} queries, top {TOP}, {options.rounds} rounds"
    command = " ".join(["python", *sys.argv])
    lines = [
        f"# Exact search: {sizes}",
        "",
        f"    {command}",
        "",
        ran_on(facts) + "; load of the machine {:.1f}, {:.1f}, {:.1f} (1, 5, 15 minutes)".format(*os.getloadavg()),
        "",
        "| " + " | ".join(COLUMNS) + " |",
        "|---" * len(COLUMNS) + "|",
    ]
    for each in found:
        rounds = ", ".join(f"{share:.2f}" for share in each["shares"])
        cells = [each["contestant"], str(each["queries"]), f"{each['gflops']:.0f}", f"{each['sgemm_gflops']:.0f}"]
        cells += [f"{each['share']:.2f} ({rounds})", f"{each['cpu_share']:.2f}"]
        cells += [f"{each['peak_over_matrix']:.2f}", f"{each['start_seconds']:.2f}"]
        lines.append("| " + " | ".join(cells) + " |")
    text = "\n".join(lines) + "\n"
    print(text)
    if options.output:
        written = {"command": command, "machine": facts, "contestants": found}
        write_both(options.output, written, text)


if __name__ == "__main__":
    main()
