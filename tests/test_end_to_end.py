"""The example of the whole road: real weights find views of a photo, and random ones do so far above chance."""

import csv
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from landmark_onnx.extras import MODEL_PACKAGES

EXAMPLE = Path(__file__).parents[1] / "benchmarks" / "scripts" / "end_to_end.py"


def walk(folder, *options):
    """What the example prints."""
    for package in ("pyarrow", "faiss", "skimage", "sklearn"):
        pytest.importorskip(package)
    command = [sys.executable, EXAMPLE, "--folder", folder, *options]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.mark.paddle
def test_the_starter_finds_the_views_of_a_photo(tmp_path):
    for package in MODEL_PACKAGES:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    scores = walk(tmp_path)
    assert scores["queries"] == 32
    assert scores["map@100"] >= 0.9
    assert scores["accuracy"] >= 0.9
    assert scores["map@100 by chance"] < 0.2


@pytest.mark.paddle
def test_random_weights_find_views_of_the_same_photo(tmp_path):
    scores = walk(tmp_path, "--random-weights", "--indexed", "4", "--step", "alpha-qe:k=2")
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
