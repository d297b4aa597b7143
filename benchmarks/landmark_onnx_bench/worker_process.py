"""The parent's hold on one contestant's child process."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from landmark_onnx.errors import SessionError
from landmark_onnx.files.child_process import death, last_line
from landmark_onnx_bench.statistics import Window
from landmark_onnx_bench.targets import Contestant, Target, Workload

PATIENCE = 10.0
"""Seconds that a child has to leave when it is no longer needed."""


class Child:
    """A loaded contestant; use it as a context manager.

    facts: what loading showed. peak_bytes: the most memory its process has had, as of its last window.
    """

    def __init__(self, contestant: Contestant, paths: Sequence[Path]) -> None:
        """Start the process and load. Raises: SessionError with the child's reason."""
        self.contestant = contestant
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  # close() closes it
        # -P: what lies in the current folder is no part of the installation.
        command = [sys.executable, "-P", "-m", "landmark_onnx_bench.worker"]
        environment = {**os.environ, "GLOG_minloglevel": "2"}
        if contestant.threads:
            environment["OMP_NUM_THREADS"] = str(contestant.threads)
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said, env=environment, text=True
        )
        try:
            self.facts = self._order({"contestant": contestant.to_json(), "paths": [str(path) for path in paths]})
        except BaseException:
            self.close()
            raise
        self.peak_bytes: int | None = self.facts["loaded_bytes"]

    def window(self, target: Target, work: Workload) -> Window:
        """One window of work. Raises: SessionError."""
        found = self._order({"do": "window", "target": target, "work": work.to_json()})
        self.peak_bytes = found["peak_bytes"]
        return Window(images=found["images"], seconds=found["seconds"], latencies=tuple(found["latencies"]))

    def rate(self, target: Target) -> float:
        """Images per second of its warm-up. Raises: SessionError."""
        return float(self._order({"do": "rate", "target": target})["rate"])

    def outputs(self, limit: int, output: Path) -> None:
        """Have the network's answers to the first `limit` photos written to an .npz file. Raises: SessionError."""
        self._order({"do": "outputs", "limit": limit, "output": str(output)})

    def close(self) -> None:
        """Let the process go."""
        for pipe in filter(None, (self._process.stdin, self._process.stdout)):
            with contextlib.suppress(BrokenPipeError):  # what a dead child did not read
                pipe.close()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._said.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _order(self, order: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin
        assert self._process.stdout
        with contextlib.suppress(BrokenPipeError):  # of a child that died: its end is told below
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SessionError(f"{self.contestant.label}: its process died: {self._last_words()}")
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            raise SessionError(f"{self.contestant.label}: {reply['error']}")
        return reply

    def _last_words(self) -> str:
        code = self._process.wait()
        self._said.seek(0)
        return f"{last_line(self._said.read().decode('utf-8', errors='replace'))} ({death(code)})"
