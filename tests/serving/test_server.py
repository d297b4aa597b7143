"""Connections: their deadlines, what is no HTTP, what hides a second request, and addresses."""

import asyncio
import gc
import socket
import threading
import time

import pytest
from fastapi import FastAPI, Request
from starlette.responses import Response
from uvicorn.config import Config
from uvicorn.server import ServerState

from landmark_onnx.serving import server as server_module
from landmark_onnx.serving.access_log import ServiceLog
from landmark_onnx.serving.body import BodyMemory
from landmark_onnx.serving.guard import AccessRules, Guard
from landmark_onnx.serving.lifecycle import Lifecycle
from landmark_onnx.serving.metrics import Metrics
from landmark_onnx.serving.payload import reading
from landmark_onnx.serving.problems import install
from landmark_onnx.serving.protocol import ServiceProtocol
from landmark_onnx.serving.server import AddressError, Binding, listening, serve
from landmark_onnx.serving.settings import Limits
from serving_client import request, running, until

SHORT = Limits(header_seconds=0.2, body_grace_seconds=0.2, body_rate=1 << 20, answer_seconds=0.3)
MEDIUM, LARGE = 8 << 20, 64 << 20
"""Bytes of answers: one that is not sent at once, and one that no socket's buffers hold."""


def app(limits: Limits) -> FastAPI:
    made = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    install(made)
    memory = BodyMemory(limits.body_memory)

    @made.get("/things/{name}")
    async def thing(name: str) -> dict[str, str]:
        return {"name": name}

    @made.head("/things/{name}")
    async def head(name: str) -> Response:
        return Response(b"123")

    @made.post("/size")
    async def size(request: Request) -> int:
        async with reading(request, limits, memory) as payload:
            return sum(len(image.data) for image in payload.images)

    @made.get("/medium")
    async def medium() -> Response:
        return Response(b"a" * MEDIUM)

    @made.get("/large")
    async def large() -> Response:
        return Response(b"a" * LARGE)

    return made


@pytest.fixture(scope="module")
def server():
    with running(app(Limits()), AccessRules(limits=Limits(request_bytes=1 << 20))) as served:
        yield served


@pytest.fixture
def hasty():
    with running(app(SHORT), AccessRules(limits=SHORT)) as served:
        yield served


def post(body: bytes = b"", **headers: str) -> bytes:
    return request("POST", "/size", body, content_type="image/png", **headers)


def test_every_answer_has_an_id_and_the_headers_of_a_careful_server(server):
    answer = server.ask("GET", "/things/a")
    assert (answer.status, answer.json) == (200, {"name": "a"})
    assert len(answer.headers["x-request-id"]) == 36
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cache-control"] == "no-store"
    assert "server" not in answer.headers


def test_a_body_is_read(server):
    assert server.ask("POST", "/size", b"abc", content_type="image/png").json == 3


def test_what_the_framework_refuses_is_a_problem(server):
    assert server.ask("GET", "/nothing").kind == "not-found"
    answer = server.ask("POST", "/things/a")
    assert (answer.kind, answer.headers["allow"]) == ("method-not-allowed", "GET")


def test_a_head_has_no_body(server):
    answer = server.ask("HEAD", "/things/a")
    assert (answer.status, answer.headers["content-length"], answer.body) == (200, "3", b"")
    assert server.ask("HEAD", "/nothing").status == 404


def test_a_connection_whose_body_was_not_read_takes_no_other_request(server):
    with server.wire(request("POST", "/nothing", b"abc"), request("GET", "/things/a")) as wire:
        assert wire.answer().headers["connection"] == "close"
        assert wire.closed


def test_requests_one_after_another_and_all_at_once(server):
    with server.wire(*[request("GET", f"/things/{name}") for name in "abc"], post(b"d" * 9)) as wire:
        assert [wire.answer().json for _ in range(4)] == [{"name": "a"}, {"name": "b"}, {"name": "c"}, 9]
        assert wire.send(request("GET", "/things/e")).answer().json == {"name": "e"}


def test_http_1_0(server):
    with server.wire("GET /things/a HTTP/1.0\r\nHost: localhost\r\n\r\n") as wire:
        assert wire.answer().json == {"name": "a"}
        assert wire.closed


def test_a_body_in_chunks(server):
    with server.wire(
        post(transfer_encoding="chunked", content_length=""), "2;x=y\r\nab\r\n", "1\r\nc\r\n0\r\n\r\n"
    ) as wire:
        assert wire.answer().json == 3
        assert wire.send(request("GET", "/things/e")).answer().status == 200


def test_a_body_in_chunks_is_cut_off_at_the_limit():
    limits = Limits(request_bytes=1000)
    with running(app(limits), AccessRules(limits=limits)) as server:
        chunk = b"64\r\n" + b"a" * 100 + b"\r\n"
        with server.wire(post(transfer_encoding="chunked", content_length=""), chunk * 11) as wire:
            answer = wire.answer()
            assert (answer.kind, answer.json["limit"]) == ("body-too-large", 1000)
            assert wire.closed


@pytest.mark.parametrize(
    "bytes_sent",
    [
        "garbage\r\n\r\n",
        "\r\n",
        "GET /things/a\r\n\r\n",
        "GET  /things/a HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET /things/a HTTP/1.1\r\n\r\n",
        "GET /things/a HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
        "GET /things/a HTTP/1.1\r\nHost : localhost\r\n\r\n",
        "GET /things/a HTTP/2.0\r\nHost: localhost\r\n\r\n",
        "GET /\x01 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET /things/a HTTP/1.1\r\nHost: localhost\r\nX: a\0b\r\n\r\n",
        "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + "\0" * 100,
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "GET /" + "a" * 100_000 + " HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: localhost\r\nX: " + "a" * 100_000 + "\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: localhost\r\n" + "X: a\r\n" * 50_000 + "\r\n",
        post(content_length="-1"),
        post(content_length="1e3"),
        post(content_length="9" * 30),
        post(b"abc", content_length="3\r\nContent-Length: 4"),
        post(b"0\r\n\r\n", transfer_encoding="chunked", content_length="5"),
        post(b"0\r\n\r\n", transfer_encoding="chunked, chunked", content_length=""),
        post(b"0\r\n\r\n", transfer_encoding="xchunked", content_length=""),
        post(b"0\r\n\r\n", transfer_encoding="identity, chunked", content_length=""),
        post(b"-1\r\na", transfer_encoding="chunked", content_length=""),
        post(b"3\r\nabcd\r\n0\r\n\r\n", transfer_encoding="chunked", content_length=""),
        post(b"\r\n\r\n", transfer_encoding="chunked", content_length=""),
        post(b"f" * 30 + b"\r\n", transfer_encoding="chunked", content_length=""),
    ],
    ids=lambda sent: repr(sent[:40]),
)
def test_what_is_no_request_or_might_hide_another_is_answered_and_closed(server, bytes_sent):
    with server.wire(bytes_sent, request("GET", "/things/hidden")) as wire:
        answer = wire.answer()
        assert (answer.status, answer.headers["connection"]) in ((400, "close"), (501, "close"))
        assert answer.kind == "bad-request"
        assert len(answer.headers["x-request-id"]) == 36
        assert wire.closed


def test_a_body_that_is_longer_than_it_says_is_no_part_of_it(server):
    with server.wire(post(b"abcdef", content_length="3")) as wire:
        assert wire.answer().json == 3
        assert wire.send("\r\n\r\n").answer().kind == "bad-request"
        assert wire.closed


def test_a_client_that_ends_before_its_body_does_is_abandoned():
    with running(app(Limits())) as server:
        with server.wire(post(b"abc", content_length="9")) as wire:
            wire.socket.shutdown(socket.SHUT_WR)
            assert wire.closed
        [line] = server.access()
    assert line["status"] == 499
    assert server.lifecycle.abandoned == 1


@pytest.mark.parametrize("upgrade", ["websocket", "h2c"])
def test_no_other_protocol_is_spoken(server, upgrade):
    assert server.ask("GET", "/things/a", connection="Upgrade", upgrade=upgrade).json == {"name": "a"}


@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "PROPFIND", "X" * 200, "get", "!#$%&'*+-.^_`|~"])
def test_other_methods(server, method):
    assert server.ask(method, "/things/a").kind == "method-not-allowed"


@pytest.mark.parametrize(
    "path", ["*", "http://localhost/things/a", "//", "/things/a%00", "/%2e%2e/%2e%2e/etc/passwd", "/%ff"]
)
def test_other_targets(server, path):
    assert server.ask("GET", path).status in (200, 404)


@pytest.mark.parametrize("begin", ["", "GET / HTTP/1.1\r\nHost: loc"])
def test_a_header_that_does_not_come_is_not_waited_for(hasty, begin):
    with hasty.wire(begin) as wire:
        assert wire.closed


def test_a_header_that_comes_byte_by_byte_is_not_waited_for(hasty):
    stop = threading.Event()
    with hasty.wire("GET / HTTP/1.1\r\nX: ") as wire:

        def drip() -> None:
            while not stop.wait(0.02):
                try:
                    wire.send("a")
                except OSError:
                    return

        thread = threading.Thread(target=drip)
        thread.start()
        assert wire.closed
        stop.set()
        thread.join()


def test_a_connection_that_is_idle_after_its_answer_is_closed(hasty):
    with hasty.wire(request("GET", "/things/a")) as wire:
        assert wire.answer().status == 200
        assert wire.closed
    with hasty.wire(request("GET", "/things/a")) as wire:
        assert wire.answer().status == 200
        assert wire.send("GET / HT").closed


def test_a_request_that_takes_longer_than_a_header_may_is_not_cut_off():
    limits = Limits(header_seconds=0.05)

    async def slow(scope, receive, send):
        message = await receive()
        while message.get("more_body"):
            message = await receive()
        await Response(b"done")(scope, receive, send)

    with running(slow, AccessRules(limits=limits)) as server, server.wire(post(b"a", content_length="2")) as wire:
        assert wire.silent
        assert wire.silent
        assert wire.silent
        assert wire.send("b").answer().body == b"done"


def test_a_body_that_comes_too_slowly(hasty):
    with hasty.wire(post(b"abc", content_length="1000")) as wire:
        answer = wire.answer()
        assert (answer.kind, answer.headers["connection"]) == ("too-slow", "close")
        assert wire.closed


def test_an_answer_that_is_not_taken_is_dropped(hasty):
    with hasty.wire(request("GET", "/large")) as wire:
        until(lambda: hasty.lifecycle.connections == 1)
        until(lambda: hasty.lifecycle.connections == 0)
        received = 0
        try:
            while piece := wire.socket.recv(1 << 20):
                received += len(piece)
        except ConnectionResetError:
            pass
        assert received < LARGE


def test_an_answer_that_is_taken_slowly_but_in_time_is_whole(server):
    with server.wire(request("GET", "/large")) as wire:
        until(lambda: server.lifecycle.connections == 1)
        assert len(wire.answer().body) == LARGE
        assert wire.send(request("GET", "/things/a")).answer().status == 200


def test_an_answer_that_was_taken_is_forgotten():
    """The connection may be kept for longer than an answer may take."""
    limits = Limits(answer_seconds=2)
    with running(app(limits), AccessRules(limits=limits)) as server, server.wire() as wire:
        begun = time.monotonic()
        assert len(wire.send(request("GET", "/medium")).answer().body) == MEDIUM
        until(lambda: time.monotonic() > begun + 2.5)
        assert wire.send(request("GET", "/things/a")).answer().status == 200


class Transport(asyncio.Transport):
    """A connection to nobody."""

    def __init__(self):
        super().__init__()
        self.high, self.written = None, b""

    def set_write_buffer_limits(self, high=None, low=None):
        self.high = high

    def write(self, data):
        self.written += data

    def can_write_eof(self):
        return False

    def is_closing(self):
        return False


def connected(transport: Transport, received: bytes = b"") -> Lifecycle:
    """The state of a server once it was connected to and has got these bytes in one piece."""
    lifecycle = Lifecycle()
    guard = Guard(app(SHORT), AccessRules(), lifecycle, ServiceLog(), Metrics(lifecycle))

    async def connect() -> None:
        config = Config(guard, http=ServiceProtocol, ws="none", log_config=None, interface="asgi3")
        protocol = ServiceProtocol(guard=guard, config=config, server_state=ServerState(), app_state={})
        protocol.connection_made(transport)
        protocol.data_received(received)

    asyncio.run(connect())
    return lifecycle


def test_an_answer_is_watched_to_its_last_byte():
    transport = Transport()
    connected(transport)
    assert transport.high == 0


def test_a_header_that_is_too_long_is_refused_unread_though_it_comes_in_one_piece():
    transport = Transport()
    connected(transport, b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: a\r\n" * 40_000 + b"\r\n")
    assert transport.written.startswith(b"HTTP/1.1 400 ")
    assert b"or a header is too long" in transport.written


def test_no_more_is_read_at_once_than_is_soon_parsed(server, monkeypatch):
    sizes, receive = [], ServiceProtocol.data_received

    def counted(protocol, data):
        sizes.append(len(data))
        receive(protocol, data)

    monkeypatch.setattr(ServiceProtocol, "data_received", counted)
    assert server.ask("POST", "/size", b"a" * 1_000_000, content_type="image/png").json == 1_000_000
    assert sum(sizes) > 1_000_000
    assert max(sizes) <= 1 << 14


def test_connections_have_a_limit():
    limits = Limits(connections=2)
    with running(app(limits), AccessRules(limits=limits)) as server:
        with server.wire() as first, server.wire():
            until(lambda: server.lifecycle.connections == 2)
            with server.wire() as third:
                answer = third.answer()
                assert (answer.kind, answer.json["limit"]) == ("too-many-connections", 2)
                assert int(answer.headers["retry-after"]) in (1, 2)
                assert third.closed
            assert first.send(request("GET", "/things/a")).answer().status == 200
        until(lambda: server.lifecycle.connections == 0)
        assert server.ask("GET", "/things/a").status == 200
        assert server.metrics.render().count(b'rejected_total{reason="too-many-connections"} 1.0') == 1


def test_what_was_loaded_before_is_not_looked_through_for_garbage_while_it_serves(monkeypatch):
    frozen = []

    async def serve_nobody(server, sockets):
        frozen.append(gc.get_freeze_count())

    monkeypatch.setattr(server_module._Server, "serve", serve_nobody)
    lifecycle = Lifecycle()
    guard = Guard(app(SHORT), AccessRules(), lifecycle, ServiceLog(), Metrics(lifecycle))
    assert serve(guard, Binding("127.0.0.1", 0)) == 0
    assert frozen[0] > 1000
    assert gc.get_freeze_count() == 0


def test_an_address_that_is_taken_is_one_line():
    with listening(Binding("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            AddressError, match=rf"^127.0.0.1 port {port}: taken by another program: choose another --port$"
        ):
            listening(Binding("127.0.0.1", port))


@pytest.mark.parametrize(
    ("host", "port"), [("no such host", 80), ("192.0.2.1", 80), ("127.0.0.1", 99999), ("a" * 99, 80)]
)
def test_an_address_that_cannot_be(host, port):
    with pytest.raises(AddressError, match=f"^{host} port {port}: ") as error:
        listening(Binding(host, port))
    assert "\n" not in str(error.value)
