"""The example of the whole road runs, and retrieval is far above chance even with random weights."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[1] / "benchmarks" / "scripts" / "end_to_end.py"


@pytest.mark.paddle
def test_random_weights_find_views_of_the_same_photo(tmp_path):
    for package in ("pyarrow", "faiss", "skimage", "sklearn"):
        pytest.importorskip(package)
    command = [sys.executable, EXAMPLE, "--folder", tmp_path, "--indexed", "4", "--step", "alpha-qe:k=2"]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    scores = json.loads(done.stdout)
    assert scores["queries"] == 32
    assert scores["map@100 by chance"] < 0.2
    assert scores["map@100"] > 4 * scores["map@100 by chance"]
    # One of sixteen by chance.
    assert scores["accuracy"] > 0.5
    assert scores["gap"] > 0.4
    files = {path.name for path in tmp_path.iterdir()}
    assert {"features", "places", "found.ndjson", "recognised.ndjson", "retrieval.csv", "recognition.csv"} <= files
    rows = list(csv.DictReader((tmp_path / "recognition.csv").read_text().splitlines()))
    assert len(rows) == 32
