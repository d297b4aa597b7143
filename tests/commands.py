"""What a run of the command line leaves behind."""

import contextlib
import csv
import dataclasses
import io
import json
import signal
from collections.abc import Iterator

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""The signals that the command line takes over."""


@contextlib.contextmanager
def hearing() -> Iterator[None]:
    """What is started within hears these signals: a background job of a shell, or of nohup, ignores some."""
    handlers = {number: signal.signal(number, signal.default_int_handler) for number in ENDING}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


@dataclasses.dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)

    @property
    def lines(self):
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def rows(self):
        return list(csv.DictReader(io.StringIO(self.out)))
