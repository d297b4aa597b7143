"""HTTP/1.1 on a connection: uvicorn's protocol on h11, with the deadlines and the errors of this service."""

import asyncio
import json
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from landmark_onnx.serving.exchange import ALWAYS, SILENCE
from landmark_onnx.serving.guard import HEADER_BYTES, Guard
from landmark_onnx.serving.problems import MEDIA_TYPE, ProblemError


class ServiceProtocol(H11Protocol):
    """One connection. guard: the application, whose limits and state count here too."""

    def __init__(self, *, guard: Guard, **settings: Any) -> None:
        super().__init__(**settings)
        self._guard = guard
        self._limits, self._lifecycle = guard.rules.limits, guard.lifecycle
        self._header, self._answer = _Clock(self.loop), _Clock(self.loop)
        self._ended = False
        """Whether what still comes is dropped."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request."""
        self._lifecycle.connections += 1
        super().connection_made(transport)
        # Whatever is written and not taken is seen: there is no buffer that nobody watches.
        transport.set_write_buffer_limits(high=0)
        # What asyncio's own loop reads at once, by default 256 KiB: as chunks of a byte they take it 160 ms to parse.
        transport.max_size = HEADER_BYTES  # type: ignore[attr-defined]
        if self._lifecycle.connections > self._limits.connections:
            most = self._limits.connections
            self._refuse(ProblemError("too-many-connections", f"{most} are open", limit=most, retry_after=1))
            transport.close()
            return
        self._wait_for_header()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop all clocks."""
        self._lifecycle.connections -= 1
        self._header.stop()
        self._answer.stop()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes of requests, a piece at a time: h11 refuses a header that is too long between two of them alone.

        To parse one of 256 KiB takes 60 ms of the loop, in which nobody is served.
        """
        for start in range(0, len(data), HEADER_BYTES):
            if not self._ended:
                super().data_received(data[start : start + HEADER_BYTES])

    def handle_events(self) -> None:
        """What the bytes so far mean."""
        before = self.cycle
        super().handle_events()
        if self.cycle is not before:
            self._header.stop()

    def on_response_complete(self) -> None:
        """An answer is written, if not taken yet; another request may come, or wait already."""
        if not self.flow.write_paused:
            self._answer.stop()
        super().on_response_complete()
        if self.cycle.response_complete and not self.transport.is_closing():
            self._wait_for_header()

    def pause_writing(self) -> None:
        """The client takes its answer more slowly than it is written."""
        super().pause_writing()
        if not self._answer.running:
            self._answer.start(self._limits.answer_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """The client has taken all that was written."""
        super().resume_writing()
        if self.cycle is None or self.cycle.response_complete:
            self._answer.stop()

    def shutdown(self) -> None:
        """Close, now or after the answer that is due."""
        if self._ended:
            self.transport.close()
            return
        super().shutdown()

    def send_400_response(self, msg: str) -> None:
        """What came is no HTTP, or not what its header said."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            if self.cycle.response_started:
                self.transport.close()
                return
        self._refuse(ProblemError("bad-request", "the bytes are no request of HTTP/1.1, or a header is too long"))

    def _wait_for_header(self) -> None:
        """Until it is complete, from now on: a client that is silent and one that is slow are the same."""
        self._header.start(self._limits.header_seconds, self.transport.close)

    def _refuse(self, problem: ProblemError) -> None:
        """Answer without a request, and close once the client has had time to read that."""
        request_id = self._guard.refused(problem, self.client[0] if self.client else "")
        body = json.dumps(problem.to_json(request_id)).encode()
        headers = [
            *ALWAYS,
            (b"content-type", MEDIA_TYPE.encode()),
            (b"content-length", b"%d" % len(body)),
            (b"cache-control", b"no-store"),
            (b"x-request-id", request_id.encode()),
            (b"connection", b"close"),
            *((name.lower().encode(), value.encode()) for name, value in problem.headers.items()),
        ]
        first = f"HTTP/1.1 {problem.status} {HTTPStatus(problem.status).phrase}\r\n".encode()
        self.transport.write(first + b"".join(b"%b: %b\r\n" % each for each in headers) + b"\r\n" + body)
        self._ended = True
        self._unset_keepalive_if_required()
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._header.start(SILENCE, self.transport.close)


class _Clock:
    """Calls something after a while, unless it is stopped or started anew before."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None

    @property
    def running(self) -> bool:
        return self._timer is not None

    def start(self, seconds: float, call: Callable[[], None]) -> None:
        self.stop()
        self._timer = self._loop.call_later(seconds, call)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
