"""A web server of the tests' own, on this machine, which serves one file as well or as badly as a test wants."""

import contextlib
import hashlib
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Behaviour = Callable[["Handler"], None]


class Server(ThreadingHTTPServer):
    """data: the file. script: what is done at each request, in order; after its end, the file is served well.

    files: path -> what is served well there in its place. seen: headers of each request. over: set
    when the server stops, for those who stall.
    """

    daemon_threads = True

    def __init__(self, data: bytes, *script: Behaviour, context: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.data = data
        self.script = list(script)
        self.files: dict[str, bytes] = {}
        self.seen: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.over = threading.Event()
        self.scheme = "https" if context else "http"
        if context:
            self.socket = context.wrap_socket(self.socket, server_side=True)

    @property
    def etag(self) -> str:
        return etag_of(self.data)

    @property
    def ranges(self) -> list[str | None]:
        return [headers.get("range") for headers in self.seen]

    def url(self, name: str = "file.tar") -> str:
        return f"{self.scheme}://localhost:{self.server_port}/{name}"

    def handle_error(self, *_: Any) -> None:
        """A client that leaves early is what many tests are about."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        server = self.server
        server.seen.append({key.lower(): value for key, value in self.headers.items()})
        server.paths.append(self.path)
        behave = server.script.pop(0) if server.script else well
        behave(self)

    def log_message(self, *_: Any) -> None:
        """Silence."""

    def head(self, code: int, length: int | None = None, **headers: str) -> None:
        self.send_response(code)
        if length is not None:
            self.send_header("Content-Length", str(length))
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()

    def hang_up(self) -> None:
        self.close_connection = True

    def wanted(self, etag: str = "") -> int:
        """Where the range begins that this request may have, 0 for the whole file."""
        value = self.headers.get("Range", "")
        etag = etag or self.server.etag
        same = self.headers.get("If-Range", etag) == etag
        return int(value.removeprefix("bytes=").removesuffix("-")) if value and same else 0


@contextlib.contextmanager
def serving(data: bytes, *script: Behaviour, context: ssl.SSLContext | None = None) -> Iterator[Server]:
    server = Server(data, *script, context=context)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.over.set()
        server.shutdown()
        server.server_close()
        thread.join()


def well(handler: Handler) -> None:
    """As a server should, ranges and all."""
    server = handler.server
    if server.files and handler.path not in server.files:
        handler.head(404, 0)
        return
    data = server.files.get(handler.path, server.data)
    etag = etag_of(data)
    start = handler.wanted(etag)
    if not start:
        handler.head(200, len(data), ETag=etag)
    elif start >= len(data):
        handler.head(416, 0)
        return
    else:
        content_range = f"bytes {start}-{len(data) - 1}/{len(data)}"
        handler.head(206, len(data) - start, ETag=etag, Content_Range=content_range)
    handler.wfile.write(data[start:])


def etag_of(data: bytes) -> str:
    return f'"{hashlib.sha256(data).hexdigest()[:8]}"'


def cut(size: int, **headers: str) -> Behaviour:
    """The connection ends after `size` bytes. headers: in place of the ETag."""

    def behave(handler: Handler) -> None:
        data, start = handler.server.data, handler.wanted()
        tags = headers or {"ETag": handler.server.etag}
        if start:
            tags |= {"Content_Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
        handler.head(206 if start else 200, len(data) - start, **tags)
        handler.wfile.write(data[start : start + size])
        handler.hang_up()

    return behave


def stall(size: int) -> Behaviour:
    """Nothing comes after `size` bytes, but the connection stays."""

    def behave(handler: Handler) -> None:
        handler.head(200, len(handler.server.data), ETag=handler.server.etag)
        handler.wfile.write(handler.server.data[:size])
        handler.server.over.wait(30)
        handler.hang_up()

    return behave


def trickle(handler: Handler) -> None:
    """A byte now and then, so that no read times out, for three seconds."""
    handler.head(200, len(handler.server.data), ETag=handler.server.etag)
    for byte in handler.server.data[:60]:
        handler.wfile.write(bytes([byte]))
        if handler.server.over.wait(0.05):
            break
    handler.hang_up()


def dripping(begin: bytes, piece: bytes) -> Behaviour:
    """After `begin` a piece now and then, without end."""

    def behave(handler: Handler) -> None:
        handler.wfile.write(begin)
        with contextlib.suppress(OSError):
            while not handler.server.over.wait(0.05):
                handler.wfile.write(piece)
        handler.hang_up()

    return behave


def claiming(length: int) -> Behaviour:
    """The whole file, under a false Content-Length."""

    def behave(handler: Handler) -> None:
        handler.head(200, length, ETag=handler.server.etag)
        handler.wfile.write(handler.server.data)
        handler.hang_up()

    return behave


def garbage(handler: Handler) -> None:
    """Bytes that are not HTTP."""
    handler.wfile.write(bytes(range(256)) * 4)
    handler.hang_up()


def status(code: int, **headers: str) -> Behaviour:
    return lambda handler: handler.head(code, 0, **headers)


def redirect(url: str, code: int = 302) -> Behaviour:
    return status(code, Location=url)


def whole(handler: Handler) -> None:
    """The whole file, whatever range was asked for."""
    handler.head(200, len(handler.server.data), ETag=handler.server.etag)
    handler.wfile.write(handler.server.data)


def ranged(content_range: str, data: bytes, **headers: str) -> Behaviour:
    """These bytes, said to be that part. headers: in place of the ETag."""

    def behave(handler: Handler) -> None:
        tags = headers or {"ETag": handler.server.etag}
        handler.head(206, len(data), Content_Range=content_range, **tags)
        handler.wfile.write(data)

    return behave


def chunked(handler: Handler) -> None:
    """The whole file, of a length that nobody knows before."""
    handler.head(200, Transfer_Encoding="chunked")
    data = handler.server.data
    for at in range(0, len(data), 10_000):
        piece = data[at : at + 10_000]
        handler.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
    handler.wfile.write(b"0\r\n\r\n")


def slowly(seconds: float) -> Behaviour:
    """Well, but over some time."""

    def behave(handler: Handler) -> None:
        data, start = handler.server.data, handler.wanted()
        tags = {"ETag": handler.server.etag}
        if start:
            tags |= {"Content_Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
        handler.head(206 if start else 200, len(data) - start, **tags)
        step = len(data) // 50 + 1
        for at in range(start, len(data), step):
            handler.wfile.write(data[at : at + step])
            time.sleep(seconds / 50)

    return behave
