"""Mutated files of every kind from outside: a right answer or our own error in a line, no crash, no hang, no memory."""

import subprocess
import sys
from pathlib import Path

import pytest

import fuzzing_commands

pytest.importorskip("pyarrow")

COMMANDS = [("fuzzing_commands", kind) for kind in fuzzing_commands.KINDS]
RELEASES = [
    pytest.param("fuzzing", kind, marks=pytest.mark.paddle) for kind in ("variables", "programs", "tars", "images")
]


def fuzz(script: str, kind: str, count: int, folder: Path) -> None:
    path = Path(__file__).with_name(f"{script}.py")
    command = [sys.executable, "-W", "ignore", str(path), kind, str(count), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=3000)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize(("script", "kind"), COMMANDS + RELEASES)
def test_some_mutants(script, kind, tmp_path):
    fuzz(script, kind, 40, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("script", "kind"), COMMANDS + RELEASES)
def test_more_mutants(script, kind, tmp_path):
    """A sample still; `python tests/fuzzing_commands.py KIND 2000 FOLDER` is what a change of a reader deserves."""
    fuzz(script, kind, 200, tmp_path)
