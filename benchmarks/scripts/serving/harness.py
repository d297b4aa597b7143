"""What the load runs on: a network with random weights, made photos, a server process, and reports of what it did."""

import contextlib
import dataclasses
import itertools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import cv2
import numpy as np
from wire import HOST

from landmark_onnx.cards.catalogue import card
from landmark_onnx.extras import versions
from landmark_onnx.store.catalogue import HOME_VARIABLE
from landmark_onnx_bench.environment import load_average, machine
from landmark_onnx_bench.report import markdown_table, write_both
from landmark_onnx_export.convert import export_model
from landmark_onnx_export.synthetic.release import write_release

MODEL = "res152_arcmargin"
SERVING = ("fastapi", "starlette", "uvicorn", "h11", "python-multipart", "prometheus-client")
WORK = Path("out/serving")
SEED = 2019


def network(work: Path, width: float, *, size: int | None = None) -> Path:
    """The model at `width` times its channels, with random weights; made once. size: its images' short side.

    Without `size` it is the released one.
    """
    folder = work.resolve() / f"width{width:g}{f'-{size}' if size else ''}"
    path, facts = folder / f"{MODEL}.onnx", card(MODEL)
    if not path.is_file():
        say(f"{path}: made")
        release = write_release(facts, folder, width=width)
        if size:
            rule = dataclasses.replace(facts.preprocess, size=size, max_ratio=4.0)
            facts = dataclasses.replace(facts, preprocess=rule)
        export_model(facts, release, path, check_parity=False)
    return path


def index(work: Path, model: Path) -> Path:
    """An index of forty photos by the model; made once."""
    folder = model.parent / "index"
    if not folder.is_dir():
        say(f"{folder}: made")
        with tempfile.TemporaryDirectory() as place:
            for number, photo in enumerate(photos(40)):
                Path(place, f"{number}.jpg").write_bytes(photo)
            features = f"{place}/features"
            for words in (
                ["embed", place, "-m", str(model), "-o", features],
                ["index", "build", features, "-o", str(folder)],
            ):
                subprocess.run([sys.executable, "-m", "landmark_onnx", *words, "-q"], check=True, env=environment(work))
    return folder


def environment(work: Path) -> dict[str, str]:
    """Of child processes: a store of their own, so that none of the user's is used or filled."""
    return {**os.environ, HOME_VARIABLE: str(work.resolve() / "store")}


def photos(count: int, shapes: int = 1, *, side: int = 480) -> list[bytes]:
    """JPEG files with waves, squares and noise, of `side` x 1.5 `side` pixels or of `shapes` other sizes.

    Half of those are upright. Each size gives the network another shape of input.
    """
    made = []
    for number in range(count):
        step, turned = divmod(number % shapes, 2)
        width = side * 3 // 2 if shapes == 1 else side + side * (step + 1) // 7 + 2
        y, x = np.mgrid[:side, :width]
        waves = [100 + 90 * np.sin((x * a + y * b) / (17 + number % 50)) for a, b in ((1, 2), (3, -1), (-2, 1))]
        noise = np.random.default_rng(number).normal(0, 8, (side, width, 3))
        photo = np.stack(waves, axis=-1) + noise + 40 * ((x // 40 + y // 40) % 2)[..., None]
        pixels = np.clip(photo, 0, 255).astype(np.uint8)
        made.append(cv2.imencode(".jpg", np.rot90(pixels) if turned else pixels)[1].tobytes())
    return made


class Server:
    """A server process on a free port, from its readiness to its end; a context manager.

    command: what is run, before the options that every one has. ticks: a file for what its event loop was held by.
    """

    def __init__(self, work: Path, *options: str, command: Sequence[str] = (), ticks: Path | None = None) -> None:
        self.port = free_port()
        program = [str(Path(__file__).with_name("held_loop.py")), str(ticks)] if ticks else ["-m", "landmark_onnx"]
        self._ready, ready = os.pipe()
        own = [sys.executable, *program, "serve", "--ready-fd", str(ready), "--log", "off", *options]
        self._words = (work.resolve() / f"server-{self.port}.log").open("w+b")
        started = time.perf_counter()
        self.process = subprocess.Popen(
            [*(command or own), "--port", str(self.port)],
            stdout=self._words,
            stderr=self._words,
            pass_fds=[ready],
            start_new_session=True,
            env=environment(work),
        )
        os.close(ready)
        self._await_ready(wait_for_port=bool(command))
        self.start_seconds = time.perf_counter() - started

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self, patience: float = 60) -> int:
        """End it with SIGTERM, its children by themselves; its exit code, -9 if it had to be killed."""
        if self.process.poll() is None:
            self.pause(signal.SIGCONT)
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(patience)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()
        finally:
            with contextlib.suppress(ProcessLookupError):  # a rival's workers
                os.killpg(self.process.pid, signal.SIGKILL)
            with contextlib.suppress(OSError):
                os.close(self._ready)
            self._ready = -1

    def pause(self, signal_number: int = signal.SIGSTOP) -> None:
        """Stop all of its processes, or with SIGCONT let them go on: who polls takes part of what others are given."""
        os.killpg(self.process.pid, signal_number)

    def words(self) -> str:
        """What it has said."""
        self._words.seek(0)
        return self._words.read().decode(errors="replace")

    def facts(self) -> dict[str, int]:
        """Resident bytes, threads and descriptors."""
        folder = Path(f"/proc/{self.process.pid}")
        status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
        resident, most = (int(status[key].split()[0]) * 1024 for key in ("VmRSS", "VmHWM"))
        descriptors = len(list((folder / "fd").iterdir()))
        return {"rss": resident, "peak": most, "threads": int(status["Threads"]), "descriptors": descriptors}

    def _await_ready(self, *, wait_for_port: bool, patience: float = 300) -> None:
        limit = time.monotonic() + patience
        while time.monotonic() < limit and self.process.poll() is None:
            if wait_for_port:
                with contextlib.suppress(OSError), socket.create_connection((HOST, self.port), 1):
                    return
                time.sleep(0.2)
            elif select.select([self._ready], [], [], 0.2)[0]:
                if os.read(self._ready, 1):
                    return
                break
        self.stop(5)
        raise SystemExit(f"the server did not start: {self.words()[-2000:]}")


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server((HOST, 0)) as listener:
        return int(listener.getsockname()[1])


class Report:
    """NAME.json and NAME.md of a run in a folder, with what it ran on."""

    def __init__(self, folder: Path, name: str, title: str) -> None:
        self._path, self._title = folder / name, title
        self._begun, self._load = datetime.now(UTC), load_average()

    def write(self, columns: Sequence[str], rows: Sequence[Sequence[Any]], facts: Sequence[str] = ()) -> None:
        """Rows as a table and as objects; facts: one line each."""
        host = machine() | {"versions": machine()["versions"] | versions(*SERVING)}
        taken = {
            "command": ["python", *sys.argv],
            "begun": self._begun.isoformat(timespec="seconds"),
            "ended": datetime.now(UTC).isoformat(timespec="seconds"),
            "load_before": self._load,
            "machine": host,
            "facts": list(facts),
            "rows": [dict(zip(columns, row, strict=True)) for row in rows],
        }
        words = ", ".join(f"{name} {version}" for name, version in host["versions"].items())
        lines = [
            f"# {self._title}",
            "",
            f"    {' '.join(taken['command'])}",
            "",
            f"- {taken['begun']} to {taken['ended']}; load average before: {self._load}",
            f"- {host['cpu']}, {host['usable_cores']} cores; {host['system']}; Python {host['python']}, {words}",
            *(f"- {fact}" for fact in facts),
            "",
            *markdown_table(columns, [[str(cell) for cell in row] for row in rows]),
            "",
        ]
        write_both(self._path, taken, "\n".join(lines))
        print("\n".join(lines))


def loop_facts(path: Path) -> str:
    """What `held_loop.py` has written, in one line."""
    ticks = json.loads(path.read_text())
    counts = sorted((int(most), count) for most, count in ticks["counts"].items())
    total = sum(count for _, count in counts)
    reached = itertools.accumulate(count for _, count in counts)
    p999 = next(most for (most, _), seen in zip(counts, reached, strict=True) if seen >= 0.999 * total)
    over = sum(count for most, count in counts if most > 50_000_000)
    longest = (
        "; ".join(
            f"{spent / 1e6:.0f} ms ({used / 1e6:.0f} of the processor) {name}"
            for spent, used, name in ticks["longest"][:3]
        )
        or "below 5 ms"
    )
    held = f"p99.9 {p999 / 1e6:.2f} ms, {over} over 50 ms by the clock, {ticks['busy']} by the processor"
    return f"event loop: {total} callbacks, {held}; longest: {longest}"


def say(text: str) -> None:
    """A line of progress."""
    print(text, file=sys.stderr, flush=True)
