"""One request and its answer as they pass: counted, completed with the headers of every answer, ended politely."""

import asyncio
import time
from collections.abc import Sequence

from starlette.types import Message, Receive, Scope, Send

from landmark_onnx.serving.lifecycle import Lifecycle

SILENCE, LINGER = 1.0, 5.0
"""Seconds: what still comes of a body that was refused is read and dropped until nothing comes for so long, or so long
in all. To close at once would reset the connection, and the answer with it (RFC 9112, 9.6)."""

ALWAYS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)
_CLOSE = (b"connection", b"close")
_NO_STORE = (b"cache-control", b"no-store")


class Exchange:
    """What goes through between the server and an application.

    headers: of every answer to this request, beside `ALWAYS`. bytes_in, bytes_out: of the bodies. status: None until
    the answer has begun. gone: the client left before its answer was complete. seconds: until the answer was written.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send, lifecycle: Lifecycle) -> None:
        names = dict(scope["headers"])
        self.headers: Sequence[tuple[bytes, bytes]] = ()
        self.bytes_in = self.bytes_out = 0
        self.status: int | None = None
        self.gone = False
        self.complete = False
        self.seconds = 0.0
        self._begun = time.perf_counter()
        self._receive, self._send, self._lifecycle = receive, send, lifecycle
        self._unread = names.get(b"content-length", b"0").strip(b"0") != b"" or b"transfer-encoding" in names
        self._asked_first = names.get(b"expect", b"").lower() == b"100-continue"

    async def receive(self) -> Message:
        """The next piece of the body."""
        self._asked_first = False
        message = await self._receive()
        if message["type"] == "http.request":
            self.bytes_in += len(message.get("body", b""))
            self._unread = self._unread and message.get("more_body", False)
        elif not self.complete:
            self.gone = True
        return message

    async def send(self, message: Message) -> None:
        """The next piece of the answer."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            await self._send({**message, "headers": self._with_more(message.get("headers", ()))})
            return
        self.bytes_out += len(message.get("body", b""))
        if message.get("more_body", False):
            await self._send(message)
            return
        if self._unread and not self._asked_first:
            await self._send({**message, "more_body": True})
            self._end()
            await self._drop_the_rest()
            message = {"type": "http.response.body", "body": b""}
        await self._send(message)
        self._end()

    def _end(self) -> None:
        if not self.complete:
            self.complete = True
            self.seconds = self.elapsed()

    def elapsed(self) -> float:
        """Seconds since the request's header was read."""
        return time.perf_counter() - self._begun

    def _with_more(self, headers: Sequence[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        answer = [(name.lower(), value) for name, value in headers]
        names = {name for name, _ in answer}
        answer += [*ALWAYS, *self.headers]
        if b"cache-control" not in names:
            answer.append(_NO_STORE)
        if (self._unread or self._lifecycle.draining) and b"connection" not in names:
            answer.append(_CLOSE)
        return answer

    async def _drop_the_rest(self) -> None:
        loop = asyncio.get_running_loop()
        last = loop.time() + LINGER
        while self._unread:
            try:
                async with asyncio.timeout_at(min(last, loop.time() + SILENCE)):
                    message = await self._receive()
            except TimeoutError:
                return
            self._unread = message["type"] == "http.request" and message.get("more_body", False)
