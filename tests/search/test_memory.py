"""Memory of exact search and of a build: what the vectors take, and little more."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("faiss")

ROWS, DIM = 60_000, 512

PROGRAM = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import numpy as np
import indexed
from landmark_onnx.embedding.feature_folder import Batch
from landmark_onnx.search import writer
from landmark_onnx.search.exact import load_faiss
from landmark_onnx.search.index import Index

def resident(key):
    return int(Path("/proc/self/status").read_text().split(key)[1].split()[0]) * 1024

def batches(rows):
    rng = np.random.default_rng(0)
    for start in range(0, rows, 1000):
        names = [str(at) for at in range(start, start + 1000)]
        yield Batch(names, names, {"a": rng.standard_normal((1000, DIM), dtype=np.float32)})

ROWS, DIM = map(int, sys.argv[3:])
folder = Path(sys.argv[1])
load_faiss()
writer.build(folder / "small", indexed.ensemble(dim=DIM), batches(4000)).search(np.eye(DIM, dtype=np.float32), 100)
before = resident("VmRSS:")
writer.build(folder / "large", indexed.ensemble(dim=DIM), batches(ROWS))
built = resident("VmHWM:") - before
index = Index.open(folder / "large")
index.search(indexed.unit(indexed.vectors(1000, DIM)), 100)
print(built, resident("VmHWM:") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_a_build_streams_and_a_search_takes_less_than_a_third_more_than_the_matrix(tmp_path):
    helpers = str(Path(__file__).parents[1])
    command = [sys.executable, "-c", PROGRAM, str(tmp_path), helpers, str(ROWS), str(DIM)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=120)
    built, searched = map(int, done.stdout.split())
    matrix = ROWS * DIM * 4
    assert built < 0.5 * matrix
    assert searched < 1.3 * matrix
