"""A server in a thread, and a client that says on the wire whatever a test wants."""

import contextlib
import dataclasses
import io
import json
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.client import HTTPResponse
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from landmark_onnx.serving.access_log import LogForm, ServiceLog
from landmark_onnx.serving.guard import AccessRules, Guard
from landmark_onnx.serving.lifecycle import Lifecycle
from landmark_onnx.serving.metrics import Metrics
from landmark_onnx.serving.server import Binding, serve

PATIENCE = 20.0
"""Seconds until a test gives up; nothing is measured by it."""
RULES = AccessRules()


@dataclasses.dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def kind(self) -> str:
        """The problem's name."""
        assert self.headers["content-type"] == "application/problem+json"
        problem = self.json
        assert problem["status"] == self.status
        assert {"type", "title", "status", "detail", "instance"} <= problem.keys()
        return problem["type"].removeprefix("urn:x-landmark-onnx:")


@dataclasses.dataclass(frozen=True)
class Wire:
    """A connection. Leaving it closes the socket."""

    socket: socket.socket

    def send(self, *pieces: bytes | str) -> "Wire":
        for piece in pieces:
            self.socket.sendall(piece.encode("latin-1") if isinstance(piece, str) else piece)
        return self

    def answer(self, method: str = "GET") -> Answer:
        """The next answer."""
        # A reader that takes more than one answer would lose the next.
        response = HTTPResponse(_Unbuffered(self.socket), method=method)
        response.begin()
        headers = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, headers, response.read())

    @property
    def closed(self) -> bool:
        """Whether the server closes it, within some time, and says nothing before."""
        try:
            return self.socket.recv(1) == b""
        except ConnectionResetError:
            return True

    @property
    def silent(self) -> bool:
        """Whether nothing has come so far."""
        return not select.select([self.socket], [], [], 0.05)[0]


class _Unbuffered:
    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection

    def makefile(self, _: str) -> io.BufferedReader:
        return io.BufferedReader(self._socket.makefile("rb", buffering=0), buffer_size=1)


@dataclasses.dataclass(frozen=True)
class Served:
    """A server that runs."""

    port: int
    lifecycle: Lifecycle
    metrics: Metrics
    log: io.StringIO
    codes: list[int]

    @property
    def records(self) -> list[dict[str, Any]]:
        """The lines of its log."""
        return [json.loads(line) for line in self.log.getvalue().splitlines()]

    def access(self, count: int = 1) -> list[dict[str, Any]]:
        """Its first `count` lines of requests, once they are written."""

        def found() -> list[dict[str, Any]]:
            return [record for record in self.records if "status" in record]

        until(lambda: len(found()) >= count)
        return found()

    @contextlib.contextmanager
    def wire(self, *pieces: bytes | str) -> Iterator[Wire]:
        with socket.create_connection(("127.0.0.1", self.port), PATIENCE) as connection:
            yield Wire(connection).send(*pieces)

    def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> Answer:
        """A request and its answer, on a connection of its own."""
        with self.wire(request(method, path, body, **headers)) as wire:
            return wire.answer(method)


def request(method: str, path: str, body: bytes = b"", **headers: str) -> bytes:
    """A request's bytes; `_` in a name is a hyphen, and an empty value leaves the header out."""
    given = {"host": "localhost", "content_length": str(len(body)) if body or method == "POST" else "", **headers}
    lines = [f"{name.replace('_', '-')}: {value}\r\n" for name, value in given.items() if value]
    return f"{method} {path} HTTP/1.1\r\n{''.join(lines)}\r\n".encode("latin-1") + body


def until(happens: Callable[[], object]) -> None:
    """Wait for something that is about to happen."""
    last = time.monotonic() + PATIENCE
    while not happens():
        assert time.monotonic() < last, "it did not happen"
        time.sleep(0.005)


def _without_lifespan(app: ASGIApp) -> ASGIApp:
    """The application for requests alone, which is all that a small one of a test's answers."""

    async def requests(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        await app(scope, receive, send)

    return requests


@contextlib.contextmanager
def running(
    app: ASGIApp,
    rules: AccessRules = RULES,
    *,
    lifecycle: Lifecycle | None = None,
    metrics: Metrics | None = None,
    form: LogForm = "json",
) -> Iterator[Served]:
    """An application behind its guard, on a free port of this machine, until the block ends; then it has drained."""
    lifecycle = lifecycle or Lifecycle()
    metrics = metrics or Metrics(lifecycle)
    log = io.StringIO()
    codes: list[int] = []
    reader, writer = os.pipe()
    guard = Guard(_without_lifespan(app), rules, lifecycle, ServiceLog(form, log), metrics)
    thread = threading.Thread(target=lambda: codes.append(serve(guard, Binding("127.0.0.1", 0, writer))))
    thread.start()
    try:
        assert select.select([reader], [], [], PATIENCE)[0]
        assert os.read(reader, 1) == b"1"
        assert lifecycle.url
        yield Served(int(lifecycle.url.rstrip("/").rpartition(":")[2]), lifecycle, metrics, log, codes)
    finally:
        os.close(reader)
        lifecycle.stop()
        thread.join(PATIENCE)
        assert not thread.is_alive()
    assert codes == [0]
