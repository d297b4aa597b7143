"""What the service says on standard error: one line for each request, and for whatever else happens."""

import contextlib
import datetime
import json
import logging
import os
import queue
import threading
from collections.abc import Iterator, Mapping
from typing import Literal, TextIO, TypeAlias

from landmark_onnx.errors import shown

LogForm: TypeAlias = Literal["json", "text", "off"]
"""How lines are written; `off` leaves out those of requests, and writes the others as text."""

_HEARD = {"landmark_onnx": logging.WARNING, f"{__package__}": logging.INFO, "uvicorn": logging.ERROR}
"""Loggers whose records are lines too, from which level on."""

LINES = 1024
"""That may wait to be written: more are dropped, and counted."""
LAST = 1.0
"""Seconds at the end for those that still wait: nobody may read them."""
STDERR = 2


class ServiceLog:
    """Lines of JSON, or of text with `key=value`; the time is UTC. stream: standard error unless given.

    They are written within `hearing`, in a thread of its own: a pipe that nobody reads stops nothing else. `dropped` in
    a line is how many before it found no room.
    """

    def __init__(self, form: LogForm = "json", stream: TextIO | None = None) -> None:
        self._form = form
        self._stream = stream
        # Both may be entered again in the same thread: asyncio logs what it finds while garbage is collected.
        self._lock = threading.RLock()
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._dropped = 0

    def access(self, record: Mapping[str, object]) -> None:
        """A request that has ended; what is None is left out."""
        if self._form != "off":
            self._write("error" if record.get("status") == 500 else "info", record)

    def event(self, level: str, message: str, **more: object) -> None:
        """Whatever else happens."""
        self._write(level, {"event": message, **more})

    def _write(self, level: str, record: Mapping[str, object]) -> None:
        time = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        with self._lock:
            if self._lines.qsize() >= LINES:
                self._dropped += 1
                return
            said = {"ts": time, "level": level, **record, "dropped": self._dropped or None}
            self._lines.put(self._line({key: value for key, value in said.items() if value is not None}))
            self._dropped = 0

    def _line(self, said: Mapping[str, object]) -> str:
        if self._form == "json":
            return json.dumps(said, default=str) + "\n"
        time, level, *more = said
        return " ".join([f"{said[time]}", f"{said[level]}", *(f"{key}={_word(said[key])}" for key in more)]) + "\n"

    def _write_all(self) -> None:
        while (line := self._lines.get()) is not None:
            with contextlib.suppress(OSError, ValueError):  # whoever read it has left
                if self._stream:
                    self._stream.write(line)
                else:
                    _write_out(line.encode(errors="backslashreplace"))

    @contextlib.contextmanager
    def hearing(self) -> Iterator[None]:
        """Within this block lines are written, and the library's log and the server's come here too."""
        handler, writer = _Handler(self), threading.Thread(target=self._write_all, name="log", daemon=True)
        writer.start()
        before = {name: logging.getLogger(name).level for name in _HEARD}
        for name, level in _HEARD.items():
            logger = logging.getLogger(name)
            logger.setLevel(min(level, logger.level or level))
        places = [logging.getLogger(name) for name in ("landmark_onnx", "uvicorn", "asyncio")]
        # What `--verbose` has would write on the loop.
        others = [(place, each) for place in places for each in place.handlers if not isinstance(each, _Handler)]
        for place, other in others:
            place.removeHandler(other)
        for place in places:
            place.addHandler(handler)
        try:
            yield
        finally:
            for place in places:
                place.removeHandler(handler)
            for place, other in others:
                place.addHandler(other)
            for name, level in before.items():
                logging.getLogger(name).setLevel(level)
            self._lines.put(None)
            writer.join(LAST)


def _write_out(line: bytes) -> None:
    """To standard error, without the buffer of `sys.stderr`: who waits in that would abort the interpreter's end."""
    while line:
        line = line[os.write(STDERR, line) :]


def _word(value: object) -> str:
    text = shown(value if isinstance(value, str) else json.dumps(value, default=str))
    return json.dumps(text) if not text or " " in text else text


class _Handler(logging.Handler):
    """Records as lines; a traceback is part of its line."""

    def __init__(self, log: ServiceLog) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        trace = logging.Formatter().formatException(record.exc_info) if record.exc_info else None
        self._log.event(record.levelname.lower(), record.getMessage(), logger=record.name, traceback=trace)
