"""HTTP/1.1 by hand: bytes of requests made before the clock runs, and answers read from asyncio's own sockets."""

import asyncio
import base64
import contextlib
import dataclasses
import json
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

HOST = "127.0.0.1"
OTHER = "127.0.1.1"
BOUNDARY = "boundary-of-the-load"


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """What came back. headers: names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Connection:
    """A connection that is kept alive, and opened anew where the server has closed it.

    source: an address of the loopback to come from; addresses of other /24 networks are other clients. sent: when the
    last of a request was written, on the clock of `time.perf_counter`; infinity until then.
    """

    def __init__(self, port: int, *, source: str = HOST) -> None:
        self._port, self._source = port, source
        self.sent = math.inf
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self, data: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Write what may be any part of a request. Raises: OSError."""
        self.sent = math.inf
        if self._streams is not None and self._streams[0].at_eof():
            self.close()
        if self._streams is None:
            self._streams = await asyncio.open_connection(HOST, self._port, local_addr=(self._source, 0))
        self._streams[1].write(data)
        await self._streams[1].drain()
        self.sent = time.perf_counter()
        return self._streams

    async def ask(self, request: bytes) -> Answer:
        """Send a request and wait for its answer. Raises: OSError or EOFError if there is none."""
        try:
            reader, _ = await self.send(request)
            answer = await read_answer(reader)
        except BaseException:
            self.close()
            raise
        if answer.headers.get("connection", "").lower() == "close":
            self.close()
        return answer

    def close(self, *, abort: bool = False) -> None:
        """Leave; abort: with a reset, whatever is under way."""
        if self._streams is not None:
            transport = self._streams[1].transport
            transport.abort() if abort else transport.close()
        self._streams = None


async def read_answer(reader: asyncio.StreamReader) -> Answer:
    """One answer, those of 1xx left out. Raises: EOFError if the connection ends before it does."""
    status = 100
    while status < 200:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        status = int(head[0].split(" ")[1])
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    if headers.get("transfer-encoding", "").lower() == "chunked":
        body = bytearray()
        while size := int(await reader.readline() or b"x", 16):
            body += await reader.readexactly(size + 2)
            del body[-2:]
        await reader.readuntil(b"\r\n")
        return Answer(status, headers, bytes(body))
    return Answer(status, headers, await reader.readexactly(int(headers.get("content-length", "0"))))


async def send_all(
    port: int, chunks: Iterable[bytes], *, answers: int = 1, ends: bool = False, seconds: float = 30
) -> list[int]:
    """Statuses of what is answered to `chunks` on one connection, which may be no HTTP.

    0 stands for an end without answer, -1 for nothing within `seconds`. Sending stops when the server answers or
    closes. ends: after the last chunk this side is closed for writing.
    """
    reader, writer = await asyncio.open_connection(HOST, port, limit=1 << 24)
    sending = asyncio.create_task(_send(writer, chunks, ends))
    statuses: list[int] = []
    try:
        async with asyncio.timeout(seconds):
            while len(statuses) < answers:
                statuses.append((await read_answer(reader)).status)
    except TimeoutError:
        statuses.append(-1)
    except (OSError, EOFError, ValueError, IndexError, asyncio.LimitOverrunError):
        statuses.append(0)
    finally:
        sending.cancel()
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await sending
        writer.transport.abort()
    return statuses


async def _send(writer: asyncio.StreamWriter, chunks: Iterable[bytes], ends: bool) -> None:
    for chunk in chunks:
        writer.write(chunk)
        await writer.drain()
    if ends:
        writer.write_eof()


def request(
    path: str, body: bytes = b"", kind: str = "", *, method: str = "POST", headers: Sequence[str] = (), host: str = HOST
) -> bytes:
    """A whole request with its length."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", f"Content-Length: {len(body)}", *headers]
    if kind:
        lines.append(f"Content-Type: {kind}")
    return "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape") + body


def raw(path: str, image: bytes) -> bytes:
    """The image as the body."""
    return request(path, image, "image/jpeg")


def multipart(path: str, image: bytes) -> bytes:
    """The image as a form's only part."""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n'
    body = f"{head}Content-Type: image/jpeg\r\n\r\n".encode() + image + f"\r\n--{BOUNDARY}--\r\n".encode()
    return request(path, body, f"multipart/form-data; boundary={BOUNDARY}")


def data_uri(path: str, image: bytes) -> bytes:
    """The image as a data URI in JSON."""
    text = "data:image/jpeg;base64," + base64.b64encode(image).decode()
    return request(path, json.dumps({"images": [{"data": text, "name": "a.jpg"}]}).encode(), "application/json")


BODIES: Mapping[str, Callable[[str, bytes], bytes]] = {"raw": raw, "multipart": multipart, "json": data_uri}
