"""Mutated files of every kind from outside: a right answer or our own error, no crash, no hang, no memory."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("paddle")

from fuzzing import KINDS

pytestmark = pytest.mark.paddle


def fuzz(kind: str, count: int, folder: Path) -> None:
    script = Path(__file__).with_name("fuzzing.py")
    command = [sys.executable, "-W", "ignore", str(script), kind, str(count), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=3000)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("kind", KINDS)
def test_a_hundred_mutants(kind, tmp_path):
    fuzz(kind, 100, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_two_thousand_mutants(kind, tmp_path):
    """Of five kinds: 10,000."""
    fuzz(kind, 2000, tmp_path)
