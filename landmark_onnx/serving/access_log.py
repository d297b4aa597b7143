"""What the service says on standard error: one line for each request, and for whatever else happens."""

import contextlib
import datetime
import json
import logging
import sys
from collections.abc import Iterator, Mapping
from typing import Literal, TextIO, TypeAlias

from landmark_onnx.errors import shown

LogForm: TypeAlias = Literal["json", "text", "off"]
"""How lines are written; `off` leaves out those of requests, and writes the others as text."""

_HEARD = {"landmark_onnx": logging.WARNING, f"{__package__}": logging.INFO, "uvicorn": logging.ERROR}
"""Loggers whose records are lines too, from which level on."""


class ServiceLog:
    """Lines of JSON, or of text with `key=value`; the time is UTC. stream: standard error unless given."""

    def __init__(self, form: LogForm = "json", stream: TextIO | None = None) -> None:
        self._form = form
        self._stream = stream

    def access(self, record: Mapping[str, object]) -> None:
        """A request that has ended; what is None is left out."""
        if self._form != "off":
            self._write("error" if record.get("status") == 500 else "info", record)

    def event(self, level: str, message: str, **more: object) -> None:
        """Whatever else happens."""
        self._write(level, {"event": message, **more})

    def _write(self, level: str, record: Mapping[str, object]) -> None:
        time = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        said = {"ts": time, "level": level, **{key: value for key, value in record.items() if value is not None}}
        if self._form == "json":
            line = json.dumps(said, default=str)
        else:
            line = " ".join([time, level, *(f"{key}={_word(said[key])}" for key in [*said][2:])])
        with contextlib.suppress(OSError, ValueError):  # whoever read it has left
            print(line, file=self._stream or sys.stderr, flush=True)

    @contextlib.contextmanager
    def hearing(self) -> Iterator[None]:
        """Within this block the library's log and the server's come here too."""
        handler = _Handler(self)
        before = {name: logging.getLogger(name).level for name in _HEARD}
        for name, level in _HEARD.items():
            logger = logging.getLogger(name)
            logger.setLevel(min(level, logger.level or level))
        places = [logging.getLogger(name) for name in ("landmark_onnx", "uvicorn", "asyncio")]
        for place in places:
            place.addHandler(handler)
        try:
            yield
        finally:
            for place in places:
                place.removeHandler(handler)
            for name, level in before.items():
                logging.getLogger(name).setLevel(level)


def _word(value: object) -> str:
    text = shown(value if isinstance(value, str) else json.dumps(value, default=str))
    return json.dumps(text) if not text or " " in text else text


class _Handler(logging.Handler):
    """Records as lines; a traceback is part of its line."""

    def __init__(self, log: ServiceLog) -> None:
        super().__init__(logging.INFO)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        trace = logging.Formatter().formatException(record.exc_info) if record.exc_info else None
        self._log.event(record.levelname.lower(), record.getMessage(), logger=record.name, traceback=trace)
