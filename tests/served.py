"""Requests as the server hands them to an application, without a server."""

import asyncio
import json
from collections.abc import Iterator, Sequence
from types import EllipsisType
from typing import Any, TypeAlias

from starlette.requests import Request

from landmark_onnx.serving.body import BodyMemory
from landmark_onnx.serving.payload import Payload, reading
from landmark_onnx.serving.settings import Limits

DEFAULTS = Limits()
BOUNDARY = "----b"
FORM = f"multipart/form-data; boundary={BOUNDARY}"


Piece: TypeAlias = bytes | EllipsisType | None
"""Of a body; None is a client that leaves, and `...` one that stays silent."""


def request_of(pieces: Sequence[Piece], headers: dict[str, str], query: str = "") -> Request:
    """A POST whose body comes in these pieces."""

    def messages() -> Iterator[dict[str, Any]]:
        for at, piece in enumerate(pieces):
            if isinstance(piece, bytes):
                yield {"type": "http.request", "body": piece, "more_body": at + 1 < len(pieces)}
            elif piece is None:
                yield {"type": "http.disconnect"}

    coming = messages()

    async def receive():
        return next(coming, None) or await asyncio.get_running_loop().create_future()

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/",
        "query_string": query.encode(),
        "headers": [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()],
    }
    return Request(scope, receive)


def payload_of(
    body: bytes | Sequence[Piece],
    content_type: str,
    *,
    query: str = "",
    limits: Limits = DEFAULTS,
    memory: BodyMemory | None = None,
    headers: dict[str, str] | None = None,
) -> Payload:
    """What `reading` makes of a body; the memory that it held must have been given back."""
    pieces = [body] if isinstance(body, bytes) else body
    memory = memory or BodyMemory(limits.body_memory)

    async def read() -> Payload:
        request = request_of(pieces, {"content-type": content_type, **(headers or {})}, query)
        async with reading(request, limits, memory) as payload:
            return payload

    before = memory.used
    try:
        return asyncio.run(read())
    finally:
        assert memory.used == before


def form(*parts: tuple[str, bytes], end: bytes = f"--{BOUNDARY}--\r\n".encode()) -> bytes:
    """A multipart body of (headers, data)."""
    pieces = [f"--{BOUNDARY}\r\n{headers}\r\n\r\n".encode("latin-1") + data + b"\r\n" for headers, data in parts]
    return b"".join(pieces) + end


def part(name: str, data: bytes, filename: str | None = None) -> tuple[str, bytes]:
    """A part as browsers write it."""
    file = "" if filename is None else f'; filename="{filename}"'
    return f'Content-Disposition: form-data; name="{name}"{file}'.encode().decode("latin-1"), data


def options(**given: object) -> tuple[str, bytes]:
    """The part of the options."""
    return part("options", json.dumps(given).encode())
