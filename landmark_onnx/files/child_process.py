"""Child processes that answer one question each: what they do may crash, hang, or need memory that must come back.

`python -m MODULE ANSWER QUESTION [ARGUMENT ...]` reads JSON arguments from standard input, where the question has such,
and writes a JSON answer to the file ANSWER.
"""

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

ENDING = ("SIGINT", "SIGTERM", "SIGHUP")
"""The signals that end a program in an orderly way, where there are such."""


@dataclasses.dataclass(frozen=True, slots=True)
class Ended:
    """How a child ended. answer: None without one. code: None if its time was over. words: whatever else it printed."""

    answer: dict[str, Any] | None
    code: int | None
    words: str


def ask_child(
    module: str,
    question: str,
    *arguments: str,
    given: Mapping[str, Any] | None = None,
    timeout: float | None = None,
    environment: Mapping[str, str] | None = None,
) -> Ended:
    """Put a question to a child process. given: JSON-ready arguments. timeout: seconds, after which it is killed."""
    from landmark_onnx.files.workfolders import temporary_folder

    with temporary_folder() as folder:
        answer, told, said = (folder / name for name in ("answer.json", "given.json", "words.txt"))
        told.write_text(json.dumps(given or {}), encoding="utf-8")
        # -P: what lies in the current folder is no part of the installation.
        command = [sys.executable, "-P", "-m", module, str(answer), question, *arguments]
        child = None
        with told.open("rb") as source, said.open("wb") as output:
            try:
                with _patient():
                    child = subprocess.Popen(
                        command,
                        stdin=source,
                        stdout=output,
                        stderr=subprocess.STDOUT,
                        env={**os.environ, **(environment or {})},
                    )
                code = child.wait(timeout)
            except subprocess.TimeoutExpired:
                code = None
            finally:
                if child:
                    child.kill()
                    # A process that waits for a broken driver outlives even this.
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        child.wait(5)
        words = said.read_text(encoding="utf-8", errors="replace")
        found = json.loads(answer.read_text(encoding="utf-8")) if answer.exists() else None
    return Ended(found, code, words)


@contextlib.contextmanager
def _patient() -> Iterator[None]:
    """Let a signal wait until the block is over: nobody could end a child that is half started."""
    waiting: list[tuple[int, FrameType | None]] = []
    handlers: dict[int, Callable[[int, FrameType | None], Any]] = {}
    if threading.current_thread() is threading.main_thread():
        for number in (getattr(signal, name) for name in ENDING if hasattr(signal, name)):
            handler = signal.getsignal(number)
            if callable(handler):
                handlers[number] = handler
                signal.signal(number, lambda number, frame: waiting.append((number, frame)))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for number, frame in waiting:
            handlers[number](number, frame)


def reply(path: str, work: Callable[[], Mapping[str, Any] | None], foreseen: tuple[type[Exception], ...]) -> None:
    """The child's side: write what `work` answers, or what it raised of what was foreseen as {"error": ...}."""
    try:
        answer = work() or {}
    except foreseen as error:
        answer = {"error": str(error)}
    temporary = Path(f"{path}.tmp")
    temporary.write_text(json.dumps(answer), encoding="utf-8")
    temporary.replace(path)


def death(code: int) -> str:
    """What an exit code says: "exit code 1", or the name of the signal that ended the process."""
    with contextlib.suppress(ValueError):
        if code < 0:
            return signal.Signals(-code).name
    return f"exit code {code}"


def last_line(words: str) -> str:
    """The last line that a process printed, which is mostly its reason; at most 300 characters of it."""
    lines = [line.strip() for line in words.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "without a word"
