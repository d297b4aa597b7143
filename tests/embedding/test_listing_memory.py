"""Memory of `embed` does not grow with the lines of its list, whether the images are there or not."""

import subprocess
import sys

import pytest

import fakes

pytest.importorskip("pyarrow")
resource = pytest.importorskip("resource")

EMBED = """
import resource, sys
from landmark_onnx.cli import main

try:
    main(sys.argv[1:])
except SystemExit as left:
    print(left.code, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024))
"""

FEW, MANY = 30_000, 150_000
"""Up to the former the allocators' pools fill."""


def peak(folder, model, lines) -> int:
    """Bytes of a process that embeds a list of images, none of which is there."""
    (folder / "list.txt").write_text("".join(f"/data/train/{n:016x}/{n:016x}.jpg\n" for n in range(lines)))
    command = ["embed", folder / "list.txt", "-m", model, "-o", folder / f"features{lines}", "-q", "--threads", "1"]
    done = subprocess.run([sys.executable, "-c", EMBED, *command], capture_output=True, text=True, check=True)
    code, peak = map(int, done.stdout.split())
    assert code == 1
    assert f"{lines - 20:,} more images failed" in done.stderr
    return peak


@pytest.mark.slow
def test_a_line_of_the_list_costs_no_memory(tmp_path):
    model = fakes.make_retrieval(tmp_path / "model.onnx", dim=16)
    few, many = (peak(tmp_path, model, lines) for lines in (FEW, MANY))
    # Errors that were all kept for the end took 330 bytes a line.
    assert (many - few) / (MANY - FEW) < 120
    assert many < 300e6
