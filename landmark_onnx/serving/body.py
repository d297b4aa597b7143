"""A request's body, read under limits: how long it may be and take, and what all bodies together may hold of memory."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import Receive

from landmark_onnx.serving.problems import ProblemError
from landmark_onnx.serving.settings import Limits

CLOSE = {"Connection": "close"}
"""Of an answer to a request whose body is not read to its end: what follows on the connection is no request."""
SOON = 1.0
"""Seconds until memory is likely to be free again: bodies are held while their images wait, no longer."""


class Lease:
    """What one request holds of the memory for bodies."""

    def __init__(self, memory: "BodyMemory") -> None:
        self._memory = memory
        self.held = 0

    def hold(self, size: int) -> None:
        """Hold `size` bytes in all, more or fewer than before. Raises: ProblemError if there are not so many."""
        memory = self._memory
        if size > self.held and memory.used + size - self.held > memory.limit:
            raise ProblemError(
                "memory-full",
                f"bodies of {memory.used:,} bytes are held, and {memory.limit:,} may be",
                limit=memory.limit,
                retry_after=SOON,
                headers=CLOSE,
            )
        memory.used += size - self.held
        self.held = size


class BodyMemory:
    """The memory for all bodies, in bytes; used by the event loop's thread alone.

    limit: what may be held. used: what is.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0

    @contextlib.contextmanager
    def lease(self) -> Iterator[Lease]:
        """What is held of it is given back at the end."""
        lease = Lease(self)
        try:
            yield lease
        finally:
            lease.hold(0)


def declared_length(headers: Headers, limits: Limits) -> int | None:
    """Content-Length; None without one. Raises: ProblemError if it is over the limit, or no number."""
    text = headers.get("content-length")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()) or len(text) > 20:
        raise ProblemError("bad-request", "Content-Length is no number", headers=CLOSE)
    if int(text) > limits.request_bytes:
        raise _too_large(limits, int(text))
    return int(text)


def _too_large(limits: Limits, got: int | None = None) -> ProblemError:
    detail = f"a request has at most {limits.request_bytes:,} bytes"
    return ProblemError("body-too-large", detail, limit=limits.request_bytes, got=got, headers=CLOSE)


async def chunks(headers: Headers, receive: Receive, limits: Limits, lease: Lease) -> AsyncIterator[bytes]:
    """A body as it comes; what has come of it is held in `lease`.

    Raises: ProblemError if it is too large, too slow, or more than there is memory for, before a byte is read where
    Content-Length says so; ClientDisconnect.
    """
    lease.hold(declared_length(headers, limits) or 0)
    lease.hold(0)  # who declares much and sends little keeps nobody out
    clock = asyncio.get_running_loop().time
    # Bytes that came quickly buy no more than the grace: who sends much and falls silent holds memory too.
    patience = limits.body_grace_seconds
    size, more = 0, True
    while more:
        begun = clock()
        try:
            async with asyncio.timeout(patience):
                message = await receive()
        except TimeoutError:
            detail = f"a body comes at {limits.body_rate:,} bytes a second at least; {size:,} bytes have come"
            raise ProblemError("too-slow", detail, limit=limits.body_rate, headers=CLOSE) from None
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk: bytes = message.get("body", b"")
        more = message.get("more_body", False)
        size += len(chunk)
        patience = min(patience - clock() + begun + len(chunk) / limits.body_rate, limits.body_grace_seconds)
        if size > limits.request_bytes:
            raise _too_large(limits)
        if size > lease.held:
            lease.hold(size)
        if chunk:
            yield chunk
