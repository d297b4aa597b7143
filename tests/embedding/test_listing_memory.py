"""Memory of `embed` does not grow with the lines of its list, whether the images are there or not."""

import subprocess
import sys
from pathlib import Path

import pytest

import fakes

pytest.importorskip("pyarrow")

EMBED = """
import pathlib, re, sys
from landmark_onnx.cli import main

try:
    main(sys.argv[1:])
except SystemExit as left:
    # Not what getrusage says: that begins with the size of the process that started this one.
    status = pathlib.Path("/proc/self/status").read_text()
    print(left.code, int(re.search(r"VmHWM:\\s+(\\d+) kB", status)[1]) * 1024)
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
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_a_line_of_the_list_costs_no_memory(tmp_path):
    model = fakes.make_retrieval(tmp_path / "model.onnx", dim=16)
    few, many = (peak(tmp_path, model, lines) for lines in (FEW, MANY))
    # Errors that were all kept for the end took 330 bytes a line.
    assert (many - few) / (MANY - FEW) < 120
    assert many < 300e6
