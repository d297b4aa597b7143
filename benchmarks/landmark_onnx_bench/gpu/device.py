"""What nvidia-smi, which comes with every driver, says of the card, and the most of its memory that was in use."""

import contextlib
import os
import shutil
import subprocess
import threading
from types import TracebackType
from typing import Any, Self

MIB = 1 << 20
INTERVAL = 50
"""Milliseconds between two looks at the memory."""

PATIENCE = 30.0
"""Seconds for one question: a driver that is not loaded yet takes many."""

CARD = ("name", "driver_version", "compute_cap", "memory.total")


def visible_device() -> str:
    """The first card that CUDA may use, as nvidia-smi takes it: an index by the order of the bus, or a UUID."""
    return os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0].strip() or "0"


def card_facts() -> dict[str, Any]:
    """Name, driver, compute capability and memory in bytes of the card; nothing where nvidia-smi does not tell."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(_query(CARD), capture_output=True, text=True, timeout=PATIENCE, check=True)
        values = [value.strip() for value in done.stdout.strip().splitlines()[0].split(",")]
        if len(values) == len(CARD):
            name, driver, capability, memory = values
            return {
                "name": name,
                "driver": driver,
                "compute_capability": capability,
                "memory_bytes": int(memory) * MIB if memory.isdecimal() else None,
            }
    return {}


class MemoryWatch:
    """Looks at the card's memory all the time; use it as a context manager, and read `peak_bytes` after it.

    peak_bytes: the most in use beyond what was before, by all processes; None where nvidia-smi does not tell.
    """

    def __init__(self) -> None:
        self.peak_bytes: int | None = None
        self._process: subprocess.Popen[str] | None = None
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._before = self._most = 0

    def __enter__(self) -> Self:
        if shutil.which("nvidia-smi"):
            command = [*_query(("memory.used",)), "-lms", str(INTERVAL)]
            self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            assert self._process.stdout
            first = self._process.stdout.readline().strip()
            if first.isdecimal():
                self._before = self._most = int(first)
                self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if not self._process:
            return
        self._process.terminate()
        if self._thread.ident is not None:
            self._thread.join()
            self.peak_bytes = (self._most - self._before) * MIB
        self._process.communicate()

    def _follow(self) -> None:
        assert self._process
        assert self._process.stdout
        for line in self._process.stdout:
            if line.strip().isdecimal():
                self._most = max(self._most, int(line))


def _query(fields: tuple[str, ...]) -> list[str]:
    what = f"--query-gpu={','.join(fields)}"
    return ["nvidia-smi", "-i", visible_device(), what, "--format=csv,noheader,nounits"]
